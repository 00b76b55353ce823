package nats

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// line is the way to the NATS server. One goroutine writes, in order, so that a
// socket that takes nothing holds up nobody longer than its context; another
// asks for the server's confirmation, once for all that was written meanwhile.
type line struct {
	nc      *natsgo.Conn
	denials *denials
	queue   chan *op
	// nobody brings the answer to messages without a subscriber. It comes
	// before the confirmation does.
	nobody chan *natsgo.Msg
	inbox  string
	asked  map[string]*op // by the inbox's last token; confirm and write share it under mu
	count  uint64
	// timeout is after what time without an answer the connection counts as lost.
	timeout time.Duration

	mu    sync.Mutex
	round []*op         // written and not confirmed
	wake  chan struct{} // holds one when there is a round
}

// op is a publish, or something else that is to be done in its turn.
type op struct {
	subject string
	data    []byte
	asks    bool         // whether there is a subscriber
	run     func() error // subscribes, instead of publishing data
	alone   func() error // does it while NATS is away

	denied     uint64 // the denials' mark when it was written
	state      atomic.Int32
	reconnects uint64 // of the connection, when it was written
	key        string
	done       chan struct{}
	err        error
	nobody     bool
}

const (
	opWaits int32 = iota
	opTaken
	opGivenUp
)

// lineSize is how many operations may wait to be written.
const lineSize = 4096

func newLine(nc *natsgo.Conn, denials *denials, timeout time.Duration) (*line, error) {
	l := &line{nc: nc, denials: denials, timeout: timeout, queue: make(chan *op, lineSize), nobody: make(chan *natsgo.Msg, 4*lineSize),
		inbox: nc.NewInbox() + ".", asked: map[string]*op{}, wake: make(chan struct{}, 1)}
	_, err := nc.ChanSubscribe(l.inbox+"*", l.nobody)
	return l, err
}

// do returns within ctx. What has not been written by then never is.
func (l *line) do(ctx context.Context, closed <-chan struct{}, p *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.done = make(chan struct{})
	select {
	case l.queue <- p:
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return errClosed
	}
	select {
	case <-p.done:
		return p.err
	case <-closed:
		return errClosed
	case <-ctx.Done():
		p.state.CompareAndSwap(opWaits, opGivenUp)
		return ctx.Err()
	}
}

func (p *op) end(err error) {
	p.err = err
	close(p.done)
}

func (l *line) write(closed <-chan struct{}) {
	for {
		select {
		case <-closed:
			return
		case p := <-l.queue:
			if p.state.CompareAndSwap(opWaits, opTaken) {
				l.writeOne(p)
			}
		}
	}
}

func (l *line) writeOne(p *op) {
	p.reconnects, p.denied = l.nc.Stats().Reconnects, l.denials.mark()
	var err error
	switch {
	case p.run != nil:
		err = p.run()
	case !l.nc.IsConnected():
		// After a ForceReconnect nats.go would take it, and lose it.
		err = natsgo.ErrConnectionReconnecting
	case !p.asks:
		err = l.nc.Publish(p.subject, p.data)
	default:
		l.count++
		p.key = strconv.FormatUint(l.count, 36)
		l.mu.Lock()
		l.asked[p.key] = p
		l.mu.Unlock()
		err = l.nc.PublishMsg(&natsgo.Msg{Subject: p.subject, Reply: l.inbox + p.key, Data: p.data})
	}
	switch {
	case isAway(err), err == nil && p.run != nil && !l.nc.IsConnected():
		l.forget(p)
		p.end(p.alone())
	case err != nil:
		l.forget(p)
		p.end(err)
	default:
		l.mu.Lock()
		l.round = append(l.round, p)
		l.mu.Unlock()
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *line) forget(p *op) {
	if p.key != "" {
		l.mu.Lock()
		delete(l.asked, p.key)
		l.mu.Unlock()
	}
}

func isAway(err error) bool {
	return errors.Is(err, natsgo.ErrReconnectBufExceeded) || errors.Is(err, natsgo.ErrConnectionReconnecting) || errors.Is(err, natsgo.ErrDisconnected)
}

func (l *line) confirm(closed <-chan struct{}) {
	for {
		select {
		case <-closed:
			return
		case <-l.wake:
		}
		l.mu.Lock()
		round := l.round
		l.round = nil
		l.mu.Unlock()
		err := l.flush()
		reconnects := l.nc.Stats().Reconnects
		l.answers()
		l.denials.settle(l.nc, l.timeout)
		for _, p := range round {
			l.forget(p)
			switch lost := err != nil || p.reconnects != reconnects; {
			case !lost:
				p.end(l.denials.since(action{publishes: p.run == nil, subject: p.subject}, p.denied))
			case p.run != nil:
				p.end(p.alone()) // nats.go subscribes again by itself
			default:
				p.end(errLost)
			}
		}
	}
}

func (l *line) flush() error {
	if !l.nc.IsConnected() {
		return errLost
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	err := l.nc.FlushWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		_ = l.nc.ForceReconnect() // it fails if the connection is closed
	}
	return err
}

// answers takes what has come of messages that nobody gets.
func (l *line) answers() {
	for {
		select {
		case msg := <-l.nobody:
			l.mu.Lock()
			if p := l.asked[strings.TrimPrefix(msg.Subject, l.inbox)]; p != nil {
				p.nobody = msg.Header.Get("Status") == "503"
			}
			l.mu.Unlock()
		default:
			return
		}
	}
}
