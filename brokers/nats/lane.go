package nats

import (
	"log/slog"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/ratelog"
)

// laneSize is how many messages may wait to be delivered before some are lost,
// and the channel's clients told so.
const laneSize = 1 << 16

// lane delivers the messages of some channels, in the order they came. nats.go
// would start a goroutine for every channel instead.
type lane struct {
	in      chan *natsgo.Msg
	id      string // the node's
	notices *ratelog.Logger

	mu   sync.Mutex // held while delivering, so that forget and close promise silence
	subs map[*natsgo.Subscription]*subscription
}

type subscription struct {
	channel string
	lane    *lane
	sub     *natsgo.Subscription
	dropped int // how many of its messages nats.go had no room for
}

func newLane(id string, notices *ratelog.Logger) *lane {
	return &lane{
		in:      make(chan *natsgo.Msg, laneSize),
		id:      id,
		notices: notices,
		subs:    map[*natsgo.Subscription]*subscription{},
	}
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
	consume(l.in, done,
		func(msg *natsgo.Msg) { guarded(l.notices, "events", func() { l.take(msg, deliver) }) },
		func() { guarded(l.notices, "events", func() { l.tellDropped(deliver) }) })
}

// consume has what comes in taken until done is closed. When nats.go may have
// dropped messages, since it found in full, lost is called once what was in has been
// taken. Its own report comes for the first of several only. Nobody else may take
// from in.
func consume(in <-chan *natsgo.Msg, done <-chan struct{}, take func(*natsgo.Msg), lost func()) {
	full, older := false, 0 // of the messages in, those from before it was full
	for {
		select {
		case <-done:
			return
		case msg := <-in:
			if !full && len(in) >= cap(in)-1 { // it was full just before
				full, older = true, cap(in)
			}
			take(msg)
			older--
		}
		if full && (older <= 0 || len(in) == 0) {
			full = false
			lost()
		}
	}
}

// moreDropped reports whether nats.go has dropped messages of sub since seen was
// how many, and brings seen up to date.
func moreDropped(sub *natsgo.Subscription, seen *int) bool {
	dropped, err := sub.Dropped()
	if err != nil || dropped == *seen {
		return false
	}
	*seen = dropped
	return true
}

func (l *lane) take(msg *natsgo.Msg, deliver func(string, pushy.Message)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.subs[msg.Sub]; s != nil {
		m, err := decodeEvent(msg.Data)
		own := m.Event == pushy.EventResync && m.Node == l.id // the clients here have been told
		switch {
		case err != nil:
			l.notices.Warn("skipped an event that is not pushy's, or is broken", "",
				slog.String("channel", s.channel), slog.Any("error", err))
		case !own:
			deliver(s.channel, m)
		}
	}
}

// tellDropped has the clients told whose messages nats.go had no room for.
func (l *lane) tellDropped(deliver func(string, pushy.Message)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subs {
		if moreDropped(s.sub, &s.dropped) {
			deliver(s.channel, pushy.Message{Event: pushy.EventResync, Data: []byte("{}")})
		}
	}
}
