<?php
// Calls Pusher's HTTP API and signs as pusher-php-server does, without Composer:
//
//     php pusher.php FUNCTION [ARGUMENT]...
//
// The functions are those of the SDK, and the arguments are JSON. The answer is printed, or the status and
// the text of an error. PUSHER_URL is where the application is mounted.
declare(strict_types=1);

final class Pusher
{
    private readonly string $base; // of the paths that are signed: without that of the URL
    private readonly string $app;
    private readonly string $key;
    private readonly string $secret;

    public function __construct()
    {
        [$this->app, $this->key, $this->secret] = [getenv('PUSHER_APP'), getenv('PUSHER_KEY'), getenv('PUSHER_SECRET')];
        $this->base = "/apps/{$this->app}";
    }

    public function trigger(array $channels, string $event, mixed $data, array $params = []): string
    {
        $body = ['name' => $event, 'data' => json_encode($data), 'channels' => array_values($channels)];
        return $this->post('/events', json_encode(array_merge($body, $params)));
    }

    public function sendToUser(string $user, string $event, mixed $data): string
    {
        return $this->trigger(["#server-to-user-$user"], $event, $data);
    }

    public function triggerBatch(array $batch): string
    {
        foreach ($batch as &$event) {
            $event['data'] = is_string($event['data']) ? $event['data'] : json_encode($event['data']);
        }
        return $this->post('/batch_events', json_encode(['batch' => $batch]));
    }

    public function terminateUserConnections(string $user): string
    {
        return $this->post("/users/$user/terminate_connections", '{}');
    }

    public function getChannels(array $params = []): string
    {
        return $this->get('/channels', $params);
    }

    public function getChannelInfo(string $channel, array $params = []): string
    {
        return $this->get("/channels/$channel", $params);
    }

    public function getPresenceUsers(string $channel): string
    {
        return $this->get("/channels/$channel/users");
    }

    public function authorizeChannel(string $channel, string $socket, ?string $data = null): string
    {
        $text = $data ? "$socket:$channel:$data" : "$socket:$channel";
        $answer = ['auth' => "{$this->key}:" . hash_hmac('sha256', $text, $this->secret, false)];
        if ($data) {
            $answer['channel_data'] = $data;
        }
        return json_encode($answer, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES);
    }

    public function authorizePresenceChannel(string $channel, string $socket, string $user, mixed $info = null): string
    {
        $data = ['user_id' => $user] + ($info ? ['user_info' => $info] : []);
        return $this->authorizeChannel($channel, $socket, json_encode($data, JSON_THROW_ON_ERROR));
    }

    public function authenticateUser(string $socket, array $user): string
    {
        $data = json_encode($user, JSON_THROW_ON_ERROR);
        $auth = "{$this->key}:" . hash_hmac('sha256', "$socket::user::$data", $this->secret, false);
        return json_encode(['auth' => $auth, 'user_data' => $data], JSON_THROW_ON_ERROR);
    }

    /** Checks the headers of a webhook and returns its events. */
    public function webhook(array $headers, string $body): string
    {
        $right = hash_equals(hash_hmac('sha256', $body, $this->secret, false), $headers['X-Pusher-Signature'] ?? '');
        if (!$right || ($headers['X-Pusher-Key'] ?? '') !== $this->key) {
            throw new RuntimeException('the signature is not valid');
        }
        return json_encode(json_decode($body, false, 512, JSON_THROW_ON_ERROR)->events);
    }

    private function post(string $path, string $body): string
    {
        return $this->send('POST', $path, ['body_md5' => md5($body)], $body);
    }

    private function get(string $path, array $params = []): string
    {
        return $this->send('GET', $path, $params);
    }

    private function send(string $method, string $path, array $params, ?string $body = null): string
    {
        $path = $this->base . $path;
        $params += ['auth_key' => $this->key, 'auth_timestamp' => time(), 'auth_version' => '1.0'];
        ksort($params);
        $pairs = [];
        foreach ($params as $name => $value) {
            $pairs[] = "$name=$value"; // decoded
        }
        $params['auth_signature'] = hash_hmac('sha256', "$method\n$path\n" . implode('&', $pairs), $this->secret, false);
        // Guzzle encodes what a URL must not have.
        $encoded = preg_replace_callback('#[^a-zA-Z0-9_\-.~!$&\'()*+,;=%:@/]+#', fn ($found) => rawurlencode($found[0]), $path);
        $url = getenv('PUSHER_URL') . $encoded . '?' . http_build_query($params, '', '&', PHP_QUERY_RFC3986);
        $answer = file_get_contents($url, false, stream_context_create(['http' => [
            'method' => $method,
            'header' => "Content-Type: application/json\r\nConnection: close\r\n",
            'content' => $body ?? '',
            'ignore_errors' => true,
            'timeout' => 60,
        ]]));
        [, $status] = explode(' ', $http_response_header[0]);
        if ($status !== '200') {
            throw new RuntimeException("$status $answer");
        }
        return $answer;
    }
}

try {
    $arguments = array_map(fn ($text) => json_decode($text, true, 512, JSON_THROW_ON_ERROR), array_slice($argv, 2));
    echo (new Pusher())->{$argv[1]}(...$arguments);
} catch (RuntimeException $e) {
    fwrite(STDERR, $e->getMessage());
    exit(1);
}
