package inmem

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

// Sink is a Session in memory whose client sends nothing. The client reads everything at once and
// keeps nothing, or reads nothing after Stall. Its methods are safe for concurrent use.
type Sink struct {
	stalled atomic.Bool
	once    sync.Once
	over    chan struct{}
	reason  *session.CloseError // set before over is closed
}

var (
	_ session.Session = (*Sink)(nil)
	_ fanout.Socket   = (*Sink)(nil)
)

// NewSink returns a Sink whose client reads everything.
func NewSink() *Sink { return &Sink{over: make(chan struct{})} }

// Stall makes the client read nothing from now on. A Write then waits until the connection ends,
// whatever its timeout is.
func (s *Sink) Stall() { s.stalled.Store(true) }

// End ends the connection for a reason. Only the first call has an effect.
func (s *Sink) End(reason *session.CloseError) {
	s.once.Do(func() {
		s.reason = reason
		close(s.over)
	})
}

func (s *Sink) Form() fanout.Form                 { return fanout.Bare }
func (s *Sink) Protocol() string                  { return "websocket" }
func (s *Sink) ShutdownCode() int                 { return session.CloseShutdown }
func (s *Sink) Start(*fanout.Outbox)              {}
func (s *Sink) Direct() fanout.Direct             { return s }
func (s *Sink) Broken()                           {}
func (s *Sink) Finish(int, string, time.Duration) {}
func (s *Sink) Linger()                           {}
func (s *Sink) Abort()                            { s.Stop() }
func (s *Sink) Stop()                             { s.End(&session.CloseError{Cause: session.Stopped}) }

func (s *Sink) Receive() ([]byte, error) {
	<-s.over
	return nil, s.reason
}

func (s *Sink) TryWrite(p []byte) (int, error) {
	if s.stalled.Load() {
		return 0, nil
	}
	return len(p), nil
}

func (s *Sink) Write([]byte, time.Duration) error {
	if !s.stalled.Load() {
		return nil
	}
	<-s.over
	return net.ErrClosed
}
