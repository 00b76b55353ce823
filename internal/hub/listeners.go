package hub

import (
	"maps"
	"slices"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// anyListener is a *Listener, as channelListeners is an interface.
type anyListener interface {
	end(err error, now bool)
	// queued returns the bytes that are queued, without data that is in seen, to which it adds the
	// rest. seen can be nil.
	queued(seen map[*byte]struct{}) int64
}

// listeners has the Listeners of a Hub.
type listeners struct {
	mu     sync.Mutex
	all    map[anyListener]struct{}
	closed bool
}

// Listeners returns the number of Listeners.
func (h *Hub) Listeners() int {
	s := &h.listeners
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// ListenerBytes returns what is queued for the Listeners. Data that several wait for counts once.
func (h *Hub) ListenerBytes() (bytes int64) {
	all := h.listeners.list()
	if len(all) == 0 {
		return 0
	}
	seen := map[*byte]struct{}{}
	for _, l := range all {
		bytes += l.queued(seen)
	}
	return bytes
}

// EndBusiestListener ends the Listener that has the most queued bytes with ErrSlow, and frees these. It
// reports whether anything was queued for a Listener.
func (h *Hub) EndBusiestListener() bool {
	var busiest anyListener
	most := int64(0)
	for _, l := range h.listeners.list() {
		if bytes := l.queued(nil); bytes > most {
			busiest, most = l, bytes
		}
	}
	if busiest == nil {
		return false
	}
	busiest.end(ErrSlow, true)
	return true
}

func (s *listeners) list() []anyListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.all))
}

func (l *Listener) queued(seen map[*byte]struct{}) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(e *ListenerEvent) {
		bytes += int64(e.size())
		if seen == nil {
			return
		}
		shared := func(data []byte) {
			if len(data) == 0 {
				return
			}
			if _, counted := seen[&data[0]]; counted {
				bytes -= int64(len(data))
			}
			seen[&data[0]] = struct{}{}
		}
		shared(e.Data)
		for _, m := range e.Members {
			shared(m)
		}
	}
	past := func(r *replay) {
		if r != nil {
			for i := range r.events {
				add(&r.events[i])
			}
		}
	}
	past(l.replay)
	for i := l.head; i < len(l.queue); i++ {
		add(&l.queue[i].ListenerEvent)
		past(l.queue[i].replay)
	}
	return bytes
}

// NewListener returns a Listener, which must be closed. The error is ErrClosed.
func (h *Hub) NewListener(cfg ListenerConfig) (*Listener, error) {
	l := &Listener{
		hub:       h,
		cfg:       cfg,
		channels:  map[string]*subscription{},
		positions: map[string]broker.Position{},
		wake:      make(chan struct{}, 1),
	}
	s := &h.listeners
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.all == nil {
		s.all = map[anyListener]struct{}{}
	}
	s.all[l] = struct{}{}
	return l, nil
}

// endListeners ends all Listeners. What is queued for them is still delivered.
func (h *Hub) endListeners() {
	s := &h.listeners
	s.mu.Lock()
	s.closed = true
	all := s.all
	s.all = nil
	s.mu.Unlock()
	for l := range all {
		l.end(ErrClosed, false)
	}
}

// Close ends the Listener. Next then returns err, which is not nil, unless it has ended before.
func (l *Listener) Close(err error) {
	s := &l.hub.listeners
	s.mu.Lock()
	delete(s.all, l)
	s.mu.Unlock()
	l.end(err, true)
}

func (l *Listener) end(err error, now bool) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	if now {
		l.closed = true
		l.replay = nil
		l.queue = nil
		l.head = 0
		l.bytes = 0
	}
	channels := l.channels
	l.channels = map[string]*subscription{}
	l.wakeLocked()
	l.mu.Unlock()
	for _, s := range channels {
		s.leave()
	}
}
