package sockjs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/transport"
)

// sessionEnded is for a request whose session ended without a goodbye.
var sessionEnded = &transport.Refusal{Status: http.StatusServiceUnavailable, Text: "the session has ended"}

// receiver answers one request with what waits for its session.
type receiver struct {
	framing
	h       *Handler
	r       *http.Request
	w       http.ResponseWriter
	rc      *http.ResponseController
	buf     *[]byte // what the next write has, from buffers
	frames  []*fanout.Frame
	begun   bool
	written int // bytes of frames
}

// buffers are for joining frames. One that has grown far is not kept.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const keptBuffer = 64 << 10

// receive serves a request of a receiving transport.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, id string, f *framing) {
	if !h.allowMethod(w, r, f.method) {
		return
	}
	framing, refused := f.forRequest(r)
	if refused != nil {
		refused.Write(w)
		return
	}
	rv := &receiver{
		framing: framing,
		h:       h,
		r:       r,
		w:       w,
		rc:      http.NewResponseController(w),
	}
	if refused := rv.prepare(); refused != nil {
		refused.Write(w)
		return
	}
	for range 2 { // the second time in place of a session that ended meanwhile
		s := h.session(w, r, id, f.protocol)
		if s == nil {
			return
		}
		detach, instead := s.attach(r.Context())
		switch {
		case instead != nil:
			rv.goodbye(instead)
			_ = rv.flush(true)
			return
		case detach != nil:
			defer s.leave()
			defer detach()
			if err := rv.run(s, detach); err != nil {
				s.failed(err)
			}
			return
		case rv.timedOut():
			rv.plain('h')
			_ = rv.flush(true)
			return
		case r.Context().Err() != nil:
			return
		}
	}
	sessionEnded.Write(w)
}

// prepare makes sure that a response can wait here.
func (rv *receiver) prepare() *transport.Refusal {
	// Deadlines of the http.Server would end a response that waits; where none
	// can be set, a client that does not read would hold its handler for ever.
	if err := rv.rc.SetWriteDeadline(time.Time{}); err != nil {
		return rv.h.deadlineError(rv.w, err)
	}
	// Only when the body has been read does the server notice a client that goes.
	if _, refused := rv.h.readBody(rv.w, rv.r, rv.h.cfg.MaxMessage); refused != nil {
		return refused
	}
	_ = rv.rc.SetReadDeadline(time.Time{})
	return nil
}

// failed ends the session after a response that did not reach the client.
func (s *httpSession) failed(err error) {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	if out != nil {
		out.Lost(err) // first: it knows a client that was too slow
	}
	s.lose(err)
}

// run writes what waits until the response is to end. The error says that it
// did not reach the client.
//
// A response that ends gives its place up before its last bytes are written:
// the client's next request may come as soon as they are seen.
func (rv *receiver) run(s *httpSession, detach func()) error {
	select {
	case <-s.started:
	case <-s.dead:
		return rv.over()
	}
	if rv.streaming {
		// The session may end while the last write waits; so may the client.
		defer func() { _ = rv.rc.SetWriteDeadline(time.Now().Add(rv.h.cfg.WriteTimeout)) }()
		if err := rv.flush(false); err != nil { // the prelude
			return err
		}
	}
	if s.open() {
		rv.plain('o')
		if err := rv.send(!rv.streaming, detach); err != nil || !rv.streaming {
			return err
		}
	}
	var beat, recycle <-chan time.Time
	if every := rv.h.cfg.Heartbeat; every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		beat = ticker.C
		// Nothing tells that a stream's client is gone without a word but that
		// it does not come again.
		timer := time.NewTimer(2 * every)
		defer timer.Stop()
		recycle = timer.C
	}
	for {
		if done, err := rv.pass(s, detach); done || err != nil {
			return err
		}
		select {
		case <-s.wake:
		case <-beat:
			rv.plain('h')
			if err := rv.send(!rv.streaming, detach); err != nil || !rv.streaming {
				return err
			}
		case <-recycle:
			detach()
			return nil
		case <-s.dead:
			return rv.over()
		case <-rv.r.Context().Done():
			if !rv.timedOut() {
				return errAborted
			}
			if rv.streaming {
				detach()
				return nil
			}
			rv.plain('h')
			return rv.send(true, detach)
		}
	}
}

// timedOut reports whether a deadline of the host's, such as that of chi's
// Timeout, ends the request, and not its client. The session goes on with the
// client's next.
func (rv *receiver) timedOut() bool {
	if !errors.Is(rv.r.Context().Err(), context.DeadlineExceeded) {
		return false
	}
	rv.h.deadlines.Do(func() {
		rv.h.notices.Warn("a deadline of the request's context ends responses that wait", "",
			slog.String("transport", rv.protocol),
			slog.String("hint", "clients come again, at a cost: mount pushy outside of the middleware that sets the timeout"))
	})
	return true
}

