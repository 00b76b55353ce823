package sse

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

const (
	// authorizeTimeout is the time within which all channels of a stream must be authorized.
	authorizeTimeout = 10 * time.Second
	// passBytes is about the largest number of bytes that are joined for one write.
	passBytes = 64 << 10
)

// cannotStream is the consequence of middleware for the log.
const cannotStream = "Server-Sent Events will fail"

// Close codes and reasons of the streams' own, as hooks receive them.
const (
	codeRefused   = 1008
	reasonRefused = "subscription refused"
	codeDone      = 1000
	reasonDone    = "no channel left"
	codeAge       = 1001
	reasonAge     = "maximum age"
)

// stream answers one request.
type stream struct {
	h         *handler
	r         *http.Request
	want      request
	out       transport.Stream
	session   *conn
	pulled    *pulled // nil with a socket
	socket    *socket // nil if the handler writes
	conn      *hub.Conn
	buf       *[]byte
	frames    []*fanout.Frame
	index     map[string]int    // of the channels
	positions []broker.Position // in the channels; zero where there is none
	ended     []bool            // the client is no longer in the channel
}

// serve answers a valid request.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, want request) {
	st := &stream{
		h:    h,
		r:    r,
		want: want,
		out:  transport.NewStream(w, h.server.WriteTimeout),
	}
	if !h.middleware.CheckStream(w, cannotStream) || errors.Is(st.out.Wait(), http.ErrNotSupported) {
		h.refuse(w, r, &seam.Refusal{
			Status:  http.StatusInternalServerError,
			Message: "the server is not set up for this transport: middleware hides its ResponseWriter",
		})
		return
	}
	st.out.WaitForEnd()
	place, refused := h.server.Reserve(r, 2, want.user)
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	st.newSession()
	begun := false
	defer func() {
		if !begun {
			st.session.finished()
		}
	}()
	stop := context.AfterFunc(r.Context(), st.requestEnded)
	defer stop()
	st.conn = place.Connect(st.endpoint())
	if st.conn == nil {
		h.refuse(w, r, draining())
		return
	}
	if refused := st.join(); refused != nil {
		st.conn.Close(codeRefused, reasonRefused)
		h.refuse(w, r, refused)
		return
	}
	// From now on, a write can fail, which says more about the end than the context: the server cancels
	// that after a failed write, too.
	stop()
	if st.socket != nil {
		begun = st.hijack()
		return
	}
	st.run()
}

// newSession chooses who writes: the flushers, if they can have the connection and no event has an id, or
// the handler.
func (st *stream) newSession() {
	r := st.r
	timeout := st.h.server.WriteTimeout
	if r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.TLS == nil && st.h.middleware.CanHijack(st.out.W) && !st.keeps() {
		st.socket = newSocket(st.want.form, timeout)
		st.socket.ended = st.done
		st.session = &st.socket.conn
		return
	}
	st.pulled = newPulled(st.want.form, timeout)
	st.session = &st.pulled.conn
}

func (st *stream) endpoint() session.Session {
	if st.socket != nil {
		return st.socket
	}
	return st.pulled
}

// keeps reports whether one of the channels keeps events, or could.
func (st *stream) keeps() bool {
	for _, channel := range st.want.channels {
		policy, err := st.h.server.Hub.PolicyOf(channel)
		if err != nil || policy.Keep.Size > 0 {
			return true
		}
	}
	return false
}

// done closes the connection if no channel is left.
func (st *stream) done() {
	if len(st.conn.Channels()) == 0 {
		st.conn.Close(codeDone, reasonDone)
	}
}

// hijack writes the beginning of the response, and gives the connection to the socket.
func (st *stream) hijack() (begun bool) {
	defer st.release()
	err := st.begin()
	if err != nil {
		st.fail(err)
		return false
	}
	conn, _, err := http.NewResponseController(st.out.W).Hijack()
	if err != nil {
		st.fail(err)
		return false
	}
	age := st.h.options.MaxAge
	if age > 0 {
		age -= rand.N(age / 10)
	}
	st.socket.begin(conn, st.h.server.Heartbeat, age, st.aged, st.h.server.WriteTimeout)
	return true
}

func (st *stream) aged() { st.conn.Close(codeAge, reasonAge) }

// begin writes the header, and what comes before the queued frames.
func (st *stream) begin() error {
	streamHeader(st.out.W.Header())
	lastHeader(st.out, st.r)
	return st.flush(false)
}

// requestEnded ends the connection because the client has disconnected, or because the host has set
// a deadline.
func (st *stream) requestEnded() {
	ctx := st.r.Context()
	st.h.middleware.TimedOut(ctx, protocol)
	st.session.lost(context.Cause(ctx))
}

