package websocket_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// wireCase has the bytes that a client sends, and the expected result. If the server does not
// end the connection, the client then closes it with 1000.
type wireCase struct {
	name    string // begins with the section of RFC 6455
	send    func(f form) []byte
	frames  []string // of the server, without echoes, the opening and the close frames
	got     []string // the messages that the host receives; "" also in the framed form
	fault   int      // the close code of the server, if it ends the session
	reason  string
	closed  *session.CloseError // the client's close, if it closes differently; only without a fault
	echoed  string              // the answer to closed
	oneForm string              // if not "", the case is only for this form
}

func cat(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// halves returns a text message in two fragments, split at byte n.
func halves(f form, s string, n int, between ...[]byte) []byte {
	p := f.text(s)
	return cat(frame(opText, p[:n]), cat(between...), frame(fin|opCont, p[n:]))
}

func framing() []wireCase {
	fixed := func(parts ...[]byte) func(form) []byte {
		return func(form) []byte { return cat(parts...) }
	}
	text := func(s string) func(form) []byte {
		return func(f form) []byte { return frame(fin|opText, f.text(s)) }
	}
	cases := []wireCase{
		{name: "5.2 one message", send: text("hello"), got: []string{"hello"}},
		{name: "5.2 RSV1", send: fixed(frame(fin|0x40|opText, "x")), fault: 1002, reason: "non-zero rsv bits with no extension negotiated"},
		{name: "5.2 RSV2 on a ping", send: fixed(frame(fin|0x20|opPing, "")), fault: 1002, reason: "non-zero rsv bits with no extension negotiated"},
		{name: "5.2 RSV3 on a close", send: fixed(frame(fin|0x10|opEnd, "")), fault: 1002, reason: "non-zero rsv bits with no extension negotiated"},
		{name: "5.2 length 16 bits not minimal", send: fixed(rawFrame(fin|opText, []byte{126, 0, 125}, strings.Repeat("x", 125))), fault: 1002, reason: "payload length not in its shortest form or over 63 bits"},
		{name: "5.2 length 64 bits not minimal", send: fixed(rawFrame(fin|opText, []byte{127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, "x")), fault: 1002, reason: "payload length not in its shortest form or over 63 bits"},
		{name: "5.2 length 2^63", send: fixed(rawFrame(fin|opText, []byte{127, 0x80, 0, 0, 0, 0, 0, 0, 0}, "x")), fault: 1002, reason: "payload length not in its shortest form or over 63 bits"},
		{name: "5.2 length 2^63-1", send: fixed(rawFrame(fin|opText, []byte{127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "x")), fault: 1009, reason: "message too big"},
		{name: "5.1 unmasked", send: fixed([]byte{fin | opText, 1, 'x'}), fault: 1002, reason: "frames from client to server must be masked"},
		{name: "5.1 unmasked ping", send: fixed([]byte{fin | opPing, 0}), fault: 1002, reason: "frames from client to server must be masked"},
		{name: "5.4 three fragments", send: func(f form) []byte {
			p := f.text("fragments")
			return cat(frame(opText, p[:2]), frame(opCont, p[2:5]), frame(fin|opCont, p[5:]))
		}, got: []string{"fragments"}},
		{name: "5.4 empty fragments", send: func(f form) []byte {
			return cat(frame(opText, ""), frame(opCont, f.text("e")), frame(opCont, ""), frame(fin|opCont, ""))
		}, got: []string{"e"}},
		{name: "5.4 continuation without start", send: fixed(frame(fin|opCont, "x")), fault: 1002, reason: "unexpected continuation data frame"},
		{name: "5.4 continuation after the end", send: func(f form) []byte {
			return cat(halves(f, "ok", 1), frame(opCont, "x"))
		}, got: []string{"ok"}, fault: 1002, reason: "unexpected continuation data frame"},
		{name: "5.4 text inside a message", send: func(f form) []byte {
			return cat(frame(opText, f.text("a")), frame(fin|opText, f.text("b")))
		}, fault: 1002, reason: "unexpected non-continuation data frame"},
		{name: "5.4 binary inside a message", send: fixed(frame(opText, "a"), frame(opBin, "b")), fault: 1002, reason: "unexpected non-continuation data frame"},
		{name: "5.4 control frames between fragments", send: func(f form) []byte {
			return halves(f, "parts", 3, frame(fin|opPing, "p1"), frame(fin|opPong, "not asked for"))
		}, frames: []string{"pong:p1"}, got: []string{"parts"}},
		{name: "5.4 close between fragments", send: func(f form) []byte {
			return halves(f, "parts", 3, closeFrame(1001, "away"))
		}, closed: &session.CloseError{Cause: session.Closed, Code: 1001, Reason: "away"}, echoed: "close:1001:away"},
		{name: "5.5 ping of 126 bytes", send: fixed(frame(fin|opPing, strings.Repeat("x", 126))), fault: 1002, reason: "control frame payload limit exceeded"},
		{name: "5.5 close of 126 bytes", send: fixed(closeFrame(1000, strings.Repeat("x", 124))), fault: 1002, reason: "control frame payload limit exceeded"},
		{name: "5.5 fragmented ping", send: fixed(frame(opPing, "x")), fault: 1002, reason: "control frame is not final"},
		{name: "5.5.2 ping", send: fixed(frame(fin|opPing, "")), frames: []string{"pong:"}},
		{name: "5.5.2 ping of 125 bytes", send: fixed(frame(fin|opPing, strings.Repeat("\xff", 125))), frames: []string{"pong:" + strings.Repeat("\xff", 125)}},
		{name: "5.5.3 pong alone", send: fixed(frame(fin|opPong, "x"))},
		{name: "5.6 binary is read as text", send: func(f form) []byte { return frame(fin|opBin, f.text("bin")) }, got: []string{"bin"}},
		{name: "5.6 binary in fragments", send: func(f form) []byte {
			p := f.text("binary")
			return cat(frame(opBin, p[:4]), frame(fin|opCont, p[4:]))
		}, got: []string{"binary"}},
		{name: "5.6 empty message, bare", send: fixed(frame(fin|opText, "")), got: []string{""}, oneForm: "bare"},
		{name: "5.6 empty message, framed", send: fixed(frame(fin|opText, ""), frame(fin|opBin, ""), frame(opText, ""), frame(fin|opCont, "")), oneForm: "framed"},
		{name: "5.5.1 close", send: fixed(closeFrame(1000, "bye")), closed: &session.CloseError{Cause: session.Closed, Code: 1000, Reason: "bye"}, echoed: "close:1000:bye"},
		{name: "5.5.1 nothing counts after close", send: func(f form) []byte {
			return cat(frame(fin|opText, f.text("before")), closeFrame(3000, ""), frame(fin|opText, f.text("after")))
		}, got: []string{"before"}, closed: &session.CloseError{Cause: session.Closed, Code: 3000}, echoed: "close:3000:"},
		{name: "7.1.5 close without code", send: fixed(frame(fin|opEnd, "")), closed: &session.CloseError{Cause: session.Closed, Code: 1005}, echoed: "close:"},
		{name: "5.5.1 close of one byte", send: fixed(frame(fin|opEnd, "x")), fault: 1002, reason: "close frame of one byte"},
		{name: "8.1 close reason not UTF-8", send: fixed(closeFrame(1000, "a\xff")), fault: 1007, reason: "close reason is not UTF-8"},
		{name: "8.1 close reason of 123 bytes", send: fixed(closeFrame(1000, strings.Repeat("é", 61)+"x")), closed: &session.CloseError{Cause: session.Closed, Code: 1000, Reason: strings.Repeat("é", 61) + "x"}, echoed: "close:1000:" + strings.Repeat("é", 61) + "x"},
		{name: "8.1 text", send: text("κόσμε \U0010ffff 𝄞"), got: []string{"κόσμε \U0010ffff 𝄞"}},
		{name: "8.1 not UTF-8", send: text("x\xff"), fault: 1007, reason: "message is not UTF-8", oneForm: "bare"},
		{name: "8.1 not UTF-8, framed", send: fixed(frame(fin|opText, "[\"\xff\"]")), fault: 1007, reason: "message is not UTF-8", oneForm: "framed"},
		{name: "8.1 surrogate", send: fixed(frame(fin|opText, "[\"\xed\xa0\x80\"]")), fault: 1007, reason: "message is not UTF-8"},
		{name: "8.1 over U+10FFFF", send: fixed(frame(fin|opText, "\xf4\x90\x80\x80")), fault: 1007, reason: "message is not UTF-8"},
		{name: "8.1 overlong", send: fixed(frame(fin|opText, "\xc0\xaf")), fault: 1007, reason: "message is not UTF-8"},
		{name: "8.1 ends inside a rune", send: fixed(frame(opText, "[\"\xf0\x9d"), frame(fin|opCont, "")), fault: 1007, reason: "message is not UTF-8"},
		{name: "8.1 binary not UTF-8", send: fixed(frame(fin|opBin, "\xff")), fault: 1007, reason: "message is not UTF-8"},
		{name: "10.4 message as large as allowed", send: func(f form) []byte {
			p, _ := f.sized(64 << 10)
			return frame(fin|opText, p)
		}, got: []string{"sized 65536"}},
		{name: "10.4 message one byte too large", send: func(f form) []byte {
			p, _ := f.sized(64<<10 + len(`[""]`) + 1)
			return frame(fin|opText, p)
		}, fault: 1009, reason: "message too big"},
		{name: "10.4 fragments one byte too large", send: func(f form) []byte {
			p, _ := f.sized(64<<10 + len(`[""]`) + 1)
			return cat(frame(opText, p[:40_000]), frame(fin|opPing, ""), frame(fin|opCont, p[40_000:]))
		}, frames: []string{"pong:"}, fault: 1009, reason: "message too big"},
		{name: "10.4 the limit is for one message", send: func(f form) []byte {
			p, _ := f.sized(40_000)
			return cat(frame(fin|opText, p), frame(fin|opText, p))
		}, got: []string{"sized 40000", "sized 40000"}},
	}
	for i := range 7 {
		cases = append(cases, wireCase{name: fmt.Sprintf("8.1 rune split by fragments at %d", i), send: func(f form) []byte {
			return halves(f, "𝄞é", 2+i)
		}, got: []string{"𝄞é"}, oneForm: "framed"})
	}
	for _, n := range []int{4, 125, 126, 127, 65535, 65536} {
		cases = append(cases, wireCase{name: fmt.Sprintf("5.2 length %d", n), send: func(f form) []byte {
			p, _ := f.sized(n)
			return frame(fin|opText, p)
		}, got: []string{fmt.Sprintf("sized %d", n)}})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases = append(cases, wireCase{name: fmt.Sprintf("5.2 opcode %d", op), send: fixed(frame(fin|op, "x")), fault: 1002, reason: "use of reserved op code"})
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		cases = append(cases, wireCase{name: fmt.Sprintf("7.4 code %d", code), send: fixed(closeFrame(code, "r")),
			closed: &session.CloseError{Cause: session.Closed, Code: code, Reason: "r"}, echoed: fmt.Sprintf("close:%d:r", code)})
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cases = append(cases, wireCase{name: fmt.Sprintf("7.4 code %d", code), send: fixed(closeFrame(code, "r")), fault: 1002, reason: "close code not allowed"})
	}
	return cases
}

func TestFraming(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		h := newHost(f.framed, transporttest.Config())
		h.Mute = true
		addr := h.start(t)
		t.Run(f.name, func(t *testing.T) {
			for _, tt := range framing() {
				if tt.oneForm != "" && tt.oneForm != f.name {
					continue
				}
				t.Run(tt.name, func(t *testing.T) { tt.run(t, f, h, addr) })
			}
		})
	}
}

func (tt wireCase) run(t *testing.T, f form, h *host, addr string) { tt.runWith(t, f, h, addr, "", "") }

// runWith is run for a client that offers extensions, of which the server accepts some.
func (tt wireCase) runWith(t *testing.T, f form, h *host, addr, offer, accepted string) {
	c := dial(t, addr)
	require.Equal(t, accepted, c.connectWith(offer))
	s := h.Conn(t)
	for _, open := range f.opening() {
		c.expect(open) // before sending, because a pong could be written before it
	}
	c.send(tt.send(f))
	want := tt.frames
	end := session.CloseError{Cause: session.Closed, Code: 1000}
	switch {
	case tt.fault != 0:
		end = session.CloseError{Cause: session.Fault, Code: tt.fault, Reason: tt.reason}
		closing := f.closing(tt.fault, tt.reason)
		if strings.Contains(tt.name, " close ") || strings.Contains(tt.name, "7.4") {
			// The peer has closed, although incorrectly, unless the frame is not a close frame.
			if !strings.Contains(tt.name, "126") {
				closing = closing[len(closing)-1:]
			}
		}
		want = append(want, closing...)
	case tt.closed != nil:
		end = *tt.closed
		want = append(want, tt.echoed)
	default:
		c.send(closeFrame(1000, ""))
		want = append(want, "close:1000:")
	}
	if end.Cause == session.Fault {
		// A correct client would answer with a close frame; this one only disconnects.
		var got []string
		for range want {
			frame, err := c.readFrame()
			require.NoError(t, err)
			got = append(got, frame.String())
		}
		require.Equal(t, want, got)
		require.NoError(t, c.Close())
	} else {
		require.Equal(t, want, c.rest())
	}
	s.Wait(t)
	var messages []string
	for i, m := range s.Got {
		if i < len(tt.got) && strings.HasPrefix(tt.got[i], "sized ") && strings.Trim(m, "x") == "" {
			n := len(m)
			if f.framed {
				n += 4
			}
			m = fmt.Sprintf("sized %d", n)
		}
		messages = append(messages, m)
	}
	assert.Equal(t, tt.got, messages)
	if assert.NotNil(t, s.End) {
		assert.Equal(t, end.Cause, s.End.Cause, s.End)
		assert.Equal(t, end.Code, s.End.Code)
		assert.Equal(t, end.Reason, s.End.Reason)
	}
}

// The framing of SockJS: the messages of one frame. If got is nil and there is a fault, the
// frame is not JSON.
func TestSockJSFrames(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name   string
		frame  string
		got    []string
		broken bool
	}{
		{name: "array of one", frame: `["a"]`, got: []string{"a"}},
		{name: "array of several", frame: `["a","b\n\"\\\/","\u00e9\ud834\udd1e"]`, got: []string{"a", "b\n\"\\/", "é𝄞"}},
		{name: "bare string", frame: `"{\"command\":\"x\"}"`, got: []string{`{"command":"x"}`}},
		{name: "blanks", frame: " \t[\r\n \"a\" , \"b\" \n] ", got: []string{"a", "b"}},
		{name: "blank bare string", frame: " \"a\" ", got: []string{"a"}},
		{name: "brackets in strings", frame: `["]","[,","{\"}"]`, got: []string{"]", "[,", `{"}`}},
		{name: "empty array", frame: `[]`},
		{name: "empty array with blanks", frame: "[ \n]"},
		{name: "empty text", frame: `["",""]`, got: []string{"", ""}},
		{name: "null element", frame: `[null]`, got: []string{""}},
		{name: "mixed elements", frame: `["a", null,1 ,true,{"command":["SUBSCRIBE","}"]},["a",[]],-1e9,"b"]`, got: []string{"a", "", "", "", "", "", "", "b"}},
		{name: "bare null", frame: `null`, got: []string{""}},
		{name: "bare number", frame: `123`, got: []string{""}},
		{name: "bare true", frame: ` true `, got: []string{""}},
		{name: "bare object", frame: `{"command":"SUBSCRIBE"}`, got: []string{""}},
		{name: "lone surrogate", frame: `["\ud800x"]`, got: []string{"\uFFFDx"}},
		{name: "deep", frame: deep(9000), got: []string{""}},
		{name: "too deep", frame: deep(20_000), broken: true},
		{name: "too deep and open", frame: strings.Repeat("[", 60_000), broken: true},
		{name: "not json", frame: `not json`, broken: true},
		{name: "blanks only", frame: ` `, broken: true},
		{name: "no end", frame: `["a"`, broken: true},
		{name: "trailing comma", frame: `["a",]`, broken: true},
		{name: "trailing garbage", frame: `["a"]x`, broken: true},
		{name: "two values", frame: `"a" "b"`, broken: true},
		{name: "broken after good elements", frame: `["a","b",nul]`, broken: true},
		{name: "control character", frame: "[\"a\nb\"]", broken: true},
		{name: "byte order mark", frame: "\ufeff[\"a\"]", broken: true},
	}
	h := newHost(true, transporttest.Config())
	h.Mute = true
	addr := h.start(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr).connect()
			c.send(frame(fin|opText, tt.frame), closeFrame(1000, ""))
			want := []string{"text:o", "close:1000:"}
			if tt.broken {
				want = []string{"text:o", "close:1002:Broken framing."}
			}
			assert.Equal(t, want, c.rest())
			s := h.Conn(t)
			s.Wait(t)
			assert.Equal(t, tt.got, s.Got)
		})
	}
}

// sockjs.md row 8: no frame contains elements of the frame before it.
func TestRow8NullIsNotTheLastFramesElement(t *testing.T) {
	t.Parallel()
	h := newHost(true, transporttest.Config())
	h.Mute = true
	c := dial(t, h.start(t)).connect()
	c.send(frame(fin|opText, `["SECRET1","SECRET2"]`), frame(fin|opText, `[null]`), closeFrame(1000, ""))
	c.rest()
	s := h.Conn(t)
	s.Wait(t)
	assert.Equal(t, []string{"SECRET1", "SECRET2", ""}, s.Got)
}

// sockjs.md row 9: an empty frame is ignored. The response to invalid JSON is only a close
// frame, as in the test suite of SockJS (Websocket.test_broken_json).
func TestRow9EmptyAndBrokenFrames(t *testing.T) {
	t.Parallel()
	h := newHost(true, transporttest.Config())
	c := dial(t, h.start(t)).connect()
	c.expect("text:o")
	c.send(frame(fin|opText, ""), frame(fin|opText, `["alive"]`), frame(fin|opText, "not json"))
	c.expect(`text:a["alive"]`)
	c.expect("close:1002:Broken framing.")
	c.send(closeFrame(1002, ""))
	c.expectEnd()
}
