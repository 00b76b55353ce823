// Package inmem is the transport in memory: the client of a Session is in the same process.
// Tests and package pushytest use it.
package inmem

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/deflate"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

var (
	_ session.Session = (*pipe)(nil)
	_ fanout.Socket   = (*pipe)(nil)
)

const (
	// pipeBuffer is the number of messages in each direction before a sender has to wait.
	pipeBuffer = 16
	// pipeWait is the time that Linger waits, first for the Outbox and then for the client.
	pipeWait = 5 * time.Second
)

var errPipeEnded = errors.New("pipe is closed")

// pipe is a Session in memory, without heartbeats or limits. It waits only for channels and
// timers, so it works in a synctest bubble.
type pipe struct {
	protocol     string
	toServer     chan []byte
	toClient     chan []byte
	clientClosed event // the client has closed the connection, with clientClose
	serverClosed event // the server has closed the connection, with serverClose
	answered     event // the client has received the close of the server
	halted       event // Stop or Abort was called
	aborted      event // either side has aborted, or Linger has returned
	done         event // Linger has returned

	// mu guards the writes of these fields. Each is written before its event happens, and
	// only read after it.
	mu          sync.Mutex
	clientClose *session.CloseError
	serverClose *session.CloseError
	haltReason  *session.CloseError

	out    *fanout.Outbox      // set by Start
	failed *session.CloseError // only the reader uses it

	stall   atomic.Pointer[stall] // nil unless the client reads nothing
	accept  func(n int) int       // returns how many of n bytes a TryWrite accepts; can be nil
	partial []byte                // the incomplete last frame; only the writer uses it
	form    fanout.Form
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

// Pipe returns both ends of a connection in memory. In both directions, it carries the JSON
// text of messages. The result of Protocol of the Session is protocol.
func Pipe(protocol string) (session.Session, *Client) { return FullPipe(protocol, nil) }

// FullPipe returns a Pipe that can be written to without waiting, like a socket. A write of
// n bytes accepts at most accept(n) bytes; if it accepts less than n, the pipe is full.
func FullPipe(protocol string, accept func(n int) int) (session.Session, *Client) {
	return newPipe(protocol, fanout.Bare, accept)
}

// DeflatePipe is FullPipe for a client with permessage-deflate.
func DeflatePipe(protocol string, accept func(n int) int) (session.Session, *Client) {
	return newPipe(protocol, fanout.BareDeflate, accept)
}

func newPipe(protocol string, form fanout.Form, accept func(n int) int) (session.Session, *Client) {
	p := &pipe{
		protocol: protocol,
		form:     form,
		accept:   accept,
		toServer: make(chan []byte, pipeBuffer),
		toClient: make(chan []byte, pipeBuffer),
	}
	for _, e := range []*event{&p.clientClosed, &p.serverClosed, &p.answered, &p.halted, &p.aborted, &p.done} {
		e.ch = make(chan struct{})
	}
	return p, &Client{p}
}

// Form is that of a bare WebSocket, because Write finds the ends of messages by their headers.
func (p *pipe) Form() fanout.Form { return p.form }

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
		return nil, p.haltReason
	}
	if p.aborted.happened() {
		return nil, session.LostError(net.ErrClosed)
	}
	select {
	case text := <-p.toServer:
		return text, nil
	case <-p.halted.ch:
		return nil, p.haltReason
	case <-p.aborted.ch:
		return nil, session.LostError(net.ErrClosed)
	case <-p.clientClosed.ch:
	}
	select {
	case text := <-p.toServer: // a message that was sent before the close
		return text, nil
	default:
		return nil, p.clientClose
	}
}

func (p *pipe) Stop() { p.halt(&session.CloseError{Cause: session.Stopped}) }

func (p *pipe) Abort() {
	p.halt(session.LostError(net.ErrClosed))
	p.aborted.happen()
}

func (p *pipe) halt(err *session.CloseError) {
	p.mu.Lock()
	if p.haltReason == nil {
		p.haltReason = err
	}
	p.mu.Unlock()
	p.halted.happen()
}

