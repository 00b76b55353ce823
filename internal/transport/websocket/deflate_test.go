package websocket_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/deflate"
	"github.com/gopushy/pushy/internal/deflate/compress"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

const (
	rsv1     = 0x40
	deflates = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
)

var permessageDeflate = &transport.Deflate{
	Negotiate: deflate.Negotiate,
	Inflate:   deflate.Inflate,
}

func deflateHost(framed bool) *host {
	cfg := transporttest.Config()
	cfg.Deflate = permessageDeflate
	h := newHost(framed, cfg)
	h.Mute = true
	return h
}

// deflated returns a message as a client compresses it, with the standard library.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// compressedCases are those of RFC 7692 for what clients send.
func compressedCases() []wireCase {
	z := func(f form, s string) string { return deflated(f.text(s)) }
	fixed := func(parts ...[]byte) func(form) []byte {
		return func(form) []byte { return cat(parts...) }
	}
	const wrong = "RSV1 can only be set in the first frame of a message"
	const invalid = "the message is not valid DEFLATE data"
	cases := []wireCase{
		{name: "one frame", send: func(f form) []byte {
			return frame(fin|rsv1|opText, z(f, "hello"))
		}, got: []string{"hello"}},
		{name: "three fragments", send: func(f form) []byte {
			p := z(f, "fragments")
			return cat(frame(rsv1|opText, p[:2]), frame(opCont, p[2:5]), frame(fin|opCont, p[5:]))
		}, got: []string{"fragments"}},
		{name: "a fragment for each byte", send: func(f form) []byte {
			p := z(f, "byte by byte")
			b := frame(rsv1|opText, "")
			for i := range len(p) {
				b = append(b, frame(opCont, p[i:i+1])...)
			}
			return append(b, frame(fin|opCont, "")...)
		}, got: []string{"byte by byte"}},
		{name: "uncompressed messages between", send: func(f form) []byte {
			return cat(frame(fin|opText, f.text("a")), frame(fin|rsv1|opText, z(f, "b")), frame(fin|opText, f.text("c")),
				frame(opText, f.text("d")), frame(fin|opCont, ""), frame(fin|rsv1|opText, z(f, "e")))
		}, got: []string{"a", "b", "c", "d", "e"}},
		{name: "control frames between fragments", send: func(f form) []byte {
			p := z(f, "parts")
			return cat(frame(rsv1|opText, p[:3]), frame(fin|opPing, "p1"), frame(fin|opPong, ""), frame(fin|opCont, p[3:]))
		}, frames: []string{"pong:p1"}, got: []string{"parts"}},
		{name: "binary is read as text", send: func(f form) []byte {
			return frame(fin|rsv1|opBin, z(f, "binary"))
		}, got: []string{"binary"}},
		{name: "empty message", send: fixed(frame(fin|rsv1|opText, "\x00")), got: []string{""}, oneForm: "bare"},
		{name: "empty message, framed", send: fixed(frame(fin|rsv1|opText, "\x00")), oneForm: "framed"},
		{name: "no payload", send: fixed(frame(fin|rsv1|opText, "")), got: []string{""}, oneForm: "bare"},
		{name: "a message refers to itself only", send: func(f form) []byte {
			// A compressor that keeps its window, which the handshake forbids: the second message refers to the first.
			var b bytes.Buffer
			w, _ := flate.NewWriter(&b, flate.BestCompression)
			text := f.text(strings.Repeat("takeover ", 20))
			_, _ = io.WriteString(w, text)
			_ = w.Flush()
			n := b.Len()
			_, _ = io.WriteString(w, text)
			_ = w.Flush()
			s := b.String()
			return cat(frame(fin|rsv1|opText, s[:n-4]), frame(fin|rsv1|opText, s[n:len(s)-4]))
		}, got: []string{strings.Repeat("takeover ", 20)}, fault: 1007, reason: invalid},
		{name: "RSV1 on a continuation", send: func(f form) []byte {
			p := z(f, "x")
			return cat(frame(rsv1|opText, p[:2]), frame(fin|rsv1|opCont, p[2:]))
		}, fault: 1002, reason: wrong},
		{name: "RSV1 on the continuation of an uncompressed message", send: func(f form) []byte {
			return cat(frame(opText, f.text("x")), frame(fin|rsv1|opCont, ""))
		}, fault: 1002, reason: wrong},
		{name: "RSV1 on a continuation without start", send: fixed(frame(fin|rsv1|opCont, "x")), fault: 1002, reason: wrong},
		{name: "RSV1 on a ping", send: fixed(frame(fin|rsv1|opPing, "")), fault: 1002, reason: wrong},
		{name: "RSV1 on a pong", send: fixed(frame(fin|rsv1|opPong, "")), fault: 1002, reason: wrong},
		{name: "RSV1 on the end", send: fixed(frame(fin|rsv1|opEnd, "\x03\xe8")), fault: 1002, reason: wrong},
		{name: "RSV1 and RSV2", send: fixed(frame(fin|rsv1|0x20|opText, "x")), fault: 1002, reason: "non-zero rsv bits with no extension negotiated"},
		{name: "RSV3", send: fixed(frame(fin|0x10|opText, "x")), fault: 1002, reason: "non-zero rsv bits with no extension negotiated"},
		{name: "reserved kind of block", send: fixed(frame(fin|rsv1|opText, "\x06\x00")), fault: 1007, reason: invalid},
		{name: "uncompressed bytes", send: fixed(frame(fin|rsv1|opText, `{"command":"x"}`)), fault: 1007, reason: invalid},
		{name: "incomplete block", send: func(f form) []byte {
			p := z(f, "incomplete")
			return frame(fin|rsv1|opText, p[:len(p)-4])
		}, fault: 1007, reason: invalid},
		{name: "not UTF-8", send: fixed(frame(fin|rsv1|opText, deflated("[\"\xff\"]"))), fault: 1007, reason: "message is not UTF-8"},
		{name: "as large as allowed", send: func(f form) []byte {
			p, _ := f.sized(64 << 10)
			return frame(fin|rsv1|opText, deflated(p))
		}, got: []string{"sized 65536"}},
		{name: "one byte too large", send: func(f form) []byte {
			p, _ := f.sized(64<<10 + 1)
			return frame(fin|rsv1|opText, deflated(p))
		}, fault: 1009, reason: "message too big", oneForm: "bare"},
		{name: "64 MiB of zeros in one frame", send: func(form) []byte {
			return frame(fin|rsv1|opText, bomb())
		}, fault: 1009, reason: "message too big"},
		{name: "64 MiB of zeros in fragments", send: func(form) []byte {
			rest := bomb()
			b := frame(rsv1|opText, "")
			for len(rest) > 0 {
				n := min(len(rest), 1000)
				b = append(b, frame(opCont, rest[:n])...)
				rest = rest[n:]
			}
			return append(b, frame(fin|opCont, "")...)
		}, fault: 1009, reason: "message too big"},
		{name: "compressed bytes over the limit", send: fixed(frame(rsv1|opText, strings.Repeat("x", 40_000)), rawFrame(opCont, lengthBytes(2_000_000), "")),
			fault: 1009, reason: "message too big"},
	}
	return cases
}

