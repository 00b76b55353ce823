package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

var errBroker = errors.New("the broker says no")

// nodesChannel is the channel on which nodes ask each other. Fakes do not alter it.
const nodesChannel = ":nodes"

// altered is a node of broker/memory of which a test alters methods: each func that is
// set stands in for the method of its name.
type altered struct {
	*memory.Broker
	open   func(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error
	follow func(ctx context.Context, channel string) (broker.State, error)
	append func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error)
	close  func(ctx context.Context) error
	away   func() error
}

func (a *altered) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	if a.open != nil {
		return a.open(ctx, o, sink)
	}
	return a.Broker.Open(ctx, o, sink)
}

func (a *altered) Follow(ctx context.Context, channel string) (broker.State, error) {
	if a.follow != nil && channel != nodesChannel {
		return a.follow(ctx, channel)
	}
	return a.Broker.Follow(ctx, channel)
}

func (a *altered) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if a.append != nil {
		return a.append(ctx, channel, e)
	}
	return a.Broker.Append(ctx, channel, e)
}

func (a *altered) Close(ctx context.Context) error {
	if a.close != nil {
		return a.close(ctx)
	}
	return a.Broker.Close(ctx)
}

func (a *altered) Away() error {
	if a.away != nil {
		return a.away()
	}
	return a.Broker.Away()
}

// publishing is a broker whose Append of events is publish.
func publishing(publish func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error)) *altered {
	a := &altered{Broker: memory.New()}
	a.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if e.Kind != broker.Event {
			return a.Broker.Append(ctx, channel, e)
		}
		return publish(ctx, channel, e)
	}
	return a
}

// foreign is a broker whose store anybody writes to: the test delivers to its sink what
// it likes. One call can be made to panic.
type foreign struct {
	*memory.Broker
	sink broker.Sink // set by Open

	mu     sync.Mutex
	start  *broker.State // what Follow returns, if it is not nil
	panics string        // the call that panics
	fail   func()        // instead of a panic, if it is not nil
	closes int
}

func newForeign() *foreign { return &foreign{Broker: memory.New()} }

func (f *foreign) enter(call string) {
	f.mu.Lock()
	panics, fail := f.panics == call, f.fail
	f.mu.Unlock()
	if !panics {
		return
	}
	if fail != nil {
		fail()
	}
	panic("the store of " + call)
}

// panicIn makes a call panic from now on.
func (f *foreign) panicIn(call string) {
	f.mu.Lock()
	f.panics = call
	f.mu.Unlock()
}

func (f *foreign) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	f.enter("Open")
	f.sink = sink
	return f.Broker.Open(ctx, o, sink)
}

func (f *foreign) Follow(ctx context.Context, channel string) (broker.State, error) {
	f.enter("Follow")
	s, err := f.Broker.Follow(ctx, channel)
	if f.start != nil {
		s = *f.start
	}
	return s, err
}

func (f *foreign) Unfollow(ctx context.Context, channel string) error {
	f.enter("Unfollow")
	return f.Broker.Unfollow(ctx, channel)
}

func (f *foreign) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	f.enter(kindName(e.Kind))
	return f.Broker.Append(ctx, channel, e)
}

func kindName(k broker.Kind) string {
	return map[broker.Kind]string{
		broker.Event: "Event",
		broker.Join:  "Join",
		broker.Leave: "Leave",
	}[k]
}

func (f *foreign) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closes++
	f.mu.Unlock()
	f.enter("Close")
	return f.Broker.Close(ctx)
}

func (f *foreign) Away() error {
	f.enter("Away")
	return f.Broker.Away()
}

// says delivers an event.
func (f *foreign) says(channel, event, data string) {
	e := broker.Entry{
		Kind:  broker.Event,
		Event: event,
	}
	if data != "" {
		e.Data = json.RawMessage(data)
	}
	f.sink.Deliver(channel, e)
}

// spy is a node of the cluster that is not a Server: it appends what it likes.
func spy(t testing.TB, cluster *memory.Cluster) *memory.Broker {
	t.Helper()
	b := cluster.Broker()
	require.NoError(t, b.Open(context.Background(), broker.OpenOptions{
		Node:  "spy" + strconv.FormatInt(spies.Add(1), 10),
		Lease: time.Hour,
	}, nowhere{}))
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

var spies atomic.Int64

type nowhere struct{}

func (nowhere) Deliver(string, broker.Entry)       {}
func (nowhere) Reset(string, broker.State, string) {}

// newCluster returns a cluster that logs nothing.
func newCluster() *memory.Cluster {
	return memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)})
}

// lasting returns b as a broker whose Ledger outlives the process. A Server then accepts signed
// requests from before its start.
func lasting(b *memory.Broker) broker.Broker {
	return struct {
		broker.Broker
		broker.Health
		broker.History
		broker.Ledger
		broker.Cluster
		broker.Leaser
	}{b, b, b, b, b, b}
}

// startOn starts a Server on a broker.
func startOn(t testing.TB, b broker.Broker, o pushy.Options) *pushy.Server {
	t.Helper()
	o.Broker = b
	return startServer(t, o)
}

// deadline returns a context with a deadline that is far away.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	t.Cleanup(cancel)
	return ctx
}
