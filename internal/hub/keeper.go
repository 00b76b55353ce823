package hub

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// comparePace is the interval at which the places of channels are compared with those of
	// the log, so that a last event that was lost on the way is found within 10 s. Channels
	// that have had an event within busyFor are left out: their next event shows the gap.
	comparePace = 9 * time.Second
	busyFor     = time.Second
	// framesFor is how long the frames of replays are kept after the last replay.
	framesFor = 30 * time.Second
	// topsAtOnce is the number of channels in one call of the broker.
	topsAtOnce = 500
)

// keeper does what channels that keep events need from time to time. Its goroutine runs
// while there are such channels.
type keeper struct {
	bytes   atomic.Int64 // of all rings
	freeing atomic.Bool  // limitKept runs

	mu       sync.Mutex
	channels map[*Channel]struct{} // open channels that keep events
	running  bool
}

// keep adds an open channel that keeps events.
func (h *Hub) keep(ch *Channel) {
	p := &h.keeper
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.channels == nil {
		p.channels = map[*Channel]struct{}{}
	}
	p.channels[ch] = struct{}{}
	if !p.running && h.tasks.Start() {
		p.running = true
		go func() {
			defer h.tasks.End()
			h.keepAll()
		}()
	}
}

func (h *Hub) unkeep(ch *Channel) {
	p := &h.keeper
	p.mu.Lock()
	delete(p.channels, ch)
	p.mu.Unlock()
}

// kept returns the channels, or nil if the goroutine is to end because there are none.
func (h *Hub) kept() []*Channel {
	p := &h.keeper
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.channels) == 0 {
		p.running = false
		return nil
	}
	all := make([]*Channel, 0, len(p.channels))
	for ch := range p.channels {
		all = append(all, ch)
	}
	return all
}

func (h *Hub) keepAll() {
	tick := time.NewTicker(comparePace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.stopping.Done():
			return
		}
		channels := h.kept()
		if channels == nil {
			return
		}
		var quiet []*Channel
		now := time.Now()
		for _, ch := range channels {
			if ch.tidy(now) {
				quiet = append(quiet, ch)
			}
		}
		if !h.cfg.Local && h.Away() == nil {
			h.compareAll(quiet)
		}
	}
}

// tidy frees what a ring does not need any more. It reports whether the channel is quiet.
func (ch *Channel) tidy(now time.Time) (quiet bool) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	k.ring.expire(k.keep, now)
	if now.Sub(k.replayed) >= framesFor {
		k.ring.dropFrames()
	}
	ch.countLocked()
	return ch.ready && !k.stalled && !k.own && now.Sub(k.arrived) >= busyFor
}

// compareAll compares the places of channels with those of the log.
func (h *Hub) compareAll(channels []*Channel) {
	for chunk := range slices.Chunk(channels, topsAtOnce) {
		names := make([]string, len(chunk))
		for i, ch := range chunk {
			names[i] = ch.name
		}
		ctx, cancel := context.WithTimeout(h.stopping, h.cfg.Timeout)
		tops, err := h.history.Tops(ctx, names)
		cancel()
		if err != nil {
			if h.stopping.Err() == nil && h.Away() == nil {
				h.cfg.Notices.Warn("cannot ask the broker for the last events of channels", "", slog.Any("error", err))
			}
			return
		}
		for i, ch := range chunk {
			ch.compare(tops[i], false)
		}
	}
}

// countLocked adds a change of the ring's size to the size of all rings.
func (ch *Channel) countLocked() {
	k := ch.history
	if change := k.ring.bytes - k.counted; change != 0 {
		k.counted = k.ring.bytes
		ch.hub.keeper.bytes.Add(change)
	}
}

// limitKept empties the rings that have not been used for the longest time, if all rings
// together are over Config.MaxKept. Their events are still in the log.
func (h *Hub) limitKept() {
	p := &h.keeper
	if p.bytes.Load() <= h.cfg.MaxKept || !p.freeing.CompareAndSwap(false, true) {
		return
	}
	if !h.tasks.Start() {
		p.freeing.Store(false)
		return
	}
	go func() {
		defer h.tasks.End()
		h.freeRings(h.cfg.MaxKept - h.cfg.MaxKept/8)
		p.freeing.Store(false)
	}()
}

func (h *Hub) freeRings(most int64) {
	emptied := h.emptyRings(most)
	h.cfg.Notices.Warn("the memory for kept events is full: clients that reconnect are served from the broker", "",
		slog.Int64("limit", h.cfg.MaxKept),
		slog.Int("channels", emptied),
		slog.String("hint", "raise Options.MaxKept, or keep fewer events"))
}

// emptyRings empties the rings that have not been used for the longest time until all rings
// together have at most most bytes. It returns the number of these rings.
func (h *Hub) emptyRings(most int64) (emptied int) {
	type use struct {
		ch *Channel
		at time.Time
	}
	h.keeper.mu.Lock()
	channels := make([]*Channel, 0, len(h.keeper.channels))
	for ch := range h.keeper.channels {
		channels = append(channels, ch)
	}
	h.keeper.mu.Unlock()
	uses := make([]use, 0, len(channels))
	for _, ch := range channels {
		ch.fan.Lock()
		uses = append(uses, use{
			ch: ch,
			at: ch.history.used,
		})
		ch.fan.Unlock()
	}
	slices.SortFunc(uses, func(a, b use) int { return a.at.Compare(b.at) })
	for _, u := range uses {
		if h.keeper.bytes.Load() <= most {
			break
		}
		u.ch.fan.Lock()
		k := u.ch.history
		if k.ring.len() > 0 {
			k.ring.reset(k.ring.last)
			emptied++
		}
		u.ch.countLocked()
		u.ch.fan.Unlock()
	}
	return emptied
}
