package pushy_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// ghostStore has Watches that fail after they have brought entries, and bring
// more of them afterwards.
type ghostStore struct {
	pushy.PresenceStore
	failing atomic.Int64 // this many more

	mu    sync.Mutex
	haunt []func(pushy.Change)
}

var ghost = pushy.Member{ID: "ghost", HasData: true, JSON: []byte(`{"memberId":"ghost"}`)}

func (s *ghostStore) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	if s.failing.Add(-1) >= 0 {
		apply(pushy.Change{State: &pushy.Snapshot{Revision: 1000, On: true, Members: []pushy.Member{ghost}}})
		apply(pushy.Change{Revision: 1001, Member: pushy.Member{ID: "second", JSON: []byte(`{"memberId":"second"}`)}})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.haunt = append(s.haunt, apply)
		return pushy.Snapshot{}, errors.New("not now")
	}
	return s.PresenceStore.Watch(ctx, channel, apply)
}

// Issue 11, number 26: what a Watch has brought that failed is no part of the next
// replica.
func TestFailedWatchLeavesNoGhost(t *testing.T) {
	t.Parallel()
	for range 20 {
		store := &ghostStore{PresenceStore: pushy.NewLocalPresence()}
		store.failing.Store(60)
		srv := startServer(t, pushy.Options{Presence: store})
		var all sync.WaitGroup
		for range 30 {
			p := connectPeer(t, srv)
			conn := p.conn(srv)
			all.Go(func() {
				for srv.Channels().Join(conn, "private-room", nil) != nil {
				}
			})
		}
		wait(t, peerPatience, "the joins", all.Wait)
		for _, apply := range store.haunt {
			apply(pushy.Change{State: &pushy.Snapshot{Revision: 2000, On: true, Members: []pushy.Member{ghost}}})
			apply(pushy.Change{Revision: math.MaxInt64, Member: ghost})
		}
		ch, ok := srv.Channels().Lookup("private-room")
		require.True(t, ok)
		members, on := ch.Presence()
		require.Len(t, members, 30)
		require.False(t, on)
		for _, m := range members {
			require.NotContains(t, []string{"ghost", "second"}, m.ID)
		}
	}
}

// Issue 11, number 26: nothing that the host's log handler does ends anything.
func TestPanickingLogHandler(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		log := slog.New(panickingHandler{})
		srv := startServer(t, pushy.Options{
			SecretKey: "short", // which is logged
			Logger:    log,
			Presence:  &ghostStore{PresenceStore: pushy.NewLocalPresence()},
			Hooks: pushy.Hooks{
				Connect:         func(*pushy.Conn) { panic("hook") },
				Disconnect:      func(*pushy.Conn, int, string) { panic("hook") },
				ChannelOccupied: func(*pushy.Channel) { panic("hook") },
				ChannelVacated:  func(*pushy.Channel) { panic("hook") },
			},
			Authorizer: authorizerFunc(func(context.Context, pushy.AuthRequest) error { return nil }),
		})
		pushy.Handle(srv, "fail", func(context.Context, *pushy.Conn, struct{}) (any, error) { return nil, errSecret })
		pushy.Handle(srv, "panic", func(context.Context, *pushy.Conn, struct{}) (any, error) { panic(errSecret) })
		p := connectPeer(t, srv)
		p.expect0(`{"command":"fail","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
		p.expect0(`{"command":"panic","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
		p.expect0(`{"command":"fail","id":1,"data":7}`, `pushy:error {"message":"data must be an object, not a number","code":"400","id":1}`)
		p.send(`{"command":"subscribe","data":{"channel":"private-room"}}`)
		assert.Equal(t, "pushy:subscription-success", p.next().Event)
		go p.ended()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.NoError(t, srv.Shutdown(ctx))
	})
}

// panickingHandler panics wherever it can.
type panickingHandler struct{}

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { panic("Enabled") }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("Handle") }
func (panickingHandler) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panickingHandler) WithGroup(string) slog.Handler             { panic("WithGroup") }

// shareBroker is a Broker and PresenceStore that counts, and refuses what it is
// told to refuse.
type shareBroker struct {
	pushy.Broker
	pushy.PresenceStore
	refuse map[string]error
	opened atomic.Int64
	closed atomic.Int64
}

func newShareBroker(refuse map[string]error) *shareBroker {
	return &shareBroker{
		Broker:        pushy.NewLocalBroker(),
		PresenceStore: pushy.NewLocalPresence(),
		refuse:        refuse,
	}
}

func (b *shareBroker) Open(ctx context.Context, deliver func(string, pushy.Message)) error {
	b.opened.Add(1)
	if err := b.refuse["Open"]; err != nil {
		return err
	}
	return b.Broker.Open(ctx, deliver)
}

func (b *shareBroker) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	if err := b.refuse[m.Event]; err != nil {
		return pushy.None, err
	}
	return b.Broker.Publish(ctx, channel, m)
}

func (b *shareBroker) Subscribe(context.Context, string) error { return b.refuse["Subscribe"] }

func (b *shareBroker) Close() error {
	b.closed.Add(1)
	return errors.Join(b.Broker.Close(), b.refuse["Close"])
}

