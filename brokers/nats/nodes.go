package nats

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/internal/names"
)

// nodes is what is known of the others. Each gives a sign of life a few times in
// its lease. Clocks are only ever compared with themselves, and none is dead
// before this node has been able to hear of it for a whole lease.
type nodes struct {
	mu     sync.Mutex
	known  map[string]*node
	steady time.Time // since when this node hears; zero while it does not
}

type node struct {
	heard time.Time
	lease time.Duration
	dead  bool
	died  time.Time // when this node took it for dead
}

// forgetLeases is after how many leases a dead node is forgotten. One that has left
// anything behind is found again, and dies again.
const forgetLeases = 10

// heard notes a sign of life. A lease of 0 is a goodbye.
func (n *nodes) heard(id string, lease time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if lease == 0 {
		delete(n.known, id)
		return
	}
	n.known[id] = &node{heard: time.Now(), lease: lease}
}

// mentioned notes that there is, or was, a node of that id.
func (n *nodes) mentioned(id string, lease time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[id] == nil {
		n.known[id] = &node{heard: time.Now(), lease: lease}
	}
}

func (n *nodes) isDead(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	other := n.known[id]
	return other != nil && other.dead
}

func (n *nodes) unsteady() {
	n.mu.Lock()
	n.steady = time.Time{}
	n.mu.Unlock()
}

// hears notes that this node hears the others from now on, if it did not.
func (n *nodes) hears() {
	n.mu.Lock()
	if n.steady.IsZero() {
		n.steady = time.Now()
	}
	n.mu.Unlock()
}

// missed notes that this node may not have heard of others.
func (n *nodes) missed() {
	n.mu.Lock()
	if !n.steady.IsZero() {
		n.steady = time.Now()
	}
	n.mu.Unlock()
}

// bury returns the ids of nodes that have become dead, and how many of the
// living come before self.
func (n *nodes) bury(self string) (died []string, rank int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.steady.IsZero() {
		return nil, 0
	}
	now := time.Now()
	for id, other := range n.known {
		silent := now.Sub(other.heard)
		if !other.dead && min(silent, now.Sub(n.steady)) > other.lease && id != self {
			other.dead, other.died = true, now
			died = append(died, id)
		}
		if other.dead && now.Sub(other.died) > forgetLeases*other.lease {
			delete(n.known, id)
			continue
		}
		if !other.dead && id < self {
			rank++
		}
	}
	return died, rank
}

// A node's lease is from minLease to maxLease.
const (
	minLease = 500 * time.Millisecond
	maxLease = 24 * time.Hour
)

const (
	beatsInLease = 3
	mostLook     = time.Second // between two looks for the dead
	// rankDelay lets one node clear up after a dead one, and others only if it
	// does not.
	rankDelay = 150 * time.Millisecond
	mostRank  = 4
)

// beat gives this node's signs of life and looks for the dead.
func (p *presence) beat() {
	renew := time.NewTicker(p.o.Lease / beatsInLease)
	defer renew.Stop()
	look := time.NewTicker(min(p.o.Lease/10, mostLook))
	defer look.Stop()
	// Once a lease after the start, for what a whole cluster's end has left.
	first := time.NewTimer(p.o.Lease)
	defer first.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.signal:
			guarded(p.o.notices, "presence", func() { _ = p.renew() })
		case <-renew.C:
			guarded(p.o.notices, "presence", func() { _ = p.renew() })
		case <-first.C:
			if died, rank := p.nodes.bury(p.id); rank == 0 || len(died) > 0 {
				p.tasks.Go(func() { p.clear(min(rank, mostRank)) })
			}
		case <-look.C:
			if died, rank := p.nodes.bury(p.id); len(died) > 0 {
				p.o.Logger.Warn("nodes are gone without a word; their members leave", "nodes", died)
				p.tasks.Go(func() { p.clear(min(rank, mostRank)) })
			}
		}
	}
}

