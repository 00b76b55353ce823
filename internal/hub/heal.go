package hub

import (
	"context"
	"errors"
	"time"

	"github.com/gopushy/pushy/broker"
)

const (
	// healTimeout limits the time for which events wait while the log is read.
	healTimeout = time.Second
	// maxHeals is the number of channels that are healed at once, and healWait limits the time
	// for which others wait. It is longer than one read, because after an outage of the broker
	// all channels are healed.
	maxHeals = 64
	healWait = 3 * time.Second
	// A channel that has needed healsMost heals within healsWindow is not healed again:
	// its members receive a Gap event.
	healsMost   = 3
	healsWindow = time.Minute
)

// SetPatience makes the times at least d for which clients and events wait for the broker's log and
// for its entries. Only tests with several nodes in real time use it.
func (h *Hub) SetPatience(d time.Duration) { h.patience.Store(int64(d)) }

// patient returns how long something waits for the broker, where d is that outside of tests.
func (h *Hub) patient(d time.Duration) time.Duration {
	return max(d, time.Duration(h.patience.Load()))
}

// healsOften reports whether deliveries have caused too many heals lately.
func (k *history) healsOften(now time.Time) bool {
	for len(k.heals) > 0 && now.Sub(k.heals[0]) >= healsWindow {
		k.heals = k.heals[1:]
	}
	return len(k.heals) >= healsMost
}

// stallLocked holds the kept events that are delivered from now on, and reads those that
// are missing from the log.
func (ch *Channel) stallLocked() {
	k := ch.history
	if k.stalled || k.closed {
		return
	}
	k.stalled = true
	k.healed = make(chan struct{})
	h := ch.hub
	if !h.serving.Start() {
		return // the members are disconnected
	}
	at, turn := k.place(), k.turn
	go func() {
		defer h.serving.End()
		ch.heal(at, turn)
	}()
}

// endStall ends the stall without sending what was held.
func (k *history) endStall() {
	if !k.stalled {
		return
	}
	k.stalled = false
	k.held = nil
	k.bytes = 0
	k.dropped = false
	k.onWay = false
	close(k.healed)
}

// heal reads the events after a place from the log, and sends them to the members. It has no
// effect if a Reset has replaced the place meanwhile.
func (ch *Channel) heal(at broker.Position, turn uint64) {
	h := ch.hub
	page, err := ch.readAfter(at)
	missing := make([]keptEvent, len(page.Entries))
	for i := range page.Entries {
		missing[i] = keptEvent{
			entry: page.Entries[i],
			frame: ch.keptFrame(&page.Entries[i]),
		}
	}
	ch.endHeal(turn, page, missing, err)
	ch.logGap()
	h.limitKept()
}

// readAfter reads the events after a place from the log.
func (ch *Channel) readAfter(at broker.Position) (broker.Page, error) {
	h := ch.hub
	wait, cancel := context.WithTimeout(h.ctx, h.patient(healWait))
	defer cancel()
	select {
	case h.heals <- struct{}{}:
	case <-wait.Done():
		return broker.Page{}, wait.Err()
	}
	defer func() { <-h.heals }()
	ctx, cancel := context.WithTimeout(h.ctx, h.patient(healTimeout))
	defer cancel()
	return h.history.Read(ctx, ch.name, broker.Range{
		Epoch: at.Epoch,
		After: at.Offset,
		Limit: maxReplay,
		Bytes: ch.history.replayBytes,
	})
}

func (ch *Channel) endHeal(turn uint64, page broker.Page, missing []keptEvent, err error) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	if k.turn != turn || !k.stalled {
		return
	}
	ch.compact()
	held, dropped, onWay := k.held, k.dropped, k.onWay
	k.endStall()
	switch {
	case errors.Is(err, broker.ErrEpoch) && k.own:
		ch.breakLocked(PastUnavailable, page.Top)
	case errors.Is(err, broker.ErrEpoch):
		ch.breakLocked(newEpoch(k.epoch, page.Top.Epoch), page.Top)
	case errors.Is(err, broker.ErrAway), ch.hub.ctx.Err() != nil:
		return // a Reset follows when the broker is back; the log has what was held
	case err != nil && len(held) > 0:
		to := held[0].entry.At
		to.Offset--
		if to != k.place() {
			ch.breakLocked(PastUnavailable, to)
		}
	case err != nil:
		return // it is tried again, at the latest when the broker is asked for the place
	default:
		ch.fillGapLocked(page, missing, held, onWay)
	}
	for _, event := range held {
		ch.arriveKeptLocked(event.late())
	}
	for _, event := range missing { // those that follow what was held
		if at := event.entry.At; !k.stalled && at.Epoch == k.epoch && at.Offset == k.ring.last+1 {
			ch.sendKeptLocked(event.late(), time.Now())
		}
	}
	if dropped {
		ch.stallLocked() // if the log cannot be read, the next event is out of order again
	}
	ch.countLocked()
}

// fillGapLocked sends the missing events to the members, up to those that were held. If the
// log does not have all of them, or if they are too many, the members receive a Gap event, unless
// they can be on their way: then they are delivered, or found to be lost by the next delivery, or
// when the broker is asked for the place.
func (ch *Channel) fillGapLocked(page broker.Page, missing, held []keptEvent, onWay bool) {
	k := ch.history
	end := page.Top
	if len(held) > 0 && held[0].entry.At.Epoch == end.Epoch {
		end.Offset = held[0].entry.At.Offset - 1 // what was held is not missing, nor what follows it
		onWay = false
	}
	if !onWay && page.More && len(missing) > 0 && missing[len(missing)-1].entry.At.Offset < end.Offset {
		ch.breakLocked(PastLarge, end)
		return
	}
	now := time.Now()
	for _, event := range missing {
		at := event.entry.At
		if at.Offset <= k.ring.last {
			continue
		}
		if at.Offset > end.Offset || onWay && at.Offset > k.ring.last+1 {
			break
		}
		if at.Offset > k.ring.last+1 {
			ch.breakLocked(k.lost(page), broker.Position{Epoch: page.Top.Epoch, Offset: at.Offset - 1})
		}
		ch.sendKeptLocked(event.late(), now)
	}
	if end.Offset > k.ring.last && !onWay {
		ch.breakLocked(k.lost(page), end)
	}
}

