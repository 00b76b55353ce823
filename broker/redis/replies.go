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

// replies is a connection whose error replies are looked at. rueidis sends a PING after
// each UNSUBSCRIBE and panics, in a goroutine of its own, if the PING is refused in a
// way that it does not expect. A server that cannot save its data refuses it, and one
// that runs a long script refuses both.
type replies struct {
	net.Conn

	pings atomic.Int64 // written and not answered
	tail  []byte       // the end of what was written last

	follows bool   // it has subscriptions: other connections are left alone
	skip    int    // bytes of a string that come next
	line    []byte // a line of which the end has not come
	rest    []byte // read and not passed on
	ended   error
}

const (
	ping = "$4\r\nPING\r\n"
	pong = "+PONG\r\n"
)

func (r *replies) Write(p []byte) (int, error) {
	const most = len(ping) - 1
	joint := append(r.tail, p[:min(len(p), most)]...) // what is split is counted with its end
	r.pings.Add(int64(bytes.Count(joint, []byte(ping)) + bytes.Count(p, []byte(ping))))
	if len(p) >= most {
		joint = append(joint[:0], p[len(p)-most:]...)
	}
	r.tail = append(r.tail[:0], joint[max(0, len(joint)-most):]...)
	return r.Conn.Write(p)
}

// awaited reports whether a PING has no answer yet, and counts one.
func (r *replies) awaited() bool {
	for {
		n := r.pings.Load()
		if n <= 0 || r.pings.CompareAndSwap(n, n-1) {
			return n > 0
		}
	}
}

// maxLine is how long a line that is not a string may be.
const maxLine = 64 << 10

func (r *replies) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended != nil {
			return 0, r.ended
		}
		n, err := r.Conn.Read(p)
		if n > 0 && len(r.line) == 0 && r.unharmed(p[:n]) {
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

// unharmed reports whether b, which begins where the last read ended, can be passed on
// as it is. If not, nothing has been noted of it.
func (r *replies) unharmed(b []byte) bool {
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

// checked returns what is passed on of b, and keeps a line that is not whole.
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
			r.ended = errors.New("the server's answer is not one of Redis")
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
		if string(line) == pong && !r.awaited() && r.follows {
			continue // rueidis has got one in place of an error
		}
		if r.follows && line[0] == '-' {
			said := strings.TrimSpace(string(line[1:]))
			switch code, _, _ := strings.Cut(said, " "); {
			case code == "MISCONF" && r.awaited(): // only a PING is refused for that here
				line = []byte(pong)
			case code == "MISCONF":
				continue
			case code == "MOVED", code == "ASK",
				code == "NOPERM" && (strings.Contains(said, "'") || strings.Contains(said, "channel")):
				// A SUBSCRIBE or UNSUBSCRIBE is refused, or rueidis understands it.
			default:
				r.ended = errors.New(said)
				return passed
			}
		}
		passed = append(passed, line...)
	}
	return passed
}

// stringBytes returns how many bytes of a string follow a line, with its end.
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
