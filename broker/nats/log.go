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

// logState is what a node knows of the end of a channel's log, so that it need not read
// it before each append. Appends of one node to one channel go one after the other.
type logState struct {
	appending chan struct{} // holds one during an append
	used      int           // callers that have it

	mu    sync.Mutex
	known bool
	class string
	seq   uint64 // of the last message
	last  kept   // without its entry
	own   []owned
	at    time.Time // of the last use
}

// owned is an event that this node appended, and removes when its TTL is over.
type owned struct {
	class string
	seq   uint64
	until time.Time
}

type logs struct {
	mu        sync.Mutex
	byChannel map[string]*logState
}

func (l *logs) get(channel string) *logState {
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

func (l *logs) put(s *logState) {
	l.mu.Lock()
	s.used--
	l.mu.Unlock()
}

// learn takes note of a message that was appended.
func (l *logs) learn(channel, class string, seq uint64, m kept) {
	l.mu.Lock()
	s := l.byChannel[channel]
	l.mu.Unlock()
	if s == nil {
		return
	}
	s.learn(class, seq, m)
}

func (s *logState) learn(class string, seq uint64, m kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || class == s.class && seq > s.seq {
		m.entry = nil
		s.known, s.class, s.seq, s.last = !m.moved, class, seq, m
	}
}

// head is the end of a channel's log.
type head struct {
	at    broker.Position
	class *class // nil if nothing was appended
	seq   uint64 // of the last message of the log
	last  kept
	seqs  map[string]uint64 // of the channel's last message in each class
	// broken says that what is there cannot be read: its numbers are not known.
	broken bool
}

// head reads the end of a channel's log.
func (b *Broker) head(ctx context.Context, channel string) (head, error) {
	names := b.classNames()
	h, err := b.headIn(ctx, channel, names)
	if err != nil || h.class != nil {
		return h, err
	}
	// Perhaps another node has just made the first class that fits.
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
		ends[i].last, ends[i].at = m, m.at
		return nil
	})
	if err != nil {
		return head{}, err
	}
	h, seqs := head{at: b.replica.Load().beginning(time.Now())}, map[string]uint64{}
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

// isAfter reports whether the log goes on in h rather than in other.
func (h head) isAfter(other head) bool {
	if h.last.moved != other.last.moved {
		return other.last.moved
	}
	return h.last.time.After(other.last.time)
}

// appendKept adds a kept event to a channel's log.
func (b *Broker) appendKept(ctx context.Context, channel string, e broker.Entry) (broker.Position, error) {
	c, err := b.class(ctx, e.Keep)
	if err != nil {
		return broker.Position{}, err
	}
	s := b.logs.get(channel)
	defer b.logs.put(s)
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
			entry: &e,
		}
		if h.last.entry != nil {
			m.tail = append([]uint64{h.seq}, h.last.tail[:min(len(h.last.tail), maxTail-1)]...)
		}
		seq, err := b.put(ctx, b.subjects.log(c.name, channel), prev, m.encode())
		if err == nil {
			s.learn(c.name, seq, m)
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

// appendAttempts is how often an append is tried again because other nodes append to
// the same channel.
const appendAttempts = 1000

// now is the time, and not before another.
func now(last time.Time) time.Time {
	t := time.UnixMilli(time.Now().UnixMilli())
	if t.Before(last) {
		return last
	}
	return t
}

// place returns the end of a channel's log, as far as the next message needs it, and
// the sequence of what precedes that in its stream.
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
			// There was a log, whose numbers must not be used again.
			h.at = broker.Position{Epoch: brokerkit.NewEpoch()}
		}
	case h.class.name != c.name:
		// The channel's Keep has changed. The end in the other stream is marked
		// first, so that nobody else appends there.
		if !h.last.moved {
			mark := kept{
				at:    h.at,
				time:  now(h.last.time),
				moved: true,
			}
			_, err := b.put(ctx, b.subjects.log(h.class.name, channel), h.seq, mark.encode())
			if err != nil {
				return head{}, 0, err
			}
		}
		h.last.entry = nil
	}
	return h, prev, nil
}

// end returns the end of the log if it is known and in the class.
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
		h.last.entry = &broker.Entry{} // which it is does not matter
	}
	return h, true
}

// failed takes note of an append after prev that failed, and reports whether the end of
// the log had been known. If another end was heard of meanwhile, that is the known one.
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
		s.own = s.own[1:] // the stream has removed it, or does so soon
	}
}

// idleLog is how long the end of a log is remembered that nobody appends to.
const idleLog = time.Minute

// trim removes the events of this node whose TTL is over, but never the last of a log,
// which has its numbers.
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

// forget drops what is known of all logs.
func (l *logs) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.byChannel {
		s.mu.Lock()
		s.known = false
		s.mu.Unlock()
	}
}

// reversed is a list from its end.
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
