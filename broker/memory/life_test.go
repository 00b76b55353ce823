package memory_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// counter is a Sink that counts.
type counter struct{ delivered, resets atomic.Int64 }

func (c *counter) Deliver(string, broker.Entry)       { c.delivered.Add(1) }
func (c *counter) Reset(string, broker.State, string) { c.resets.Add(1) }

func opened(t testing.TB, c *memory.Cluster, id string, settings map[string]string) (*memory.Broker, *counter) {
	t.Helper()
	b, sink := c.Broker(), &counter{}
	o := broker.OpenOptions{Node: id, Lease: 15 * time.Second, Settings: settings}
	require.NoError(t, b.Open(context.Background(), o, sink))
	return b, sink
}

func kept(data string) broker.Entry {
	return broker.Entry{
		Kind:  broker.Event,
		Event: "said",
		Data:  json.RawMessage(data),
		Keep:  broker.Keep{Size: 10, TTL: time.Minute},
	}
}

func TestOpenIsChecked(t *testing.T) {
	t.Parallel()
	c := memory.NewCluster(memory.Options{})
	ctx, sink := t.Context(), &counter{}
	for _, o := range []broker.OpenOptions{{Lease: time.Second}, {Node: "a"}, {Node: "a", Lease: -1}} {
		assert.Error(t, c.Broker().Open(ctx, o, sink))
	}
	assert.Error(t, c.Broker().Open(ctx, broker.OpenOptions{Node: "a", Lease: time.Second}, nil))
	b := c.Broker()
	_, err := b.Append(ctx, "news", kept("1"))
	assert.ErrorIs(t, err, broker.ErrClosed, "before Open")
	assert.ErrorIs(t, b.Close(ctx), broker.ErrClosed, "before Open")
	require.NoError(t, b.Open(ctx, broker.OpenOptions{Node: "a", Lease: time.Second}, sink))
	assert.Error(t, b.Open(ctx, broker.OpenOptions{Node: "b", Lease: time.Second}, sink), "twice")
	err = c.Broker().Open(ctx, broker.OpenOptions{Node: "a", Lease: time.Second}, sink)
	assert.ErrorContains(t, err, `"a" is in use`)
	require.NoError(t, b.Close(ctx))
}

func TestSettingsThatDiffer(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := memory.NewCluster(memory.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	for i := range 3 {
		grace := "15s"
		if i > 0 {
			grace = "30s"
		}
		opened(t, c, fmt.Sprint("node-", i), map[string]string{"Grace": grace, "Keys": "same"})
	}
	assert.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	assert.Contains(t, out.String(), `option=Grace here=30s elsewhere=15s`)
}

// A node that was closed is not compared, so that a restart with other settings is not logged.
func TestSettingsOfAClosedNode(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := memory.NewCluster(memory.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	opened(t, c, "a", map[string]string{"Grace": "30s"})
	b, _ := opened(t, c, "b", map[string]string{"Grace": "30s", "Keys": "old"})
	require.NoError(t, b.Close(t.Context()))
	opened(t, c, "c", map[string]string{"Grace": "30s", "Keys": "new"})
	assert.Empty(t, out.String())
}

// A node that extends its lease while it is cut off has the longer lease when it reconnects.
func TestExtendWhileCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := memory.NewCluster(memory.Options{})
		a, _ := opened(t, c, "a", nil)
		b, _ := opened(t, c, "b", nil)
		members := func() int {
			s, err := a.Follow(t.Context(), "room")
			require.NoError(t, err)
			return len(s.Members)
		}
		_, err := b.Append(t.Context(), "room", broker.Entry{Kind: broker.Join, Member: "m", Owner: "o"})
		require.NoError(t, err)
		reconnect := b.Cut()
		require.ErrorIs(t, b.Extend(t.Context(), time.Minute), broker.ErrAway)
		time.Sleep(10 * time.Second)
		reconnect()
		require.NoError(t, b.Close(t.Context()))
		time.Sleep(59 * time.Second)
		assert.Equal(t, 1, members())
		time.Sleep(2 * time.Second)
		assert.Zero(t, members())
		require.NoError(t, a.Close(t.Context()))
	})
}

func TestIDWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := opened(t, memory.NewCluster(memory.Options{}), "a", nil)
		e := kept("1")
		e.ID = "request"
		first, err := b.Append(t.Context(), "news", e)
		require.NoError(t, err)
		time.Sleep(20*time.Minute - time.Second)
		again, err := b.Append(t.Context(), "news", e)
		require.NoError(t, err)
		assert.True(t, again.Duplicate)
		assert.Equal(t, first.At, again.At)
		time.Sleep(2 * time.Second)
		again, err = b.Append(t.Context(), "news", e)
		require.NoError(t, err)
		assert.False(t, again.Duplicate)
	})
}

