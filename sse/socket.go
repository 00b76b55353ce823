package sse

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// socket is the session of a stream over HTTP/1.1 whose channels keep no events, so that no event has an
// id and all such streams of a form receive the same bytes. When the response has begun, the connection
// is taken from the http.Server, and the flushers write to it as to a WebSocket, without a goroutine for
// each stream.
type socket struct {
	conn
	base fanout.Form // the form of a pulled stream
	wire *websocket.Wire

	// ended is called when the client has been told that it is no longer in a channel.
	ended func()

	// gone is closed if the response does not begin: then nothing is written.
	gone chan struct{}

	times  sync.Mutex         // guards the fields below
	closed *fanout.CloseFrame // how the connection was closed before the response has begun, or nil
	beat   *time.Timer        // nil without heartbeats, and before the response has begun
	age    *time.Timer        // nil without Options.MaxAge
	over   bool               // the timers have been stopped
}

var (
	_ session.Session = (*socket)(nil)
	_ fanout.Socket   = (*socket)(nil)
)

func newSocket(base fanout.Form, linger time.Duration) *socket {
	return &socket{
		conn: newConn(firstChunk+(base-first), linger),
		base: base,
		wire: websocket.NewWire(),
		gone: make(chan struct{}),
	}
}

// Direct returns what writes without waiting, which is nothing before the response has begun.
func (s *socket) Direct() fanout.Direct { return &watchingDirect{s.wire.Direct(), s} }

// watchingDirect notices that the client is no longer in a channel.
type watchingDirect struct {
	fanout.Direct
	of *socket
}

func (d *watchingDirect) TryWrite(p []byte) (int, error) {
	n, err := d.Direct.TryWrite(p)
	if n == len(p) {
		d.of.written(p)
	}
	return n, err
}

// How ends look. The first letters are rare, which makes the search fast.
var (
	endLine   = []byte(eventEnd + "\n")
	endSignal = []byte(`_pushy":{"end":`)
)

// written is called with bytes that have been written. Data can look like the line of an end, so ended
// must ask whether it is one.
func (s *socket) written(p []byte) {
	if bytes.Contains(p, endLine) || s.base == first+formDatastar && bytes.Contains(p, endSignal) {
		go s.ended()
	}
}

// Write waits until the response has begun.
func (s *socket) Write(p []byte, timeout time.Duration) error {
	if !s.begins() {
		return nil
	}
	err := s.wire.Write(p, timeout)
	if err != nil {
		s.Broken()
		return err
	}
	s.written(p)
	return nil
}

// begins waits until the response has begun. It returns false if that does not happen.
func (s *socket) begins() bool {
	select {
	case <-s.wire.Begun():
		return true
	case <-s.gone:
	case <-s.dead:
	}
	return false
}

// Broken ends Linger: nothing more is written.
func (s *socket) Broken() { s.lost(errAborted) }

// Finish ends the response, as stream.finish does, or notes how it is to be answered.
func (s *socket) Finish(code int, reason string, timeout time.Duration) {
	if s.noteClosed(code, reason) {
		return
	}
	defer s.finished()
	if !final(code) {
		linger(context.Background(), s.dead)
		return
	}
	end := append(appendOwn(nil, s.base, eventEnd, noRetry, endData(reason)), '\n')
	_ = s.wire.Write(append(appendChunk(nil, end), "0\r\n\r\n"...), timeout)
}

// noteClosed reports whether the response has not begun.
func (s *socket) noteClosed(code int, reason string) bool {
	s.times.Lock()
	defer s.times.Unlock()
	select {
	case <-s.wire.Begun():
		return false
	default:
	}
	s.closed = &fanout.CloseFrame{
		Code:   code,
		Reason: reason,
	}
	return true
}

// end returns how the connection was closed, for a response that does not begin, or nil if it was lost.
func (s *socket) end() *fanout.CloseFrame {
	close(s.gone)
	if out := s.outbox(); out != nil {
		<-out.Done()
	}
	s.times.Lock()
	defer s.times.Unlock()
	return s.closed
}

// begin takes over the connection, on which the beginning of the response has been written.
func (s *socket) begin(conn net.Conn, heartbeat, age time.Duration, aged func(), timeout time.Duration) {
	s.times.Lock()
	s.wire.Begin(conn)
	closed := s.closed
	if heartbeat > 0 && !s.over {
		s.beat = time.AfterFunc(heartbeat, func() { s.tick(heartbeat) })
	}
	if age > 0 && !s.over {
		s.age = time.AfterFunc(age, aged)
	}
	s.times.Unlock()
	if closed != nil { // meanwhile
		s.Finish(closed.Code, closed.Reason, timeout)
	}
	select {
	case <-s.dead:
		s.wire.Abort()
	default:
	}
}

var heartbeatChunk = appendChunk(nil, []byte(":\n\n"))

func (s *socket) tick(every time.Duration) {
	s.times.Lock()
	defer s.times.Unlock()
	if !s.over {
		s.outbox().Control(fanout.Heartbeat, heartbeatChunk)
		s.beat.Reset(every)
	}
}

func (s *socket) stopTimes() {
	s.times.Lock()
	defer s.times.Unlock()
	s.over = true
	for _, timer := range []*time.Timer{s.beat, s.age} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// Receive waits until the client disconnects, or until Stop.
func (s *socket) Receive() ([]byte, error) {
	s.begun()
	select {
	case <-s.halt:
	case <-s.wire.Begun():
		err := s.wire.Drain()
		select {
		case <-s.halt:
		default:
			s.lost(err)
		}
	}
	s.stopTimes()
	return nil, s.haltedWith()
}

func (s *socket) Stop() {
	s.conn.Stop()
	s.ifBegun(s.wire.Stop)
}

func (s *socket) Abort() {
	s.conn.Abort()
	s.ifBegun(s.wire.Abort)
}

func (s *socket) Linger() {
	s.conn.Linger()
	s.ifBegun(s.wire.Close)
}

func (s *socket) ifBegun(do func()) {
	select {
	case <-s.wire.Begun():
		do()
	default:
	}
}

// endData is the data of the event that ends a stream.
func endData(reason string) []byte {
	data := jsvalue.Object(nil).Raw("channel", []byte("null"))
	if reason != "" {
		data = data.Text("reason", reason)
	}
	return data
}
