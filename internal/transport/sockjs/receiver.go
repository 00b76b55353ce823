package sockjs

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/transport"
)

// sessionEnded is the response to a request whose session has ended without a close frame.
var sessionEnded = &transport.Refusal{Status: http.StatusServiceUnavailable, Text: "the session has ended"}

// receiver answers one request with the queued frames of its session.
type receiver struct {
	renderer
	h      *Handler
	r      *http.Request
	out    transport.Stream
	server *http.Server // from which a stream can take the connection, or nil
	frames []*fanout.Frame
	begun  bool
}

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
		renderer: renderer{framing: framing},
		h:        h,
		r:        r,
		out:      transport.NewStream(w, h.cfg.WriteTimeout),
	}
	if refused := rv.prepare(); refused != nil {
		refused.Write(w)
		return
	}
	for range 2 { // the second time if the session has ended before attach
		s := h.session(w, r, id, f)
		if s == nil {
			return
		}
		detach, instead := s.attach(r.Context())
		switch {
		case instead != nil:
			rv.closeFrame(instead)
			_ = rv.flush(true)
			return
		case detach != nil:
			rv.respond(s, detach)
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

// respond answers the request as the receiver of s, or leaves that to a stream.
func (rv *receiver) respond(s *httpSession, detach func()) {
	left := false
	defer func() { // also if middleware panics
		if !left {
			detach()
			s.responseDone()
		}
	}()
	select {
	case <-s.started:
	case <-s.dead:
		rv.over()
		return
	}
	var err error
	if rv.streaming {
		rv.server = rv.plainServer()
		if err = rv.flush(false); err == nil { // the prelude
			left = rv.leave(s, detach)
		}
	}
	if err == nil && !left {
		err = rv.run(s, detach)
	}
	if err != nil {
		s.failed(err)
	}
}

// prepare clears the deadlines of the request, so that its response can wait for frames.
func (rv *receiver) prepare() *transport.Refusal {
	if err := rv.out.Wait(); err != nil {
		return rv.h.deadlineError(rv.out.W, err)
	}
	if rv.r.Body == http.NoBody {
		rv.out.WaitForEnd()
		return nil
	}
	if _, refused := rv.h.readBody(rv.out.W, rv.r, rv.h.cfg.MaxMessage); refused != nil {
		return refused
	}
	rv.out.WaitForEnd()
	return nil
}

// failed ends the session after a response that could not be written.
func (s *httpSession) failed(err error) {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	if out != nil {
		out.Lost(err) // before markLost, because it reports a write timeout as a slow consumer
	}
	s.markLost(err)
}

// run writes the queued frames until the response ends. An error means that the response
// was not written completely.
//
// A response detaches from the session before its last bytes are written, because the
// client can send its next request as soon as it has read them.
func (rv *receiver) run(s *httpSession, detach func()) error {
	if rv.streaming {
		// After run, the http.Server still writes the end of the response, which needs a
		// deadline, too.
		defer rv.out.Limit()
	}
	if s.open(&rv.renderer) {
		rv.plain('o')
		if err := rv.send(!rv.streaming, detach); err != nil || !rv.streaming {
			return err
		}
	}
	if done, err := rv.pass(s, detach); done || err != nil {
		return err
	}
	var beat, recycle <-chan time.Time
	if every := rv.h.cfg.Heartbeat; every > 0 && !rv.streaming {
		timer := time.NewTimer(every)
		defer timer.Stop()
		beat = timer.C
	} else if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		beat = ticker.C
		// End a stream regularly. The client of a stream can disappear without notice; then
		// the session ends because no new request arrives.
		timer := time.NewTimer(2 * every)
		defer timer.Stop()
		recycle = timer.C
	}
	for {
		select {
		case <-s.wake:
			if done, err := rv.pass(s, detach); done || err != nil {
				return err
			}
		case <-beat:
			rv.plain('h')
			if err := rv.send(!rv.streaming, detach); err != nil || !rv.streaming {
				return err
			}
		case <-recycle:
			detach()
			return nil
		case <-s.dead:
			rv.over()
			return nil
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

// timedOut reports whether the request has ended because of a deadline of the host. The session
// continues with the next request of the client.
func (rv *receiver) timedOut() bool { return rv.h.middleware.TimedOut(rv.r.Context(), rv.protocol) }

// pass writes all queued frames, and reports whether the response has ended.
func (rv *receiver) pass(s *httpSession, detach func()) (done bool, err error) {
	for {
		frames, end := s.out.Take(rv.frames[:0], max(1, rv.limit-rv.written))
		switch {
		case end != nil:
			rv.closeFrame(end)
			s.closeFrameSent(end)
			return true, rv.send(true, detach)
		case len(frames) == 0:
			return false, nil
		}
		rv.messages(frames)
		clear(frames)
		rv.frames = frames
		full := !rv.streaming || rv.written >= rv.limit
		if err := rv.send(full, detach); err != nil {
			return false, err
		}
		s.out.Written()
		if full {
			return true, nil
		}
	}
}

// over ends the response of a session that has ended without a close frame. If nothing has
// been written, it responds with an error, because a client would poll again after an empty
// response.
func (rv *receiver) over() {
	if !rv.begun {
		sessionEnded.Write(rv.out.W)
	}
}

// send writes buf. Before the last write of a response, it detaches from the session.
func (rv *receiver) send(last bool, detach func()) error {
	if last {
		detach()
	}
	return rv.flush(last)
}

// flush writes buf within WriteTimeout. The first call writes the header and the prelude in
// a separate write.
func (rv *receiver) flush(last bool) error {
	// The deadline also applies to the end of the response, after which the server clears it.
	return rv.out.Do(last, func() error {
		if !rv.begun {
			rv.begun = true
			if err := rv.begin(); err != nil {
				return err
			}
		}
		buf := rv.buf
		if buf == nil {
			return nil
		}
		rv.buf = nil
		_, err := rv.out.W.Write(*buf)
		transport.Release(buf)
		if err != nil {
			return err
		}
		return rv.out.Flush()
	})
}

// begin writes the header and, for a stream, the prelude. The header of a poll has the
// length.
func (rv *receiver) begin() error {
	head := rv.out.W.Header()
	head.Set("Content-Type", rv.contentType)
	head.Set("Cache-Control", notCached)
	head.Set("X-Content-Type-Options", "nosniff")
	rv.h.setCookie(rv.out.W, rv.r)
	if !rv.streaming {
		head.Set("Content-Length", strconv.Itoa(len(*rv.buf)))
		rv.out.W.WriteHeader(http.StatusOK)
		return nil
	}
	rv.out.Header()
	rv.out.W.WriteHeader(http.StatusOK)
	if _, err := rv.out.W.Write([]byte(rv.prelude)); err != nil {
		return err
	}
	return rv.out.Flush()
}
