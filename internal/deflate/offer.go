package deflate

import (
	"net/http"
	"strconv"
	"strings"
)

// answer is the acceptance of an offer. Neither side uses what earlier messages contained.
const answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// Negotiate returns the value of the header Sec-WebSocket-Extensions that accepts the first offer of
// a client which can be accepted, or "" if there is none. An offer that the RFC does not allow is
// not accepted, as one of another extension. One with a smaller window than 32 KiB is not, either,
// because all clients receive the same bytes.
func Negotiate(header http.Header) string {
	for _, offer := range split(strings.Join(header["Sec-Websocket-Extensions"], ","), ',') {
		if accepted := accept(split(offer, ';')); accepted != "" {
			return accepted
		}
	}
	return ""
}

// accept returns the answer to an offer, or "".
func accept(offer []string) string {
	if !strings.EqualFold(offer[0], "permessage-deflate") {
		return ""
	}
	accepted := answer
	seen := map[string]bool{}
	for _, parameter := range offer[1:] {
		name, value, valued := strings.Cut(parameter, "=")
		name = strings.TrimSpace(name)
		value = unquote(strings.TrimSpace(value))
		if seen[name] {
			return ""
		}
		seen[name] = true
		switch {
		case name == "server_no_context_takeover" && !valued:
		case name == "client_no_context_takeover" && !valued:
		case name == "client_max_window_bits" && (!valued || isWindow(value)):
			// The client's window can have any size: messages are decompressed with 32 KiB.
		case name == "server_max_window_bits" && value == "15":
			accepted += "; server_max_window_bits=15"
		default:
			return ""
		}
	}
	return accepted
}

// isWindow reports whether value is the number of bits of a window: 8 to 15, without zeros in front.
func isWindow(value string) bool {
	n, err := strconv.ParseUint(value, 10, 8)
	return err == nil && n >= 8 && n <= 15 && value[0] != '0'
}

// split splits a list, but not within quotes, and trims its elements.
func split(list string, separator byte) (elements []string) {
	begin := 0
	quoted := false
	for i := 0; i < len(list); i++ {
		switch {
		case quoted && list[i] == '\\':
			i++
		case list[i] == '"':
			quoted = !quoted
		case list[i] == separator && !quoted:
			elements = append(elements, strings.TrimSpace(list[begin:i]))
			begin = i + 1
		}
	}
	return append(elements, strings.TrimSpace(list[begin:]))
}

// unquote returns the content of a quoted string. A value is a number, so nothing in it is escaped.
func unquote(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		return value[1 : len(value)-1]
	}
	return value
}
