package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy/broker"
)

// answers receives the answers of NATS to messages that have no subscriber. They arrive before
// the confirmation that NATS has received the message.
type answers struct {
	inbox string
	in    chan *natsgo.Msg

	mu    sync.Mutex
	count uint64
	asked map[string]bool // by the last token of the inbox: whether there is no subscriber
}

// newFlushes returns a coalescer of flushes. A flush confirms that NATS has received all that
// was sent before, and handles the answers that arrived with the confirmation.
func (b *Broker) newFlushes() (*coalescer[struct{}], error) {
	b.noResponders = answers{
		inbox: b.nc.NewInbox() + ".",
		in:    make(chan *natsgo.Msg, 1<<14),
		asked: map[string]bool{},
	}
	if _, err := b.nc.ChanSubscribe(b.noResponders.inbox+"*", b.noResponders.in); err != nil {
		return nil, b.o.explain(err)
	}
	return newCoalescer(b, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
		defer cancel()
		err := b.nc.FlushWithContext(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			_ = b.nc.ForceReconnect() // it fails if the connection is closed
		}
		b.noResponders.drain()
		b.denials.waitNoted(b.nc, b.o.Timeout)
		return struct{}{}, err
	}), nil
}

// drain handles the answers that have arrived.
func (a *answers) drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		select {
		case msg := <-a.in:
			key := strings.TrimPrefix(msg.Subject, a.inbox)
			if _, asked := a.asked[key]; asked && msg.Header.Get("Status") == "503" {
				a.asked[key] = true
			}
		default:
			return
		}
	}
}

// ask returns the last token of the inbox for a new message.
func (a *answers) ask() (key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	key = strconv.FormatUint(a.count, 36)
	a.asked[key] = false
	return key
}

// forget removes a key, and returns whether its message had no subscriber.
func (a *answers) forget(key string) (none bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	none = a.asked[key]
	delete(a.asked, key)
	return none
}

// publish publishes an event that is not kept. It returns None if NATS has no subscriber, and
// otherwise Unknown, because a subscriber need not be a node.
func (b *Broker) publish(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	data := broker.AppendEntry([]byte{formPlain}, e)
	if err := b.checkSize(len(data)); err != nil {
		return broker.Appended{}, err
	}
	link := b.link()
	needed := action{publishes: true, subject: b.subjects.channel(channel)}
	msg := &natsgo.Msg{Subject: needed.subject, Data: data}
	b.mu.Lock()
	followsHere := b.following[channel] != nil
	b.mu.Unlock()
	key := ""
	if !followsHere {
		key = b.noResponders.ask()
		defer b.noResponders.forget(key)
		msg.Reply = b.noResponders.inbox + key
	}
	mark := b.denials.mark()
	err := b.send(ctx, link, msg)
	if err != nil {
		return broker.Appended{}, err
	}
	if err := b.denials.since(needed, mark); err != nil {
		return broker.Appended{}, err
	}
	if key != "" && b.noResponders.forget(key) {
		return broker.Appended{Receivers: broker.None}, nil
	}
	return broker.Appended{}, nil
}

// send publishes a message and returns when NATS has confirmed it.
func (b *Broker) send(ctx context.Context, link context.Context, msg *natsgo.Msg) error {
	reconnects := b.nc.Stats().Reconnects
	if err := b.nc.PublishMsg(msg); err != nil {
		b.markAway(link, b.explain(err))
		return fmt.Errorf("%w: %w", broker.ErrAway, err)
	}
	if err := b.confirm(ctx, link); err != nil {
		return err
	}
	if b.nc.Stats().Reconnects != reconnects {
		// A message that was sent over the old connection can be lost.
		b.markAway(link, errNotConnected)
		return fmt.Errorf("%w: the connection was lost before NATS confirmed the message", broker.ErrAway)
	}
	return nil
}

// confirm returns when NATS has received all that was sent before.
func (b *Broker) confirm(ctx, link context.Context) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(link, func() { cancel(context.Cause(link)) })()
	_, err := b.flushes.get(inner)
	switch {
	case err == nil, errors.Is(err, broker.ErrClosed):
		return err
	case b.isClosed():
		return broker.ErrClosed
	case ctx.Err() != nil && link.Err() == nil:
		return err
	}
	b.markAway(link, b.explain(err))
	return fmt.Errorf("%w: %w", broker.ErrAway, err)
}
