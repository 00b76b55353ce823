package hub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
)

const (
	backlogWorkers  = 32
	minBacklogPause = 250 * time.Millisecond
	maxBacklogPause = 5 * time.Second
	// maxGaps is the number of channels in which events can be published while the broker
	// is away.
	maxGaps = 10_000
)

// backlog has the joins and leaves that the broker could not log, and the channels that
// have had events on this node only. It retries each item until the broker has logged it,
// so that the other nodes eventually see the right members of this node.
type backlog struct {
	hub *Hub

	mu      sync.Mutex
	items   map[memberKey]backlogItem
	gaps    int           // the number of items that are channels
	added   uint64        // the number of items that were ever added
	running chan struct{} // closed when the goroutine has ended; nil while there is none
	again   chan struct{} // has an element if the goroutine is to retry at once
}

// memberKey is the key of an item. It has the owner because, after an adoption, a Leave of the
// earlier owner must not replace an item of the present one. For a channel that has had events,
// member and owner are "".
type memberKey struct{ channel, member, owner string }

type backlogItem struct {
	of    *loggedMember // nil if the member is not known any more
	join  bool          // log the join of a member, unless it has ended; if false, log a leave
	after time.Time     // the earliest time of an attempt
	late  time.Time     // until then, the entry that the Leave is for can still be appended
	n     uint64        // distinguishes successive items with the same key
}

// addLeave adds the leave of a member that is not known any more. Until the time late, the
// adoption by its owner can still be appended.
func (b *backlog) addLeave(channel, member, owner string, late time.Time) {
	b.add(memberKey{channel, member, owner}, backlogItem{late: late})
}

// addLeaveOf adds the leave of l, with the earliest time of an attempt.
func (b *backlog) addLeaveOf(l *loggedMember, after time.Time) {
	b.add(l.key(), backlogItem{
		of:    l,
		after: after,
	})
}

// addJoin adds the join of l, which is to be logged, or to be logged again.
func (b *backlog) addJoin(l *loggedMember) {
	b.add(l.key(), backlogItem{
		of:   l,
		join: true,
	})
}

func (l *loggedMember) key() memberKey {
	return memberKey{
		channel: l.ch.name,
		member:  l.member.ID,
		owner:   l.member.Owner,
	}
}

// addGap adds a channel that has had an event which other nodes do not receive. It returns
// false if there are maxGaps such channels already.
func (b *backlog) addGap(channel string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := memberKey{channel: channel}
	if _, known := b.items[key]; !known {
		if b.gaps >= maxGaps {
			return false
		}
		if b.hub.ctx.Err() == nil {
			b.gaps++
		}
	}
	b.addLocked(key, backlogItem{})
	return true
}

func (b *backlog) add(key memberKey, item backlogItem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(key, item)
}

func (b *backlog) addLocked(key memberKey, item backlogItem) {
	if b.hub.ctx.Err() != nil {
		return // the broker removes this node's members when the lease expires
	}
	if b.items == nil {
		b.items = map[memberKey]backlogItem{}
	}
	if earlier, ok := b.items[key]; ok && item.of == nil {
		item.of = earlier.of // its Join can still be appended late
	}
	b.added++
	item.n = b.added
	b.items[key] = item
	if b.running == nil {
		b.running = make(chan struct{})
		b.again = make(chan struct{}, 1)
		go b.run(b.running, b.again)
	}
}

// len returns the number of items.
func (b *backlog) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items)
}

// has reports whether a join or leave of a member of this node is still to be logged.
func (b *backlog) has(channel, member, owner string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.items[memberKey{channel, member, owner}]
	return ok
}

// retry makes the backlog try all items at once.
func (b *backlog) retry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		return
	}
	select {
	case b.again <- struct{}{}:
	default:
	}
}

// wait returns when the goroutine has ended. It must be called after the end of the hub's
// ctx.
func (b *backlog) wait() {
	b.mu.Lock()
	running := b.running
	b.mu.Unlock()
	if running != nil {
		<-running
	}
}

