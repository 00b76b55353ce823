<?php
// Calls the signed API of pushy, with nothing but PHP 8.1 or newer (Debian: php-cli).
//
//     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
//     php pushy_api.php publish CHANNEL EVENT [JSON]   publishes an event
//     php pushy_api.php publish-all <FILE              publishes the events of a JSON array
//     php pushy_api.php kick TARGET [REASON]           TARGET is user:ID, conn:ID or channel:NAME
//     php pushy_api.php list CALL [JSON]               all pages of channels, members, connections or bans
//     php pushy_api.php call CALL [JSON]               any other call
//
// With PUSHY_ID, a request that was carried out under that id is not carried out again. The
// answer is printed as JSON. PROTOCOL.md, section 15, describes the calls. In a program:
//
//     $pushy = new Pushy('https://rt.example.com/pushy', getenv('PUSHY_SECRET_KEY'));
//     $pushy->publish('lobby', 'news', ['text' => 'Hello']);
declare(strict_types=1);

/** A request that the server has refused, or that it has not answered. */
final class PushyError extends RuntimeException
{
    /** @param int $status 0: there was no answer, so it is not known whether the request was carried out */
    public function __construct(string $message, public readonly int $status, public readonly mixed $answer)
    {
        parent::__construct($message);
    }
}

final class Pushy
{
    public const JSON = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;
    private const TRIES = 6;
    private readonly string $keyId;

