package websocket

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

var (
	_ session.Session = (*socket)(nil)
	_ fanout.Socket   = (*socket)(nil)
)

var (
	errSilent = errors.New("nothing was received for two heartbeats")

	pingFrame   = ws.MustCompileFrame(ws.NewPingFrame(nil))
	deadlineHit = time.Unix(1, 0) // a deadline that has passed, in any clock
)

// socket is a Session over a WebSocket, with a Framing or bare.
//
// Its heartbeat finds dead peers too: only while the reader waits can a peer be
// silent, so waitSince is what counts, and no read sets a deadline.
type socket struct {
	stream stream
	cfg    *Config
	out    *fanout.Outbox // set by Start

	// The reader's alone.
	frames   frameReader
	messages []byte // of the last frame, for Framing.Next
	failed   *session.CloseError

	waitSince atomic.Int64 // the uptime when the reader began to wait, or notWaiting

	mu        sync.Mutex          // guards what follows, and the read deadline
	halted    *session.CloseError // what Receive is to fail with
	answered  bool                // the peer's close frame has come
	garbled   bool                // the peer's frames cannot be told apart any more
	unframed  bool                // the peer does not speak the framing: a close frame is all it gets
	said      bool                // our goodbye is written
	lingering bool
	gone      bool          // the connection is cut or of no use
	beat      *time.Timer   // nil before Start, without heartbeats, and at the end
	beatAt    time.Duration // the uptime when the next is due
}

// Close codes that a WebSocket gives itself (RFC 6455, section 7.4.1).
const (
	codeProtocol   = 1002
	codeNoCode     = 1005 // never sent
	codeNotUTF8    = 1007
	codeTooBig     = 1009
	codeNoTLS      = 1015 // never sent
	maxCloseReason = 123
)

const notWaiting = math.MinInt64

var loaded = time.Now()

// uptime is a clock that takes a third of the room of a time.Time; only its
// differences mean anything.
func uptime() time.Duration { return time.Since(loaded) }

func newSocket(conn net.Conn, early []byte, cfg *Config) *socket {
	stream, src := newStream(conn)
	s := &socket{stream: stream, cfg: cfg}
	limit := cfg.MaxMessage
	if cfg.Framing != nil {
		limit = cfg.Framing.Limit(limit)
	}
	s.frames = frameReader{
		src: src,
		max: limit,
		in:  early,
		on:  s,
	}
	s.waitSince.Store(notWaiting)
	return s
}

func (s *socket) Form() fanout.Form {
	if f := s.cfg.Framing; f != nil {
		return f.Form()
	}
	return fanout.Bare
}

func (s *socket) Protocol() string {
	if f := s.cfg.Framing; f != nil {
		return f.Protocol()
	}
	return "rawwebsocket"
}

// ShutdownCode is 1012 for bare WebSockets: clients that know the standard codes
// only reconnect after it (RFC 6455's registry of close codes).
func (s *socket) ShutdownCode() int {
	if f := s.cfg.Framing; f != nil {
		return f.ShutdownCode()
	}
	return session.CloseRestart
}

func (s *socket) Start(out *fanout.Outbox) {
	s.out = out
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

// tick sends a heartbeat if it is time, and gives a silent peer up.
func (s *socket) tick() {
	if s.tickAndRearm() {
		wire := pingFrame
		if f := s.cfg.Framing; f != nil {
			wire = slices.Concat(f.Heartbeat(), pingFrame)
		}
		s.out.Control(fanout.Heartbeat, wire)
	}
}

func (s *socket) tickAndRearm() (beat bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beat == nil {
		return false
	}
	now := uptime()
	dead := now + 2*s.cfg.Heartbeat
	if since := s.waitSince.Load(); since != notWaiting {
		dead = time.Duration(since) + 2*s.cfg.Heartbeat
	}
	if now >= dead {
		s.haltLocked(session.LostError(errSilent))
		return false
	}
	if now >= s.beatAt {
		beat, s.beatAt = true, now+s.cfg.Heartbeat
	}
	s.beat.Reset(min(s.beatAt, dead) - now)
	return beat
}

func (s *socket) waiting(now bool) {
	if now {
		s.waitSince.Store(int64(uptime()))
	} else {
		s.waitSince.Store(notWaiting)
	}
}

func (s *socket) pinged(payload []byte) {
	s.out.Control(fanout.Pong, ws.MustCompileFrame(ws.NewPongFrame(payload)))
}

func (s *socket) Receive() ([]byte, error) {
	if s.failed == nil {
		p, err := s.receive()
		if err == nil {
			return p, nil
		}
		s.fail(err)
	}
	return nil, s.failed
}

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
		p, err := s.frames.next()
		if halted := s.haltedWith(); halted != nil {
			return nil, halted // the deadline comes too late for a read that has begun
		}
		if err != nil || framing == nil {
			return p, err
		}
		if s.messages, err = framing.Parse(p, s.cfg.MaxMessage); err != nil {
			return nil, framingFault(err)
		}
	}
}

