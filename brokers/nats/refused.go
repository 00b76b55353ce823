package nats

import (
	"context"
	"strings"
	"time"
)

const (
	resubscribeFirst = time.Second
	resubscribeMost  = 30 * time.Second
)

// permitted returns an error if NATS denies what every node needs. With
// RequireAtStart it tries whether events are permitted, on a subject that is no
// channel's.
func (b *bus) permitted() error {
	if !b.nc.IsConnected() {
		return nil // the operations get the errors
	}
	needs := []action{b.denials.inbox()}
	if b.o.RequireAtStart {
		probe := b.o.Prefix + ".e.%"
		sub, err := b.nc.SubscribeSync(probe)
		if err == nil {
			defer func() { _ = sub.Unsubscribe() }()
			err = b.nc.Publish(probe, nil)
		}
		if err != nil {
			return b.o.explain(err)
		}
		needs = append(needs, action{publishes: true, subject: probe}, action{subject: probe})
	}
	if err := b.line.flush(); err != nil && b.o.RequireAtStart {
		return b.o.explain(err)
	}
	b.denials.settle(b.nc, b.o.Timeout)
	for _, a := range needs {
		if err := b.denials.since(a, 0); err != nil {
			return err
		}
	}
	return nil
}

// refuse notes that a channel's subscription is not permitted any more: the
// server's permissions have changed, or another server has other ones.
func (b *bus) refuse(a action) {
	name, is := strings.CutPrefix(a.subject, b.o.Prefix+".e.")
	channel, ok := channelOf(name)
	if a.publishes || !is || !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs[channel] == nil || b.pending[channel] != nil {
		return // whoever subscribes gets the error
	}
	b.refused[channel] = b.denials.since(a, 0)
	select {
	case b.again <- struct{}{}:
	default:
	}
}

// isAway returns why events are not shared, or why a subscribed channel gets none,
// or nil.
func (b *bus) isAway() error {
	if err := b.away.Load(); err != nil {
		return *err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, err := range b.refused {
		return err
	}
	return nil
}

// resubscribe subscribes to refused channels until that is permitted again. nats.go
// does so with a new connection only.
func (b *bus) resubscribe() {
	for {
		select {
		case <-b.done:
			return
		case <-b.again:
		}
		for wait := resubscribeFirst; ; wait = min(2*wait, resubscribeMost) {
			select {
			case <-b.done:
				return
			case <-time.After(wait):
			}
			if b.resubscribeOnce() {
				break
			}
		}
	}
}

// resubscribeOnce reports whether no channel is refused any more.
func (b *bus) resubscribeOnce() bool {
	b.mu.Lock()
	refused := make([]string, 0, len(b.refused))
	for channel := range b.refused {
		refused = append(refused, channel)
	}
	b.mu.Unlock()
	for _, channel := range refused {
		p := b.subscribing(channel, func(current *subscription) bool { return current != nil })
		b.mu.Lock()
		if b.subs[channel] == nil || b.pending[channel] != nil {
			delete(b.refused, channel) // unsubscribed, or about to be subscribed anew
			b.mu.Unlock()
			continue
		}
		b.pending[channel] = p
		b.mu.Unlock()
		err := b.do(context.Background(), p)
		b.mu.Lock()
		mine := b.pending[channel] == p
		if mine {
			delete(b.pending, channel)
		}
		s := b.subs[channel]
		if mine && err == nil {
			delete(b.refused, channel)
		}
		b.mu.Unlock()
		if mine && err == nil && s != nil {
			s.push(b.resync(""), b.done) // events were missed
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.refused) == 0
}