// join joins the channels. Nothing has been written before it.
func (st *stream) join() *seam.Refusal {
	select {
	case <-st.session.greeted:
	case <-st.session.halt:
		return st.closed()
	}
	requests := st.want.joins()
	answers, err := st.conn.JoinAll(requests, authorizeTimeout)
	switch {
	case errors.Is(err, hub.ErrClosed):
		return st.closed()
	case err != nil:
		return refusal(err)
	}
	st.open(answers)
	return nil
}

// closed returns the answer for a connection that was ended before the response began.
func (st *stream) closed() *seam.Refusal {
	out := st.session.outbox()
	if out == nil {
		return draining()
	}
	if st.socket != nil {
		return refusalOf(st.socket.end())
	}
	for {
		frames, end := out.Take(nil, passBytes)
		out.Written()
		if end != nil || len(frames) == 0 {
			return refusalOf(end)
		}
	}
}

// refusalOf returns the answer for a connection that was closed, or nil if the Server has begun to shut
// down, or the client has disconnected.
func refusalOf(end *fanout.CloseFrame) *seam.Refusal {
	if end == nil || end.Code == session.CloseShutdown || !final(end.Code) {
		return draining()
	}
	return &seam.Refusal{
		Status:  http.StatusForbidden,
		Message: "connection closed: " + end.Reason,
	}
}

// final reports whether a client is not to reconnect after a close code (PROTOCOL.md, section 3).
func final(code int) bool { return code == 1000 || code == 1008 || code >= 3500 && code <= 3999 }

// open puts pushy:open, and an event for each channel of which the client may have missed events,
// before what is queued.
func (st *stream) open(answers []*hub.PastAnswer) {
	n := len(st.want.channels)
	st.index = make(map[string]int, n)
	st.positions = make([]broker.Position, n)
	st.ended = make([]bool, n)
	channels := jsvalue.Object(nil)
	gaps := []byte(nil)
	for i, channel := range st.want.channels {
		st.index[channel] = i
		a := answers[i]
		if a == nil {
			a = &hub.PastAnswer{}
		}
		st.positions[i] = a.Place
		var answer jsvalue.Object
		if a.Recovered {
			st.positions[i] = *st.want.since.of(i) // the replay begins there
			answer = jsvalue.Object(nil).Raw("recovered", []byte("true")).
				Raw("replay", strconv.AppendInt(nil, int64(a.Replay), 10))
		} else {
			answer = jsvalue.Object(nil).Raw("recovered", []byte("false"))
			if reason := st.lost(i, a); reason != "" {
				answer = answer.Text("reason", reason)
				gaps = append(appendOwn(gaps, st.want.form, eventGap, noRetry, gapData(channel, reason)), '\n')
			}
		}
		channels = channels.Raw(channel, answer)
	}
	data := jsvalue.Object(nil).Text("socketId", st.conn.ID()).Raw("channels", channels)
	st.buf = transport.Buffer()
	*st.buf = appendOwn(*st.buf, st.want.form, eventOpen, retryWithin(st.conn.ReturnWithin()), data)
	st.appendID()
	*st.buf = append(*st.buf, gaps...)
}

// lost returns why a client that has reconnected may have missed events of a channel, or "" for a
// client that has not.
func (st *stream) lost(channel int, a *hub.PastAnswer) string {
	kept := a.Place.Epoch != ""
	switch {
	case !st.want.since.sent:
		return ""
	case st.want.since.broken && kept:
		return hub.PastEpoch
	case a.Reason != "":
		return a.Reason
	}
	return hub.PastOff // also if the channel kept no events when the client was last connected
}

// appendID appends the positions, and ends the event.
func (st *stream) appendID() {
	b := append(*st.buf, "id: "...)
	b = appendPositions(b, st.positions)
	*st.buf = append(b, '\n', '\n')
}

// run writes the response, until it ends. It panics with http.ErrAbortHandler if the response is to
// be aborted.
func (st *stream) run() {
	defer st.release()
	if err := st.begin(); err != nil {
		st.fail(err)
		return
	}
	var beat, aged <-chan time.Time
	if every := st.h.server.Heartbeat; every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		beat = ticker.C
	}
	if age := st.h.options.MaxAge; age > 0 {
		timer := time.NewTimer(age - rand.N(age/10))
		defer timer.Stop()
		aged = timer.C
	}
	for {
		if st.pass() {
			return
		}
		select {
		case <-st.pulled.wake:
		case <-beat:
			st.buf = transport.Buffer()
			*st.buf = append(*st.buf, ":\n\n"...)
			if err := st.flush(false); err != nil {
				st.fail(err)
				return
			}
		case <-aged:
			st.aged()
		case <-st.r.Context().Done():
			st.requestEnded()
			st.abort()
			return
		case <-st.session.dead:
			st.abort()
			return
		}
	}
}

