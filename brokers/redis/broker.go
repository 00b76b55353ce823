package redis

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy"
)

// Open sets where messages go. The connection is New's.
func (b *Broker) Open(_ context.Context, deliver func(channel string, m pushy.Message)) error {
	b.alone.Lock()
	defer b.alone.Unlock()
	if b.closed {
		return errClosed
	}
	b.mu.Lock()
	b.receiver = deliver
	b.mu.Unlock()
	return nil
}

// Publish sends a message with one command. While the node is alone it reaches
// this node's subscribers only, and the others get EventResync later.
func (b *Broker) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	if err := ctx.Err(); err != nil {
		return pushy.None, err
	}
	l := b.lane(channel)
	own, up := l.has(channel)
	if !up {
		if receivers, alone, err := l.publishAlone(channel, m); alone {
			return receivers, err
		}
	}
	k := b.link.Load()
	n, err := l.publish(ctx, k, channel, m)
	switch {
	case err != nil:
		return pushy.None, fmt.Errorf("redis: publish: %w", err)
	case !k.counts:
		return pushy.Unknown, nil
	case own:
		n--
	}
	if n > 0 {
		return pushy.Some, nil
	}
	return pushy.None, nil
}

// has reports whether Redis sends this node a channel's messages, and whether the
// lane is up at all.
func (l *lane) has(channel string) (subscribed, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.subs[l.name(channel)]
	return s != nil && s.confirmed, l.up
}

// publishAlone delivers to this node and notes that others have missed it, unless
// the lane is up again.
func (l *lane) publishAlone(channel string, m pushy.Message) (_ pushy.Receivers, alone bool, _ error) {
	l.b.alone.RLock()
	defer l.b.alone.RUnlock()
	if l.b.closed {
		return pushy.None, true, errClosed
	}
	l.mu.Lock()
	if l.up {
		l.mu.Unlock()
		return pushy.None, false, nil
	}
	s := l.subs[l.name(channel)]
	events := s != nil && s.events
	if l.missed[channel] = true; len(l.missed) > maxMissed {
		l.many = true
		clear(l.missed)
	}
	l.mu.Unlock()
	if events {
		l.b.deliver(channel, m)
	}
	return pushy.Unknown, true, nil
}

// publish returns how many connections have subscribed.
func (l *lane) publish(ctx context.Context, k *link, channel string, m pushy.Message) (int64, error) {
	ctx, cancel := l.b.bounded(ctx)
	defer cancel()
	text := encode(m)
	what := "PUBLISH"
	var command rueidis.Completed
	switch name := l.name(channel); {
	case k.sharded:
		what = "SPUBLISH"
		command = k.B().Spublish().Channel(name).Message(text).Build()
	case l.b.opts.Cluster: // always to the same node of it, or the order is lost
		command = k.B().Arbitrary("PUBLISH").Keys(name).Args(text).Build()
	default:
		command = k.B().Publish().Channel(name).Message(text).Build()
	}
	n, err := k.Do(ctx, command).AsInt64()
	l.b.judge(k, what+" "+l.tag+"*", err)
	return n, err
}

// Subscribe returns when Redis sends the channel's messages, or at once while the
// node is alone.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	if b.ctx.Err() != nil {
		return errClosed
	}
	return b.lane(channel).want(ctx, channel, func(s *sub) { s.events = true })
}

// Unsubscribe returns when no more messages come.
func (b *Broker) Unsubscribe(ctx context.Context, channel string) error {
	done := b.lane(channel).release(channel, func(s *sub) { s.events = false })
	if done == nil {
		return nil
	}
	return await(ctx, done)
}
