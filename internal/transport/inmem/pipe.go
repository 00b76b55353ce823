// Package inmem is connections in memory: a Session whose client is in the same
// process, for tests and for package pushytest.
package inmem

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

var (
	_ session.Session = (*pipe)(nil)
	_ fanout.Socket   = (*pipe)(nil)
)

// What a pipe holds in each direction before who sends has to wait, and for
// how long its Linger waits, once for the Outbox and once for the client.
const (
	pipeBuffer = 16
	pipeWait   = 5 * time.Second
)

var errPipeEnded = errors.New("pipe is closed")

// pipe is a Session in memory, without heartbeats or limits. All its waits are
// on channels and timers, so it works in a synctest bubble.
type pipe struct {
	protocol string
	toServer chan []byte
	toClient chan []byte
	hung     event // the client has closed: code and reason below
	said     event // the server has: likewise
	answered event // the client has seen it
	halted   event // Stop or Abort was called
	cut      event
	over     event // Linger has returned

	mu                             sync.Mutex // for setting them, before their event
	hungWith, saidWith, haltedWith *session.CloseError

	out    *fanout.Outbox      // set by Start
	failed *session.CloseError // the reader's alone

	take    func(n int) int // how much of n bytes a TryWrite takes, or nil
	partial []byte          // of a frame; the writer's alone
}

// event is a channel that is closed once.
type event struct {
	once sync.Once
	ch   chan struct{}
}

func (e *event) happen() { e.once.Do(func() { close(e.ch) }) }

func (e *event) happened() bool {
	select {
	case <-e.ch:
		return true
	default:
		return false
	}
}

// Pipe returns both ends of a connection in memory. Messages are pushy's texts
// in both directions; protocol is what the Session says it is.
func Pipe(protocol string) (session.Session, *Client) { return FullPipe(protocol, nil) }

// FullPipe is a Pipe that can be written to without waiting, as a socket can:
// of n bytes it takes what take says, or less, and is full then.
func FullPipe(protocol string, take func(n int) int) (session.Session, *Client) {
	p := &pipe{
		protocol: protocol,
		take:     take,
		toServer: make(chan []byte, pipeBuffer),
		toClient: make(chan []byte, pipeBuffer),
	}
	for _, e := range []*event{&p.hung, &p.said, &p.answered, &p.halted, &p.cut, &p.over} {
		e.ch = make(chan struct{})
	}
	return p, &Client{p}
}

// Form is Bare: WebSocket headers mark where a message ends in what Write gets.
func (p *pipe) Form() fanout.Form { return fanout.Bare }

func (p *pipe) Protocol() string { return p.protocol }

func (p *pipe) ShutdownCode() int {
	if p.protocol == "rawwebsocket" {
		return session.CloseRestart
	}
	return session.CloseShutdown
}

func (p *pipe) Start(out *fanout.Outbox) { p.out = out }

func (p *pipe) Receive() ([]byte, error) {
	if p.failed == nil {
		text, err := p.receive()
		if err == nil {
			return text, nil
		}
		p.failed = err
	}
	return nil, p.failed
}

func (p *pipe) receive() ([]byte, *session.CloseError) {
	if p.halted.happened() {
		return nil, p.haltedWith
	}
	if p.cut.happened() {
		return nil, session.LostError(net.ErrClosed)
	}
	select {
	case text := <-p.toServer:
		return text, nil
	case <-p.halted.ch:
		return nil, p.haltedWith
	case <-p.cut.ch:
		return nil, session.LostError(net.ErrClosed)
	case <-p.hung.ch:
	}
	select {
	case text := <-p.toServer: // what was sent before it
		return text, nil
	default:
		return nil, p.hungWith
	}
}

func (p *pipe) Stop() { p.halt(&session.CloseError{Cause: session.Stopped}) }

func (p *pipe) Abort() {
	p.halt(session.LostError(net.ErrClosed))
	p.cut.happen()
}

func (p *pipe) halt(err *session.CloseError) {
	p.mu.Lock()
	if p.haltedWith == nil {
		p.haltedWith = err
	}
	p.mu.Unlock()
	p.halted.happen()
}

