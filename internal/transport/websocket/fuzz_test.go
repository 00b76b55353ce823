package websocket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

const fuzzLimit = 300

// fuzzServer opens sessions for the clients of a fuzz target, one after another.
type fuzzServer struct {
	addr     string
	framed   atomic.Bool
	compress atomic.Bool
	sessions chan session.Session
	engine   *fanout.Engine
}

func newFuzzServer(f *testing.F) *fuzzServer {
	cfg := transport.Config{
		MaxMessage:   fuzzLimit,
		WriteTimeout: 5 * time.Second,
		CloseTimeout: 5 * time.Second,
		RespondFirst: true,
	}
	s := &fuzzServer{
		sessions: make(chan session.Session, 1),
		engine:   fanout.New(fanout.Config{MaxBytes: 1 << 20, MaxTotal: 1 << 24, WriteTimeout: 5 * time.Second}),
	}
	cfg.Deflate = permessageDeflate
	hosts := map[bool]*host{false: newHost(false, cfg), true: newHost(true, cfg)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader(hosts[s.framed.Load()], s.sessions).ServeHTTP(w, r)
	}))
	f.Cleanup(srv.Close)
	s.addr = srv.Listener.Addr().String()
	return s
}

// outcome is everything that the core can see of a session.
func (s *fuzzServer) outcome(t *testing.T, framed bool, pieces [][]byte) string {
	s.framed.Store(framed)
	c := dial(t, s.addr)
	if s.compress.Load() {
		require.NotEmpty(t, c.connectWith("permessage-deflate"))
	} else {
		c.connect()
	}
	sess := <-s.sessions
	out := s.engine.NewOutbox(sess, func(int, string) {})
	sess.Start(out)
	go func() {
		for _, p := range pieces {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
	}()
	watchdog := time.AfterFunc(patience, func() { panic("Receive hangs") })
	defer watchdog.Stop()
	var b strings.Builder
	for {
		p, err := sess.Receive()
		if err != nil {
			var end *session.CloseError
			require.ErrorAs(t, err, &end)
			require.NotEqual(t, session.Stopped, end.Cause)
			require.NotZero(t, end.Code)
			fmt.Fprintf(&b, "%v %d %q", end.Cause, end.Code, end.Reason)
			out.Close(end.Code, end.Reason)
			break
		}
		require.LessOrEqual(t, len(p), fuzzLimit)
		fmt.Fprintf(&b, "%q ", p)
	}
	sess.Linger()
	_ = c.Close()
	return b.String()
}

// cut splits data into pieces. Their lengths are those in cuts, which repeat.
func cut(data, cuts []byte) (pieces [][]byte) {
	for i := 0; len(data) > 0; i++ {
		n := 1
		if len(cuts) > 0 {
			n += int(cuts[i%len(cuts)])
		}
		n = min(n, len(data))
		pieces = append(pieces, data[:n])
		data = data[n:]
	}
	return pieces
}

// FuzzWebSocketReader sends arbitrary bytes. The session always ends with a CloseError and
// respects its limit, and the result does not depend on how the bytes are split.
func FuzzWebSocketReader(f *testing.F) {
	for _, c := range framing() {
		for _, form := range forms {
			if c.oneForm != "" && c.oneForm != form.name {
				continue
			}
			if b := c.send(form); len(b) < 1000 {
				f.Add(b, []byte{0}, form.framed, false)
				f.Add(b, []byte{6, 2, 30}, form.framed, false)
			}
		}
	}
	for _, c := range compressedCases() {
		for _, form := range forms {
			if b := c.send(form); len(b) < 1000 {
				f.Add(b, []byte{0}, form.framed, true)
				f.Add(b, []byte{6, 2, 30}, form.framed, true)
			}
		}
	}
	f.Add(cat(frame(opText, strings.Repeat("x", 200)), frame(fin|opCont, strings.Repeat("x", 101))), []byte{99}, false, false)
	f.Add(frame(fin|rsv1|opText, deflated(strings.Repeat("x", 301))), []byte{4}, false, true)
	f.Add(frame(fin|opText, `["a",1,{"b":"]"},"\ud83d\ude00"]`), []byte{4}, true, false)
	s := newFuzzServer(f)
	f.Fuzz(func(t *testing.T, data, cuts []byte, framed, compress bool) {
		s.compress.Store(compress)
		data = data[:min(len(data), 4<<10)]
		whole := s.outcome(t, framed, [][]byte{data})
		assert.Equal(t, whole, s.outcome(t, framed, cut(data, cuts)))
	})
}

// FuzzFrame compares the framing of SockJS with encoding/json.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`["a"]`, `"a"`, `[]`, ` [ "a" , null,{"x":["]"]} ] `, `null`, `1`, `[1,]`, `["\ud800"]`, `[[[["\\\""]]]]`, "", " ", `["a"`,
		`{"a":"\"}"}`, "[\"\xff\"]", `[true,false,-1.5e+9]`, `"\u00e9\/"`, "\ufeff[]", `["a"]]`,
	} {
		f.Add(s)
	}
	s := newFuzzServer(f)
	f.Fuzz(func(t *testing.T, text string) {
		text = text[:min(len(text), fuzzLimit)]
		assert.Equal(t, modelOutcome([]byte(text)), s.outcome(t, true, [][]byte{cat(frame(fin|opText, text), closeFrame(1000, ""))}))
	})
}

// modelOutcome returns the expected outcome for one frame, according to encoding/json.
func modelOutcome(text []byte) string {
	var b strings.Builder
	var all []json.RawMessage
	var one json.RawMessage
	switch {
	case !bytes.Equal(bytes.ToValidUTF8(text, nil), text):
		return `fault of peer 1007 "message is not UTF-8"`
	case len(text) == 0:
	case json.Unmarshal(text, &one) != nil:
		return `fault of peer 1002 "Broken framing."`
	case bytes.Trim(text, " \t\r\n")[0] != '[':
		all = []json.RawMessage{one}
	default:
		_ = json.Unmarshal(text, &all)
	}
	for _, e := range all {
		var s string
		if bytes.Trim(e, " \t\r\n")[0] == '"' {
			_ = json.Unmarshal(e, &s)
		}
		fmt.Fprintf(&b, "%q ", s)
	}
	return b.String() + `closed by peer 1000 ""`
}
