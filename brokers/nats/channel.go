package nats

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/guard"
)

// channel is a presence log as this node follows it, while a Watch, a member of
// this node or a call needs it. Whatever is to change is first noted here; one
// worker then makes the log agree, and tries until it does. So joining, leaving,
// coming back after a cut and clearing up after a dead node are the same work.
type channel struct {
	p       *presence
	name    string
	subject string
	uses    int // under p.mu

	mu  sync.Mutex
	sub *natsgo.Subscription
	// subMark is the denials' mark at the subscription.
	subMark uint64
	own     map[string]owned // this node's members
	turn    uint64           // counts them
	replica
	fresh bool // the replica is the log, and its news come
	lost  bool // the replica is not what the log was: watches need the State
	// reading is set while the log is read; what comes meanwhile and does not
	// follow the replica is early. doubts counts why it would have to be read again.
	reading bool
	early   []*entry
	doubts  uint64
	dropped int // how many messages of sub nats.go had no room for
	// resync is set when watches are to be given the State, and nothing before.
	resync  bool
	alone   error // why the log cannot be reached
	watches []*watch

	wrote   bool // this node may have members in the log
	tidying tidying
	working bool
	again   bool          // there is more to do for the worker
	buried  bool          // members of a dead node were taken out: nothing of it is to be left
	changed chan struct{} // closed when something has changed that is waited for
}

// owned is a member of this node, and its turn among them.
type owned struct {
	pushy.Member
	turn uint64
}

type watch struct {
	ctx   context.Context
	apply func(pushy.Change)
}

const (
	// conflictWait is how long the news of somebody else's entry may take.
	conflictWait = 100 * time.Millisecond
	retryFirst   = 100 * time.Millisecond
	retryMost    = 2 * time.Second
	// batchBytes is how long an entry of many members may be.
	batchBytes = 256 << 10
	// entryOverhead is what a message has, at most, beside the members in it: NATS's
	// headers count in its max_payload.
	entryOverhead = 1024
)

var errConflict = errors.New("nats: others write faster")

func (c *channel) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *channel) emitLocked(changes ...pushy.Change) {
	for _, change := range changes {
		for _, w := range c.watches {
			if w.ctx.Err() == nil {
				guarded(c.p.o.notices, "presence", func() { w.apply(change) })
			}
		}
	}
}

// emitStateLocked gives watches the State, if they are to have it.
func (c *channel) emitStateLocked() {
	if c.resync {
		c.resync = false
		state := c.snapshot()
		c.emitLocked(pushy.Change{Revision: state.Revision, State: &state})
	}
}

// waitLocked waits until enough is true. It gives mu away meanwhile.
func (c *channel) waitLocked(ctx context.Context, enough func() bool) error {
	for !enough() {
		changed := c.changed
		c.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.p.done:
			err = errClosed
		}
		c.mu.Lock()
		if err != nil && !enough() {
			return err
		}
	}
	return nil
}

// kickLocked has the worker look.
func (c *channel) kickLocked() {
	c.again = true
	if c.working || !c.p.start(c) {
		return
	}
	c.working = true
	go c.work()
}

// stale has the log read anew.
func (c *channel) stale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
	c.staleLocked()
}

func (c *channel) staleLocked() {
	c.fresh = false
	c.doubts++
	c.kickLocked()
}

// work makes the log agree with what is wanted, until it does.
func (c *channel) work() {
	defer c.p.worked(c)
	for retry := retryFirst; ; {
		epoch, ctx := c.p.link()
		err := guard.Call(func() error { return c.pass(ctx) })
		if err != nil && errors.Is(context.Cause(ctx), context.Canceled) && !c.p.isDone() {
			continue // shared anew meanwhile, and so not alone: the log is read again
		}
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // says more than that it was cancelled
		}
		if err != nil {
			if api := (*jetstream.APIError)(nil); errors.As(err, &api) {
				err = c.p.stream.explain(err)
			}
			c.p.unreached(c, err) // before anybody is let in because of it
		} else {
			c.p.refuse(c, nil)
		}
		c.mu.Lock()
		if err != nil {
			c.loneLocked(err)
		}
		if c.p.isDone() || err == nil && !c.again || err != nil && c.idleLocked() {
			c.working = false
			c.wakeLocked()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if err == nil {
			retry = retryFirst
			continue
		}
		select {
		case <-time.After(retry/2 + rand.N(retry/2)):
			retry = min(2*retry, retryMost)
		case <-c.p.sharedAfter(epoch):
			retry = retryFirst
		case <-c.p.done:
		}
	}
}

