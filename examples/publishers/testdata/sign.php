<?php
// Signs what standard input has, and prints the signatures and tokens.
require __DIR__ . '/../pushy_api.php';
$in = json_decode(stream_get_contents(STDIN));
echo json_encode([
    'Requests' => array_map(fn ($v) => (new Pushy('', $v->Secret))
        ->signature((int) $v->Time, $v->ID, $v->Path, base64_decode($v->BodyBase64)), $in->Requests),
    'Tokens' => array_map(fn ($v) => (new Pushy('', $v->Secret))->token($v->Claims), $in->Tokens),
]);
