package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// follower is a client that keeps its position as PROTOCOL.md, section 14, says, and checks
// that it misses nothing without a reason and gets nothing twice. The data of the event with
// offset n is n.
type follower struct {
	*ordercheck.Follower
	t       testing.TB
	r       *rand.Rand
	servers []*pushy.Server
	p       *peer
	was     []string
}

// reconnect drops the connection and resumes at a random node.
func (f *follower) reconnect() {
	if f.p != nil {
		f.was = append(f.was, f.p.id)
		f.was = f.was[max(0, len(f.was)-8):]
		f.p.Abort()
	}
	f.p = connect2(f.t, f.servers[f.r.IntN(len(f.servers))])
	keys := ""
	if f.At != nil {
		was, err := json.Marshal(f.was)
		require.NoError(f.t, err)
		keys = fmt.Sprintf(`,"since":{"epoch":%q,"offset":%d},"was":%s`, f.At.Epoch, f.At.Offset, was)
	}
	f.p.send(`{"command":"subscribe","data":{"channel":"news"` + keys + `}}`)
	got := f.p.next()
	require.NoError(f.t, f.Success(got.Data))
	require.NotEqual(f.t, "ahead", got.past(f.t).Reason, "the log has what the client has")
}

// handle handles the next message.
func (f *follower) handle(text string) {
	var m struct {
		Event  string
		Data   json.RawMessage
		Offset uint64
	}
	require.NoError(f.t, json.Unmarshal([]byte(text), &m))
	switch m.Event {
	case "pushy:resync":
		require.NoError(f.t, f.Resync(m.Data))
	case "n":
		require.Equal(f.t, fmt.Sprint(m.Offset), string(m.Data), "an event of the log")
		require.NoError(f.t, f.Event(m.Offset, string(m.Data)))
	default:
		require.Fail(f.t, "unexpected message", text)
	}
}

// read handles what arrives until time d from now.
func (f *follower) read(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for {
		text, err := f.p.Receive(ctx)
		if err != nil {
			require.ErrorIs(f.t, err, context.DeadlineExceeded)
			return
		}
		f.handle(text)
	}
}

// modelRun runs publishers, clients that come and go, and brokers that lose, repeat, reorder
// and are cut off, in its own time. faults is out of a thousand for each kind.
func modelRun(t *testing.T, seed uint64, faults int, keep int) (events, breaks int) {
	const nodes, clients, publishes = 3, 8, 300
	r := rand.New(rand.NewPCG(seed, 1))
	cluster := newCluster()
	var servers []*pushy.Server
	var brokers []*lossy
	for i := range nodes {
		l := &lossy{Broker: cluster.Broker()}
		dice := rand.New(rand.NewPCG(seed, uint64(100+i)))
		l.fate = func(broker.Entry) fate {
			switch n := dice.IntN(1000); {
			case n < faults:
				return isLost
			case n < 2*faults:
				return arrivesTwice
			case n < 3*faults:
				return arrivesLater
			}
			return arrives
		}
		l.read = func(ctx context.Context) error {
			l.mu.Lock()
			pause := time.Duration(dice.IntN(300)) * time.Millisecond
			fails := dice.IntN(1000) < faults
			l.mu.Unlock()
			select {
			case <-time.After(pause + 1):
			case <-ctx.Done():
				return ctx.Err()
			}
			if fails {
				return errBroker
			}
			return nil
		}
		brokers = append(brokers, l)
		servers = append(servers, startOn(t, l, keeping(keep, time.Hour)))
	}
	log := &ordercheck.Log{}
	var all []*follower
	var running sync.WaitGroup
	stop := make(chan struct{})
	for i := range clients {
		f := &follower{
			Follower: log.Follower(),
			t:        t,
			r:        rand.New(rand.NewPCG(seed, uint64(1000+i))),
			servers:  servers,
		}
		f.reconnect()
		all = append(all, f)
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				f.read(time.Duration(f.r.IntN(2000)+1) * time.Millisecond)
				f.reconnect()
			}
		})
	}
	if faults > 0 {
		running.Go(func() {
			dice := rand.New(rand.NewPCG(seed, 7))
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(dice.IntN(8000)+1) * time.Millisecond):
				}
				reconnect := brokers[1+dice.IntN(nodes-1)].Cut()
				time.Sleep(time.Duration(dice.IntN(3000)) * time.Millisecond)
				reconnect()
			}
		})
	}
	var last broker.Position
	for range publishes {
		receipt, err := servers[0].PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "n", Data: last.Offset + 1})
		require.NoError(t, err)
		last = receipt.Position
		time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
	}
	close(stop)
	running.Wait()
	for _, l := range brokers {
		l.set(nil)
		l.mu.Lock()
		l.read = nil
		l.mu.Unlock()
	}
	for _, f := range all {
		running.Go(func() { f.read(21 * time.Second) }) // a lost last event is found within 10 s
	}
	running.Wait()
	for _, f := range all {
		require.Equal(t, last, *f.At, "every client has everything, or was told")
		events += f.Events
		breaks += len(f.Breaks)
	}
	return events, breaks
}

