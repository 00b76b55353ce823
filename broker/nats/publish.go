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

// answers takes what NATS answers to messages without a subscriber. It comes before
// the confirmation of what was sent.
type answers struct {
	inbox string
	in    chan *natsgo.Msg

	mu    sync.Mutex
	count uint64
	asked map[string]bool // by the inbox's last token: whether there is no subscriber
}

// newWritten returns what confirms that NATS has all that was sent before, and takes
// the answers that came with that.
func (b *Broker) newWritten() (*rounds[struct{}], error) {
	b.nobody = answers{
		inbox: b.nc.NewInbox() + ".",
		in:    make(chan *natsgo.Msg, 1<<14),
		asked: map[string]bool{},
	}
	if _, err := b.nc.ChanSubscribe(b.nobody.inbox+"*", b.nobody.in); err != nil {
		return nil, b.o.explain(err)
	}
	return newRounds(b, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
		defer cancel()
		err := b.nc.FlushWithContext(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			_ = b.nc.ForceReconnect() // it fails if the connection is closed
		}
		b.nobody.take()
		b.denials.settle(b.nc, b.o.Timeout)
		return struct{}{}, err
	}), nil
}

func (a *answers) take() {
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

func (a *answers) ask() (key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	key = strconv.FormatUint(a.count, 36)
	a.asked[key] = false
	return key
}

func (a *answers) forget(key string) (none bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	none = a.asked[key]
	delete(a.asked, key)
	return none
}

// publish sends an event that is not kept. It returns None if NATS knows of no
// subscriber, else Unknown: a subscription of others, such as an operator's, looks the
// same as a node's.
func (b *Broker) publish(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	data := broker.AppendEntry([]byte{formPlain}, e)
	if err := b.fits(len(data)); err != nil {
		return broker.Appended{}, err
	}
	link, does := b.link(), action{publishes: true, subject: b.subjects.channel(channel)}
	msg := &natsgo.Msg{Subject: does.subject, Data: data}
	b.mu.Lock()
	here := b.following[channel] != nil
	b.mu.Unlock()
	key := ""
	if !here {
		key = b.nobody.ask()
		defer b.nobody.forget(key)
		msg.Reply = b.nobody.inbox + key
	}
	mark := b.denials.mark()
	err := b.send(ctx, link, msg)
	if err != nil {
		return broker.Appended{}, err
	}
	if err := b.denials.since(does, mark); err != nil {
		return broker.Appended{}, err
	}
	if key != "" && b.nobody.forget(key) {
		return broker.Appended{Receivers: broker.None}, nil
	}
	return broker.Appended{}, nil
}

// send publishes a message and returns when NATS has it.
func (b *Broker) send(ctx context.Context, link context.Context, msg *natsgo.Msg) error {
	reconnects := b.nc.Stats().Reconnects
	if err := b.nc.PublishMsg(msg); err != nil {
		b.goAway(link, b.explain(err))
		return fmt.Errorf("%w: %w", broker.ErrAway, err)
	}
	if err := b.confirm(ctx, link); err != nil {
		return err
	}
	if b.nc.Stats().Reconnects != reconnects {
		// What was sent with the old connection may be lost.
		b.goAway(link, errNotConnected)
		return fmt.Errorf("%w: the connection was lost before NATS had confirmed", broker.ErrAway)
	}
	return nil
}

// confirm returns when NATS has all that was sent before.
func (b *Broker) confirm(ctx, link context.Context) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(link, func() { cancel(context.Cause(link)) })()
	_, err := b.written.get(inner)
	switch {
	case err == nil, errors.Is(err, broker.ErrClosed):
		return err
	case b.isClosed():
		return broker.ErrClosed
	case ctx.Err() != nil && link.Err() == nil:
		return err
	}
	b.goAway(link, b.explain(err))
	return fmt.Errorf("%w: %w", broker.ErrAway, err)
}
