#!/bin/sh
# Calls the signed API of pushy, with curl and perl (Debian: curl, perl).
#
#     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
#     pushy_api.sh publish CHANNEL EVENT [JSON]   publishes an event
#     pushy_api.sh publish-all <FILE              publishes the events of a JSON array
#     pushy_api.sh kick TARGET [REASON]           TARGET is user:ID, conn:ID or channel:NAME
#     pushy_api.sh call CALL [JSON]               any other call
#
# With PUSHY_ID, a request that was carried out under that id is not carried out again. The
# answer is printed as JSON. PROTOCOL.md, section 15, describes the calls.
#
# The secret key is only in the environment: every user of the machine can read command lines,
# and `openssl dgst -hmac "$key"` has the key in one.
set -eu
url=${PUSHY_URL:-http://127.0.0.1:8123/pushy}
tries=6

fail() {
	printf 'pushy_api.sh: %s\n' "$*" >&2
	exit 1
}

[ -n "${PUSHY_SECRET_KEY:-}" ] || fail "PUSHY_SECRET_KEY is not set"
export PUSHY_SECRET_KEY
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# json TEXT quotes a string. No character needs an escape but these.
json() {
	perl -e '$_ = $ARGV[0]; s/([\x00-\x1f"\\])/sprintf "\\u%04x", ord $1/ge; print qq("$_")' -- "$1"
}

# sign ID PATH prints the header for the body on standard input.
sign() {
	perl -MDigest::SHA=hmac_sha256_hex -e '
		my ($id, $path) = @ARGV;
		local $/;
		my ($key, $time, $body) = ($ENV{PUSHY_SECRET_KEY}, time, scalar <STDIN>);
		my $kid = substr hmac_sha256_hex("pushy2-key-id", $key), 0, 8;
		my $mac = hmac_sha256_hex(join("\n", "pushy2-request", $kid, $time, $id, $path, $body), $key);
		print "Pushy-Signature: v2 $kid $time $id $mac\n";
	' -- "$1" "$2"
}

# message prints what the server says about an error: error.message, or the body.
message() {
	perl -MJSON::PP -e '
		local $/;
		my $text = <STDIN> // "";
		my $message = eval { decode_json($text)->{error}{message} } // substr $text, 0, 400;
		utf8::encode($message) if utf8::is_utf8($message);
		print $message;
	' <"$dir/answer"
}

# call NAME BODY sends a request until it succeeds or finally fails. All tries have the same id.
call() {
	id=${PUSHY_ID:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
	printf %s "$2" >"$dir/body"
	try=1
	while :; do
		: >"$dir/answer"
		: >"$dir/head"
		sign "$id" "/api/$1" <"$dir/body" >"$dir/signature"
		status=$(curl -sS --max-time 15 -o "$dir/answer" -D "$dir/head" -w '%{http_code}' \
			-H 'Content-Type: application/json' -H "@$dir/signature" -H 'Expect:' --data-binary "@$dir/body" \
			"${url%/}/api/$1" 2>"$dir/error") || status=000
		case $status in
		200)
			cat "$dir/answer"
			echo
			return
			;;
		000) why="no answer: $(cat "$dir/error")" ;;
		*) why="status $status: $(message)" ;;
		esac
		case $status in
		000 | 408 | 425 | 429) ;;
		403) grep -q '"code":"501"' "$dir/answer" || fail "$why" ;; # 501: signed before the server was started
		501 | 505) fail "$why" ;;
		5??) ;;
		*) fail "$why" ;;
		esac
		after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]\{1,9\}\).*/\1/p' "$dir/head" | tail -n 1)
		[ "$try" -lt "$tries" ] && [ "${after:-0}" -le 60 ] || fail "$why"
		perl -e 'my ($after, $most) = ($ARGV[0], .1 * 2 ** $ARGV[1]);
			my $wait = rand($most < 5 ? $most : 5);
			select undef, undef, undef, $wait > $after ? $wait : $after' -- "${after:-0}" "$try"
		try=$((try + 1))
	done
}

case ${1:-}:$# in
publish:3 | publish:4)
	call publish "{\"events\":[{\"channels\":[$(json "$2")],\"event\":$(json "$3"),\"data\":${4:-{\}}}]}"
	;;
publish-all:1) call publish "{\"events\":$(cat)}" ;;
kick:2) call kick "{\"target\":$(json "$2")}" ;;
kick:3) call kick "{\"target\":$(json "$2"),\"reason\":$(json "$3")}" ;;
call:2) call "$2" '{}' ;;
call:3) call "$2" "$3" ;;
*) fail "the first lines of this file show how to call it" ;;
esac
