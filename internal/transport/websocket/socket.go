package websocket

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

var (
	_ session.Session = (*socket)(nil)
	_ session.Parker  = (*socket)(nil)
	_ fanout.Socket   = (*socket)(nil)
)

var (
	errSilent  = errors.New("nothing was received for two heartbeats")
	errStopped = &session.CloseError{Cause: session.Stopped}
	errAborted = session.LostError(net.ErrClosed)

	pingFrame    = ws.MustCompileFrame(ws.NewPingFrame(nil))
	pastDeadline = time.Unix(1, 0) // a read deadline in the past, also for the fake time of tests
)

// socket is a Session over a WebSocket, with a Framing or bare.
//
// Its heartbeat also detects dead peers. A peer can only be silent while the reader waits,
// so the heartbeat checks waitSince, and reads need no deadline.
type socket struct {
	stream stream
	cfg    *Config
	out    *fanout.Outbox // set by Start

	// Only the reader uses these.
	frames   *frameReader // nil while it is not needed, see reader
	messages []byte       // of the last frame, for Framing.Next
	failed   *session.CloseError

	waitSince atomic.Int64 // the uptime when the reader started to wait, or notWaiting

	mu        sync.Mutex          // guards the fields below, and the read deadline
	response  *[]byte             // to the handshake, until it is written or passed to the Outbox; then nil
	halted    *session.CloseError // the error with which Receive is to fail
	answered  bool                // the close frame of the peer was received
	garbled   bool                // the boundaries of the peer's frames are lost
	unframed  bool                // the peer violates the Framing, so it receives only a WebSocket close frame
	closeSent bool                // the close frame is written
	lingering bool
	asked     bool          // the Ping of the Dialect is sent, or not needed, since the last heartbeat
	lost      bool          // the connection is closed or has failed
	armed     bool          // it was parked before, see parkingLot
	fd        int           // its place in the parkingLot, if it was parked before
	beat      *time.Timer   // nil before Start, without heartbeats, and at the end
	beatAt    time.Duration // the uptime when the next heartbeat is due
}

// Close codes that a WebSocket chooses itself (RFC 6455, section 7.4.1).
const (
	codeProtocol   = 1002
	codeBinary     = 1003
	codeNoCode     = 1005 // never sent
	codeNotUTF8    = 1007
	codeTooBig     = 1009
	codeNoTLS      = 1015 // never sent
	maxCloseReason = 123
)

const notWaiting = math.MinInt64

var loaded = time.Now()

// uptime is a clock whose values have a third of the size of a time.Time. Only differences
// of its values are meaningful.
func uptime() time.Duration { return time.Since(loaded) }

func newSocket(conn net.Conn, early []byte, cfg *Config) *socket {
	s := &socket{
		stream: newStream(conn),
		cfg:    cfg,
	}
	if len(early) > 0 {
		s.reader().in = early
	}
	s.waitSince.Store(notWaiting)
	return s
}

func (s *socket) Form() fanout.Form {
	form := fanout.Bare
	if f := s.cfg.Framing; f != nil {
		form = f.Form()
	} else if d := s.cfg.Dialect; d != nil {
		form = d.Form
	}
	if s.cfg.deflates {
		return form.Deflate()
	}
	return form
}

// Speaks returns the name of the protocol of the messages.
func (s *socket) Speaks() string {
	if d := s.cfg.Dialect; d != nil {
		return d.Name
	}
	return "pushy"
}

func (s *socket) Protocol() string {
	if f := s.cfg.Framing; f != nil {
		return f.Protocol()
	}
	if d := s.cfg.Dialect; d != nil {
		return d.Transport
	}
	return "rawwebsocket"
}

// ShutdownCode returns 1012 for bare WebSockets, because clients that know only the codes of
// the registry of RFC 6455 reconnect after it.
func (s *socket) ShutdownCode() int {
	if f := s.cfg.Framing; f != nil {
		return f.ShutdownCode()
	}
	return session.CloseRestart
}