// lost returns why the log does not have an event any more. It judges from what is left: the
// oldest events are removed when there are too many of them, or too many bytes; else their
// time has passed.
func (k *history) lost(page broker.Page) string {
	left := int(page.Top.Offset + 1 - page.First)
	bytes := 0
	for i := range page.Entries {
		bytes += len(page.Entries[i].Data)
	}
	return k.lostWith(left, bytes)
}

func (k *history) lostWith(left, bytes int) string {
	if left >= k.keep.Size || k.keep.Bytes > 0 && bytes > k.keep.Bytes/2 {
		return PastTrimmed
	}
	return PastExpired
}

// call is a call of the broker that several goroutines wait for.
type call struct {
	done chan struct{}
	err  error // set before done is closed
}

func newCall() *call { return &call{done: make(chan struct{})} }

// asking asks the broker for the channel's place, one call at a time and at most one each
// second, because clients can cause it with any position.
type asking struct {
	now  *call           // the call in progress, or nil
	next *call           // the call that follows, or nil
	last time.Time       // when the last call began
	top  broker.Position // the result of the last call
}

// askPace is the shortest time between two calls for one channel.
const askPace = time.Second

// ask waits for a call of Tops that begins after ask was called, or for the end of the call
// in progress, if that comes first. If the log is ahead of the channel's place, ask waits
// until the channel is healed, too. It reports whether the call began after ask.
func (ch *Channel) ask(ctx context.Context, p *pastRequest) (fresh bool, err error) {
	if p.call != nil { // it has begun after the first ask
		select {
		case <-p.call.done:
			return true, p.call.err
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	ch.fan.Lock()
	a := &ch.history.asking
	running := a.now
	mine := a.next
	if mine == nil {
		mine = newCall()
		a.next = mine
		if running == nil {
			ch.startAskLocked()
		}
	}
	ch.fan.Unlock()
	p.call = mine
	var earlier <-chan struct{}
	if running != nil {
		earlier = running.done
	}
	select {
	case <-earlier:
		return false, nil
	case <-mine.done:
		return true, mine.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// startAskLocked starts the next call, after a pause if the last one was a short time ago.
func (ch *Channel) startAskLocked() {
	h := ch.hub
	a := &ch.history.asking
	pause := max(0, askPace-time.Since(a.last))
	if a.last.IsZero() {
		pause = 0
	}
	begun := a.next
	if pause == 0 {
		ch.beginAskLocked()
	}
	if !h.serving.Start() {
		begun.err = ErrClosed
		a.now, a.next = nil, nil
		close(begun.done)
		return
	}
	go func() {
		defer h.serving.End()
		if pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-h.stopping.Done():
			}
			timer.Stop()
			ch.fan.Lock()
			ch.beginAskLocked()
			ch.fan.Unlock()
		}
		err := ch.askBroker()
		ch.fan.Lock()
		defer ch.fan.Unlock()
		begun.err = err
		a.now = nil
		if a.next != nil {
			ch.startAskLocked()
		}
		close(begun.done)
	}()
}

func (ch *Channel) beginAskLocked() {
	a := &ch.history.asking
	a.now = a.next
	a.next = nil
	a.last = time.Now()
}

func (ch *Channel) askBroker() error {
	ctx, cancel := context.WithTimeout(ch.hub.ctx, ch.hub.patient(healTimeout))
	defer cancel()
	tops, err := ch.hub.history.Tops(ctx, []string{ch.name})
	if err != nil {
		return err
	}
	ch.fan.Lock()
	ch.history.asking.top = tops[0]
	ch.fan.Unlock()
	if healed := ch.compare(tops[0], true); healed != nil {
		select {
		case <-healed:
		case <-ctx.Done():
		}
	}
	if reached := ch.awaitPlace(tops[0]); reached != nil {
		select {
		case <-reached:
		case <-ctx.Done():
		}
	}
	return nil
}

// compare compares the channel's place with that of the log. If events are missing, it
// begins to heal the channel, and returns a channel that is closed afterwards. onWay means that
// the broker can be about to deliver them, see history.onWay.
func (ch *Channel) compare(top broker.Position, onWay bool) (healed <-chan struct{}) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	if !ch.ready || top.Epoch == k.epoch && top.Offset <= k.ring.last {
		return nil
	}
	if !k.stalled {
		k.onWay = onWay
	}
	ch.stallLocked()
	return k.healed
}

// reach is what waits until a channel has a place.
type reach struct {
	place broker.Position
	done  chan struct{} // nil if nothing waits
}

// awaitPlace returns a channel that is closed when the channel has a place or a later one, or when its
// log has ended. Only one goroutine at a time calls it, see startAskLocked.
func (ch *Channel) awaitPlace(place broker.Position) <-chan struct{} {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	if !ch.ready {
		return nil
	}
	done := make(chan struct{})
	k.reach = reach{
		place: place,
		done:  done,
	}
	k.reached()
	return done
}

// reached is called when the place has changed.
func (k *history) reached() {
	r := &k.reach
	if r.done != nil && (k.closed || k.epoch != r.place.Epoch || k.ring.last >= r.place.Offset) {
		close(k.reach.done)
		k.reach.done = nil
	}
}
