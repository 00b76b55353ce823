package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/lifecycle"
)

// unreliable is a memory cluster that is as slow and unreliable as the contract of
// package broker allows: calls take their time, and fail if fail says so; what is
// delivered comes late, in order for the events and for the members of a channel, but
// these and the channels are out of step. It notes what a Server must not do.
//
// It sleeps, so it is for testing/synctest alone. (Go 1.26's race detector does not
// survive a receive from time.After(0) in a bubble.)
type unreliable struct {
	cluster *memory.Cluster
	watcher *memory.Broker // a node without a Server, which reads states

	watching sync.Mutex // held while the watcher follows

	mu   sync.Mutex
	r    *rand.Rand
	most time.Duration // that a call or a delivery takes
	// fail says whether a call fails, and whether it has done its work first.
	fail func(call string) (err error, done bool)
	// resets: now and then a node gets a Reset in place of a member entry.
	resets bool
	calls  map[string]int // by name; Append has the entry's kind as its name
	nodes  []*unreliableNode
	all    func(channel string, data json.RawMessage) // an event has reached all nodes
	left   map[string]int                             // deliveries of one event that are still to come
	broken []string                                   // rules that a Server has broken
}

// unreliableNode is one Server's node.
type unreliableNode struct {
	*memory.Broker
	u       *unreliable
	sink    broker.Sink     // set by Open
	running lifecycle.Tasks // goroutines that deliver

	delivering sync.Mutex // held during a delivery

	// Under u.mu.
	following map[string]bool
	times     map[string]int  // how often a channel was followed or unfollowed
	changing  map[string]bool // Follow or Unfollow is under way
	queues    map[string]*deliveries
	closed    bool
	deaf      bool // member entries are lost on the way
}

// deliveries run one after the other, with pauses.
type deliveries struct {
	jobs    []func()
	running bool
}

func newUnreliable(t testing.TB, seed uint64, most time.Duration) *unreliable {
	cluster := newCluster()
	return &unreliable{
		cluster: cluster,
		watcher: spy(t, cluster),
		r:       rand.New(rand.NewPCG(seed, 77)),
		most:    most,
		calls:   map[string]int{},
		left:    map[string]int{},
	}
}

// node returns one more node.
func (u *unreliable) node() *unreliableNode {
	n := &unreliableNode{
		Broker:    u.cluster.Broker(),
		u:         u,
		following: map[string]bool{},
		times:     map[string]int{},
		changing:  map[string]bool{},
		queues:    map[string]*deliveries{},
	}
	u.nodes = append(u.nodes, n)
	return n
}

func (u *unreliable) brokeLocked(format string, args ...any) {
	u.broken = append(u.broken, fmt.Sprintf(format, args...))
}

func (u *unreliable) pauseLocked() time.Duration {
	if u.most == 0 {
		return 0
	}
	return time.Duration(u.r.Int64N(int64(u.most)))
}

// begin is what every call does first.
func (n *unreliableNode) begin(ctx context.Context, call string) (err error, done bool) {
	u := n.u
	u.mu.Lock()
	u.calls[call]++
	if n.closed {
		u.brokeLocked("%s after Close", call)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		u.brokeLocked("%s without a deadline", call)
	}
	pause := u.pauseLocked()
	if u.fail != nil {
		err, done = u.fail(call)
	}
	u.mu.Unlock()
	select {
	case <-time.After(max(pause, 1)):
		return err, done
	case <-ctx.Done():
		return ctx.Err(), false
	}
}

func (n *unreliableNode) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	n.sink = sink
	return n.Broker.Open(ctx, o, lateSink{n})
}

