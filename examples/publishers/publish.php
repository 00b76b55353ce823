#!/usr/bin/env php
<?php
// Calls the signed API of pushy, with nothing but PHP 8 (Debian: php-cli).
//
//     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
//     publish.php one CHANNEL EVENT [JSON]      publishes an event
//     publish.php many JSON                     publishes an array of events
//
// With PUSHY_ID, a request that was carried out under that id is not carried out again. The
// answer is printed as JSON. PROTOCOL.md, section 15, describes the API.
declare(strict_types=1);

final class Pushy
{
    private const TRIES = 6;
    private string $keyId;

    public function __construct(private string $url, #[\SensitiveParameter] private string $secret)
    {
        $this->url = rtrim($url, '/');
        $this->keyId = substr(hash_hmac('sha256', 'pushy2-key-id', $secret), 0, 8);
    }

    public function signature(int $time, string $id, string $path, string $body): string
    {
        $signed = "pushy2-request\n$this->keyId\n$time\n$id\n$path\n$body";
        return "v2 $this->keyId $time $id " . hash_hmac('sha256', $signed, $this->secret);
    }

    /** Sends a request until it succeeds or finally fails. All tries have the same id. */
    public function call(string $name, array $value, ?string $id = null): array
    {
        $path = "/api/$name";
        $body = json_encode((object) $value, JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION);
        $id ??= bin2hex(random_bytes(16));
        for ($try = 1; ; $try++) {
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
            $http_response_header = [];
            $answer = @file_get_contents($this->url . $path, false, $context);
            $head = implode("\n", $http_response_header);
            $status = preg_match('~^HTTP/\S+ (\d{3})~', $head, $m) ? (int) $m[1] : 0;
            $decoded = json_decode((string) $answer, true);
            if ($status === 200 && is_array($decoded)) {
                return $decoded;
            }
            $again = $answer === false || $status === 200 || in_array($status, [0, 408, 425, 429])
                || ($status >= 500 && !in_array($status, [501, 505]));
            if (!$again || $try === self::TRIES) {
                throw new RuntimeException($status === 0 ? 'no answer' : "status $status: " . substr((string) $answer, 0, 400));
            }
            $wait = 0;
            if (preg_match('~^Retry-After: *(.+)$~mi', $head, $m)) {
                $wait = ctype_digit(trim($m[1])) ? (int) $m[1] : max(0, (int) strtotime($m[1]) - time());
            }
            usleep(max($wait * 1_000_000, random_int(0, (int) min(5_000_000, 100_000 * 2 ** $try))));
        }
    }

    public function publish(string $channel, string $event, mixed $data, ?string $id = null): array
    {
        return $this->publishAll([['channels' => [$channel], 'event' => $event, 'data' => $data]], $id);
    }

    public function publishAll(array $events, ?string $id = null): array
    {
        return $this->call('publish', ['events' => $events], $id);
    }
}

function main(array $args): int
{
    $secret = getenv('PUSHY_SECRET_KEY') ?: throw new RuntimeException('PUSHY_SECRET_KEY is not set');
    $pushy = new Pushy(getenv('PUSHY_URL') ?: 'http://127.0.0.1:8123/pushy', $secret);
    $id = getenv('PUSHY_ID') ?: null;
    $json = fn (string $text) => json_decode($text, false, 512, JSON_THROW_ON_ERROR);
    $answer = match (true) {
        ($args[1] ?? '') === 'one' && count($args) >= 4 => $pushy->publish($args[2], $args[3], $json($args[4] ?? '{}'), $id),
        ($args[1] ?? '') === 'many' && count($args) === 3 => $pushy->publishAll($json($args[2]), $id),
        default => throw new RuntimeException('usage: publish.php one|many …; the first lines of the file explain'),
    };
    echo json_encode($answer, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
    return 0;
}

if (realpath($_SERVER['SCRIPT_FILENAME'] ?? '') === __FILE__) { // not if another script includes this file
    try {
        exit(main($argv));
    } catch (RuntimeException | JsonException $e) {
        fwrite(STDERR, 'publish.php: ' . $e->getMessage() . "\n");
        exit(1);
    }
}
