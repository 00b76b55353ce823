package brokertest_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy"
)

// A memory is Brokers of several nodes in one process that keep all rules, but
// the one that flaw breaks. It is for testing/synctest alone.
type memory struct {
	flaw string
	over chan struct{} // releases what a flaw has stuck

	mu    sync.Mutex
	nodes []*memoryBroker
	count int
	held  map[string]func() // reorders: what waits for the next
}

type memoryBroker struct {
	*memory
	deliver    func(string, pushy.Message)
	subscribed map[string]bool
	cut        chan struct{} // closed when mended; nil while connected
	closed     bool
	alone      map[string]bool // channels published to while cut off
	last       func()

	queue  []func()
	more   chan struct{}
	worker sync.WaitGroup
	buffer []byte
}

var errAway = errors.New("the memory is away")

func newMemory(flaw string) *memory {
	return &memory{flaw: flaw, over: make(chan struct{}), held: map[string]func(){}}
}

func (h *memory) broker() pushy.Broker {
	b := &memoryBroker{memory: h, subscribed: map[string]bool{}, alone: map[string]bool{}, more: make(chan struct{}, 1)}
	h.mu.Lock()
	h.nodes = append(h.nodes, b)
	h.mu.Unlock()
	return b
}

func (h *memory) key(channel string) string {
	if h.flaw == "folds names" {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune("*>?/ ", r) {
				return '.'
			}
			return r
		}, channel)
	}
	return channel
}

func (b *memoryBroker) Open(_ context.Context, deliver func(string, pushy.Message)) error {
	b.deliver = deliver
	b.worker.Go(b.work)
	return nil
}

// work delivers, one after the other.
func (b *memoryBroker) work() {
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			closed := b.closed && b.flaw != "delivers late"
			b.mu.Unlock()
			if closed {
				return
			}
			select {
			case <-b.more:
			case <-b.over:
				return
			}
			continue
		}
		job := b.queue[0]
		b.queue = b.queue[1:]
		b.mu.Unlock()
		job()
	}
}

func (b *memoryBroker) pushLocked(job func()) {
	b.queue = append(b.queue, job)
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// giveLocked queues a message for one node.
func (b *memoryBroker) giveLocked(channel string, m pushy.Message, own bool) {
	if !b.subscribed[b.key(channel)] || b.cut != nil || b.closed && b.flaw != "delivers late" {
		return
	}
	if b.count++; b.flaw == "drops" && b.count%7 == 0 || b.flaw == "no echo" && own {
		return
	}
	if b.flaw == "reuses bytes" {
		data := bytes.Clone(m.Data)
		m.Data = nil
		b.pushLocked(func() {
			b.buffer = append(b.buffer[:0], data...)
			m.Data = b.buffer[:len(data):len(data)]
			b.deliver(channel, m)
		})
		return
	}
	if b.flaw != "scribbles" {
		m.Data = bytes.Clone(m.Data)
	}
	if b.flaw == "loses Except" {
		m.Except = ""
	}
	give := func() { b.deliver(channel, m) }
	b.last = give
	if hold := b.held[channel]; b.flaw == "reorders" && b.count%5 == 0 && hold == nil {
		b.held[channel] = give
		return
	}
	b.pushLocked(give)
	if b.flaw == "twice" && b.count%7 == 0 {
		b.pushLocked(give)
	}
	if hold := b.held[channel]; hold != nil {
		b.pushLocked(hold)
		delete(b.held, channel)
	}
}

func (b *memoryBroker) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		if b.flaw == "hangs once closed" {
			b.mu.Unlock()
			<-b.over
			b.mu.Lock()
		}
		if b.flaw != "takes all" {
			return pushy.None, errAway
		}
	}
	if b.cut != nil {
		if b.flaw == "deaf to contexts" {
			cut := b.cut
			b.mu.Unlock()
			select {
			case <-cut:
			case <-b.over:
			}
			b.mu.Lock()
			return pushy.None, errAway
		}
		b.alone[channel] = true
		return pushy.Unknown, nil
	}
	receivers := pushy.None
	for _, to := range b.nodes {
		if to != b && to.subscribed[b.key(channel)] && !to.closed {
			receivers = pushy.Some
		}
		to.giveLocked(channel, m, to == b)
	}
	switch b.flaw {
	case "says None":
		receivers = pushy.None
	case "says Some":
		receivers = pushy.Some
	case "scribbles":
		m.Data[len(m.Data)-2] ^= 1
	}
	return receivers, nil
}

