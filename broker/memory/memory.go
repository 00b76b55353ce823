// Package memory is a broker for Servers of one process. It is the default broker of a
// single Server. It can also connect several Servers, so that the tests of a cluster need
// no store.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// Options configure a Cluster. The zero value is ready to use.
type Options struct {
	// Logger receives a warning when nodes have different settings. Default
	// slog.Default().
	Logger *slog.Logger
	// MaxRecords is the number of keys that the Ledger has at most, after which Claim returns
	// broker.ErrBusy. Default 2,097,152.
	MaxRecords int
	// MaxIDs is the number of IDs of entries that are remembered at most, after which an Append
	// with another ID returns broker.ErrBusy. Default 1,048,576.
	MaxIDs int
}

// Cluster is the store that the Brokers of one process share. All methods are safe for
// concurrent use. When its last node is closed, it discards everything.
type Cluster struct {
	log      *slog.Logger
	seed     maphash.Seed
	shards   [64]shard
	settings brokerkit.Settings

	maxRecords int // of the ledger
	maxIDs     int

	mu     sync.Mutex
	nodes  map[string]*nodeEntry // the nodes whose lease has not expired, by id
	open   int                   // the number of nodes whose Close was not called
	ids    idWindow
	ledger ledger
	since  time.Time // when ids and ledger were made

	// The epochs in which new logs begin. Kept events and revisions have separate epochs,
	// because a log that has only revisions is dropped early.
	epochMu       sync.Mutex
	offsetEpoch   string
	revisionEpoch string
}

type nodeEntry struct {
	broker   *Broker
	settings map[string]string
	closed   bool // it was connected when it was closed
}

type shard struct {
	mu   sync.RWMutex
	logs map[string]*channelLog
}

// NewCluster returns a Cluster without nodes.
func NewCluster(o Options) *Cluster {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Cluster{
		log:           o.Logger,
		maxRecords:    cmp.Or(max(o.MaxRecords, 0), maxRecords),
		maxIDs:        cmp.Or(max(o.MaxIDs, 0), maxIDs),
		seed:          maphash.MakeSeed(),
		nodes:         map[string]*nodeEntry{},
		since:         time.Now(),
		offsetEpoch:   brokerkit.NewEpoch(),
		revisionEpoch: brokerkit.NewEpoch(),
	}
	for i := range c.shards {
		c.shards[i].logs = map[string]*channelLog{}
	}
	return c
}

// elapsedLocked returns the nanoseconds since ids and ledger were made, by a clock that nobody sets.
func (c *Cluster) elapsedLocked() int64 { return int64(time.Since(c.since)) }

// Broker returns a new node of the cluster, which is not open yet.
func (c *Cluster) Broker() *Broker {
	return &Broker{cluster: c}
}

// New returns the Broker of a single Server.
func New() *Broker {
	return NewCluster(Options{}).Broker()
}

// Broker is one node. It implements all interfaces of package broker.
type Broker struct {
	cluster *Cluster
	sink    broker.Sink // set by Open
	node    string      // set by Open

	mu        sync.Mutex
	state     state
	following map[string]*channelLog // by channel; the log is nil while the node is cut off
	expiry    *time.Timer            // the end of the lease of a node that is cut off or closed
	expired   bool                   // the lease expired while the node was cut off
	extended  time.Duration          // the lease that a node which is cut off has when it reconnects

	lease atomic.Int64 // a time.Duration that does not decrease; written with mu
}

type state uint8

const (
	fresh state = iota // not opened yet
	connected
	cutOff
	closed
)

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.History = (*Broker)(nil)
	_ broker.Ledger  = (*Broker)(nil)
	_ broker.Health  = (*Broker)(nil)
	_ broker.Cluster = (*Broker)(nil)
	_ broker.Leaser  = (*Broker)(nil)

	_ broker.IDForgetter = (*Broker)(nil)
)

// Open implements broker.Broker.
func (b *Broker) Open(_ context.Context, o broker.OpenOptions, sink broker.Sink) error {
	if o.Node == "" || o.Lease <= 0 || sink == nil {
		return errors.New("memory: open: a node id, a positive lease and a sink are required")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != fresh {
		return fmt.Errorf("memory: open: %w", broker.ErrClosed)
	}
	if err := b.cluster.add(b, o); err != nil {
		return err
	}
	b.sink = sink
	b.node = o.Node
	b.lease.Store(int64(o.Lease))
	b.following = map[string]*channelLog{}
	b.state = connected
	return nil
}

func (c *Cluster) add(b *Broker, o broker.OpenOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[o.Node] != nil {
		return fmt.Errorf("memory: open: the node id %q is in use", o.Node)
	}
	for _, other := range c.nodes {
		if !other.closed {
			c.settings.Compare(c.log, o.Settings, other.settings)
		}
	}
	c.nodes[o.Node] = &nodeEntry{broker: b, settings: maps.Clone(o.Settings)}
	c.open++
	return nil
}

// reachableLocked returns an error if the node is cut off or not open.
func (b *Broker) reachableLocked() error {
	switch b.state {
	case connected:
		return nil
	case cutOff:
		return fmt.Errorf("memory: the node is cut off: %w", broker.ErrAway)
	default:
		return broker.ErrClosed
	}
}

func (b *Broker) reachable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reachableLocked()
}