// framingFault is the end of a client that sent a frame with that error.
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

// haltedWith returns what Receive is to fail with, or nil.
func (s *socket) haltedWith() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.halted == nil {
		return nil
	}
	return s.halted
}

// fail ends Receive for good.
func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.As(err, &s.failed) {
		s.failed = s.halted // a read that was made to fail
	}
	if s.failed == nil {
		s.failed = session.LostError(err)
	}
	s.answered = s.frames.gotClose
	s.unframed = errors.As(s.failed, new(*FramingError))
	s.gone = s.gone || s.failed.Cause == session.Lost
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
	s.haltLocked(&session.CloseError{Cause: session.Stopped})
}

// haltLocked makes Receive fail with err, if nothing has made it fail before.
func (s *socket) haltLocked(err *session.CloseError) {
	if s.halted != nil || s.lingering {
		return
	}
	s.halted = err
	s.stopBeatLocked()
	if s.stream.SetReadDeadline(deadlineHit) != nil {
		s.stream.cut() // it is closed, or knows no deadlines
	}
}

func (s *socket) Abort() {
	s.mu.Lock()
	s.gone = true
	s.haltLocked(session.LostError(net.ErrClosed))
	s.mu.Unlock()
	s.stream.cut()
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
		return nil
	}
	return direct{s.stream.raw}
}

// direct is a plain socket of which no more is known than how to write to it.
type direct struct{ raw syscall.RawConn }

func (d direct) TryWrite(p []byte) (int, error) { return tryWrite(d.raw, p) }

// Broken notes that nothing can be written any more: no answer will come.
func (s *socket) Broken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.lingering {
		_ = s.stream.SetReadDeadline(deadlineHit)
	}
}

func (s *socket) Finish(code int, reason string, timeout time.Duration) {
	s.mu.Lock()
	sayIt := s.cfg.Framing != nil && !s.answered && !s.unframed
	s.mu.Unlock()
	var wire []byte
	var payload []byte
	if closeCodeAllowed(code) {
		if sayIt {
			wire = s.cfg.Framing.Goodbye(code, reason)
		}
		payload = binary.BigEndian.AppendUint16(nil, uint16(code))
		payload = append(payload, cutReason(reason)...)
	}
	wire = append(wire, ws.MustCompileFrame(ws.NewFrame(ws.OpClose, true, payload))...)
	if s.Write(wire, timeout) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = true
	if s.garbled {
		s.stream.closeWrite()
	}
	if s.lingering {
		_ = s.stream.SetReadDeadline(time.Now().Add(s.cfg.CloseTimeout))
	}
}

// cutReason shortens reason to what a close frame holds, between two runes.
func cutReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxCloseReason {
		return reason
	}
	n := maxCloseReason
	for !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}

func (s *socket) Linger() {
	if s.awaitAnswer() {
		s.frames.discard()
		if s.frames.garbled {
			s.markGarbled()
			s.frames.drain()
		}
	}
	s.frames.src.release()
	s.frames.in, s.messages = nil, nil
	if s.awaitGoodbye() {
		_ = s.stream.Close()
	} else {
		s.stream.cut() // and let the kernel forget what the peer does not take
	}
}

// markGarbled notes that no answer of the peer can be told from anything else:
// the end of what we say is all that it can still see.
func (s *socket) markGarbled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.garbled = true
	if s.said {
		s.stream.closeWrite()
	}
}

// awaitAnswer prepares for reading until the peer's close frame, and tells
// whether one can still come.
func (s *socket) awaitAnswer() bool {
	ended := s.outboxDone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lingering = true
	s.stopBeatLocked()
	if s.answered || s.gone || ended && !s.said {
		return false
	}
	wait := s.cfg.CloseTimeout
	if !s.said {
		wait += s.cfg.WriteTimeout // Finish shortens it
	}
	return s.stream.SetReadDeadline(time.Now().Add(wait)) == nil
}

func (s *socket) outboxDone() bool {
	if s.out == nil {
		return true
	}
	select {
	case <-s.out.Done():
		return true
	default:
		return false
	}
}

// awaitGoodbye waits for the Outbox to have written what it had, unless there
// is nobody to read it, and tells whether our goodbye is out.
func (s *socket) awaitGoodbye() bool {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	if !gone && !s.outboxDone() {
		timer := time.NewTimer(s.cfg.WriteTimeout)
		defer timer.Stop()
		select {
		case <-s.out.Done():
		case <-timer.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}