// pass writes all that waits, and tells whether the response has ended.
func (rv *receiver) pass(s *httpSession, detach func()) (done bool, err error) {
	for {
		frames, bye := s.out.Take(rv.frames[:0], max(1, rv.h.cfg.ResponseLimit-rv.written))
		switch {
		case bye != nil:
			rv.goodbye(bye)
			s.said(bye)
			return true, rv.send(true, detach)
		case len(frames) == 0:
			return false, nil
		}
		rv.messages(frames)
		clear(frames)
		rv.frames = frames
		full := !rv.streaming || rv.written >= rv.h.cfg.ResponseLimit
		if err := rv.send(full, detach); err != nil {
			return false, err
		}
		s.out.Written()
		if full {
			return true, nil
		}
	}
}

// over ends the response of a session that is dead. A poll says so: its client
// would take a response without a frame for one after which to poll again.
func (rv *receiver) over() error {
	if !rv.begun {
		sessionEnded.Write(rv.w)
	}
	return nil
}

// frame adds one frame of SockJS's, which put appends.
func (rv *receiver) frame(put func([]byte) []byte) {
	if rv.buf == nil {
		rv.buf = buffers.Get().(*[]byte)
	}
	b := append(*rv.buf, rv.before...)
	from := len(b)
	b = put(b)
	if rv.decoded {
		b = escapePercent(b, from)
	}
	if rv.quoted {
		text := string(b[from:])
		b = appendScriptText(b[:from], text)
	}
	rv.written += len(b) - from
	*rv.buf = append(b, rv.after...)
}

// plain adds a frame of one letter, which does not fill a response.
func (rv *receiver) plain(letter byte) {
	before := rv.written
	rv.frame(func(b []byte) []byte { return append(b, letter) })
	rv.written = before
}

func (rv *receiver) messages(frames []*fanout.Frame) {
	rv.frame(func(b []byte) []byte {
		b = append(b, 'a', '[')
		for i, f := range frames {
			if i > 0 {
				b = append(b, ',')
			}
			b = jsvalue.AppendQuoteSockJS(b, f.Bytes(fanout.Text))
		}
		return append(b, ']')
	})
}

func (rv *receiver) goodbye(bye *fanout.CloseFrame) {
	reason := jsvalue.AppendQuoteSockJS(nil, []byte(bye.Reason)) // escaped as messages are
	rv.frame(func(b []byte) []byte { return appendGoodbye(b, bye.Code, reason) })
}

// appendGoodbye appends SockJS's close frame; reason is a JSON string.
func appendGoodbye(b []byte, code int, reason []byte) []byte {
	b = append(b, "c["...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, ',')
	b = append(b, reason...)
	return append(b, ']')
}

// escapePercent replaces each % of b from that index on by its JSON escape. In a
// frame every % is inside a JSON string, so what the frame means stays the same.
func escapePercent(b []byte, from int) []byte {
	frame := b[from:]
	if bytes.IndexByte(frame, '%') < 0 {
		return b
	}
	return append(b[:from], bytes.ReplaceAll(frame, []byte{'%'}, []byte(`\u0025`))...)
}

// send writes what has been put together. Before the last of a response it
// gives the place up.
func (rv *receiver) send(last bool, detach func()) error {
	if last {
		detach()
	}
	return rv.flush(last)
}

// flush writes what has been put together, within the write timeout, with the
// prelude in a write of its own.
func (rv *receiver) flush(last bool) error {
	began := time.Now()
	_ = rv.rc.SetWriteDeadline(began.Add(rv.h.cfg.WriteTimeout))
	var err error
	if !rv.begun {
		rv.begun = true
		err = rv.begin()
	}
	if buf := rv.buf; buf != nil {
		if err == nil {
			_, err = rv.w.Write(*buf)
		}
		if err == nil {
			err = rv.rc.Flush()
		}
		rv.buf = nil
		if *buf = (*buf)[:0]; cap(*buf) <= keptBuffer {
			buffers.Put(buf)
		}
	}
	if err != nil && time.Since(began) >= rv.h.cfg.WriteTimeout {
		err = errors.Join(err, os.ErrDeadlineExceeded) // HTTP/2 does not say so
	}
	if !last || !rv.streaming { // else it is for the end of the response, too
		_ = rv.rc.SetWriteDeadline(time.Time{})
	}
	return err
}

// begin writes the header. A poll's has the length, so that nothing is left to
// write after our last deadline; after a stream something is, so that the
// connection, and with it the deadline, is not used again.
func (rv *receiver) begin() error {
	head := rv.w.Header()
	head.Set("Content-Type", rv.contentType)
	head.Set("Cache-Control", notCached)
	head.Set("X-Content-Type-Options", "nosniff")
	rv.h.setCookie(rv.w, rv.r)
	if !rv.streaming {
		head.Set("Content-Length", strconv.Itoa(len(*rv.buf)))
		rv.w.WriteHeader(http.StatusOK)
		return nil
	}
	if rv.r.ProtoMajor == 1 {
		head.Set("Connection", "close")
	}
	head.Set("X-Accel-Buffering", "no") // or nginx keeps frames until it has many
	rv.w.WriteHeader(http.StatusOK)
	if _, err := rv.w.Write([]byte(rv.prelude)); err != nil {
		return err
	}
	return rv.rc.Flush()
}