// Follow implements broker.Broker.
func (b *Broker) Follow(ctx context.Context, channel string) (broker.State, error) {
	if err := ctx.Err(); err != nil {
		return broker.State{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.reachableLocked(); err != nil {
		if b.state == cutOff && b.following[channel] == nil {
			b.following[channel] = nil
		}
		return broker.State{}, err
	}
	l := b.cluster.logOf(channel)
	defer l.mu.Unlock()
	b.following[channel] = l
	l.followers[b] = struct{}{}
	return l.stateLocked(), nil
}

// Unfollow implements broker.Broker. It also works while the node is cut off.
func (b *Broker) Unfollow(_ context.Context, channel string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == fresh || b.state == closed {
		return broker.ErrClosed
	}
	b.unfollowLocked(channel)
	return nil
}

func (b *Broker) unfollowLocked(channel string) {
	l := b.following[channel]
	delete(b.following, channel)
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, b)
	b.cluster.dropIfUnusedLocked(l)
}

// Close implements broker.Broker.
func (b *Broker) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == fresh || b.state == closed {
		return broker.ErrClosed
	}
	reachable := b.state == connected
	if reachable {
		b.detachLocked()
	}
	b.state = closed
	if b.cluster.closeNode(b.node, reachable) && b.expiry != nil {
		b.expiry.Stop()
	}
	return nil
}

// closeNode reports whether the last node was closed. Then the cluster discards everything,
// because no node is left that could receive the leaves of members. A node that is not
// reachable remains in Nodes.
func (c *Cluster) closeNode(node string, reachable bool) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reachable {
		c.nodes[node].closed = true
	}
	c.open--
	if c.open > 0 {
		return false
	}
	clear(c.nodes)
	c.ids = idWindow{}
	c.ledger = ledger{}
	c.since = time.Now()
	for i := range c.shards {
		c.shards[i].clear()
	}
	c.epochMu.Lock()
	defer c.epochMu.Unlock()
	c.offsetEpoch = brokerkit.NewEpoch()
	c.revisionEpoch = brokerkit.NewEpoch()
	return true
}

// Away implements broker.Health.
func (b *Broker) Away() error {
	err := b.reachable()
	if errors.Is(err, broker.ErrAway) {
		return err
	}
	return nil
}

// Nodes implements broker.Cluster.
func (b *Broker) Nodes(context.Context) ([]string, error) {
	if err := b.reachable(); err != nil {
		return nil, err
	}
	b.cluster.mu.Lock()
	defer b.cluster.mu.Unlock()
	var ids []string
	for id, n := range b.cluster.nodes {
		if !n.closed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Extend implements broker.Leaser.
func (b *Broker) Extend(ctx context.Context, lease time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == connected || b.state == cutOff {
		b.extended = max(b.extended, lease)
	}
	err := b.reachableLocked()
	if err == nil {
		b.extendLocked()
	}
	return err
}

func (b *Broker) extendLocked() {
	b.lease.Store(max(b.lease.Load(), int64(b.extended)))
}

// leaseOf returns the lease of a node, or 0 if it has expired.
func (c *Cluster) leaseOf(node string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[node]
	if n == nil {
		return 0
	}
	return time.Duration(n.broker.lease.Load())
}

// Cut disconnects the node from the cluster, as a network failure does: nothing is delivered
// in either direction, and the node's lease is not renewed. reconnect connects the node
// again. Cut is for tests.
func (b *Broker) Cut() (reconnect func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == connected {
		b.detachLocked()
		b.state = cutOff
	}
	return b.reconnect
}

// Kill disconnects the node for ever, as the end of its process does. The node must still be
// closed.
func (b *Broker) Kill() {
	b.Cut()
}

// detachLocked removes the node from the followers of all logs. Its lease begins to expire.
func (b *Broker) detachLocked() {
	for channel, l := range b.following {
		if l == nil {
			continue
		}
		l.mu.Lock()
		delete(l.followers, b)
		l.mu.Unlock()
		b.following[channel] = nil
	}
	b.expiry = time.AfterFunc(time.Duration(b.lease.Load()), b.expire)
}

// expire removes the members of a node that was cut off for its whole lease.
func (b *Broker) expire() {
	b.mu.Lock()
	if b.expiry == nil {
		b.mu.Unlock()
		return // the node has just reconnected
	}
	b.expired = true
	b.expiry = nil
	c := b.cluster
	c.mu.Lock()
	delete(c.nodes, b.node)
	c.mu.Unlock()
	b.mu.Unlock()
	for i := range c.shards {
		for _, l := range c.shards[i].all() {
			l.removeNode(c, b.node)
		}
	}
}

func (b *Broker) reconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != cutOff {
		return
	}
	reason := broker.ResetGap
	if b.expired {
		reason = broker.ResetLease
		b.cluster.mu.Lock()
		b.cluster.nodes[b.node] = &nodeEntry{broker: b}
		b.cluster.mu.Unlock()
	}
	if b.expiry != nil {
		b.expiry.Stop()
		b.expiry = nil
	}
	b.expired = false
	b.state = connected
	b.extendLocked()
	for channel := range b.following {
		l := b.cluster.logOf(channel)
		b.following[channel] = l
		l.followers[b] = struct{}{}
		b.sink.Reset(channel, l.stateLocked(), reason)
		l.mu.Unlock()
	}
}
