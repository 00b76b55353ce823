package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// logState caches the end of a channel's log, so that an append need not read it. Appends of
// one node to one channel are not concurrent.
type logState struct {
	appending chan struct{} // buffered: full during an append
	used      int           // the number of callers that use it

	mu    sync.Mutex
	known bool
	class string
	seq   uint64 // of the last message
	last  kept   // without its entry
	own   []owned
	at    time.Time // of the last use
}

// owned is an event that this node appended. The node removes it after its TTL.
type owned struct {
	class string
	seq   uint64
	until time.Time
}

type logs struct {
	mu        sync.Mutex
	byChannel map[string]*logState
}

func (l *logs) acquire(channel string) *logState {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byChannel == nil {
		l.byChannel = map[string]*logState{}
	}
	s := l.byChannel[channel]
	if s == nil {
		s = &logState{appending: make(chan struct{}, 1)}
		l.byChannel[channel] = s
	}
	s.used++
	return s
}

func (l *logs) release(s *logState) {
	l.mu.Lock()
	s.used--
	l.mu.Unlock()
}

// observe updates the cache with a message that was appended.
func (l *logs) observe(channel, class string, seq uint64, m kept) {
	l.mu.Lock()
	s := l.byChannel[channel]
	l.mu.Unlock()
	if s == nil {
		return
	}
	s.observe(class, seq, m)
}

func (s *logState) observe(class string, seq uint64, m kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || class == s.class && seq > s.seq {
		m.entry = nil
		s.known = !m.moved
		s.class = class
		s.seq = seq
		s.last = m
	}
}

// head is the end of a channel's log.
type head struct {
	at    broker.Position
	class *class // nil if nothing was appended
	seq   uint64 // of the last message of the log
	last  kept
	seqs  map[string]uint64 // of the channel's last message in each class
	// broken means that a message cannot be decoded, so the offsets of the log are not known.
	broken bool
}

// head reads the end of a channel's log.
func (b *Broker) head(ctx context.Context, channel string) (head, error) {
	names := b.classNames()
	h, err := b.headIn(ctx, channel, names)
	if err != nil || h.class != nil {
		return h, err
	}
	// Another node may have created a class just now.
	if err := b.catchUp(ctx); err != nil {
		return head{}, err
	}
	if now := b.classNames(); !slices.Equal(now, names) {
		return b.headIn(ctx, channel, now)
	}
	return h, nil
}

func (b *Broker) headIn(ctx context.Context, channel string, names []string) (head, error) {
	ends := make([]head, len(names))
	err := each(len(names), func(i int) error {
		c, err := b.openClass(ctx, names[i])
		if err != nil {
			return err
		}
		msg, err := b.last(ctx, c.stream, b.subjects.log(c.name, channel))
		if err != nil {
			return ignore(err, errNone)
		}
		ends[i] = head{class: c, seq: msg.Sequence}
		m, err := decodeKept(msg.Data)
		if err == nil && !older(reversed(m.tail), msg.Sequence) {
			err = errBroken
		}
		if err != nil {
			b.skipped(msg.Subject, err)
			ends[i].broken = true
		}
		ends[i].last = m
		ends[i].at = m.at
		return nil
	})
	if err != nil {
		return head{}, err
	}
	h := head{at: b.replica.Load().beginning(time.Now())}
	seqs := map[string]uint64{}
	for _, end := range ends {
		if end.class == nil {
			continue
		}
		seqs[end.class.name] = end.seq
		if !end.broken && (h.class == nil || end.isAfter(h)) {
			h = end
		}
		h.broken = h.broken || end.broken
	}
	h.seqs = seqs
	return h, nil
}

// isAfter reports whether h is the end of the log, and other is an older part of it.
func (h head) isAfter(other head) bool {
	if h.last.moved != other.last.moved {
		return other.last.moved
	}
	return h.last.time.After(other.last.time)
}

// appendKept appends a kept event to a channel's log.
func (b *Broker) appendKept(ctx context.Context, channel string, e broker.Entry) (broker.Position, error) {
	c, err := b.class(ctx, e.Keep)
	if err != nil {
		return broker.Position{}, err
	}
	s := b.logs.acquire(channel)
	defer b.logs.release(s)
	select {
	case s.appending <- struct{}{}:
	case <-ctx.Done():
		return broker.Position{}, fmt.Errorf("nats: %w", context.Cause(ctx))
	}
	defer func() { <-s.appending }()
	vanished := false
	for range appendAttempts {
		h, prev, err := b.place(ctx, s, c, channel, vanished)
		if errors.Is(err, errConflict) {
			continue
		}
		if err != nil {
			return broker.Position{}, err
		}
		m := kept{
			at:    broker.Position{Epoch: h.at.Epoch, Offset: h.at.Offset + 1},
			time:  now(h.last.time),
			sum:   uint64(len(e.Data)),
			entry: &e,
		}
		if h.last.entry != nil {
			m.sum += h.last.sum
			m.tail = append([]uint64{h.seq}, h.last.tail[:min(len(h.last.tail), maxTail-1)]...)
		}
		seq, err := b.compareAndStore(ctx, b.subjects.log(c.name, channel), prev, m.encode())
		if err == nil {
			s.observe(c.name, seq, m)
			s.owns(c.name, seq, m.time, e.Keep)
			return m.at, nil
		}
		vanished = s.failed(prev) || vanished
		if !errors.Is(err, errConflict) {
			return broker.Position{}, err
		}
	}
	return broker.Position{}, errChanging
}