// Without faults of the brokers nobody misses an event, however often clients reconnect.
func TestClientsThatReconnectMissNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				events, breaks := modelRun(t, seed, 0, 1000)
				require.Zero(t, breaks)
				require.Greater(t, events, 1500)
			})
		})
	}
}

// Brokers that lose, repeat and reorder events, fail and are cut off: every client has a run
// of the log without gaps and repeats, or a break with a reason.
func TestModelOfHistoryWithFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				events, _ := modelRun(t, seed, []int{2, 20, 100}[seed%3], []int{1000, 30}[seed%2])
				require.Greater(t, events, 300)
			})
		})
	}
}

// Eight publishers on three nodes: subscribers of all nodes and the log have one order.
func TestKeptEventsHaveOneOrder(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		const publishers, each = 8, 60
		cluster := newCluster()
		var servers []*pushy.Server
		var peers []*peer
		for range 3 {
			servers = append(servers, startOn(t, cluster.Broker(), keeping(1000, time.Hour)))
			p := connect2(t, servers[len(servers)-1])
			p.enterWith("news", "")
			peers = append(peers, p)
		}
		var all sync.WaitGroup
		for i := range publishers {
			all.Go(func() {
				for j := range each {
					if err := servers[i%3].Publish(t.Context(), "news", "n", i*each+j); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		var log []string
		page, err := servers[0].History(t.Context(), "news", pushy.HistoryOptions{Limit: 500})
		require.NoError(t, err)
		for _, e := range page.Events {
			log = append(log, fmt.Sprintf(`{"event":"n","channel":"news","data":%s,"offset":%d}`, e.Data, e.Position.Offset))
		}
		require.Len(t, log, publishers*each)
		for _, p := range peers {
			for _, want := range log {
				text, err := p.Receive(t.Context())
				require.NoError(t, err)
				require.Equal(t, want, text)
			}
			p.quiet()
		}
	})
}

// Clients that come back at once and do not read share the events of their replays: none is
// disconnected because of the memory.
func TestReplaysAreSharedInMemory(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		const clients, events, size = 100, 100, 2000
		o := keeping(events, time.Hour)
		o.MaxBuffered = 8 << 20
		srv := startServer(t, o)
		first := connect2(t, srv)
		place := first.enterWith("news", "").position()
		for range events {
			require.NoError(t, srv.Publish(t.Context(), "news", "n", strings.Repeat("x", size)))
			first.next()
		}
		var back []*peer
		for range clients {
			p := connect2(t, srv)
			p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"news","since":{"epoch":%q,"offset":0}}}`, place.Epoch))
			back = append(back, p)
		}
		synctest.Wait()
		require.Less(t, srv.Stats().Buffered, int64(2<<20), "%d bytes in all", clients*events*size)
		require.Equal(t, clients+1, srv.Stats().Connections)
		for _, p := range back {
			require.Equal(t, fmt.Sprintf("recovered=true replay=%d offset=%d", events, events), p.next().past(t).String())
			for range events {
				require.Equal(t, "n", p.next().Event)
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add(uint64(1), uint16(20), uint16(1000))
	f.Add(uint64(2), uint16(300), uint16(5))
	f.Fuzz(func(t *testing.T, seed uint64, faults, keep uint16) {
		fakeTime(t, func(t *testing.T) { modelRun(t, seed, int(faults%334), int(keep)+1) })
	})
}
