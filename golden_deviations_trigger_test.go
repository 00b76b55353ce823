package pushy_test

import "slices"

// unpublished is an event that the original delivered, at the step before.
func unpublished(scenario, number string, r reply, steps ...int) []deviation {
	all := []deviation{answered(scenario, number, r, steps...)}
	for _, step := range steps {
		all = append(all, silent(scenario, number, step-1))
	}
	return all
}

var triggerDeviations = slices.Concat(
	unpublished("timestamp-junk-suffix", "D12", badTimestamp, 5),
	unpublished("timestamp-float", "D12", badTimestamp, 5),
	unpublished("timestamp-hex", "D12", badTimestamp, 5),
	unpublished("timestamp-space", "D12", badTimestamp, 5),
	unpublished("timestamp-plus", "D12", badTimestamp, 5),
	unpublished("timestamp-non-numeric", "D12", badTimestamp, 5),
	unpublished("timestamp-infinity", "D12", badTimestamp, 5),
	unpublished("timestamp-duplicated", "D12", refused(400, "400", "Parameter timestamp …"), 5),
	unpublished("event-name-odd", "D12", refused(400, "400", "Parameter event …"), 11),
	unpublished("event-name-odd", "D12", missing, 13, 15), // event[]= and event[k]= are no event=
	unpublished("event-name-odd", "D9", badEvent, 17, 19),
	unpublished("event-name-odd", "D4", badEvent, 25, 27, 30, 32),
	unpublished("channel-in-url", "D4", badName, 37), // a:b
	[]deviation{
		answered("event-name-odd", "D4", badEvent, 28),
		answered("timestamp-negative", "D12", badTimestamp, 4),
		answered("timestamp-exp", "D12", badTimestamp, 4),
		answered("trigger-spelling-vectors", "D12", badTimestamp, 14, 15, 16, 17, 18, 19),
		answered("trigger-spelling-vectors", "D12", refused(400, "400", "Parameter event …"), 26, 27),
		answered("trigger-spelling-vectors", "D4", badName, 30, 31),
		answered("missing-parameters", "D4", badName, 9),
		answered("auth-key", "D32", refused(403, "403", // 64 of its 65 characters
			"Invalid credentials ( ceb8bafe00a393e0fa1914c9916a702c0a767a14889a681736fd3ee14cf8dcf)"), 4),
		answered("auth-key", "D12", refused(400, "400", "Parameter auth_key …"), 5),
		answered("auth-key", "D12", missing, 6, 7),
		said("channel-in-url", "D4", 13, badChannel),
		answered("channel-in-url", "D4", badName, 42, 44),
		taken("channel-in-url", "D33", 35, `{"event":"test","channel":"é","data":{"a":1}}`), // net/http allows a raw é
		answered("channel-in-url", "D21", noPage, 30),
		answered("channel-in-url", "D33", badURL, 43, 45),
		silent("socket-id-exclusion", "D14", 8),
		said("socket-id-exclusion", "D12", 12, `{"event":"e","channel":"ex","data":{"a":1}}`), // socket_id[id] is no socket_id
		silent("socket-id-exclusion", "D14", 13, 14),
		answered("socket-id-exclusion", "D14", refused(400, "400", "Invalid socket_id…"), 15),
		answered("routes", "D21", wrongMethod, 0, 2, 3, 4),
		answered("routes", "D21", reply{405, "application/json", ""}, 1),
		answered("routes", "D21", noPage, 6, 7, 8, 9, 10, 11, 12, 13, 14),
		answered("multipart-upload-unauthenticated", "D21", noPage, 0),
		answered("large-body-unauthenticated", "D11", refused(413, "413", "Body too large"), 0),
	},
)

func signedRaw(step int, data string) deviation {
	return taken("trigger-bodies-foreign-encoders", "D19", step, `{"event":"test","channel":"neg","data":`+data+`}`)
}

func delivered(step int, data string) deviation {
	return said("trigger-bodies", "D15", step, `{"event":"test","channel":"vec-chan","data":`+data+`}`)
}

var bodyDeviations = slices.Concat(
	[]deviation{
		signedRaw(4, `{"a":"http://x"}`),
		signedRaw(5, `{"a":"é"}`),
		signedRaw(6, `{"a":1}`),
		signedRaw(7, `{"n":1.0}`),
		signedRaw(11, `{"b":1,"1":2}`),
		signedRaw(12, `{"n":12345678901234567890}`),
		signedRaw(13, `{"n":1e21}`),
		signedRaw(14, `{"n":-0}`),
		taken("trigger-bodies-foreign-encoders", "D10", 16, `{"event":"test","channel":"neg","data":{}}`),

		answered("trigger-bodies", "D20", wrongKeyX, 8),
		answered("trigger-bodies", "D31", badJSON, 31, 33, 35, 37, 39, 44, 46,
			218, 220, 222, 224, 226, 228, 230, 232, 234, 236, 238, 240),
		answered("trigger-bodies", "D24", badEncoding, 210),
		answered("trigger-bodies", "D13", badType, 371, 373, 375),
		delivered(102, `{"n":-0}`),
		delivered(105, `{"n":-0.0}`),
		delivered(150, `{"a":1,"b":2,"a":3}`),
		delivered(153, `{"b":1,"2":1,"1":1}`),
		delivered(156, `{"z":0,"10":1,"9":2,"01":3,"-1":4,"1.5":5,"4294967294":6,"4294967295":7,"4294967296":8,"0":9," 1":10}`),
		delivered(159, `[{"b":1,"2":1,"1":{"y":1,"3":1}}]`),
	},
	unpublished("trigger-bodies", "D13", refused(403, "403", "Invalid credentials ("+emptyObjectKey+")"), 187, 190, 193),
	unpublished("trigger-bodies", "D13", badType, 196, 199, 202, 205, 208),
	unpublished("trigger-bodies", "D24", badEncoding, 216),
	unpublished("trigger-bodies", "D34", refused(403, "403", "Invalid credentials (…)"), 315), // a form is an object
	unpublished("trigger-bodies", "D3", refused(403, "403", "Invalid credentials (…)"), 348, 351, 354),
)

// httpTransportScenarios need SockJS's HTTP transports, whose issue plays them.
var httpTransportScenarios = []string{
	"connect-xhr-polling", "connect-xhr_streaming", "connect-eventsource", "connect-htmlfile?c=cb", "connect-jsonp?c=cb",
	"connect-htmlfile", "connect-jsonp?c=a(b", "sockjs-http-misc", "json-null-over-xhr_send", "crash-inputs-over-xhr_send",
	"sockjs-client-xhr-polling", "session-sharing-xhr", "xhr-streaming-response-limit-sane", "xhr-session-disconnect-presence",
}

// wirelessScenarios have nothing but notes.
var wirelessScenarios = map[string]string{
	"php-sdk-trigger-php8-unmodified": "the SDK dies on PHP 8 before it sends anything",
}