// idleLocked reports whether there is nothing to do that must not be given up: nobody
// uses the channel, and this node has put nothing into its log.
func (c *channel) idleLocked() bool {
	return len(c.own) == 0 && !c.wrote && !c.buried && c.p.isLast(c)
}

// pass reads the log if need be and writes what is missing in it.
func (c *channel) pass(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = false
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !c.fresh {
			if err := c.readLocked(ctx); err != nil {
				return err
			}
			continue // it may be stale already
		}
		changes := c.missingLocked(false)
		if len(changes) == 0 {
			break
		}
		changes = changes[:fitting(changes, c.p.batchBytes())]
		for _, change := range changes {
			c.buried = c.buried || change.Left && c.members[change.Member.ID].node != c.p.id
		}
		e := &entry{prev: c.last, root: len(c.members) == 0, node: c.p.id, changes: changes}
		if err := c.appendLocked(ctx, e); err != nil && !errors.Is(err, errConflict) {
			return err
		}
	}
	if c.alone != nil {
		c.alone = nil
		if c.p.isShared() {
			c.p.fine()
		}
	}
	c.emitStateLocked()
	c.wakeLocked()
	c.tidyLocked(ctx)
	return nil
}

// readLocked makes the replica what the log is. It gives mu away meanwhile.
func (c *channel) readLocked(ctx context.Context) error {
	// Before the log is read, so that nothing comes in between.
	if err := c.subscribeLocked(); err != nil {
		return err
	}
	c.reading, c.early = true, nil
	doubts, before := c.doubts, c.last
	c.mu.Unlock()
	var entries map[uint64]*entry
	var r replica
	err := c.p.turn(ctx, func(ctx context.Context) (err error) {
		entries, r, err = c.p.stream.read(ctx, c.subject)
		return err
	})
	if err == nil {
		// What it does not have any more was told before it was deleted. NATS has
		// answered, so that a Watch elsewhere that blocks delays this, and no more.
		err = c.p.catchUp(ctx)
	}
	c.p.denials.settle(c.p.nc, c.p.o.Timeout) // NATS has answered: a denial of the subscription came before
	c.mu.Lock()
	c.reading = false
	if err != nil {
		return err
	}
	if err := c.p.denials.since(action{subject: c.p.stream.told(c.subject)}, c.subMark); err != nil {
		return err
	}
	news, ok := c.since(entries)
	switch {
	case !c.lost && c.last > before && c.last > r.last:
		// It was told more since.
	case !c.lost && ok:
		for _, e := range news {
			c.emitLocked(c.fold(e)...)
		}
		c.replica = r
	default:
		c.resync = len(c.watches) > 0
		c.replica = r
	}
	if c.doubts == doubts {
		c.fresh, c.lost = true, false
	}
	for _, m := range c.members {
		c.p.nodes.mentioned(m.node, c.p.o.Lease)
	}
	for _, e := range c.early {
		c.takeLocked(e)
	}
	c.early = nil
	c.wakeLocked()
	return nil
}

// subscribeLocked has the stream's news of the channel come, if they do not. It
// gives mu away meanwhile; only the worker calls it.
func (c *channel) subscribeLocked() error {
	told := c.p.stream.told(c.subject)
	denied := c.sub != nil && c.p.denials.since(action{subject: told}, c.subMark) != nil
	if c.sub != nil && !denied {
		return nil
	}
	old, mark := c.sub, c.p.denials.mark()
	c.mu.Unlock()
	if old != nil {
		_ = old.Unsubscribe() // it fails if the connection is closed
	}
	sub, err := c.p.nc.ChanSubscribe(told, c.p.in)
	c.mu.Lock()
	c.sub, c.subMark, c.dropped = sub, mark, 0
	return err
}

// since returns the entries that are news to the replica, if nothing that counts
// is missing between and no member of this node is gone by them.
func (c *channel) since(entries map[uint64]*entry) (news []*entry, ok bool) {
	last := uint64(0)
	for seq := range entries {
		last = max(last, seq)
	}
	if last == 0 {
		return nil, len(c.members) == 0
	}
	enough := 0 // of the news, if those before them are deleted
	seq := last
	for seq > c.last {
		e := entries[seq]
		if e == nil {
			break
		}
		if c.robs(e) {
			return nil, false
		}
		news = append(news, e)
		if e.root && len(c.members) == 0 {
			enough = len(news)
		}
		seq = e.prev
	}
	if seq != c.last {
		if enough == 0 {
			return nil, false
		}
		news = news[:enough]
	}
	slices.Reverse(news)
	return news, true
}