// appendAttempts is the maximum number of attempts of an append that conflicts with appends
// of other nodes.
const appendAttempts = 1000

// now returns the current time in milliseconds, or last if that is later.
func now(last time.Time) time.Time {
	t := time.UnixMilli(time.Now().UnixMilli())
	if t.Before(last) {
		return last
	}
	return t
}

// place returns the end of a channel's log, as far as the next message needs it, and the
// sequence of the channel's last message in the stream of the class c.
func (b *Broker) place(
	ctx context.Context, s *logState, c *class, channel string, vanished bool,
) (h head, prev uint64, err error) {
	if h, ok := s.end(c); ok {
		return h, h.seq, nil
	}
	h, err = b.head(ctx, channel)
	if err != nil {
		return head{}, 0, err
	}
	prev = h.seqs[c.name]
	switch {
	case h.class == nil:
		if err := b.checkGeneration(ctx, c); err != nil {
			return head{}, 0, err
		}
		if vanished || h.broken {
			// There was a log before, whose offsets must not be used again.
			h.at = broker.Position{Epoch: brokerkit.NewEpoch()}
		}
	case h.class.name != c.name:
		// The channel's Keep has changed. A mark at the end in the other stream ensures that
		// no other node appends there.
		if !h.last.moved {
			mark := kept{
				at:    h.at,
				time:  now(h.last.time),
				moved: true,
			}
			_, err := b.compareAndStore(ctx, b.subjects.log(h.class.name, channel), h.seq, mark.encode())
			if err != nil {
				return head{}, 0, err
			}
		}
		h.last.entry = nil
	}
	return h, prev, nil
}

// end returns the end of the log if it is cached and in the class c.
func (s *logState) end(c *class) (head, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || s.class != c.name {
		return head{}, false
	}
	h := head{
		at:    s.last.at,
		class: c,
		seq:   s.seq,
		last:  s.last,
	}
	if h.at.Offset > 0 {
		h.last.entry = &broker.Entry{} // only whether it is nil matters
	}
	return h, true
}

// failed discards the cached end after an append after prev has failed, and reports whether
// it did. A newer end that was observed in the meantime remains.
func (s *logState) failed(prev uint64) (was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was = s.known && s.seq == prev
	if was {
		s.known = false
	}
	return was
}

func (s *logState) owns(class string, seq uint64, appended time.Time, k broker.Keep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now()
	if k.TTL <= 0 {
		return
	}
	s.own = append(s.own, owned{
		class: class,
		seq:   seq,
		until: appended.Add(k.TTL),
	})
	if len(s.own) > k.Size {
		s.own = s.own[1:] // the stream removes it, because of its limit
	}
}

// idleLog is how long the end of a log is cached after the last append.
const idleLog = time.Minute

// trim removes this node's events after their TTL, except for the last event of a log, which
// has its offset.
func (b *Broker) trim() {
	b.logs.mu.Lock()
	all := maps.Clone(b.logs.byChannel)
	b.logs.mu.Unlock()
	t := time.Now()
	for channel, s := range all {
		s.mu.Lock()
		var old []owned
		for len(s.own) > 0 && t.After(s.own[0].until) && s.known && (s.own[0].class != s.class || s.own[0].seq < s.seq) {
			old = append(old, s.own[0])
			s.own = s.own[1:]
		}
		idle := t.Sub(s.at) > idleLog && (len(s.own) == 0 || t.After(s.own[0].until))
		s.mu.Unlock()
		for _, o := range old {
			b.remove(b.subjects.stream+o.class, o.seq)
		}
		if idle {
			b.logs.drop(channel, s)
		}
	}
}

func (l *logs) drop(channel string, s *logState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.used == 0 {
		delete(l.byChannel, channel)
	}
}

// forget discards the cached ends of all logs.
func (l *logs) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.byChannel {
		s.mu.Lock()
		s.known = false
		s.mu.Unlock()
	}
}

// reversed returns a copy of list in reverse order.
func reversed(list []uint64) []uint64 {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}
