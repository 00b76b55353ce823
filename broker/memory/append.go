package memory

import (
	"context"
	"fmt"

	"github.com/gopushy/pushy/broker"
)

// Append implements broker.Broker.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if err := ctx.Err(); err != nil {
		return broker.Appended{}, err
	}
	if err := b.reachable(); err != nil {
		return broker.Appended{}, err
	}
	if e.ID != "" {
		return b.appendOnce(ctx, channel, e)
	}
	if e.Kind == broker.Event && e.Keep.Size <= 0 {
		return b.pass(channel, e), nil
	}
	return b.appendEntry(channel, e)
}

// pass delivers an event that is not kept. It does not create a log for a channel that no
// node follows.
func (b *Broker) pass(channel string, e broker.Entry) broker.Appended {
	l := b.cluster.shard(channel).find(channel)
	if l == nil {
		return broker.Appended{Receivers: broker.None}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliverLocked(e)
	return broker.Appended{Receivers: l.receiversLocked(b)}
}

func (l *channelLog) receiversLocked(from *Broker) broker.Receivers {
	others := len(l.followers)
	if _, here := l.followers[from]; here {
		others--
	}
	if others > 0 {
		return broker.Some
	}
	return broker.None
}

func (b *Broker) appendEntry(channel string, e broker.Entry) (broker.Appended, error) {
	l := b.cluster.logOf(channel)
	defer l.mu.Unlock()
	a := broker.Appended{Receivers: l.receiversLocked(b)}
	var err error
	switch e.Kind {
	case broker.Event:
		a.At = l.appendEventLocked(e)
	case broker.Join, broker.Update, broker.Leave, broker.Adopt:
		a.At, a.Duplicate, err = l.appendMemberLocked(b, e)
	default:
		err = fmt.Errorf("memory: append: unknown kind %d", e.Kind)
	}
	b.cluster.dropIfUnusedLocked(l)
	return a, err
}