// robs reports whether others took this node for dead: its members are still
// here, and must not be told that they are gone.
func (c *channel) robs(e *entry) bool {
	for _, change := range e.changes {
		if _, ours := c.own[change.Member.ID]; ours && change.Left && e.node != c.p.id {
			return true
		}
	}
	return false
}

// missingLocked returns the changes that would make the log agree, in order. Only the
// log can tell that a node is dead, so a node that is alone leaves out what that changes.
func (c *channel) missingLocked(alone bool) (changes []pushy.Change) {
	var leaving []held
	for id, m := range c.members {
		if _, ours := c.own[id]; m.node == c.p.id && !ours || !alone && c.p.nodes.isDead(m.node) {
			leaving = append(leaving, m)
		}
	}
	slices.SortFunc(leaving, func(a, b held) int { return cmp.Compare(a.rev, b.rev) })
	for _, m := range leaving {
		changes = append(changes, pushy.Change{Left: true, Member: pushy.Member{ID: m.ID}})
	}
	var joining []owned
	for id, m := range c.own {
		if _, in := c.members[id]; !in {
			joining = append(joining, m)
		}
	}
	slices.SortFunc(joining, func(a, b owned) int { return cmp.Compare(a.turn, b.turn) })
	for _, m := range joining {
		changes = append(changes, pushy.Change{Member: m.Member})
	}
	return changes
}

// fitting returns how many of the changes, at least one, make an entry of at most so
// many bytes.
func fitting(changes []pushy.Change, most int) int {
	size := 0
	for i, change := range changes {
		const lengths = 16 // what an entry has beside the id and JSON of each
		size += len(change.Member.ID) + len(change.Member.JSON) + lengths
		if i == maxChanges || i > 0 && size > most {
			return i
		}
	}
	return len(changes)
}

// batchBytes is how long an entry of many members may be.
func (p *presence) batchBytes() int {
	if most := p.nc.MaxPayload(); most > 0 {
		return int(min(batchBytes, most-entryOverhead))
	}
	return batchBytes
}

// appendLocked adds an entry to the log, or returns errConflict when another
// came first and is known by now. It gives mu away meanwhile.
func (c *channel) appendLocked(ctx context.Context, e *entry) error {
	c.mu.Unlock()
	var seq uint64
	err := c.p.turn(ctx, func(ctx context.Context) (err error) {
		seq, err = c.p.stream.append(ctx, c.subject, e.prev, e.encode())
		return err
	})
	c.mu.Lock()
	c.wrote = c.wrote || !isDenied(err)
	switch {
	case isConflict(err):
		if len(c.members) == 0 {
			// The log may be deleted: there are no news of that. Or others came
			// first, and have been told of.
			c.mu.Unlock()
			err := c.p.catchUp(ctx)
			c.mu.Lock()
			if err != nil || c.last == e.prev {
				c.fresh = false
			}
		} else if c.last == e.prev && c.fresh {
			wait, cancel := context.WithTimeout(ctx, conflictWait)
			if c.waitLocked(wait, func() bool { return c.last != e.prev || !c.fresh }) != nil {
				c.fresh = false
			}
			cancel()
		}
		return errConflict
	case err != nil:
		c.fresh = false // it may be there or not
		return err
	}
	e.seq = seq
	for i := range e.changes {
		e.changes[i].Revision = seq*maxChanges + uint64(i)
	}
	c.takeLocked(e)
	return nil
}

// takeLocked takes an entry of the log, from the stream or this node itself,
// whichever comes first. What follows the replica is taken even while the log is
// read: it may be deleted before it can be.
func (c *channel) takeLocked(e *entry) {
	switch {
	case !c.lost && e.seq <= c.last:
	case !c.lost && c.follows(e) && !c.robs(e):
		if changes := c.fold(e); !c.resync {
			c.emitLocked(changes...)
		}
		c.wakeLocked()
	case c.reading:
		c.early = append(c.early, e)
	case c.fresh:
		c.staleLocked()
	}
}

// loneLocked serves the members of this node alone, because of err.
func (c *channel) loneLocked(err error) {
	if c.alone == nil {
		c.alone = err
	}
	c.fresh, c.lost = false, true
	if c.members == nil {
		c.members = map[string]held{}
	}
	c.emitStateLocked() // before the changes to it
	for _, change := range c.missingLocked(true) {
		change.Revision = c.rev + 1
		if c.apply(change, c.p.id) {
			c.emitLocked(change)
		}
	}
	c.wakeLocked()
}
