package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// legacyBroker is a broker.Broker on the contracts Broker and PresenceStore, which
// package broker is to replace. It keeps no events, and no log of its own: a
// member's owner is known to its own node only.
type legacyBroker struct {
	broker   Broker
	store    PresenceStore
	private  func(channel string) bool
	protocol hub.Protocol
	arrivals *arrivals
	shared   []any // the host's, of which those that are a broker.Health say when they are away

	node string
	sink broker.Sink
	seq  atomic.Uint64

	mu      sync.Mutex
	owners  map[string]string // of this node's members, by id
	watches map[string]*legacyWatch
}

type legacyWatch struct {
	cancel context.CancelFunc
	ended  atomic.Bool
}

var (
	_ broker.Broker = (*legacyBroker)(nil)
	_ broker.Health = (*legacyBroker)(nil)
)

func (l *legacyBroker) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	l.node, l.sink = o.Node, sink
	l.arrivals.wants = sink.(*hub.Hub).Wants
	l.owners, l.watches = map[string]string{}, map[string]*legacyWatch{}
	return l.broker.Open(ctx, func(channel string, m Message) {
		e := broker.Entry{
			Kind:  broker.Event,
			Event: m.Event,
			Data:  m.Data,
		}
		if m.Except != "" {
			e.Except = []string{m.Except}
		}
		sink.Deliver(channel, e)
	})
}

func (l *legacyBroker) Follow(ctx context.Context, channel string) (s broker.State, err error) {
	if err = l.broker.Subscribe(ctx, channel); err == nil && l.private(channel) {
		s, err = l.watch(ctx, channel)
	}
	if err != nil {
		// The Broker's contract wants it after an error, and nothing depends on it.
		_ = l.Unfollow(ctx, channel)
	}
	return s, err
}

func (l *legacyBroker) watch(ctx context.Context, channel string) (broker.State, error) {
	watchCtx, cancel := context.WithCancel(context.Background())
	give := context.AfterFunc(ctx, cancel) // ctx bounds only the call
	w := &legacyWatch{cancel: cancel}
	l.mu.Lock()
	l.watches[channel] = w
	l.mu.Unlock()
	snap, err := l.store.Watch(watchCtx, channel, func(c Change) {
		if !w.ended.Load() {
			l.apply(channel, c)
		}
	})
	if !give() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return broker.State{}, err
	}
	return l.state(snap), nil
}

func (l *legacyBroker) apply(channel string, c Change) {
	if c.State != nil {
		l.sink.Reset(channel, l.state(*c.State), "") // the Broker delivers EventResync apart
		return
	}
	e := broker.Entry{
		Kind:   broker.Leave,
		Member: c.Member.ID,
		At:     legacyRevision(c.Revision),
	}
	if !c.Left {
		m := l.member(c.Member)
		e.Kind, e.Owner, e.Data, e.Joined = broker.Join, m.Owner, m.Data, m.Joined
	}
	l.sink.Deliver(channel, e)
}

func legacyRevision(n uint64) broker.Position {
	return broker.Position{
		Epoch:  "legacy",
		Offset: n,
	}
}

func (l *legacyBroker) state(snap Snapshot) broker.State {
	s := broker.State{
		Revision: legacyRevision(snap.Revision),
		On:       snap.On,
	}
	for _, m := range snap.Members {
		s.Members = append(s.Members, l.member(m))
	}
	return s
}

func (l *legacyBroker) member(m Member) broker.Member {
	l.mu.Lock()
	owner, own := l.owners[m.ID]
	l.mu.Unlock()
	out := broker.Member{
		ID:    m.ID,
		Owner: owner,
	}
	if own {
		out.Node = l.node
	}
	if m.HasData {
		out.Data = m.JSON
	}
	_ = jsvalue.Fields(m.JSON, func(name, value []byte) {
		if string(name) != "subscribed" {
			return
		}
		if ms, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			out.Joined = time.UnixMilli(ms)
		}
	})
	return out
}

func (l *legacyBroker) Unfollow(ctx context.Context, channel string) error {
	l.mu.Lock()
	w := l.watches[channel]
	delete(l.watches, channel)
	l.mu.Unlock()
	if w != nil {
		w.ended.Store(true)
		w.cancel()
	}
	return l.broker.Unsubscribe(ctx, channel)
}

func (l *legacyBroker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	switch e.Kind {
	case broker.Event:
		if e.ID != "" {
			return broker.Appended{}, errors.New("the Broker cannot tell a repetition by an ID")
		}
		return l.publish(ctx, channel, e)
	case broker.Join:
		return broker.Appended{}, l.join(ctx, channel, e)
	case broker.Leave:
		l.mu.Lock()
		delete(l.owners, e.Member)
		l.mu.Unlock()
		if err := l.store.Leave(ctx, channel, e.Member); err != nil { // the store sees to it later
			l.arrivals.srv.notices.Warn("cannot log that a member left; the store removes it later", channel,
				slog.String("channel", channel), slog.Any("error", err))
		}
		return broker.Appended{}, nil
	}
	return broker.Appended{}, errors.New("pushy: the broker cannot append such an entry")
}

func (l *legacyBroker) publish(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	m := Message{
		Event: e.Event,
		Data:  e.Data,
		Node:  l.node,
		Seq:   l.seq.Add(1),
	}
	if len(e.Except) > 0 {
		m.Except = e.Except[0]
	}
	received, err := l.broker.Publish(ctx, channel, m)
	known := map[Receivers]broker.Receivers{None: broker.None, Some: broker.Some, Unknown: broker.Unknown}
	return broker.Appended{Receivers: known[received]}, err
}

func (l *legacyBroker) join(ctx context.Context, channel string, e broker.Entry) error {
	l.mu.Lock()
	l.owners[e.Member] = e.Owner
	l.mu.Unlock()
	text := l.protocol.AppendMember(nil, &hub.Member{
		ID:     e.Member,
		Data:   e.Data,
		Joined: e.Joined,
	})
	return l.store.Join(ctx, channel, Member{
		ID:      e.Member,
		HasData: e.Data != nil,
		JSON:    json.RawMessage(text),
	})
}

func (l *legacyBroker) Away() error {
	var away error
	for _, shared := range l.shared {
		health, ok := shared.(broker.Health)
		if !ok || away != nil {
			continue
		}
		if f := hosted(func() { away = readable(health.Away()) }); f != nil {
			away = l.arrivals.srv.callFailed("Away", f)
		}
	}
	return away
}

func (l *legacyBroker) Close(context.Context) error {
	l.mu.Lock()
	for _, w := range l.watches {
		w.cancel()
	}
	l.mu.Unlock()
	return errors.Join(l.store.Close(), l.broker.Close())
}
