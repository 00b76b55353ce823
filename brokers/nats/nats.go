// Package nats lets pushy Servers on several machines act as one, through a NATS
// server or cluster that they share:
//
//	shared, err := nats.New(ctx, nats.Options{URL: "nats://127.0.0.1:4222"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: shared, Presence: shared})
//
// Events go through core NATS: no storage, one subscription for each channel
// with members on this node, one message a publish. Presence is a log in a
// JetStream stream, so the server needs JetStream (nats-server -js) for it. NATS
// 2.9 and later will do.
//
// # Subjects and permissions
//
// A channel is one token: its name, with every byte but a-z, 0-9, "_" and "-"
// as %XX. With the default prefix these are the subjects:
//
//	pushy.e.{channel}    events
//	pushy.p.c.{channel}  presence entries, which the stream pushy-presence keeps
//	pushy.p.n.{node}     signs of life of the nodes, in the same stream
//	pushy.o.>            what the stream has stored, sent again to the nodes
//	_INBOX.>             answers; Options.InboxPrefix replaces _INBOX
//
// A user needs these permissions in the server's configuration; with
// Options.EventsOnly those for pushy.e.> and _INBOX.> are enough:
//
//	permissions: {
//	  publish: ["pushy.e.>", "pushy.p.>", "$JS.API.>"]
//	  subscribe: ["pushy.e.>", "pushy.o.>", "_INBOX.>"]
//	}
//
// What NATS does not permit is an error of the call that needed it, with the subject
// in it, and one line in the log. With Options.RequireAtStart New tries it first.
//
// # When NATS is away
//
// A node that cannot reach NATS serves its own clients alone: events reach the
// subscribers it has, members see those that come and go here. Its Server's Stats say so. It
// tries again at once and then at least every two seconds. When it is back,
// members get the list anew, and pushy:resync goes to the channels where
// something may have been missed: its own, and elsewhere those that it published
// to meanwhile.
package nats

import (
	"context"
	"errors"

	"github.com/gopushy/pushy"
)

var (
	errClosed = errors.New("nats: closed")
	errAlone  = errors.New("nats: away, and too many channels have taken messages meanwhile")
	errNone   = errors.New("nats: Options.EventsOnly is set: there is no presence")
	errLost   = errors.New("nats: the connection was lost before NATS had confirmed")
)

// Broker is a node's connections to NATS, both its pushy.Broker and its
// pushy.PresenceStore. All methods are safe for concurrent use.
type Broker struct {
	bus      *bus
	presence *presence // nil with EventsOnly
}

var (
	_ pushy.Broker        = (*Broker)(nil)
	_ pushy.PresenceStore = (*Broker)(nil)
)

// New connects, once for events and once for presence. ctx bounds the first attempt,
// in which each server of Options.URL has Options.Timeout to answer. The error is a
// *SettingError for Options that are wrong, or that NATS does not accept, and, with
// RequireAtStart, if NATS cannot be reached or does not permit what is needed.
func New(ctx context.Context, options Options) (*Broker, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broker{}
	if b.bus, err = newBus(ctx, o); err != nil {
		return nil, err
	}
	if !o.EventsOnly {
		if b.presence, err = newPresence(ctx, o); err != nil {
			b.bus.close()
			return nil, err
		}
	}
	return b, nil
}

// Open sets where messages go.
func (b *Broker) Open(_ context.Context, deliver func(channel string, m pushy.Message)) error {
	return b.bus.open(deliver)
}

// Publish returns when the NATS server has the message. It returns None if the
// server knows of no subscriber, else Unknown: a subscription of others, such as
// an operator's, looks the same. While NATS is away the message reaches this node's
// subscribers only, and the others get pushy:resync later.
func (b *Broker) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	return b.bus.publish(ctx, channel, m)
}

// Subscribe returns when the NATS server has the subscription, or at once while
// NATS is away. Servers of a NATS cluster tell each other soon after.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	return b.bus.subscribe(ctx, channel)
}

// Unsubscribe ends delivery at once, and tells the NATS server when it can.
func (b *Broker) Unsubscribe(_ context.Context, channel string) error {
	b.bus.unsubscribe(channel)
	return nil
}

// Join logs that m joined; while NATS is away it does so for this node alone.
func (b *Broker) Join(ctx context.Context, channel string, m pushy.Member) error {
	if b.presence == nil {
		return errNone
	}
	return b.presence.join(ctx, channel, m)
}

// Leave logs that a member of this node left, now or when it can.
func (b *Broker) Leave(ctx context.Context, channel, memberID string) error {
	if b.presence == nil {
		return errNone
	}
	return b.presence.quit(ctx, channel, memberID)
}

// Watch follows a channel's log.
func (b *Broker) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	if b.presence == nil {
		return pushy.Snapshot{}, errNone
	}
	return b.presence.watch(ctx, channel, apply)
}

// Away returns why this node serves its clients alone, or nil. It is a *SettingError
// of a permission, too, that NATS has withdrawn from a subscription.
func (b *Broker) Away() error {
	if err := b.bus.isAway(); err != nil || b.presence == nil {
		return err
	}
	return b.presence.isAway()
}

// Close logs that this node's members left, as far as that can be done in 3 s, and
// ends. A second Close does nothing, so a Server may be given one Broker for both.
func (b *Broker) Close() error {
	if b.presence != nil {
		b.presence.close()
	}
	b.bus.close()
	return nil
}