// An append that failed may be repeated with its ID.
func TestIDOfFailedAppend(t *testing.T) {
	t.Parallel()
	b, _ := opened(t, memory.NewCluster(memory.Options{}), "a", nil)
	e := broker.Entry{Kind: broker.Leave, Member: "m1", Owner: "o1", ID: "request"}
	_, err := b.Append(t.Context(), "room", e)
	require.ErrorIs(t, err, broker.ErrNotOwner)
	_, err = b.Append(t.Context(), "room", broker.Entry{Kind: broker.Join, Member: "m1", Owner: "o1"})
	require.NoError(t, err)
	a, err := b.Append(t.Context(), "room", e)
	require.NoError(t, err)
	assert.False(t, a.Duplicate)
}

// waiting is a sink that a test holds up.
type waiting struct{ release chan struct{} }

func (w waiting) Deliver(string, broker.Entry)       { <-w.release }
func (w waiting) Reset(string, broker.State, string) {}

// An append with an ID that another call is appending waits for that no longer than its ctx.
func TestIDThatIsBeingAppended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		w := waiting{make(chan struct{})}
		require.NoError(t, b.Open(t.Context(), broker.OpenOptions{Node: "a", Lease: time.Minute}, w))
		_, err := b.Follow(t.Context(), "news")
		require.NoError(t, err)
		e := broker.Entry{Kind: broker.Event, Event: "said", ID: "request"}
		first := make(chan error, 1)
		go func() {
			_, err := b.Append(t.Context(), "news", e)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		second := make(chan error, 1)
		go func() {
			_, err := b.Append(ctx, "news", e)
			second <- err
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-second:
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		default:
			assert.Fail(t, "the second Append waits for more than its ctx")
		}
		close(w.release)
		require.NoError(t, <-first)
		a, err := b.Append(t.Context(), "news", e)
		require.NoError(t, err)
		assert.True(t, a.Duplicate)
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestClaimIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := opened(t, memory.NewCluster(memory.Options{}), "a", nil)
		claim := func() broker.ClaimState {
			c, err := b.Claim(t.Context(), "id:1", "d", time.Hour)
			require.NoError(t, err)
			return c.State
		}
		assert.Equal(t, broker.Claimed, claim())
		time.Sleep(broker.ClaimTimeout - time.Second)
		assert.Equal(t, broker.Pending, claim())
		time.Sleep(2 * time.Second)
		assert.Equal(t, broker.Claimed, claim())
		assert.Equal(t, broker.Pending, claim())
	})
}

func top(t *testing.T, b *memory.Broker, channel string) broker.Position {
	t.Helper()
	tops, err := b.Tops(t.Context(), []string{channel})
	require.NoError(t, err)
	return tops[0]
}

// A position is valid for as long as its log is remembered, and never fits
// another log.
func TestForgottenLogBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := opened(t, memory.NewCluster(memory.Options{}), "a", nil)
		empty := top(t, b, "news")
		for range 3 {
			_, err := b.Append(t.Context(), "news", kept("1"))
			require.NoError(t, err)
		}
		third := top(t, b, "news")
		assert.Equal(t, broker.Position{Epoch: empty.Epoch, Offset: 3}, third)
		time.Sleep(23 * time.Hour) // far beyond the TTL
		_, err := b.Follow(t.Context(), "news")
		require.NoError(t, err)
		require.NoError(t, b.Unfollow(t.Context(), "news"))
		assert.Equal(t, third, top(t, b, "news"))
		time.Sleep(2 * time.Hour)
		_, err = b.Follow(t.Context(), "news")
		require.NoError(t, err)
		require.NoError(t, b.Unfollow(t.Context(), "news"))
		now := top(t, b, "news")
		assert.NotEqual(t, third.Epoch, now.Epoch)
		assert.Zero(t, now.Offset)
		_, err = b.Read(t.Context(), "news", broker.Range{Epoch: third.Epoch, After: 2, Limit: 10})
		assert.ErrorIs(t, err, broker.ErrEpoch)
	})
}

// What many channels leave behind is removed as others come.
func TestMemoryOfPastChannels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := memory.NewCluster(memory.Options{})
		b, _ := opened(t, c, "a", nil)
		for day := range 4 {
			for i := range 5000 {
				channel := fmt.Sprintf("room-%d-%d", day, i)
				_, err := b.Append(t.Context(), channel, kept("1"))
				require.NoError(t, err)
				join := broker.Entry{Kind: broker.Join, Member: "m", Owner: "o"}
				_, err = b.Append(t.Context(), channel, join)
				require.NoError(t, err)
				join.Kind = broker.Leave
				_, err = b.Append(t.Context(), channel, join)
				require.NoError(t, err)
			}
			time.Sleep(25 * time.Hour)
		}
		assert.Less(t, c.Logs(), 10_000)
	})
}