func (b *memoryBroker) Subscribe(ctx context.Context, channel string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errAway
	}
	if b.flaw == "subscribes late" {
		time.AfterFunc(5*time.Millisecond, func() {
			b.mu.Lock()
			b.subscribed[b.key(channel)] = true
			b.mu.Unlock()
		})
		return nil
	}
	b.subscribed[b.key(channel)] = true
	return nil
}

func (b *memoryBroker) Unsubscribe(_ context.Context, channel string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flaw != "does not unsubscribe" {
		delete(b.subscribed, b.key(channel))
	}
	return nil
}

func (b *memoryBroker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	select {
	case b.more <- struct{}{}:
	default:
	}
	b.mu.Unlock()
	if b.flaw != "delivers late" {
		b.worker.Wait()
	}
	return nil
}

func (b *memoryBroker) Cut() (mend func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = make(chan struct{})
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.cut == nil || b.closed {
			return
		}
		close(b.cut)
		b.cut = nil
		resync := pushy.Message{Event: pushy.EventResync, Data: []byte("{}")}
		for channel := range b.subscribed {
			if b.flaw != "no resync" {
				b.pushLocked(func() { b.deliver(channel, resync) })
			}
		}
		for channel := range b.alone {
			for _, to := range b.nodes {
				if to != b && b.flaw != "swallows" {
					to.giveLocked(channel, resync, false)
				}
			}
		}
		clear(b.alone)
		if b.flaw == "replays" && b.last != nil {
			b.pushLocked(b.last)
		}
		if b.flaw == "forgets subscriptions" {
			clear(b.subscribed)
		}
	}
}

// A memoryLog is one channel's presence log, and lease what is silent that long.
const memoryLease = 2 * time.Second

type memoryStores struct {
	flaw string
	over chan struct{}

	mu    sync.Mutex
	logs  map[string]*memoryLog
	nodes []*memoryStore
}

type memoryLog struct {
	revision uint64
	on       bool
	members  []pushy.Member
	owner    map[string]*memoryStore
	watches  map[*memoryWatch]bool
}

type memoryWatch struct {
	node  *memoryStore
	ctx   context.Context
	apply func(pushy.Change)
	held  *pushy.Change
}

type memoryStore struct {
	*memoryStores
	own    map[string][]pushy.Member // by channel
	heard  time.Time                 // while silent: the last sign of life
	silent bool
	dead   bool
	swept  bool
	cut    chan struct{}
	calls  []func() // made while cut off
	closed bool
	seen   map[string]bool // channels watched once
}

func newMemoryStores(flaw string) *memoryStores {
	return &memoryStores{flaw: flaw, over: make(chan struct{}), logs: map[string]*memoryLog{}}
}

func (h *memoryStores) store() pushy.PresenceStore {
	s := &memoryStore{memoryStores: h, own: map[string][]pushy.Member{}, seen: map[string]bool{}}
	h.mu.Lock()
	h.nodes = append(h.nodes, s)
	h.mu.Unlock()
	return s
}

func (h *memoryStores) logLocked(channel string) *memoryLog {
	if h.flaw == "one log" {
		channel = "all"
	}
	l := h.logs[channel]
	if l == nil {
		l = &memoryLog{owner: map[string]*memoryStore{}, watches: map[*memoryWatch]bool{}}
		h.logs[channel] = l
	}
	return l
}

func (h *memoryStores) tellLocked(l *memoryLog, c pushy.Change) {
	if l.revision++; h.flaw == "flat revisions" && l.revision > 2 {
		l.revision--
	}
	c.Revision = l.revision
	for w := range l.watches {
		switch {
		case w.ctx.Err() != nil || w.node.silent || w.node.closed:
			continue
		case h.flaw == "drops" && l.revision%3 == 0:
			continue
		case h.flaw == "forgets what is over" && w.node == h.nodes[0] && c.Left && len(l.members) == 0:
			continue
		case h.flaw == "loses data":
			c.Member.HasData = false
		case h.flaw == "two orders" && w.node == h.nodes[0] && l.revision%4 == 0:
			w.held = &c
			continue
		}
		w.apply(c)
		if w.held != nil {
			w.apply(*w.held)
			w.held = nil
		}
	}
}

func (h *memoryStores) joinLocked(s *memoryStore, channel string, m pushy.Member, again bool) {
	l := h.logLocked(channel)
	if l.owner[m.ID] != nil && h.flaw != "joins twice" && !again {
		return
	}
	l.members = append(slices.Clone(l.members), m)
	l.owner[m.ID] = s
	if h.flaw != "never on" {
		l.on = l.on || m.HasData
	}
	h.tellLocked(l, pushy.Change{Member: m})
}

