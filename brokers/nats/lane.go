package nats

import (
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy"
)

// laneSize is how many messages may wait to be delivered before some are lost,
// and the channel's clients told so.
const laneSize = 1 << 16

// lane delivers the messages of some channels, in the order they came. nats.go
// would start a goroutine for every channel instead.
type lane struct {
	in chan *natsgo.Msg
	id string // the node's

	mu   sync.Mutex // held while delivering, so that forget and close promise silence
	subs map[*natsgo.Subscription]*subscription
}

type subscription struct {
	channel string
	lane    *lane
	sub     *natsgo.Subscription
	dropped int // how many of its messages nats.go had no room for
}

func newLane(id string) *lane {
	return &lane{in: make(chan *natsgo.Msg, laneSize), id: id, subs: map[*natsgo.Subscription]*subscription{}}
}

func (l *lane) subscribe(nc *natsgo.Conn, subject, channel string) (*subscription, error) {
	sub, err := nc.ChanSubscribe(subject, l.in)
	if err != nil {
		return nil, err
	}
	s := &subscription{channel: channel, lane: l, sub: sub}
	l.mu.Lock()
	if l.subs != nil {
		l.subs[sub] = s
	}
	l.mu.Unlock()
	return s, nil
}

// forget returns when nothing more of s will be delivered.
func (l *lane) forget(s *subscription) {
	l.mu.Lock()
	delete(l.subs, s.sub)
	l.mu.Unlock()
}

func (l *lane) close() {
	l.mu.Lock()
	l.subs = nil
	l.mu.Unlock()
}

// push puts a message of this node's own making in.
func (s *subscription) push(data []byte, done <-chan struct{}) {
	select {
	case s.lane.in <- &natsgo.Msg{Sub: s.sub, Data: data}:
	case <-done:
	}
}

func (l *lane) run(done <-chan struct{}, deliver func(string, pushy.Message)) {
	full := false
	for {
		select {
		case <-done:
			return
		case msg := <-l.in:
			full = full || nearlyFull(l.in)
			l.take(msg, deliver)
		}
		if full && len(l.in) == 0 {
			full = false
			l.tellDropped(deliver)
		}
	}
}

// nearlyFull reports, to who has just taken a message, whether nats.go may have
// found in full and dropped others. Its own report comes for the first of
// several only.
func nearlyFull(in chan *natsgo.Msg) bool { return len(in) >= cap(in)-1 }

func (l *lane) take(msg *natsgo.Msg, deliver func(string, pushy.Message)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.subs[msg.Sub]; s != nil {
		m, err := decodeEvent(msg.Data)
		own := m.Event == pushy.EventResync && m.Node == l.id // the clients here have been told
		if err == nil && !own {
			deliver(s.channel, m)
		}
	}
}

// tellDropped has the clients told whose messages nats.go had no room for.
func (l *lane) tellDropped(deliver func(string, pushy.Message)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subs {
		if dropped, err := s.sub.Dropped(); err == nil && dropped != s.dropped {
			s.dropped = dropped
			deliver(s.channel, pushy.Message{Event: pushy.EventResync, Data: []byte("{}")})
		}
	}
}