// change is Follow or Unfollow, which are not called concurrently for a channel.
func (n *unreliableNode) change(ctx context.Context, call, channel string, run func() error) error {
	u := n.u
	u.mu.Lock()
	if n.changing[channel] {
		u.brokeLocked("%s while another runs: %s", call, channel)
	}
	if call == "Follow" && n.following[channel] {
		u.brokeLocked("Follow twice: %s", channel)
	}
	n.changing[channel] = true
	u.mu.Unlock()
	err, _ := n.begin(ctx, call)
	n.delivering.Lock() // no delivery of the old life runs any more
	u.mu.Lock()
	n.times[channel]++ // what is delivered from here on belongs to the new one
	u.mu.Unlock()
	n.delivering.Unlock()
	if err == nil || call == "Unfollow" {
		if failed := run(); err == nil {
			err = failed
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	n.changing[channel] = false
	n.following[channel] = call == "Follow" && err == nil
	return err
}

func (n *unreliableNode) Follow(ctx context.Context, channel string) (s broker.State, err error) {
	if channel == nodesChannel {
		return n.Broker.Follow(ctx, channel)
	}
	err = n.change(ctx, "Follow", channel, func() (err error) {
		s, err = n.Broker.Follow(ctx, channel)
		return err
	})
	if err != nil {
		return broker.State{}, err
	}
	n.u.mu.Lock()
	pause := n.u.pauseLocked()
	n.u.mu.Unlock()
	time.Sleep(pause) // something may be delivered before Follow returns
	return s, nil
}

// Unfollow has ended the Follow even if it fails: the Server does not follow up on it.
func (n *unreliableNode) Unfollow(ctx context.Context, channel string) error {
	return n.change(ctx, "Unfollow", channel, func() error {
		return n.Broker.Unfollow(context.WithoutCancel(ctx), channel)
	})
}

func (n *unreliableNode) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	failed, done := n.begin(ctx, kindName(e.Kind))
	if failed != nil && !done {
		return broker.Appended{}, failed
	}
	if e.Kind == broker.Event {
		n.u.expect(channel, e)
		defer n.u.arrived(channel, e)
	}
	a, err := n.Broker.Append(context.WithoutCancel(ctx), channel, e)
	if failed != nil {
		return broker.Appended{}, fmt.Errorf("%w: %w", failed, context.DeadlineExceeded)
	}
	return a, err
}

// Close ends the node: nothing is delivered any more.
func (n *unreliableNode) Close(ctx context.Context) error {
	n.u.mu.Lock()
	if n.closed {
		n.u.brokeLocked("Close twice")
	}
	n.closed = true
	n.u.mu.Unlock()
	err := n.Broker.Close(ctx)
	<-n.running.Close()
	return err
}

// expect counts one more place that an event is to reach, and arrived that it has.
func (u *unreliable) expect(channel string, e broker.Entry) {
	u.mu.Lock()
	u.left[channel+string(e.Data)]++
	u.mu.Unlock()
}

func (u *unreliable) arrived(channel string, e broker.Entry) {
	key := channel + string(e.Data)
	u.mu.Lock()
	u.left[key]--
	last := u.left[key] == 0
	if last {
		delete(u.left, key)
	}
	u.mu.Unlock()
	if last && u.all != nil {
		u.all(channel, e.Data)
	}
}

// lateSink is what memory delivers to.
type lateSink struct{ n *unreliableNode }

func (s lateSink) Deliver(channel string, e broker.Entry) {
	n, u := s.n, s.n.u
	if e.Kind == broker.Event {
		u.expect(channel, e)
		n.later("events of "+channel, channel, func(current bool) {
			if current {
				n.sink.Deliver(channel, e)
			}
			u.arrived(channel, e)
		})
		return
	}
	u.mu.Lock()
	lost := n.deaf
	reset := u.resets && u.r.IntN(6) == 0
	u.mu.Unlock()
	switch {
	case lost:
	case reset:
		n.reset(channel)
	default:
		n.later("members of "+channel, channel, func(current bool) {
			if current {
				n.sink.Deliver(channel, e)
			}
		})
	}
}

func (s lateSink) Reset(channel string, state broker.State, reason string) {
	s.n.later("members of "+channel, channel, func(current bool) {
		if current {
			s.n.sink.Reset(channel, state, reason)
		}
	})
}

// reset delivers the State of then.
func (n *unreliableNode) reset(channel string) {
	n.later("members of "+channel, channel, func(current bool) {
		if current {
			n.sink.Reset(channel, n.u.state(channel), broker.ResetGap)
		}
	})
}

// later runs job after those before it in the queue. It runs as one for a channel that
// is followed no more if that is so then.
func (n *unreliableNode) later(queue, channel string, job func(current bool)) {
	u := n.u
	u.mu.Lock()
	defer u.mu.Unlock()
	q := n.queues[queue]
	if q == nil {
		q = &deliveries{}
		n.queues[queue] = q
	}
	life := n.times[channel]
	q.jobs = append(q.jobs, func() {
		n.delivering.Lock()
		defer n.delivering.Unlock()
		u.mu.Lock()
		current := n.times[channel] == life && !n.closed
		u.mu.Unlock()
		job(current)
	})
	if q.running || !n.running.Start() {
		return
	}
	q.running = true
	go n.deliver(q)
}

func (n *unreliableNode) deliver(q *deliveries) {
	defer n.running.End()
	u := n.u
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(q.jobs) > 0 {
		pause := u.pauseLocked()
		u.mu.Unlock()
		time.Sleep(pause)
		u.mu.Lock()
		job := q.jobs[0]
		q.jobs = q.jobs[1:]
		u.mu.Unlock()
		job()
		u.mu.Lock()
	}
	q.running = false
}

// setDeaf loses the node's member entries on the way, or no more.
func (n *unreliableNode) setDeaf(on bool) {
	n.u.mu.Lock()
	n.deaf = on
	n.u.mu.Unlock()
}

// state is a channel's State now.
func (u *unreliable) state(channel string) broker.State {
	u.watching.Lock()
	defer u.watching.Unlock()
	s, err := u.watcher.Follow(context.Background(), channel)
	if err != nil {
		panic(err)
	}
	if err := u.watcher.Unfollow(context.Background(), channel); err != nil {
		panic(err)
	}
	return s
}

// members returns the ids in a channel's log.
func (u *unreliable) members(channel string) (ids []string) {
	for _, m := range u.state(channel).Members {
		ids = append(ids, m.ID)
	}
	return ids
}

func (u *unreliable) count(call string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls[call]
}

func (u *unreliable) complaints() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.broken)
}

var (
	_ broker.Broker = (*altered)(nil)
	_ broker.Broker = (*foreign)(nil)
	_ broker.Broker = (*unreliableNode)(nil)
)