func (p *pipe) Write(wire []byte, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	p.partial = append(p.partial, wire...)
	for {
		if p.cut.happened() {
			return net.ErrClosed
		}
		text, rest, whole := splitFrame(p.partial)
		if !whole {
			return nil
		}
		select {
		case p.toClient <- bytes.Clone(text):
			p.partial = rest
		case <-p.cut.ch:
			return net.ErrClosed
		case <-timer.C:
			return os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) Direct() fanout.Direct {
	if p.take == nil {
		return nil
	}
	return p
}

func (p *pipe) Broken() {}

func (p *pipe) TryWrite(wire []byte) (int, error) {
	if p.cut.happened() {
		return 0, net.ErrClosed
	}
	n := min(p.take(len(wire)), len(wire))
	for b := append(p.partial, wire[:n]...); ; {
		text, rest, whole := splitFrame(b)
		if !whole {
			p.partial = b
			return n, nil
		}
		select {
		case p.toClient <- bytes.Clone(text):
			b = rest
		default: // the client is behind: the frame's last bytes find no room
			n -= len(rest) + 1
			p.partial = b[:len(b)-len(rest)-1]
			if n < 0 {
				panic("inmem: a frame was whole before it was written")
			}
			return n, nil
		}
	}
}

// splitFrame splits wire behind its first frame, which fanout.TextFrame made, if
// that is whole.
func splitFrame(wire []byte) (text, rest []byte, whole bool) {
	if len(wire) < 2 {
		return nil, wire, false
	}
	n, head := int(wire[1]), 2
	switch n {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	if len(wire) < head {
		return nil, wire, false
	}
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16(wire[2:]))
	case 127:
		n = int(binary.BigEndian.Uint64(wire[2:]))
	}
	if len(wire) < head+n {
		return nil, wire, false
	}
	return wire[head : head+n], wire[head+n:], true
}

func (p *pipe) Finish(code int, reason string, _ time.Duration) {
	p.mu.Lock()
	if p.saidWith == nil {
		p.saidWith = &session.CloseError{
			Cause:  session.Closed,
			Code:   code,
			Reason: reason,
		}
	}
	p.mu.Unlock()
	p.said.happen()
}

func (p *pipe) Linger() {
	defer p.over.happen()
	defer p.cut.happen()
	if p.out == nil {
		return
	}
	timer := time.NewTimer(pipeWait)
	defer timer.Stop()
	done, answered, hung := p.out.Done(), p.answered.ch, p.hung.ch
	for done != nil || answered != nil {
		select {
		case <-done:
			if done = nil; !p.said.happened() {
				return
			}
			timer.Reset(pipeWait)
		case <-answered:
			answered, hung = nil, nil
		case <-hung: // it has spoken first, or at the same time
			answered, hung = nil, nil
		case <-p.toServer: // discarded, so that a client in Send goes on to read
		case <-p.cut.ch:
			return
		case <-timer.C:
			return
		}
	}
}

// Client is the client's end of a Pipe. Its methods are safe for
// concurrent use.
type Client struct{ p *pipe }

// Send sends one message. It waits while the server is many messages behind,
// and fails once either side has closed.
func (c *Client) Send(text string) error {
	if c.p.hung.happened() || c.p.cut.happened() {
		return errPipeEnded
	}
	select {
	case c.p.toServer <- []byte(text):
		return nil
	case <-c.p.hung.ch:
		return errPipeEnded
	case <-c.p.cut.ch:
		return errPipeEnded
	}
}

// Receive returns the server's next message. When there are no more its error
// is a *CloseError: Closed with the server's code and reason, or Lost.
func (c *Client) Receive(ctx context.Context) (string, error) {
	select {
	case text := <-c.p.toClient:
		return string(text), nil
	default:
	}
	select {
	case text := <-c.p.toClient:
		return string(text), nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-c.p.said.ch:
	case <-c.p.cut.ch:
	}
	select {
	case text := <-c.p.toClient: // what was written before it
		return string(text), nil
	default:
	}
	if c.p.said.happened() {
		c.p.answered.happen()
		return "", c.p.saidWith
	}
	return "", session.LostError(net.ErrClosed)
}

// Close says goodbye; the server receives it after what was sent before. What
// the server still writes can be received. Only the first call counts.
func (c *Client) Close(code int, reason string) {
	c.p.mu.Lock()
	if c.p.hungWith == nil {
		c.p.hungWith = &session.CloseError{
			Cause:  session.Closed,
			Code:   code,
			Reason: reason,
		}
	}
	c.p.mu.Unlock()
	c.p.hung.happen()
}

// Over is closed when the server has done with the connection: its Linger has
// returned.
func (c *Client) Over() <-chan struct{} { return c.p.over.ch }

// Abort cuts the connection without a goodbye.
func (c *Client) Abort() { c.p.cut.happen() }
