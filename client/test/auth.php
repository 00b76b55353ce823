<?php
// An auth endpoint as the original's PHP SDK has it: one channel a request, tokens of version 1.
$id = $_POST['connection_id'] ?? '';
$channel = $_POST['channel'] ?? '';
file_put_contents(getenv('ASKED'), "$channel\n", FILE_APPEND);
if ($channel === 'private-denied') {
    http_response_code(403);
    exit;
}
$data = json_encode(['name' => 'Zoë']);
header('Content-Type: application/json');
echo json_encode(['auth' => hash('sha256', "$id:$channel:$data:" . getenv('SECRET')), 'data' => json_decode($data)]);
