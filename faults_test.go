package pushy_test

import (
	"context"
	"encoding/json"
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
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// haunted is a broker whose Follow fails, a number of times, after it has delivered.
func haunted(failing int64) *altered {
	var left atomic.Int64
	left.Store(failing)
	var sink broker.Sink
	a := &altered{Broker: memory.New()}
	a.open = func(ctx context.Context, o broker.OpenOptions, s broker.Sink) error {
		sink = s
		return a.Broker.Open(ctx, o, s)
	}
	a.follow = func(ctx context.Context, channel string) (broker.State, error) {
		if left.Add(-1) < 0 {
			return a.Broker.Follow(ctx, channel)
		}
		ghosts := broker.Position{
			Epoch:  "ghosts",
			Offset: 1000,
		}
		sink.Reset(channel, broker.State{
			Revision: ghosts,
			On:       true,
			Members:  []broker.Member{{ID: "ghost", Owner: "o", Data: json.RawMessage(`{}`)}},
		}, broker.ResetGap)
		ghosts.Offset++
		sink.Deliver(channel, broker.Entry{
			Kind:   broker.Join,
			Member: "second",
			Owner:  "o",
			At:     ghosts,
		})
		return broker.State{}, errBroker
	}
	return a
}

// Issue 11, number 26: what a Follow has delivered that failed is no part of the next
// replica.
func TestFailedFollowLeavesNoGhost(t *testing.T) {
	t.Parallel()
	for range 20 {
		srv := startOn(t, haunted(60), pushy.Options{})
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
			Broker:    haunted(0),
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

// refusing is a broker that counts, and refuses what it is told to refuse: by the call's
// name, or the event's.
type refusing struct {
	altered
	opened atomic.Int64
	closed atomic.Int64
}

func newRefusing(refuse map[string]error) *refusing {
	b := &refusing{altered: altered{Broker: memory.New()}}
	b.open = func(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
		b.opened.Add(1)
		if err := refuse["Open"]; err != nil {
			return err
		}
		return b.Broker.Open(ctx, o, sink)
	}
	b.follow = func(ctx context.Context, channel string) (broker.State, error) {
		if err := refuse["Follow"]; err != nil {
			return broker.State{}, err
		}
		return b.Broker.Follow(ctx, channel)
	}
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if err := refuse[e.Event]; err != nil {
			return broker.Appended{}, err
		}
		return b.Broker.Append(ctx, channel, e)
	}
	b.close = func(ctx context.Context) error {
		b.closed.Add(1)
		if err := refuse["Close"]; err != nil {
			return err
		}
		return b.Broker.Close(ctx)
	}
	return b
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
			b := newRefusing(c.refuse)
			c.options.Logger = slog.New(slog.DiscardHandler)
			c.options.Broker = b
			srv, err := pushy.New(c.options)
			require.Error(t, err)
			assert.Nil(t, srv)
			assert.NotErrorIs(t, err, broker.ErrClosed, "that it was not open is no mistake")
			for _, is := range c.is {
				assert.ErrorIs(t, err, is)
			}
			assert.EqualValues(t, 1, b.closed.Load())
			assert.LessOrEqual(t, b.opened.Load(), int64(1))
		})
	}
}

// A Broker that another Server uses is not closed by the New that cannot have it, too.
func TestBrokerOfAnotherServer(t *testing.T) {
	t.Parallel()
	b := memory.New()
	srv := startOn(t, b, pushy.Options{})
	_, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Broker:    b,
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.ErrorIs(t, err, broker.ErrClosed)
	require.ErrorContains(t, err, "Options.Broker is in use by another Server, or closed")
	p := connectPeer(t, srv)
	p.subscribe("news", "")
	require.NoError(t, srv.Publish(t.Context(), "news", "said", 1))
	p.expect("said news 1")
}

// Issue 11, number 26: only what the Broker took was published.
func TestStatsCountWhatWasAccepted(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Broker: newRefusing(map[string]error{"refused": errors.New("no")})})
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
	var log testlog.Log
	errNo := errors.New("the network is down")
	srv := startServer(t, pushy.Options{Logger: log.Logger(), Broker: newRefusing(map[string]error{"Follow": errNo})})
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
