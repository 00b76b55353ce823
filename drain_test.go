package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// hello connects a client and returns the data of its first message.
func hello(t *testing.T, connect func(session.Session)) map[string]any {
	t.Helper()
	session, client := inmem.Pipe("websocket")
	connect(session)
	p := &peer{t: t, Client: client}
	f := p.next()
	require.Equal(t, "pushy:connect", f.Event)
	var data map[string]any
	require.NoError(t, json.Unmarshal(f.Data, &data))
	return data
}

// A client of version 2 is told the time within which it is to return: the number of
// connections divided by ReturnRate, from 1 s to 60 s. Others are not told.
func TestReturnWithin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate   int
		conns  int
		want   float64 // of the last one, in ms
		absent bool
	}{
		"the default is 2,000 a second": {0, 100, 1000, false},
		"at least 1 s":                  {10, 9, 1000, false},
		"in proportion":                 {10, 25, 2500, false},
		"not whole seconds":             {7, 50, 7142, false},
		"exactly 60 s":                  {1, 60, 60_000, false},
		"at most 60 s":                  {1, 61, 60_000, false},
		"fast":                          {1_000_000, 100, 1000, false},
		"off":                           {-1, 100, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, pushy.Options{ReturnRate: c.rate})
			var last map[string]any
			for range c.conns {
				last = hello(t, srv.Connect2)
			}
			within, told := last["returnWithin"]
			assert.Equal(t, !c.absent, told)
			if told {
				assert.Equal(t, c.want, within)
			}
			old := hello(t, func(s session.Session) { srv.Connect(s, nil) })
			assert.NotContains(t, old, "returnWithin")
		})
	}
}

// Connections that have ended do not count.
func TestReturnWithinCountsOpenConnections(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{ReturnRate: 1})
		for range 20 {
			c := newRoamer(t, "x").connect(srv)
			c.drop()
		}
		synctest.Wait()
		assert.Equal(t, 1000.0, hello(t, srv.Connect2)["returnWithin"])
	})
}

func TestReturnRateIsChecked(t *testing.T) {
	t.Parallel()
	_, err := pushy.New(pushy.Options{SecretKey: peerKey, ReturnRate: 1_000_001})
	require.ErrorContains(t, err, "Options.ReturnRate is 1000001, must be at most 1000000")
}

// leaser is a node of which a test sees the calls of Extend.
type leaser struct {
	*memory.Broker
	extend func(ctx context.Context, lease time.Duration) error // instead, if it is not nil

	mu     sync.Mutex
	leases []time.Duration
	open   []int // the connections at each of the calls
	srv    *pushy.Server
}

func (l *leaser) Extend(ctx context.Context, lease time.Duration) error {
	l.mu.Lock()
	l.leases = append(l.leases, lease)
	l.open = append(l.open, l.srv.Stats().Connections)
	l.mu.Unlock()
	if l.extend != nil {
		return l.extend(ctx, lease)
	}
	return l.Broker.Extend(ctx, lease)
}

// withoutLeaser is a Broker of the host's that does not implement broker.Leaser.
type withoutLeaser struct{ broker.Broker }

// The clients of a Server that shuts down return within 20 s, although Grace is 2 s. Nobody
// notices them, because Shutdown has made the lease longer before it closed them. A client that
// does not return leaves after both times.
func TestMembersOutliveTheReturnWindow(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		const clients = 20
		grace := 2 * time.Second
		cluster := newCluster()
		other := startOn(t, cluster.Broker(), pushy.Options{Grace: grace})
		lease := &leaser{Broker: cluster.Broker()}
		lease.srv = startOn(t, lease, pushy.Options{Grace: grace, ReturnRate: 1})
		ann := newRoamer(t, "Ann")
		ann.enter(other)
		var all []*roamer
		for i := range clients {
			c := newRoamer(t, fmt.Sprint(i))
			c.enter(lease.srv)
			all = append(all, c)
		}
		for _, c := range all {
			c.settle()
		}
		assert.Len(t, ann.settle(), clients)
		for _, c := range all {
			go c.last()
		}
		require.NoError(t, lease.srv.Shutdown(t.Context()))
		assert.Equal(t, []time.Duration{clients*time.Second + grace}, lease.leases)
		assert.Equal(t, []int{clients}, lease.open)
		closed := time.Now()
		for i, c := range all[1:] {
			time.Sleep(time.Until(closed.Add(time.Duration(i) * clients * time.Second / (clients - 1))))
			assert.True(t, c.enter(other), i)
		}
		assert.Empty(t, ann.settle())
		time.Sleep(time.Until(closed.Add(clients*time.Second + grace - time.Millisecond)))
		assert.Empty(t, ann.settle())
		time.Sleep(2 * time.Millisecond)
		assert.Equal(t, []string{"pushy:presence-quit"}, ann.settle())
	})
}