// fail ends the connection after a failed write, and aborts the response.
func (st *stream) fail(err error) {
	st.session.outbox().Lost(err) // before lost, because it reports a write timeout as a slow consumer
	st.session.lost(err)
	st.abort()
}

// readTime is the time that a client has for reading the last event, before its response is aborted.
const readTime = 250 * time.Millisecond

// linger waits for readTime, or until the connection is dead. A browser discards what it has received
// and not yet read when the response is aborted, so the client would not learn when to return.
func linger(request context.Context, dead <-chan struct{}) {
	timer := time.NewTimer(readTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-request.Done():
	case <-dead:
	}
}

// abort ends the response without its end, unless the client has disconnected: then nobody notices
// the difference, except middleware that logs panics.
func (st *stream) abort() {
	if !errors.Is(st.r.Context().Err(), context.Canceled) {
		panic(http.ErrAbortHandler)
	}
}

// pass writes what is queued. It reports whether the response has ended.
func (st *stream) pass() (done bool) {
	out := st.session.outbox()
	for {
		frames, end := out.Take(st.frames[:0], passBytes)
		switch {
		case end != nil:
			st.finish(end)
			return true
		case len(frames) == 0:
			return false
		}
		st.buf = transport.Buffer()
		for _, f := range frames {
			st.append(f)
		}
		clear(frames)
		st.frames = frames
		if err := st.flush(false); err != nil {
			st.fail(err)
			return true
		}
		out.Written()
		if st.allEnded() {
			st.done()
		}
	}
}

// append appends an event.
func (st *stream) append(f *fanout.Frame) {
	m := f.Encoding(st.want.form).(*message)
	i, known := st.index[m.channel]
	known = known && m.channel != ""
	moved := false
	switch {
	case !known:
	case m.kind == published && m.at.Offset > 0:
		st.positions[i].Offset = m.at.Offset
		moved = st.positions[i].Epoch != ""
	case m.kind == gap && m.at.Epoch != "":
		st.positions[i] = m.at
		moved = true
	case m.kind == ended:
		st.ended[i] = true
	case m.kind == subscribed && st.ended[i]: // the host has added the client again
		st.ended[i] = false
		st.positions[i] = m.at
	}
	text := m.Bytes(st.want.form)
	if len(text) == 0 {
		return
	}
	*st.buf = append(*st.buf, text...)
	if moved {
		st.appendID()
		return
	}
	*st.buf = append(*st.buf, '\n')
}

func (st *stream) allEnded() bool {
	for _, ended := range st.ended {
		if !ended {
			return false
		}
	}
	return true
}

// finish ends the response of a connection that was closed. If the client may reconnect, the
// response is aborted, because some clients do not reconnect after a complete one.
func (st *stream) finish(end *fanout.CloseFrame) {
	out := st.session.outbox()
	if !final(end.Code) {
		out.CloseFrameSent()
		linger(st.r.Context(), st.session.dead)
		st.abort()
		return
	}
	st.buf = transport.Buffer()
	*st.buf = append(appendOwn(*st.buf, st.want.form, eventEnd, noRetry, endData(end.Reason)), '\n')
	if err := st.flush(true); err != nil {
		st.fail(err)
	}
	out.CloseFrameSent()
}

// flush writes buf.
func (st *stream) flush(last bool) error {
	buf := st.buf
	st.buf = nil
	if len(*buf) == 0 {
		transport.Release(buf)
		return nil
	}
	return st.out.Do(last, func() error {
		_, err := st.out.W.Write(*buf)
		transport.Release(buf)
		if err != nil {
			return err
		}
		return st.out.Flush()
	})
}

func (st *stream) release() {
	if st.buf != nil {
		transport.Release(st.buf)
	}
}

// lastHeader sets the header fields of a response that is streamed, after which the connection is closed: most
// responses are aborted.
func lastHeader(out transport.Stream, r *http.Request) {
	out.Header()
	if r.ProtoMajor == 1 {
		out.W.Header().Set("Connection", "close")
	}
}

// streamHeader sets the header fields of every stream.
func streamHeader(head http.Header) {
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store, no-transform")
	head.Set("X-Accel-Buffering", "no") // otherwise nginx buffers events
}
