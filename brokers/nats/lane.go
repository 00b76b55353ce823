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

	mu     sync.Mutex // held while delivering, so that forget and close promise silence
	subs   map[*natsgo.Subscription]*subscription
	missed map[*natsgo.Subscription]struct{} // what nats.go dropped, to be told when the lane is empty
}

type subscription struct {
	channel string
	lane    *lane
	sub     *natsgo.Subscription
}

func newLane(id string) *lane {
	return &lane{in: make(chan *natsgo.Msg, laneSize), id: id,
		subs: map[*natsgo.Subscription]*subscription{}, missed: map[*natsgo.Subscription]struct{}{}}
}

func (l *lane) subscribe(nc *natsgo.Conn, subject, channel string) (*subscription, error) {
	sub, err := nc.ChanSubscribe(subject, l.in)
	if err != nil {
		return nil, err
	}
	s := &subscription{channel, l, sub}
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
	delete(l.missed, s.sub)
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

// dropped notes that nats.go had no room for a message.
func (l *lane) dropped(sub *natsgo.Subscription) {
	l.mu.Lock()
	_, ours := l.subs[sub]
	if ours {
		l.missed[sub] = struct{}{}
	}
	l.mu.Unlock()
	if ours {
		select {
		case l.in <- &natsgo.Msg{}: // it may be empty already
		default:
		}
	}
}

func (l *lane) run(done <-chan struct{}, deliver func(string, pushy.Message)) {
	for {
		select {
		case <-done:
			return
		case msg := <-l.in:
			l.take(msg, deliver)
		}
	}
}

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
	if len(l.missed) > 0 && len(l.in) == 0 {
		for sub := range l.missed {
			deliver(l.subs[sub].channel, pushy.Message{Event: pushy.EventResync, Data: []byte("{}")})
		}
		clear(l.missed)
	}
}
