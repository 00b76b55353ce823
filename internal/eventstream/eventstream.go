// Package eventstream writes lines of Server-Sent Events, as the HTML Standard defines them (section
// 9.2, "Server-sent events").
package eventstream

import "strings"

// breaks removes what would end a line, which the names of channels and events of pushy's protocol
// cannot have.
var breaks = strings.NewReplacer("\r", "", "\n", "")

// AppendName appends the name of an event, unless it is that of events without a name.
func AppendName(b []byte, name string) []byte {
	if name == "message" || name == "" {
		return b
	}
	b = append(b, "event: "...)
	b = append(b, breaks.Replace(name)...)
	return append(b, '\n')
}

// AppendLines appends a string as the data of an event. Each of its lines, which can end with CR, LF or
// both, is a line of the event.
func AppendLines(b []byte, text string) []byte {
	for {
		b = append(b, "data: "...)
		end := strings.IndexAny(text, "\r\n")
		if end < 0 {
			b = append(b, text...)
			return append(b, '\n')
		}
		b = append(b, text[:end]...)
		b = append(b, '\n')
		if strings.HasPrefix(text[end:], "\r\n") {
			end++
		}
		text = text[end+1:]
	}
}
