package redis

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// replies is a connection whose error replies are filtered. rueidis sends a PING after each
// UNSUBSCRIBE, and panics in its own goroutine if the PING is refused in a way that it does
// not expect. A server that cannot save its data refuses the PING, and a server that runs a
// long script refuses both commands.
type replies struct {
	net.Conn

	pings atomic.Int64 // written and not answered
	tail  []byte       // the last bytes that were written

	follows bool   // it has subscriptions: only then are replies changed
	skip    int    // remaining bytes of a string
	line    []byte // the beginning of an incomplete line
	rest    []byte // filtered, for the next Read
	ended   error
}

const (
	ping = "$4\r\nPING\r\n"
	pong = "+PONG\r\n"
)

func (r *replies) Write(p []byte) (int, error) {
	const most = len(ping) - 1
	joint := append(r.tail, p[:min(len(p), most)]...) // finds a PING that two writes contain
	r.pings.Add(int64(bytes.Count(joint, []byte(ping)) + bytes.Count(p, []byte(ping))))
	if len(p) >= most {
		joint = append(joint[:0], p[len(p)-most:]...)
	}
	r.tail = append(r.tail[:0], joint[max(0, len(joint)-most):]...)
	return r.Conn.Write(p)
}

// takePendingPing reports whether a PING has no answer yet, and marks it as answered.
func (r *replies) takePendingPing() bool {
	for {
		n := r.pings.Load()
		if n <= 0 || r.pings.CompareAndSwap(n, n-1) {
			return n > 0
		}
	}
}

// maxLine is the maximum length of a line outside of a string.
const maxLine = 64 << 10

func (r *replies) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended != nil {
			return 0, r.ended
		}
		n, err := r.Conn.Read(p)
		if n > 0 && len(r.line) == 0 && r.canPass(p[:n]) {
			return n, err
		}
		if n > 0 {
			r.rest = r.checked(slices.Clone(p[:n]))
		}
		if err != nil && r.ended == nil {
			r.ended = err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// canPass reports whether b, which begins where the last read ended, can be returned
// unchanged. If not, canPass changes no state.
func (r *replies) canPass(b []byte) bool {
	skip, follows := r.skip, r.follows
	for len(b) > 0 {
		if skip > 0 {
			n := min(skip, len(b))
			skip, b = skip-n, b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 || b[0] == '+' || follows && b[0] == '-' {
			return false
		}
		follows = follows || b[0] == '>'
		skip, b = stringBytes(b[:end+1]), b[end+1:]
	}
	r.skip, r.follows = skip, follows
	return true
}

// checked returns the filtered bytes of b, and stores an incomplete line for the next call.
func (r *replies) checked(b []byte) (passed []byte) {
	b, r.line = append(r.line, b...), nil
	for len(b) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(b))
			passed = append(passed, b[:n]...)
			r.skip, b = r.skip-n, b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 && len(b) > maxLine {
			r.ended = errors.New("the answer is not in the protocol of Redis")
			return passed
		}
		if end < 0 {
			r.line = b
			return passed
		}
		line := b[:end+1]
		b = b[end+1:]
		r.follows = r.follows || line[0] == '>'
		r.skip = stringBytes(line)
		if string(line) == pong && !r.takePendingPing() && r.follows {
			continue // it was sent before, in place of an error
		}
		if r.follows && line[0] == '-' {
			message := strings.TrimSpace(string(line[1:]))
			switch code, _, _ := strings.Cut(message, " "); {
			case code == "MISCONF" && r.takePendingPing(): // on this connection, only a PING is refused with it
				line = []byte(pong)
			case code == "MISCONF":
				continue
			case code == "MOVED", code == "ASK",
				code == "NOPERM" && (strings.Contains(message, "'") || strings.Contains(message, "channel")):
				// The refusal of a SUBSCRIBE or UNSUBSCRIBE, which rueidis handles.
			default:
				r.ended = errors.New(message)
				return passed
			}
		}
		passed = append(passed, line...)
	}
	return passed
}

// stringBytes returns the number of bytes of the string that follows a line, with its CRLF.
func stringBytes(line []byte) int {
	if line[0] != '$' && line[0] != '=' && line[0] != '!' {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	if err != nil || n < 0 {
		return 0
	}
	return n + 2
}
