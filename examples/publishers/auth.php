<?php
// An auth endpoint (PROTOCOL.md, section 11): it gives the user who is logged in tokens for private
// channels. It needs pushy_api.php, and PUSHY_SECRET_KEY in the environment.
declare(strict_types=1);
require __DIR__ . '/pushy_api.php';

function answer(int $status, array $body): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode($body + ['batch' => 100], JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE));
}

session_start(['read_and_close' => true]);
$user = $_SESSION['user'] ?? answer(401, ['error' => ['code' => '401', 'message' => 'authentication needed']]);
// In lower case, because names that differ only in case are one channel.
$allowed = ["private-user-$user[id]", ...array_map(fn ($team) => "private-team-$team", $user['teams'])];

preg_match_all('/(?:^|&)channel=([^&]*)/', file_get_contents('php://input'), $found); // $_POST has only the last one
$channels = array_map('urldecode', $found[1]);
$conn = $_POST['connection_id'] ?? null;
$uuid = '/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/D';
if (!$channels || count($channels) > 100 || !is_string($conn) || !preg_match($uuid, $conn)) {
    answer(400, ['error' => ['code' => '400', 'message' => '1 to 100 channels and the id of a connection are needed']]);
}

// The members see the data. With the field user, a ban of a user also holds on servers that do not know their users.
$claims = ['conn' => $conn, 'iat' => time(), 'data' => ['user' => $user['id'], 'name' => $user['name']]];
if (($_POST['v'] ?? '') === '2') { // the client renews its tokens
    $claims['exp'] = $claims['iat'] + 3600;
}
$pushy = new Pushy('', getenv('PUSHY_SECRET_KEY') ?: throw new RuntimeException('PUSHY_SECRET_KEY is not set'));
foreach ($channels as $channel) {
    $token = fn () => $pushy->token(json_encode(['sub' => [$channel]] + $claims, JSON_THROW_ON_ERROR));
    $answers[$channel] = in_array($channel, $allowed, true)
        ? ['auth' => $token(), 'data' => $claims['data']]
        : ['error' => 'not authorized', 'code' => '403', 'status' => 403];
}
match (true) {
    count($channels) > 1 => answer(200, ['channels' => (object) $answers]),
    isset($answers[$channel]['auth']) => answer(200, $answers[$channel]),
    default => answer(403, ['error' => ['code' => '403', 'message' => 'not authorized']]),
};