// Issue 11, number 26: a New that fails leaves no Broker open.
func TestFailedNewClosesTheBroker(t *testing.T) {
	t.Parallel()
	errOpen, errClose := errors.New("cannot open"), errors.New("cannot close")
	for _, c := range []struct {
		name    string
		refuse  map[string]error
		options pushy.Options
		is      []error
	}{
		{"open", map[string]error{"Open": errOpen}, pushy.Options{SecretKey: peerKey}, []error{errOpen}},
		{"openAndClose", map[string]error{"Open": errOpen, "Close": errClose}, pushy.Options{SecretKey: peerKey}, []error{errOpen, errClose}},
		{"noKey", nil, pushy.Options{}, nil},
		{"origins", nil, pushy.Options{SecretKey: peerKey, Origins: []string{"x"}}, nil},
		{"prefix", nil, pushy.Options{SecretKey: peerKey, Prefix: "x"}, nil},
		{"heartbeat", nil, pushy.Options{SecretKey: peerKey, Heartbeat: 25}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, both := range []bool{true, false} {
				broker := newShareBroker(c.refuse)
				c.options.Logger = slog.New(slog.DiscardHandler)
				c.options.Broker = broker
				if both {
					c.options.Presence = broker
				} else {
					c.options.Presence = nil
				}
				srv, err := pushy.New(c.options)
				require.Error(t, err)
				assert.Nil(t, srv)
				for _, is := range c.is {
					assert.ErrorIs(t, err, is)
				}
				assert.Positive(t, broker.closed.Load())
				assert.LessOrEqual(t, broker.opened.Load(), int64(1))
			}
		})
	}
}

// Issue 11, number 26: only what the Broker took was published.
func TestStatsCountWhatWasAccepted(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Broker: newShareBroker(map[string]error{"refused": errors.New("no")})})
	require.NoError(t, srv.Publish(t.Context(), "news", "fine", 1))
	require.Error(t, srv.Publish(t.Context(), "news", "refused", 1))
	require.Error(t, srv.Publish(t.Context(), "news", "pushy:x", 1))
	require.Error(t, srv.Publish(t.Context(), "news", "fine", make(chan int)))
	assert.EqualValues(t, 1, srv.Stats().Published)
	require.NoError(t, srv.Publish(t.Context(), "news", "fine", 1))
	assert.EqualValues(t, 2, srv.Stats().Published)
	require.NoError(t, srv.Shutdown(t.Context()))
	require.ErrorIs(t, srv.Publish(t.Context(), "news", "fine", 1), pushy.ErrClosed)
	assert.EqualValues(t, 2, srv.Stats().Published)
}

// Issue 11, number 26: an error is logged or returned, and what many clients run
// into at once is one line.
func TestFailedOpenIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	errNo := errors.New("the network is down")
	srv := startServer(t, pushy.Options{Logger: log.logger(), Broker: newShareBroker(map[string]error{"Subscribe": errNo})})
	p := connectPeer(t, srv)
	err := srv.Channels().Join(p.conn(srv), "news", nil)
	require.ErrorIs(t, err, errNo)
	assert.Empty(t, log.String(), "it was returned")
	for range 5 {
		p.expect0(`{"command":"subscribe","data":{"channel":"news"}}`, `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`)
	}
	assert.Equal(t, 1, strings.Count(log.String(), errNo.Error()), log.String())
	assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
}

// Issue 11, number 26: a duration that lacks its unit is an error, which says
// what was meant.
func TestDurationsWithoutAUnit(t *testing.T) {
	t.Parallel()
	set := map[string]func(o *pushy.Options, d time.Duration){
		"Heartbeat":              func(o *pushy.Options, d time.Duration) { o.Heartbeat = d },
		"WriteTimeout":           func(o *pushy.Options, d time.Duration) { o.WriteTimeout = d },
		"BodyTimeout":            func(o *pushy.Options, d time.Duration) { o.BodyTimeout = d },
		"CommandTimeout":         func(o *pushy.Options, d time.Duration) { o.CommandTimeout = d },
		"SockJS.DisconnectDelay": func(o *pushy.Options, d time.Duration) { o.SockJS.DisconnectDelay = d },
		"MaxGather":              func(o *pushy.Options, d time.Duration) { o.MaxGather = d },
	}
	for name, set := range set {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try := func(d time.Duration) error {
				o := pushy.Options{SecretKey: peerKey, Logger: slog.New(slog.DiscardHandler)}
				set(&o, d)
				srv, err := pushy.New(o)
				if err == nil {
					require.NoError(t, srv.Close())
				}
				return err
			}
			least, most, unit := time.Millisecond, 366*24*time.Hour, "25*time.Second"
			switch name {
			case "Heartbeat":
				least = time.Second
			case "MaxGather":
				least, most, unit = time.Microsecond, time.Second, "25*time.Millisecond"
			}
			for _, right := range []time.Duration{0, -1, -time.Hour, math.MinInt64, least, most} {
				assert.NoError(t, try(right), "%d", right)
			}
			for _, wrong := range []time.Duration{1, least - 1, most + 1, math.MaxInt64} {
				assert.ErrorContains(t, try(wrong), "pushy: Options."+name+" is ", "%d", wrong)
			}
			assert.ErrorContains(t, try(25), "did you mean "+unit+"?")
			if name == "Heartbeat" {
				assert.NotContains(t, try(999*time.Millisecond).Error(), "did you mean", "no bare number")
			}
			if name != "MaxGather" {
				assert.ErrorContains(t, try(25000), "did you mean 25000*time.Millisecond?")
			}
		})
	}
}

// Issue 11, number 26: options that contradict each other are errors.
func TestContradictoryOptions(t *testing.T) {
	t.Parallel()
	for names, o := range map[string]pushy.Options{
		"Options.OldSecretKeys Options.SecretKey": {
			OldSecretKeys:  []string{peerKey},
			DisableTrigger: true,
			Authorizer:     authorizerFunc(func(context.Context, pushy.AuthRequest) error { return nil }),
		},
	} {
		o.Logger = slog.New(slog.DiscardHandler)
		_, err := pushy.New(o)
		for name := range strings.FieldsSeq(names) {
			assert.ErrorContains(t, err, name)
		}
	}
}