    public function __construct(private readonly string $url, #[\SensitiveParameter] private readonly string $secret)
    {
        $this->keyId = substr(hash_hmac('sha256', 'pushy2-key-id', $secret), 0, 8);
    }

    /** Publishes an event. With the same $id, it is published once, however often this is called. */
    public function publish(string $channel, string $event, mixed $data, ?string $id = null): object
    {
        return $this->publishAll([['channels' => [$channel], 'event' => $event, 'data' => $data]], $id);
    }

    /** Publishes at most 100 events. */
    public function publishAll(array $events, ?string $id = null): object
    {
        return $this->call('publish', ['events' => $events], $id);
    }

    /** Closes the connections of 'user:42', or ends the subscriptions of 'channel:lobby'; $until makes it a ban. */
    public function kick(string $target, ?string $reason = null, ?int $until = null, ?string $id = null): object
    {
        $given = ['target' => $target, 'reason' => $reason, 'until' => $until];
        return $this->call('kick', array_filter($given, fn ($value) => $value !== null), $id);
    }

    /** All pages of 'channels', 'members', 'connections' or 'bans'. What only the silent nodes have is missing. */
    public function list(string $name, array|object $query = []): object
    {
        $query = (array) $query + ['limit' => 1000];
        $items = $silent = [];
        do {
            $page = $this->call($name, $query);
            array_push($items, ...$page->$name);
            $silent = [...$silent, ...$page->silent ?? []];
            $query['after'] = $page->next ?? null;
        } while ($query['after'] !== null);
        return (object) [$name => $items, 'silent' => array_values(array_unique($silent))];
    }

    /** Sends a request until it succeeds or finally fails. All tries have the same id. */
    public function call(string $name, array|object $value, ?string $id = null): object
    {
        $body = json_encode((object) $value, self::JSON | JSON_THROW_ON_ERROR);
        $id ??= bin2hex(random_bytes(16));
        for ($try = 1; ; $try++) {
            [$status, $wait, $text] = $this->post("/api/$name", $id, $body);
            $answer = json_decode($text);
            if ($status === 200 && is_object($answer)) {
                return $answer;
            }
            $error = is_object($answer) ? $answer->error ?? null : null;
            $again = $status < 300 || in_array($status, [408, 425, 429]) // below 300: no answer, or not all of it
                || $status >= 500 && !in_array($status, [501, 505])
                || $status === 403 && ($error->code ?? '') === '501'; // signed before the server was started
            if (!$again || $try === self::TRIES || $wait > 60) {
                $message = ($status ? "status $status: " : '') . ($error->message ?? substr($text, 0, 400));
                throw new PushyError($message, $status, $answer);
            }
            usleep(max($wait * 1_000_000, random_int(0, (int) min(5_000_000, 100_000 * 2 ** $try))));
        }
    }

    /** @return array{int, int, string} the status, or 0; the seconds of Retry-After; the body */
    private function post(string $path, string $id, string $body): array
    {
        $context = stream_context_create(['http' => [
            'method' => 'POST',
            'header' => [
                'Content-Type: application/json',
                'Pushy-Signature: ' . $this->signature(time(), $id, $path, $body),
                'Connection: close',
            ],
            'content' => $body,
            'timeout' => 15,
            'follow_location' => 0,
            'ignore_errors' => true, // otherwise the body of an error is not read
        ]]);
        $stream = @fopen(rtrim($this->url, '/') . $path, 'r', false, $context);
        if ($stream === false) {
            return [0, 0, 'no answer: ' . (error_get_last()['message'] ?? '')];
        }
        $head = implode("\n", stream_get_meta_data($stream)['wrapper_data']);
        $text = (string) @stream_get_contents($stream);
        $status = preg_match('~^HTTP/\S+ (\d{3})~', $head, $found) ? (int) $found[1] : 0;
        $wait = preg_match('~^Retry-After: *(.*)$~mi', $head, $found) ? $found[1] : '0';
        return [$status, ctype_digit($wait) ? (int) $wait : max(0, (int) strtotime($wait) - time()), $text];
    }

    public function signature(int $time, string $id, string $path, string $body): string
    {
        $signed = "pushy2-request\n$this->keyId\n$time\n$id\n$path\n$body";
        return "v2 $this->keyId $time $id " . hash_hmac('sha256', $signed, $this->secret);
    }

    /** A token with which a client can subscribe. $claims is the JSON of the claims (PROTOCOL.md, section 6). */
    public function token(string $claims): string
    {
        $part = rtrim(strtr(base64_encode($claims), '+/', '-_'), '=');
        $signature = hash_hmac('sha256', "pushy2-token\n$this->keyId\n$part", $this->secret);
        return "v2.$this->keyId.$part.$signature";
    }
}

function main(array $args): int
{
    $pushy = new Pushy(
        getenv('PUSHY_URL') ?: 'http://127.0.0.1:8123/pushy',
        getenv('PUSHY_SECRET_KEY') ?: throw new RuntimeException('PUSHY_SECRET_KEY is not set'),
    );
    $id = getenv('PUSHY_ID') ?: null;
    $json = fn (string $text) => json_decode($text, false, 512, JSON_THROW_ON_ERROR);
    $rest = array_slice($args, 2);
    $answer = match (($args[1] ?? '') . ' ' . count($rest)) {
        'publish 2', 'publish 3' => $pushy->publish($rest[0], $rest[1], $json($rest[2] ?? '{}'), $id),
        'publish-all 0' => $pushy->call('publish', ['events' => $json(stream_get_contents(STDIN))], $id),
        'kick 1', 'kick 2' => $pushy->kick($rest[0], $rest[1] ?? null, id: $id),
        'list 1', 'list 2' => $pushy->list($rest[0], $json($rest[1] ?? '{}')),
        'call 1', 'call 2' => $pushy->call($rest[0], $json($rest[1] ?? '{}'), $id),
        default => throw new RuntimeException('the first lines of this file show how to call it'),
    };
    echo json_encode($answer, Pushy::JSON), "\n";
    return 0;
}

// Not if another script includes this file, nor for the visitors of a website that has it.
if (PHP_SAPI === 'cli' && realpath($_SERVER['SCRIPT_FILENAME']) === __FILE__) {
    try {
        exit(main($argv));
    } catch (RuntimeException | JsonException $error) {
        fwrite(STDERR, "pushy_api.php: {$error->getMessage()}\n");
        exit(1);
    }
}