// The lease covers what each client was told, also if the Server has fewer connections now.
func TestLeaseCoversWhatClientsWereTold(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		startOn(t, cluster.Broker(), pushy.Options{})
		lease := &leaser{Broker: cluster.Broker()}
		lease.srv = startOn(t, lease, pushy.Options{ReturnRate: 1})
		var all []*roamer
		for range 30 {
			all = append(all, newRoamer(t, "x").connect(lease.srv))
		}
		for _, c := range all[:24] {
			c.drop()
		}
		for _, c := range all[25:] {
			c.drop()
		}
		synctest.Wait()
		go all[24].last()
		require.NoError(t, lease.srv.Shutdown(t.Context()))
		// The 25th client was told 25 s, and 27 s when there were two more.
		assert.Equal(t, []time.Duration{(27 + 15) * time.Second}, lease.leases)
	})
}

// If the lease cannot be made longer, the Server shuts down all the same. The log names the
// consequence, unless the clients return within Grace.
func TestLeaseCannotBeExtended(t *testing.T) {
	t.Parallel()
	const warning = "cannot extend the lease for the shutdown"
	fails := func(err error) func(context.Context, time.Duration) error {
		return func(context.Context, time.Duration) error { return err }
	}
	for name, c := range map[string]struct {
		broker  func(*leaser) broker.Broker
		extend  func(ctx context.Context, lease time.Duration) error
		rate    int
		within  time.Duration // of Shutdown
		message string
	}{
		"no Leaser": {
			broker:  func(l *leaser) broker.Broker { return withoutLeaser{l.Broker} },
			message: "unsupported operation",
		},
		"no Leaser, but clients return within Grace": {
			broker: func(l *leaser) broker.Broker { return withoutLeaser{l.Broker} },
			rate:   10,
		},
		"away":   {extend: fails(broker.ErrAway), message: broker.ErrAway.Error()},
		"panics": {extend: func(context.Context, time.Duration) error { panic("the store") }, message: "panic: the store"},
		"hangs": {
			extend: func(ctx context.Context, _ time.Duration) error {
				<-ctx.Done()
				return ctx.Err()
			},
			within:  2 * time.Second,
			message: context.DeadlineExceeded.Error(),
		},
		"works": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				log := &testlog.Log{}
				lease := &leaser{Broker: newCluster().Broker(), extend: c.extend}
				var b broker.Broker = lease
				if c.broker != nil {
					b = c.broker(lease)
				}
				rate := max(c.rate, 1)
				lease.srv = startOn(t, b, pushy.Options{
					Grace:      5 * time.Second,
					ReturnRate: rate,
					Logger:     log.Logger(),
				})
				for range 10 {
					go newRoamer(t, "x").connect(lease.srv).last()
				}
				synctest.Wait()
				began := time.Now()
				require.NoError(t, lease.srv.Shutdown(deadline(t)))
				assert.Less(t, time.Since(began), c.within+6*time.Second)
				found := log.With(warning)
				if c.message == "" {
					assert.Empty(t, found)
					return
				}
				require.Len(t, found, 1)
				assert.Contains(t, found[0], c.message)
				assert.Contains(t, found[0], "Grace=5s")
			})
		})
	}
}

// A Server that is alone, and one that is closed at once, do not use the lease.
func TestCloseDoesNotExtendTheLease(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		lease := &leaser{Broker: newCluster().Broker(), extend: func(context.Context, time.Duration) error {
			return errors.New("must not be called")
		}}
		lease.srv = startOn(t, lease, pushy.Options{ReturnRate: 1})
		go newRoamer(t, "x").connect(lease.srv).last()
		synctest.Wait()
		require.NoError(t, lease.srv.Close())
		assert.Empty(t, lease.leases)
	})
}