func (s *socket) Start(out *fanout.Outbox) {
	s.out = out
	s.respond()
	if f := s.cfg.Framing; f != nil {
		out.Send(f.Opening())
	}
	if s.cfg.Heartbeat <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.halted == nil {
		s.beatAt = uptime() + s.cfg.Heartbeat
		s.beat = time.AfterFunc(s.cfg.Heartbeat, s.tick)
	}
}

// respond passes the response to the handshake to the Outbox. If that is closed already, Finish
// writes the response.
func (s *socket) respond() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.response != nil && s.out.Control(fanout.Response, *s.response) {
		s.response = nil
	}
}

// tick sends a heartbeat if one is due, and ends the connection if the peer has been silent
// for two heartbeats. If the peer has not answered the last ping, tick sends the Ping of the Dialect.
func (s *socket) tick() {
	beat, ask := s.tickAndRearm()
	var wire []byte
	if ask {
		wire = s.cfg.Dialect.Ping
	}
	if beat {
		if f := s.cfg.Framing; f != nil {
			wire = f.Heartbeat()
		}
		wire = slices.Concat(wire, pingFrame)
	}
	if wire != nil {
		s.out.Control(fanout.Heartbeat, wire)
	}
}

func (s *socket) tickAndRearm() (beat, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beat == nil {
		return false, false
	}
	now := uptime()
	dead := now + 2*s.cfg.Heartbeat
	heard := now
	if since := s.waitSince.Load(); since != notWaiting {
		heard = time.Duration(since)
		dead = heard + 2*s.cfg.Heartbeat
	}
	if now >= dead {
		s.haltLocked(s.silent())
		return false, false
	}
	if now >= s.beatAt {
		beat = true
		s.asked = false
		s.beatAt = now + s.cfg.Heartbeat
	}
	next := min(s.beatAt, dead)
	if d := s.cfg.Dialect; d != nil && d.Ping != nil && !s.asked {
		askAt := s.beatAt - s.cfg.Heartbeat/2
		if now >= askAt {
			s.asked = true
			ask = heard < s.beatAt-s.cfg.Heartbeat // the time of the last ping
		} else {
			next = min(next, askAt)
		}
	}
	s.beat.Reset(next - now)
	return beat, ask
}

// silent returns the error for a peer from which nothing was received for two heartbeats.
func (s *socket) silent() *session.CloseError {
	if d := s.cfg.Dialect; d != nil && d.Silent != 0 {
		return faultError(d.Silent, errSilent)
	}
	return session.LostError(errSilent)
}

// waiting is called with true before and with false after each wait for bytes.
func (s *socket) waiting(now bool) {
	if now {
		s.waitSince.Store(int64(uptime()))
	} else {
		s.waitSince.Store(notWaiting)
	}
}

// pinged is called for a ping. It does not keep payload.
func (s *socket) pinged(payload []byte) {
	s.out.Control(fanout.Pong, ws.MustCompileFrame(ws.NewPongFrame(payload)))
}

func (s *socket) Receive() ([]byte, error) {
	if s.failed == nil {
		p, err := s.receive()
		if err == nil {
			s.cork()
			return p, nil
		}
		s.fail(err)
		s.uncork()
	}
	return nil, s.failed
}

// More reports whether the client has sent more than the last message, as far as has been read. Only
// the reader calls it.
func (s *socket) More() bool { return len(s.messages) > 0 || len(s.frames.in) > 0 }

func (s *socket) receive() ([]byte, error) {
	for {
		if err := s.haltedWith(); err != nil {
			return nil, err
		}
		framing := s.cfg.Framing
		if len(s.messages) > 0 {
			var p []byte
			p, s.messages = framing.Next(s.messages)
			return p, nil
		}
		p, err := s.reader().next()
		if halted := s.haltedWith(); halted != nil {
			return nil, halted // the deadline was set after the read had completed
		}
		if err != nil || framing == nil {
			return p, err
		}
		if s.messages, err = framing.Parse(p, s.cfg.MaxMessage); err != nil {
			return nil, framingFault(err)
		}
	}
}