// When the last node is closed nothing is left.
func TestLastClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := memory.NewCluster(memory.Options{})
		a, _ := opened(t, c, "a", nil)
		b, _ := opened(t, c, "b", nil)
		_, err := a.Append(t.Context(), "room", broker.Entry{Kind: broker.Join, Member: "m", Owner: "o"})
		require.NoError(t, err)
		epoch := top(t, a, "news").Epoch
		a.Kill()
		require.NoError(t, a.Close(t.Context()))
		require.NoError(t, b.Close(t.Context()))
		assert.Zero(t, c.Logs())
		again, _ := opened(t, c, "a", nil)
		s, err := again.Follow(t.Context(), "room")
		require.NoError(t, err)
		assert.Empty(t, s.Members)
		assert.NotEqual(t, epoch, s.At.Epoch)
		time.Sleep(time.Minute) // the leases of the first life end
		_, err = again.Append(t.Context(), "room", broker.Entry{Kind: broker.Join, Member: "m", Owner: "o"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		s, err = again.Follow(t.Context(), "room")
		require.NoError(t, err)
		assert.Len(t, s.Members, 1)
	})
}

// All methods at once, for the race detector; the counts agree at the end.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := memory.NewCluster(memory.Options{})
	var nodes []*memory.Broker
	for i := range 3 {
		b, _ := opened(t, c, fmt.Sprint("node-", i), nil)
		nodes = append(nodes, b)
	}
	var all sync.WaitGroup
	for i := range 12 {
		b := nodes[i%3]
		all.Go(func() {
			for j := range 200 {
				channel := fmt.Sprint("room-", j%5)
				member := fmt.Sprintf("m-%d-%d", i, j)
				_, _ = b.Follow(t.Context(), channel)
				_, _ = b.Append(t.Context(), channel, kept("1"))
				_, _ = b.Append(t.Context(), channel, broker.Entry{Kind: broker.Join, Member: member, Owner: member})
				_, _ = b.Append(t.Context(), channel, broker.Entry{Kind: broker.Leave, Member: member, Owner: member})
				_, _ = b.Read(t.Context(), channel, broker.Range{Limit: 5})
				_, _ = b.Tops(t.Context(), []string{channel, "none"})
				_, _ = b.Claim(t.Context(), member, "d", time.Hour)
				_, _ = b.List(t.Context(), "m-1")
				_, _ = b.Nodes(t.Context())
				_ = b.Away()
				if j%7 == 0 {
					_ = b.Unfollow(t.Context(), channel)
				}
				if j%50 == 0 && i%3 == 2 {
					b.Cut()()
				}
				if j == 150 {
					_ = b.Forget(t.Context(), channel)
				}
			}
		})
	}
	all.Wait()
	for i := range 5 {
		s, err := nodes[0].Follow(t.Context(), fmt.Sprint("room-", i))
		require.NoError(t, err)
		for _, m := range s.Members {
			// Only a node that was cut off in between leaves members behind.
			assert.Equal(t, "node-2", m.Node)
		}
	}
	for _, b := range nodes {
		require.NoError(t, b.Close(context.Background()))
	}
	assert.Zero(t, c.Logs())
}

func BenchmarkAppendNotKept(b *testing.B) {
	m, _ := opened(b, memory.NewCluster(memory.Options{}), "a", nil)
	_, err := m.Follow(context.Background(), "news")
	require.NoError(b, err)
	e := broker.Entry{Kind: broker.Event, Event: "said", Data: json.RawMessage(`{"text":"Hello"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(context.Background(), "news", e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendKept(b *testing.B) {
	m, _ := opened(b, memory.NewCluster(memory.Options{}), "a", nil)
	_, err := m.Follow(context.Background(), "news")
	require.NoError(b, err)
	e := kept(`{"text":"Hello"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(context.Background(), "news", e); err != nil {
			b.Fatal(err)
		}
	}
}

// A member joins and leaves.
func BenchmarkAppendMember(b *testing.B) {
	m, _ := opened(b, memory.NewCluster(memory.Options{}), "a", nil)
	_, err := m.Follow(context.Background(), "news")
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		for _, kind := range []broker.Kind{broker.Join, broker.Leave} {
			if _, err := m.Append(context.Background(), "news", broker.Entry{Kind: kind, Member: "m", Owner: "o"}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
