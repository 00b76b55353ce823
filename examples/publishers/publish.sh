#!/bin/sh
# Calls the signed API of pushy, with curl and perl (Debian: curl, perl).
#
#     export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
#     publish.sh one CHANNEL EVENT [JSON]      publishes an event
#     publish.sh many JSON                     publishes an array of events
#     publish.sh call NAME JSON                makes any other call
#
# With PUSHY_ID, a request that was carried out under that id is not carried out again. The
# answer is printed as JSON. PROTOCOL.md, section 15, describes the API.
#
# The secret key is only in the environment: every user of the machine can read command lines,
# and `openssl dgst -hmac "$key"` has the key in one.
set -eu
url=${PUSHY_URL:-http://127.0.0.1:8123/pushy}
tries=6

fail() {
	printf 'publish.sh: %s\n' "$*" >&2
	exit 1
}

[ -n "${PUSHY_SECRET_KEY:-}" ] || fail "PUSHY_SECRET_KEY is not set"
export PUSHY_SECRET_KEY

# json TEXT quotes a string.
json() { perl -MJSON::PP -e 'print JSON::PP->new->allow_nonref->encode($ARGV[0])' -- "$1"; }

# call NAME BODY sends a request until it succeeds or finally fails. All tries have the same id.
call() {
	id=${PUSHY_ID:-$(perl -e 'open R, "<:raw", "/dev/urandom" or die; read R, $b, 16; print unpack "H*", $b')}
	printf %s "$2" >"$dir/body"
	try=1
	while :; do
		# The header goes through a file, not the command line.
		perl -MDigest::SHA=hmac_sha256_hex -e '
			my ($id, $path) = @ARGV;
			local $/;
			my ($key, $time, $body) = ($ENV{PUSHY_SECRET_KEY}, time, scalar <STDIN>);
			my $kid = substr hmac_sha256_hex("pushy2-key-id", $key), 0, 8;
			my $mac = hmac_sha256_hex(join("\n", "pushy2-request", $kid, $time, $id, $path, $body), $key);
			print "Pushy-Signature: v2 $kid $time $id $mac\n";
		' "$id" "/api/$1" <"$dir/body" >"$dir/signature"
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
		501 | 505) fail "status $status" ;;
		408 | 425 | 429 | 5??) why="status $status: $(cut -c 1-400 "$dir/answer")" ;;
		*) fail "status $status: $(cut -c 1-400 "$dir/answer")" ;;
		esac
		[ "$try" -lt "$tries" ] || fail "$why"
		wait=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9][0-9]*\).*/\1/p' "$dir/head" 2>/dev/null)
		sleep "${wait:-$((try * (try + 1) / 6))}"
		try=$((try + 1))
	done
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
case ${1:-}:$# in
one:3 | one:4)
	call publish "{\"events\":[{\"channels\":[$(json "$2")],\"event\":$(json "$3"),\"data\":${4:-{\}}}]}"
	;;
many:2) call publish "{\"events\":$2}" ;;
call:3) call "$2" "$3" ;;
*) fail "usage: publish.sh one|many|call …; the first lines of the file explain" ;;
esac