// framingFault returns the CloseError for an error of Framing.Parse.
func framingFault(err error) *session.CloseError {
	var broken *FramingError
	if !errors.As(err, &broken) {
		return faultError(codeTooBig, err)
	}
	return &session.CloseError{
		Cause:  session.Fault,
		Code:   codeProtocol,
		Reason: broken.Reason,
		Err:    broken,
	}
}

// haltedWith returns the error with which Receive is to fail, or nil.
func (s *socket) haltedWith() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.halted == nil {
		return nil
	}
	return s.halted
}

// fail records the error that all later calls of Receive return.
func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.As(err, &s.failed) {
		s.failed = s.halted // haltLocked has made the read fail
	}
	if s.failed == nil {
		s.failed = session.LostError(err)
	}
	s.answered = s.frames != nil && s.frames.gotClose
	s.unframed = s.failed.Cause == session.Fault && errors.As(s.failed, new(*FramingError))
	s.lost = s.lost || s.failed.Cause == session.Lost
	s.stopBeatLocked()
}

func (s *socket) stopBeatLocked() {
	if s.beat != nil {
		s.beat.Stop()
		s.beat = nil
	}
}

func (s *socket) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.haltLocked(errStopped)
}

// haltLocked makes Receive fail with err, unless it was called before.
func (s *socket) haltLocked(err *session.CloseError) {
	if s.halted != nil || s.lingering {
		return
	}
	s.halted = err
	s.stopBeatLocked()
	if s.stream.SetReadDeadline(pastDeadline) != nil {
		s.stream.abort() // the connection is closed, or does not support deadlines
	}
	parking.resumeLocked(s)
}

func (s *socket) Abort() {
	s.mu.Lock()
	s.lost = true
	s.haltLocked(errAborted)
	s.mu.Unlock()
	s.stream.abort()
}

func (s *socket) Write(p []byte, timeout time.Duration) error {
	err := s.stream.write(p, timeout)
	if err != nil {
		s.Broken()
	}
	return err
}

func (s *socket) Direct() fanout.Direct {
	if s.stream.raw == nil {
		return newSecureDirect(s.stream.Conn)
	}
	return direct{s.stream.raw}
}

// direct is the fanout.Direct of a plain socket. It is small; see fanout.Direct.
type direct struct{ raw syscall.RawConn }

func (d direct) TryWrite(p []byte) (int, error) { return tryWrite(d.raw, p) }

// Broken records that writing has failed, so that no close frame of the peer is expected. The reader of
// a TLS connection, which answers key updates, cannot wait for a peer that does not read any more.
func (s *socket) Broken() {
	_ = s.stream.SetWriteDeadline(pastDeadline)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	if s.lingering {
		_ = s.stream.SetReadDeadline(pastDeadline)
	}
}

func (s *socket) Finish(code int, reason string, timeout time.Duration) {
	if d := s.cfg.Dialect; d != nil && code == session.CloseSlow {
		code = d.Slow
	}
	s.mu.Lock()
	framed := s.cfg.Framing != nil && !s.answered && !s.unframed
	var wire []byte
	if s.response != nil {
		wire = *s.response
		s.response = nil
	}
	s.mu.Unlock()
	var payload []byte
	if closeCodeAllowed(code) {
		if framed {
			wire = append(wire, s.cfg.Framing.CloseFrame(code, reason)...)
		}
		payload = binary.BigEndian.AppendUint16(nil, uint16(code))
		payload = append(payload, truncateReason(reason)...)
	}
	wire = append(wire, ws.MustCompileFrame(ws.NewFrame(ws.OpClose, true, payload))...)
	if s.Write(wire, timeout) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeSent = true
	if s.garbled {
		s.stream.closeWrite()
	}
	if s.lingering {
		_ = s.stream.SetReadDeadline(time.Now().Add(s.cfg.CloseTimeout))
	}
}