// bomb is 64 MiB of zeros in about 64 KiB.
func bomb() string {
	const tail = "\x00\x00\xff\xff"
	one := deflated(string(make([]byte, 1<<20)))
	return strings.TrimSuffix(strings.Repeat(one+tail, 64), tail)
}

func TestCompressedMessages(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		h := deflateHost(f.framed)
		addr := h.start(t)
		t.Run(f.name, func(t *testing.T) {
			for _, tt := range compressedCases() {
				if tt.oneForm != "" && tt.oneForm != f.name {
					continue
				}
				t.Run(tt.name, func(t *testing.T) {
					tt.runWith(t, f, h, addr, "permessage-deflate; client_max_window_bits", deflates)
				})
			}
		})
	}
}

// A WebSocket with permessage-deflate reads uncompressed messages as any other.
func TestFramingWithDeflate(t *testing.T) {
	t.Parallel()
	h := deflateHost(false)
	addr := h.start(t)
	for _, tt := range framing() {
		if tt.oneForm == "framed" || strings.Contains(tt.name, "RSV1") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) { tt.runWith(t, forms[1], h, addr, "permessage-deflate", deflates) })
	}
}

// Without Compress, without an offer, and with deflate=0 in the URL, nothing is negotiated, and a
// compressed message is an error.
func TestDeflateIsNotNegotiated(t *testing.T) {
	t.Parallel()
	rsv := wireCase{
		name:   "RSV1",
		send:   func(f form) []byte { return frame(fin|rsv1|opText, deflated(f.text("x"))) },
		fault:  1002,
		reason: "non-zero rsv bits with no extension negotiated",
	}
	for _, f := range forms {
		off := newHost(f.framed, transporttest.Config())
		rsv.runWith(t, f, off, off.start(t), "permessage-deflate", "")
		on := deflateHost(f.framed)
		addr := on.start(t)
		rsv.runWith(t, f, on, addr, "", "")
		rsv.runWith(t, f, on, addr, "permessage-deflate; server_max_window_bits=9", "")

		c := dial(t, addr)
		request := strings.Replace(handshake, "GET / ", "GET /?v=2&deflate=0 ", 1)
		c.send([]byte(strings.TrimSuffix(request, "\r\n") + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"))
		res, err := http.ReadResponse(c.r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
		assert.Empty(t, res.Header.Values("Sec-WebSocket-Extensions"))
		s := on.Conn(t)
		require.NoError(t, c.Close())
		s.Wait(t)
	}
}

// A bomb does not take memory: of its 64 MiB only as much is decompressed as a message may have.
func TestBombTakesNoMemory(t *testing.T) {
	h := deflateHost(false)
	addr := h.start(t)
	wire := frame(fin|rsv1|opText, bomb())
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	run := func(wire []byte, end string) {
		c := dial(t, addr)
		require.Equal(t, deflates, c.connectWith("permessage-deflate"))
		c.send(wire)
		c.expect(end)
		s := h.Conn(t)
		require.NoError(t, c.Close())
		s.Wait(t)
	}
	const n = 8
	began := allocated()
	for range n {
		run(frame(fin|opText, "\xff"), "close:1007:message is not UTF-8")
	}
	plain := allocated() - began
	began = allocated()
	for range n {
		run(wire, "close:1009:message too big")
	}
	bombs := allocated() - began
	assert.Less(t, int64(bombs-plain)/n, int64(1<<20))
}

// What a flusher has compressed arrives at a client that has negotiated it, and the same Frame arrives
// uncompressed at another.
func TestCompressedFrames(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			h := deflateHost(f.framed)
			addr := h.start(t)
			with := dial(t, addr)
			require.Equal(t, deflates, with.connectWith("permessage-deflate; client_max_window_bits"))
			sWith := h.Conn(t)
			without := dial(t, addr).connect()
			sWithout := h.Conn(t)
			for _, open := range f.opening() {
				with.expect(open)
				without.expect(open)
			}
			text := `{"event":"m","channel":"room","data":"` + strings.Repeat("same words ", 100) + `"}`
			shared := fanout.NewFrame([]byte(text))
			e := fanout.New(fanout.Config{Compress: fanout.Compress{From: 512, Append: compress.Append}, MaxBytes: 1 << 20, MaxTotal: 1 << 20})
			e.Compress(shared, sWith.Session.Form())
			require.True(t, sWith.Out.Send(shared))
			require.True(t, sWithout.Out.Send(shared))
			without.expect(f.echo(text))

			head := make([]byte, 2)
			_, err := io.ReadFull(with.r, head)
			require.NoError(t, err)
			require.Equal(t, byte(fin|rsv1|opText), head[0])
			p := make([]byte, int(head[1]))
			if head[1] == 126 {
				long := make([]byte, 2)
				_, err = io.ReadFull(with.r, long)
				require.NoError(t, err)
				p = make([]byte, int(long[0])<<8|int(long[1]))
			}
			_, err = io.ReadFull(with.r, p)
			require.NoError(t, err)
			require.Less(t, len(p), len(text)/4)
			r := flate.NewReader(io.MultiReader(bytes.NewReader(p), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.Equal(t, f.echo(text), "text:"+string(got))

			for _, c := range []*client{with, without} {
				c.send(closeFrame(1000, ""))
				c.expect("close:1000:")
			}
			sWith.Wait(t)
			sWithout.Wait(t)
			assert.Equal(t, session.Closed, sWith.End.Cause, fmt.Sprint(sWith.End))
		})
	}
}
