package pushy_test

import "slices"

const (
	ann     = `{"username":"ann","subscribed":<ms>,"memberId":"<memberId:A>","idle":false}`
	bob     = `{"username":"bob","subscribed":<ms>,"memberId":"<memberId:B>","idle":false}`
	nobodyA = `{"subscribed":<ms>,"memberId":"<memberId:A>","idle":false}`
)

func joined(channel, who, list string) string {
	return `{"event":"pushy:subscription-success","data":{"channel":"` + channel + `","memberId":"<memberId:` + who + `>","presence":[` + list + `]}}`
}

func presenceEvent(event, data string) string {
	return `{"event":"pushy:presence-` + event + `","channel":"private-room","data":{` + data + `}}`
}

// A's data is refused, so B is alone.
func refusedData(scenario string) []deviation {
	return []deviation{
		said(scenario, "D5", 5, badPresence),
		silent(scenario, "D5", 7),
		said(scenario, "D5", 8, joined("private-room", "B", bob)),
		silent(scenario, "D5", 10),
	}
}

// A's member is another than the original made.
func otherMember(scenario, number, a string) []deviation {
	return []deviation{
		said(scenario, number, 5, joined("private-room", "A", a)),
		said(scenario, number, 8, joined("private-room", "B", a+","+bob)),
		said(scenario, number, 10, presenceEvent("quit", `"member":`+a)),
	}
}

// vector is a scenario of one subscription to private-Vec.
func vector(name, number, message string) []deviation {
	scenario := "subscribe-vector-" + name
	all := []deviation{lowered(scenario, "private-Vec", "private-vec")}
	if message != "" {
		all = append(all, said(scenario, number, 5, message))
	}
	return all
}

const badVector = `{"event":"pushy:subscription-failed","data":{"channel":"private-vec","reason":"Invalid presence data"}}`

var presenceDeviations = slices.Concat(
	refusedData("presence-data-string-array"),
	refusedData("presence-data-string-string"),
	refusedData("presence-data-string-number"),
	refusedData("presence-data-string-true"),
	refusedData("presence-data-string-empty"),
	refusedData("presence-data-raw-number"),
	refusedData("presence-data-raw-true"),
	refusedData("presence-data-raw-array"),
	otherMember("presence-data-string-empty-array", "D5", nobodyA),
	otherMember("presence-json-object", "D7", ann),
	[]deviation{
		{scenario: "presence-off-then-data", number: "D6", steps: []int{6}, conn: "A", messages: []string{
			presenceEvent("sync", `"presence":[`+nobodyA+`]`),
			presenceEvent("add", `"member":`+bob),
		}},
		said("presence-off-then-data", "D6", 7, joined("private-room", "B", nobodyA+","+bob)),
		{scenario: "presence-off-then-data", number: "D6", steps: []int{8}, conn: "A", messages: []string{
			presenceEvent("quit", `"member":`+bob),
		}},
	},
	vector("nodata", "", ""),
	vector("str-object", "", ""),
	vector("str-slash", "", ""),
	vector("str-plain-slash", "", ""),
	vector("str-unicode", "", ""),
	vector("str-unicode-esc", "", ""),
	vector("str-emoji", "", ""),
	vector("str-2028", "D5", badVector),
	vector("str-quote-backslash", "", ""),
	vector("str-empty", "D5", badVector),
	vector("str-array", "D5", joined("private-vec", "A", nobodyA)),
	vector("str-lone-surrogate", "D5", badVector),
	vector("str-controls", "D5", badVector),
	vector("object", "D7", joined("private-vec", "A", ann)),
	vector("object-nested", "D7", joined("private-vec", "A",
		`{"a":{"b":[1,2,{"c":null}]},"d":1.5,"subscribed":<ms>,"memberId":"<memberId:A>","idle":false}`)),
	vector("number", "D5", badVector),
	vector("true", "D5", badVector),
	vector("zero", "D5", badVector),
	vector("array", "D5", badVector),
	vector("html", "D5", badVector),
)
