package pushy_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// deviationNumber is how PROTOCOL.md calls a difference.
var deviationNumber = regexp.MustCompile(`^D([1-9]|[12][0-9]|3[0-5])$`)

// deviation is a step where the server is meant to differ from the recording,
// with the number of the difference (PROTOCOL.md, section 10), and what is due
// instead. Without effect it fails.
type deviation struct {
	scenario string
	number   string
	steps    []int // none for rename

	conn     string    // whose messages, if not the step's own
	messages []string  // come instead of a recorded one, or after what is sent
	reply    *reply    // to the HTTP request
	closing  *closing  // how the server closes
	crash    bool      // messages come instead of the original's end
	rename   [2]string // of a channel, wherever it is recorded
	probe    string    // a trigger whose reply shows what was left behind
}

const (
	bogus          = `{"event":"pushy:error","data":{"message":"Bogus message recieved","code":"100"}}`
	unknownCommand = `{"event":"pushy:error","data":{"message":"Unknown command","code":"200"}}`
	noChannel      = `{"event":"pushy:error","data":{"message":"No channel specified","code":"300"}}`
	badChannel     = `{"event":"pushy:error","data":{"message":"Invalid channel name","code":"301"}}`
	notFound       = `{"event":"pushy:error","data":{"message":"Channel not found","code":"404"}}`
	needAuth       = `{"event":"pushy:subscription-needauth","data":{"channel":"private-room"}}`
	badPresence    = `{"event":"pushy:subscription-failed","data":{"channel":"private-room","reason":"Invalid presence data"}}`
)

func subscribed(channel string) string {
	return `{"event":"pushy:subscription-success","data":{"channel":"` + channel + `","memberId":"<memberId:A>"}}`
}

func triggered(status int) reply {
	return reply{status, "application/json", fmt.Sprintf(`{"status":{"code":%d,"message":"Ok"}}`, status)}
}

func refused(status int, code, message string) reply {
	return reply{status, "application/json", fmt.Sprintf(`{"error":{"code":%q,"message":"%s"}}`, code, message)}
}

var (
	noPage         = reply{404, "application/json", `{"error":{"code":"404","message":"…"}}`}
	badURL         = reply{400, "text/plain; charset=utf-8", "400 Bad Request"} // net/http's, before any handler
	wrongMethod    = refused(405, "405", "Method not allowed")
	missing        = refused(400, "400", "Missing required parameters")
	badTimestamp   = refused(400, "400", "Invalid timestamp")
	badEvent       = refused(400, "400", "Invalid event name: …")
	badName        = refused(400, "400", "Invalid channel name: …")
	badJSON        = refused(400, "400", "Malformed JSON: …")
	badType        = refused(415, "415", "Content-Type …")
	badEncoding    = refused(415, "415", "Content-Encoding …")
	wrongKeyX      = refused(403, "403", "Invalid credentials (x)")
	emptyObjectKey = sha256Hex("vec-chan:test:1700000000:{}:secret")
)

func answered(scenario, number string, r reply, steps ...int) deviation {
	return deviation{scenario: scenario, number: number, steps: steps, reply: &r}
}

func said(scenario, number string, step int, messages ...string) deviation {
	return deviation{scenario: scenario, number: number, steps: []int{step}, messages: messages}
}

func silent(scenario, number string, steps ...int) deviation {
	return deviation{scenario: scenario, number: number, steps: steps}
}

func survived(scenario, number string, step int, messages ...string) deviation {
	return deviation{scenario: scenario, number: number, steps: []int{step}, messages: messages, crash: true}
}

func lowered(scenario, from, to string) deviation {
	return deviation{scenario: scenario, number: "D8", rename: [2]string{from, to}}
}

// taken is an event that the original refused.
func taken(scenario, number string, step int, message string) deviation {
	r := triggered(201)
	return deviation{scenario: scenario, number: number, steps: []int{step}, reply: &r, messages: []string{message}}
}

var deviations = slices.Concat(connectDeviations, survivals, nameDeviations, presenceDeviations, triggerDeviations, bodyDeviations)

var connectDeviations = []deviation{
	said("connect-raw-websocket", "D1", 0, `{"event":"pushy:connect","data":{"socketId":"<socketId:A>","protocol":"rawwebsocket"}}`),
	said("raw-websocket-null", "D1", 0, `{"event":"pushy:connect","data":{"socketId":"<socketId:A>","protocol":"rawwebsocket"}}`),
	answered("upgrade-outside-prefix", "D21", noPage, 0),
	{scenario: "ws-framing", number: "D28", steps: []int{14}, closing: &closing{1002, "Broken framing."}},
	said("command-constructor", "D3", 2, unknownCommand),
}

