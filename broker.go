package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// Message is one channel event on its way through a Broker.
type Message struct {
	Event string
	// Data is the event's data: one JSON text, compact, valid UTF-8.
	Data json.RawMessage
	// Except is the id of a connection that does not get the event, or "".
	Except string
	// Node is the id of the Server that published, Seq a number that it gives to
	// this message only and that grows: together they tell a message that comes twice.
	Node string
	Seq  uint64
}

// Receivers is what a Broker knows of a message's subscribers on other nodes.
type Receivers int

const (
	None    Receivers = iota // no other node has subscribers
	Some                     // another node took the message
	Unknown                  // the Broker cannot tell
)

// ErrTooLarge is what a Broker's Publish and a PresenceStore's Join return, wrapped
// with the sizes, for what they can never take however often it is tried again, such
// as a message over a server's maximum. The trigger answers it with 413.
var ErrTooLarge = broker.ErrTooLarge

// EventResync tells clients that events of the channel may have been lost.
const EventResync = "pushy:resync"

// A Broker carries events between Servers that act as one. The default serves
// one process.
//
// A Server calls Open once, before anything else, and Close last. The other
// methods are called from many goroutines, never with a lock held; for one
// channel, Subscribe and Unsubscribe take turns, one at a time. All return
// within ctx. Data is never changed by either side, so both may keep it.
//
// deliver must be called with every message of a subscribed channel, the
// node's own included, once, and in each publisher's order for a channel; never
// after Close has returned. It only queues, so it returns soon. A message may
// still be delivered while Unsubscribe runs. When messages of a channel may have
// been lost, a message with EventResync and data {} is delivered for it, as soon
// as they come again; no Server publishes one.
//
// A Server trusts nothing that a Broker delivers, since others may write to what it
// works with. It skips a message whose event name the protocol does not allow, or
// whose data is not one JSON value of valid UTF-8 under 16 MiB (or
// Limits.TriggerBytes, if that is more), and logs that once a minute. If a method of
// a Broker or PresenceStore panics or ends its goroutine (runtime.Goexit), that call
// has failed, and the log says how. Only a Publish that ends its goroutine ends that
// of Server.Publish's caller, too.
//
// A Broker, and a PresenceStore, that cannot reach what it works with may serve
// its own node alone meanwhile, or answer with errors. If it has a method
// Away() error, that returns why it is away, or nil, at once: see Stats.
type Broker interface {
	Open(ctx context.Context, deliver func(channel string, m Message)) error
	// Publish returns when the message is on its way; the node's own delivery
	// may already have happened.
	Publish(ctx context.Context, channel string, m Message) (Receivers, error)
	// Subscribe returns when messages of the channel will be delivered. After an
	// error the Server calls Unsubscribe.
	Subscribe(ctx context.Context, channel string) error
	Unsubscribe(ctx context.Context, channel string) error
	Close() error
}

// localBroker is the Broker of a single process: a publish is a delivery.
type localBroker struct {
	mu      sync.RWMutex // held while delivering, so that Close can promise silence
	deliver func(string, Message)
}

var _ Broker = (*localBroker)(nil)

var errBrokerClosed = errors.New("pushy: broker closed")

func (b *localBroker) Open(_ context.Context, deliver func(string, Message)) error {
	b.mu.Lock()
	b.deliver = deliver
	b.mu.Unlock()
	return nil
}

func (b *localBroker) Publish(_ context.Context, channel string, m Message) (Receivers, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.deliver == nil {
		return None, errBrokerClosed
	}
	b.deliver(channel, m)
	return None, nil
}

func (b *localBroker) Subscribe(context.Context, string) error   { return nil }
func (b *localBroker) Unsubscribe(context.Context, string) error { return nil }

func (b *localBroker) Close() error {
	b.mu.Lock()
	b.deliver = nil
	b.mu.Unlock()
	return nil
}