func (p *pipe) Write(wire []byte, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	p.partial = append(p.partial, wire...)
	for {
		if p.aborted.happened() {
			return net.ErrClosed
		}
		text, rest, whole := p.splitFrame(p.partial)
		if !whole {
			return nil
		}
		if err := p.awaitReader(timer.C); err != nil {
			return err
		}
		select {
		case p.toClient <- bytes.Clone(text):
			p.partial = rest
		case <-p.aborted.ch:
			return net.ErrClosed
		case <-timer.C:
			return os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) Direct() fanout.Direct {
	if p.accept == nil {
		return nil
	}
	return p
}

func (p *pipe) Broken() {}

func (p *pipe) TryWrite(wire []byte) (int, error) {
	if p.aborted.happened() {
		return 0, net.ErrClosed
	}
	if p.stall.Load() != nil {
		return 0, nil
	}
	n := min(p.accept(len(wire)), len(wire))
	for b := append(p.partial, wire[:n]...); ; {
		text, rest, whole := p.splitFrame(b)
		if !whole {
			p.partial = b
			return n, nil
		}
		select {
		case p.toClient <- bytes.Clone(text):
			b = rest
		default: // the client has not read enough: do not accept the last byte of the frame
			n -= len(rest) + 1
			p.partial = b[:len(b)-len(rest)-1]
			if n < 0 {
				panic("inmem: a frame was complete before it was written")
			}
			return n, nil
		}
	}
}

// splitFrame splits wire after its first frame, which package fanout made, if that frame
// is complete. A compressed frame is decompressed.
func (p *pipe) splitFrame(wire []byte) (text, rest []byte, whole bool) {
	if len(wire) < 2 {
		return nil, wire, false
	}
	n := int(wire[1])
	head := 2
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
	text = wire[head : head+n]
	if wire[0]&0x40 != 0 {
		var err error
		if text, err = deflate.Inflate(text, 1<<30); err != nil || p.form == fanout.Bare {
			panic("inmem: a frame that cannot be read")
		}
	}
	return text, wire[head+n:], true
}

func (p *pipe) Finish(code int, reason string, _ time.Duration) {
	p.mu.Lock()
	if p.serverClose == nil {
		p.serverClose = &session.CloseError{
			Cause:  session.Closed,
			Code:   code,
			Reason: reason,
		}
	}
	p.mu.Unlock()
	p.serverClosed.happen()
}

func (p *pipe) Linger() {
	defer p.done.happen()
	defer p.aborted.happen()
	if p.out == nil {
		return
	}
	timer := time.NewTimer(pipeWait)
	defer timer.Stop()
	done := p.out.Done()
	answered := p.answered.ch
	clientClosed := p.clientClosed.ch
	for done != nil || answered != nil {
		select {
		case <-done:
			done = nil
			if !p.serverClosed.happened() {
				return
			}
			timer.Reset(pipeWait)
		case <-answered:
			answered = nil
			clientClosed = nil
		case <-clientClosed: // the client has closed first, or at the same time
			answered = nil
			clientClosed = nil
		case <-p.toServer: // discarded, so that a client that waits in Send can continue to read
		case <-p.aborted.ch:
			return
		case <-timer.C:
			return
		}
	}
}

// Client is the client's end of a Pipe. Its methods are safe for
// concurrent use.
type Client struct{ p *pipe }

// Send sends one message. It waits while the server has not read the last pipeBuffer
// messages. It fails after either side has closed the connection.
func (c *Client) Send(text string) error {
	if c.p.clientClosed.happened() || c.p.aborted.happened() {
		return errPipeEnded
	}
	select {
	case c.p.toServer <- []byte(text):
		return nil
	case <-c.p.clientClosed.ch:
		return errPipeEnded
	case <-c.p.aborted.ch:
		return errPipeEnded
	}
}

// Receive returns the next message of the server. When there are no more messages, the
// error is a *CloseError: Closed with the code and reason of the server, or Lost.
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
	case <-c.p.serverClosed.ch:
	case <-c.p.aborted.ch:
	}
	select {
	case text := <-c.p.toClient: // a message that was written before the close
		return string(text), nil
	default:
	}
	if c.p.serverClosed.happened() {
		c.p.answered.happen()
		return "", c.p.serverClose
	}
	return "", session.LostError(net.ErrClosed)
}

// Close closes the connection with a code and reason. The server first receives the messages
// that were sent before. Messages that the server still writes can be received. Only the
// first call has an effect.
func (c *Client) Close(code int, reason string) {
	c.p.mu.Lock()
	if c.p.clientClose == nil {
		c.p.clientClose = &session.CloseError{
			Cause:  session.Closed,
			Code:   code,
			Reason: reason,
		}
	}
	c.p.mu.Unlock()
	c.p.clientClosed.happen()
}

// Done returns a channel that is closed when the server has finished the connection, that
// is, when Linger has returned.
func (c *Client) Done() <-chan struct{} { return c.p.done.ch }

// Abort closes the connection without a close code.
func (c *Client) Abort() { c.p.aborted.happen() }