// survivals are the inputs that ended the original's process.
var survivals = []deviation{
	survived("json-null", "D2", 5, bogus),
	survived("sockjs-null-element", "D2", 3, bogus),
	survived("sockjs-bare-null", "D2", 3, bogus),
	survived("raw-websocket-null", "D2", 2, bogus),
	survived("f-client-events", "D2", 17, bogus),
	survived("command-null-event-set", "D2", 5, bogus),
	survived("command-number", "D2", 5, bogus),
	survived("data-missing", "D2", 5, noChannel),
	survived("data-null", "D2", 5, noChannel),
	survived("unsubscribe-data-missing", "D2", 5, noChannel),
	survived("unsubscribe-data-null", "D2", 5, noChannel),
	survived("unsubscribe-channel-number", "D2", 5, noChannel),
	survived("unsubscribe-channel-object", "D2", 5, noChannel),
	survived("unsubscribe-channel-array", "D2", 5, noChannel),
	survived("unsubscribe-channel-true", "D2", 5, noChannel),
	survived("unsubscribe-channel-object-with-toLowerCase", "D2", 5, noChannel),
	survived("channel-true", "D2", 5, noChannel),
	survived("channel-object-with-toLowerCase", "D2", 5, noChannel),
	survived("auth-null", "D2", 5, needAuth),
	survived("auth-object", "D2", 5, needAuth),
	survived("auth-array", "D2", 5, needAuth),
	survived("auth-true", "D2", 5, needAuth),
	survived("presence-data-string-null", "D5", 3, badPresence),
	survived("channel-name-__proto__", "D3", 5, subscribed("__proto__")),
	survived("channel-name-constructor", "D3", 5, subscribed("constructor")),
	survived("channel-name-push", "D3", 5, subscribed("push")),
	survived("channel-name-map", "D3", 5, subscribed("map")),
	survived("channel-name-filter", "D3", 5, subscribed("filter")),
	survived("channel-name-at", "D3", 5, subscribed("at")),
	survived("channel-name-with", "D3", 5, subscribed("with")),
	survived("channel-name-MAP", "D3", 5, subscribed("map")),
	survived("unsubscribe-name-__proto__", "D3", 5, notFound),
	survived("unsubscribe-name-map", "D3", 5, notFound),
	survived("unsubscribe-name-constructor", "D3", 5, notFound),
	survived("subscribe-length-after-numeric", "D3", 5, strings.Replace(subscribed("length"), ":A>", ":A2>", 1)),
	survived("channel-name-length", "D3", 12, notFound),
	survived("proto-pollution-crash", "D3", 5, subscribed("victim")),
}

var nameDeviations = []deviation{
	said("channel-name-length", "D3", 5, `{"event":"pushy:subscription-failed","data":{"channel":"length","reason":"Already subscribed to this channel"}}`),
	taken("channel-name-length", "D3", 6, `{"event":"e","channel":"length","data":{}}`),
	said("channel-name-length", "D3", 8, `{"event":"pushy:subscription-end","data":{"channel":"length"}}`),
	answered("trigger-channel-map", "D3", triggered(200), 0),
	answered("trigger-channel-constructor", "D3", triggered(200), 0),
	answered("proto-pollution-crash", "D21", noPage, 2),
	answered("proto-pollution-crash", "D3", triggered(200), 3),
	answered("proto-pollution-body", "D21", noPage, 0),
	{
		scenario: "proto-pollution-body", number: "D3", steps: []int{1}, reply: pointer(triggered(200)),
		probe: "/pushy/channel/polluted2/trigger?event=e&timestamp=1700000000&auth_key=" + sha256Hex("polluted2:e:1700000000:{}:secret"),
	},
	said("channel-name-long", "D4", 3, badChannel),
	said("channel-name-odd", "D4", 9, badChannel),  // a:b
	said("channel-name-odd", "D4", 19, badChannel), // U+0000
	said("channel-name-odd", "D4", 21, badChannel), // U+2028
	said("channel-name-odd", "D4", 25, badChannel), // a"b
	said("channel-name-odd", "D4", 27, badChannel), // a\b
	said("channel-name-odd", "D4", 29, badChannel), // a lone surrogate
	lowered("channel-name-odd", "É", "é"),
	lowered("channel-name-odd", "İ", "i\u0307"),
	lowered("channel-name-hasOwnProperty", "hasOwnProperty", "hasownproperty"),
	lowered("channel-name-valueOf", "valueOf", "valueof"),
	lowered("private-needauth", "Private-Room", "private-room"),
	lowered("private-needauth", "PRIVATE-room", "private-room"),
	lowered("private-wrong-auth", "Private-Room", "private-room"),
	lowered("private-ok-nodata", "Private-Room", "private-room"),
	lowered("private-uppercase-signed", "Private-Room", "private-room"),
	lowered("browser-client-case-hijack", "HELLO", "hello"),
	lowered("trigger-bodies", "Vec-Chan", "vec-chan"),
}

func pointer[T any](v T) *T { return &v }