func (h *memoryStores) leaveLocked(channel, id string) {
	l := h.logLocked(channel)
	if l.owner[id] == nil && h.flaw != "leaves unknown" {
		return
	}
	delete(l.owner, id)
	l.members = slices.DeleteFunc(slices.Clone(l.members), func(m pushy.Member) bool { return m.ID == id })
	if h.flaw != "stays on" {
		l.on = l.on && len(l.members) > 0
	}
	h.tellLocked(l, pushy.Change{Left: true, Member: pushy.Member{ID: id}})
}

// call runs f now or, if the node is cut off, when it is mended.
func (s *memoryStore) call(ctx context.Context, f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.dead {
		return errAway
	}
	if s.cut == nil {
		f()
		return nil
	}
	if s.flaw == "deaf to contexts" {
		cut := s.cut
		s.mu.Unlock()
		select {
		case <-cut:
		case <-s.over:
		}
		s.mu.Lock()
		return errAway
	}
	s.calls = append(s.calls, f)
	return errAway
}

func (s *memoryStore) Join(ctx context.Context, channel string, m pushy.Member) error {
	return s.call(ctx, func() {
		s.own[channel] = append(s.own[channel], m)
		s.joinLocked(s, channel, m, false)
	})
}

func (s *memoryStore) Leave(ctx context.Context, channel, id string) error {
	return s.call(ctx, func() {
		s.own[channel] = slices.DeleteFunc(s.own[channel], func(m pushy.Member) bool { return m.ID == id })
		s.leaveLocked(channel, id)
	})
}

func (s *memoryStore) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (snap pushy.Snapshot, err error) {
	w := &memoryWatch{node: s, ctx: ctx, apply: apply}
	err = s.call(ctx, func() {
		if s.seen[channel] && s.flaw == "watches once" {
			return
		}
		s.seen[channel] = true
		l := s.logLocked(channel)
		snap = pushy.Snapshot{Revision: l.revision, On: l.on, Members: l.members}
		if s.flaw == "tears" {
			s.mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			s.mu.Lock()
		}
		l.watches[w] = true
	})
	if err == nil && ctx.Err() == nil && s.flaw == "disorders" {
		snap.Members = slices.Clone(snap.Members)
		slices.Reverse(snap.Members)
	}
	return snap, err
}

func (s *memoryStore) Lease() time.Duration { return memoryLease }

func (s *memoryStore) Kill() {
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	s.fallSilent()
}

// fallSilent has the others sweep the node, unless it comes back in time.
func (s *memoryStore) fallSilent() {
	s.mu.Lock()
	s.silent, s.heard = true, time.Now()
	heard := s.heard
	s.mu.Unlock()
	time.AfterFunc(memoryLease, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.silent || s.heard != heard || s.flaw == "no lease" {
			return
		}
		s.swept = true
		for channel, l := range s.logs {
			for _, m := range l.members {
				switch {
				case l.owner[m.ID] == s:
					s.leaveLocked(channel, m.ID)
					if s.flaw == "sweeps twice" {
						s.tellLocked(l, pushy.Change{Left: true, Member: m})
					}
				case s.flaw == "sweeps the living":
					s.leaveLocked(channel, m.ID)
				}
			}
		}
	})
}

func (s *memoryStore) Cut() (mend func()) {
	s.mu.Lock()
	s.cut = make(chan struct{})
	s.mu.Unlock()
	s.fallSilent()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cut == nil || s.closed {
			return
		}
		close(s.cut)
		s.cut = nil
		swept := s.swept
		s.silent, s.swept = false, false
		for _, f := range s.calls {
			f()
		}
		for channel, own := range s.own {
			for _, m := range own {
				if swept && s.flaw != "forgets its own" || s.flaw == "joins again" {
					s.joinLocked(s, channel, m, s.flaw == "joins again")
				}
			}
		}
		for _, l := range s.logs {
			for w := range l.watches {
				if w.node == s && w.ctx.Err() == nil && s.flaw != "no state" {
					w.apply(pushy.Change{State: &pushy.Snapshot{Revision: l.revision, On: l.on, Members: l.members}})
				}
			}
		}
	}
}

func (s *memoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.dead {
		s.closed = true
		return nil
	}
	s.closed = true
	for channel, own := range s.own {
		for _, m := range own {
			if s.flaw != "stays" {
				s.leaveLocked(channel, m.ID)
			}
		}
	}
	return nil
}