// renew gives a sign of life. That it is stored says that presence works. Only
// beat calls it, and NewPresence before.
func (p *presence) renew() error {
	if !p.nc.IsConnected() {
		return errLost // down has said so
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(p.o.Lease/2, p.o.Timeout))
	defer cancel()
	if err := p.mayListen(); err != nil {
		p.unshare(err)
		return err
	}
	if _, err := p.stream.get(); err != nil {
		if err := p.stream.open(ctx); err != nil {
			p.unshare(err)
			return err
		}
	}
	reconnects := p.nc.Stats().Reconnects
	seq, err := p.stream.renew(ctx, p.id, p.sign(p.o.Lease))
	if err == nil {
		p.denials.settle(p.nc, p.o.Timeout) // NATS has answered: a denial of the subscription came before
		err = p.denials.since(p.nodesAction(), p.listens.mark)
	}
	if errors.Is(err, context.DeadlineExceeded) && p.isShared() && time.Since(p.last.at) < p.o.Lease {
		return err // busy, and not yet silent for too long
	}
	if err != nil {
		if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) {
			p.stream.made.Store(nil) // lost; the next time makes it anew
			p.tell()
		}
		err = p.stream.explain(err)
		p.unshare(err)
		return err
	}
	now := time.Now()
	last := p.last
	p.last = beaten{now, seq, reconnects, true}
	// Not only after a failure: another may have made the stream anew, or this
	// process may have slept, and be thought dead.
	if !p.isShared() || !last.ok || seq <= last.seq || reconnects != last.reconnects || now.Sub(last.at) > p.o.Lease {
		p.nodes.unsteady()
		p.nodes.hears()
		p.share()
	}
	return nil
}

// beaten is the last sign of life that was stored.
type beaten struct {
	at         time.Time
	seq        uint64
	reconnects uint64
	ok         bool
}

func (p *presence) isShared() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.linkCtx.Err() == nil
}

func (p *presence) sign(lease time.Duration) []byte {
	return binary.AppendUvarint([]byte{codecVersion}, uint64(lease.Milliseconds()))
}

// goodbye says that this node ends, so that nobody waits for it.
func (p *presence) goodbye(ctx context.Context) {
	if !p.isShared() {
		return
	}
	if _, err := p.stream.renew(ctx, p.id, p.sign(0)); err == nil {
		_ = p.stream.purge(ctx, p.stream.nodeSubject(p.id), 0)
	}
}

// listen takes what the stream tells.
func (p *presence) listen() {
	nodes := p.stream.told(p.stream.nodeSubject(""))
	consume(p.in, p.done, func(msg *natsgo.Msg) {
		guarded(p.o.notices, "presence", func() {
			if id, is := strings.CutPrefix(msg.Subject, nodes); is {
				p.takeSign(id, msg)
			} else {
				p.take(msg)
			}
		})
	}, func() {
		p.nodes.missed()
		p.reread()
	})
}

// takeSign takes a node's sign of life.
func (p *presence) takeSign(id string, msg *natsgo.Msg) {
	if id == p.id {
		return
	}
	lease, err := decodeSign(msg.Data)
	_, _, ok := p.stream.checkTold(msg)
	if err == nil && (!ok || !names.IsToken(id)) {
		err = errNotTold
	}
	if err != nil {
		p.stream.skipped(msg.Subject, err)
		return
	}
	p.nodes.heard(id, lease)
}

// decodeSign reads what sign gave.
func decodeSign(data []byte) (lease time.Duration, err error) {
	c := cut(data)
	millis := c.number()
	if c.bad || millis > uint64(maxLease/time.Millisecond) || millis > 0 && millis < uint64(minLease/time.Millisecond) {
		return 0, errCodec
	}
	return time.Duration(millis) * time.Millisecond, nil
}

var errNotTold = errors.New("nats: a message that the presence stream did not send")

// take takes news of a channel, or a mark.
func (p *presence) take(msg *natsgo.Msg) {
	p.mu.Lock()
	c, taken := p.byTold[msg.Subject], p.marks[msg]
	p.mu.Unlock()
	if taken != nil {
		close(taken)
	}
	if c == nil {
		return
	}
	seq, prev, ok := p.stream.checkTold(msg)
	if !ok {
		p.stream.skipped(msg.Subject, errNotTold)
		return
	}
	e := p.stream.decode(c.subject, seq, msg.Data)
	if e.foreign {
		e = foreignEntry(seq, prev)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeLocked(e)
}

// catchUp returns when what had come from the stream before it has been taken.
func (p *presence) catchUp(ctx context.Context) error {
	mark, taken := &natsgo.Msg{}, make(chan struct{})
	p.mu.Lock()
	p.marks[mark] = taken
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.marks, mark)
		p.mu.Unlock()
	}()
	for in := p.in; ; in = nil { // in once
		select {
		case in <- mark:
		case <-taken:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return errClosed
		}
	}
}

// reread has the logs read anew of which nats.go has dropped news.
func (p *presence) reread() {
	for _, c := range p.all() {
		c.mu.Lock()
		if c.sub != nil && moreDropped(c.sub, &c.dropped) {
			c.lost = true // what was missed may be deleted by now
			c.staleLocked()
		}
		c.mu.Unlock()
	}
}