func (b *backlog) run(running, again chan struct{}) {
	defer close(running)
	ctx := b.hub.ctx
	for pause := minBacklogPause; ctx.Err() == nil; pause = min(2*pause, maxBacklogPause) {
		if b.tryAll(ctx) {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-again:
			pause = minBacklogPause / 2
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// tryAll tries each item once. The items of one channel are tried one after the other in
// the order in which they were added, so that members keep their order. It reports whether
// no item is left; then the goroutine ends.
func (b *backlog) tryAll(ctx context.Context) bool {
	b.mu.Lock()
	byChannel := map[string][]memberKey{}
	for key := range b.items {
		byChannel[key.channel] = append(byChannel[key.channel], key)
	}
	work := make(chan []memberKey, len(byChannel))
	for _, keys := range byChannel {
		slices.SortFunc(keys, func(x, y memberKey) int { return cmp.Compare(b.items[x].n, b.items[y].n) })
		work <- keys
	}
	b.mu.Unlock()
	close(work)
	var workers sync.WaitGroup
	for range min(backlogWorkers, len(work)) {
		workers.Go(func() {
			for keys := range work {
				for _, key := range keys {
					b.try(ctx, key)
				}
			}
		})
	}
	workers.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) > 0 {
		return false
	}
	b.running = nil
	return true
}

func (b *backlog) try(ctx context.Context, key memberKey) {
	b.mu.Lock()
	item, ok := b.items[key]
	b.mu.Unlock()
	if !ok || ctx.Err() != nil || time.Now().Before(item.after) {
		return
	}
	done := false
	switch {
	case key.member == "":
		done = b.gap(ctx, key.channel)
	case item.join && !item.of.hasEnded():
		done = b.join(ctx, key, item.of)
	default:
		done = b.leave(ctx, key, item.of)
	}
	if !done {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.items[key].n != item.n: // a newer item has replaced this one
	case time.Now().Before(item.late):
		item.after = item.late
		b.items[key] = item
	default:
		delete(b.items, key)
		if key.member == "" {
			b.gaps--
		}
	}
}

// gap notifies the other nodes of events that they did not receive.
func (b *backlog) gap(ctx context.Context, channel string) (done bool) {
	ctx, cancel := b.hub.operation(ctx)
	defer cancel()
	_, err := b.hub.cfg.Broker.Append(ctx, channel, broker.Entry{
		Kind:  broker.Event,
		Event: GapEvent,
		From:  b.hub.cfg.Node,
		Data:  []byte("{}"),
	})
	return err == nil
}

func (b *backlog) join(ctx context.Context, key memberKey, l *loggedMember) (done bool) {
	ctx, cancel := b.hub.operation(ctx)
	defer cancel()
	entry := l.ch.joinEntry(l)
	_, err := b.hub.cfg.Broker.Append(ctx, key.channel, entry)
	switch {
	case errors.Is(err, broker.ErrTooLarge):
		b.hub.cfg.Notices.Warn("a membership ends: its join is too large for the broker", key.channel,
			slog.String("channel", key.channel), slog.Any("error", err))
		l.endInBackground(false)
		return true
	case errors.Is(err, broker.ErrNotOwner), errors.Is(err, broker.ErrMemberExists):
		l.endInBackground(true) // another node has adopted the member
		return true
	case err != nil:
		l.uncertain(err)
		return false
	case l.hasEnded(): // its own leave may have been appended before this join
		key.owner = entry.Owner
		return b.leave(ctx, key, l)
	}
	return l.ch.appendLate(l) == nil
}

// leaveAgain adds the leave of l again if a Join of l can still be appended.
func (b *backlog) leaveAgain(l *loggedMember) {
	if late := l.late.Load(); late != nil && time.Now().Before(*late) {
		b.addLeaveOf(l, *late)
	}
}

// leave appends a Leave. l is nil if the member is not known any more.
func (b *backlog) leave(ctx context.Context, key memberKey, l *loggedMember) (done bool) {
	ctx, cancel := b.hub.operation(ctx)
	defer cancel()
	_, err := b.hub.cfg.Broker.Append(ctx, key.channel, leaveEntry(key.member, key.owner))
	if err != nil && !errors.Is(err, broker.ErrNotOwner) {
		return false
	}
	if l != nil {
		b.leaveAgain(l)
	}
	return true
}
