package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy"
)

// presence keeps who is in which channel in a JetStream stream.
type presence struct {
	o      settings
	id     string // the node's
	nc     *natsgo.Conn
	stream *stream
	// denials are of this connection.
	denials *denials
	listens listening
	// connected is the denials' mark when the connection was last made: nats.go
	// calls back in order.
	connected atomic.Uint64
	in        chan *natsgo.Msg // what the stream tells, and catchUp's marks
	away      atomic.Pointer[error]
	begun     atomic.Bool // New has not failed: what happens is logged
	done      chan struct{}
	tasks     sync.WaitGroup
	nodes     nodes
	turns     chan struct{} // holds one for each request about a log that is under way
	last      beaten        // renew's alone
	signal    chan struct{} // holds one when the connection has come up or gone

	mu       sync.Mutex
	channels map[string]*channel // by name
	byTold   map[string]*channel // by the subject on which the stream tells of it
	marks    map[*natsgo.Msg]chan struct{}
	refused  map[*channel]error // what NATS does not permit of single channels
	clearing clearing
	closing  bool // no new uses
	closed   bool // no new work
	// shared is closed, and another made, each time that the stream can be
	// written again; epoch counts. linkCtx ends when it cannot.
	shared  chan struct{}
	epoch   uint64
	linkCtx context.Context
	unlink  context.CancelCauseFunc
}

// closeGrace is how long Close waits for this node's members to leave the log.
// What is left after it, others clear away when the lease is over.
const closeGrace = 3 * time.Second

// newPresence connects.
func newPresence(ctx context.Context, o settings) (_ *presence, err error) {
	p := &presence{
		o:        o,
		id:       newID(),
		denials:  newDenials(o, "presence"),
		in:       make(chan *natsgo.Msg, laneSize),
		turns:    make(chan struct{}, maxTurns),
		done:     make(chan struct{}),
		signal:   make(chan struct{}, 1),
		channels: map[string]*channel{},
		byTold:   map[string]*channel{},
		marks:    map[*natsgo.Msg]chan struct{}{},
		refused:  map[*channel]error{},
		shared:   make(chan struct{}),
	}
	p.nodes.known = map[string]*node{}
	p.linkCtx, p.unlink = context.WithCancelCause(context.Background())
	p.unlink(errNoStream)
	if p.nc, err = o.connect(ctx, o.Prefix+" presence", callbacks{up: p.up, down: p.down, trouble: p.hears}); err != nil {
		return nil, err
	}
	if p.stream, err = newStream(p.nc, o, p.denials); err == nil {
		err = p.hearNodes()
	}
	if err == nil && p.nc.IsConnected() {
		err = p.renew()
		if err == nil && o.RequireAtStart {
			err = p.stream.probe(ctx, p.id)
		}
		if wrong := (*SettingError)(nil); err != nil && !errors.As(err, &wrong) && !o.RequireAtStart {
			err = nil // it is tried again
		}
	}
	if err != nil {
		close(p.done)
		p.nc.Close()
		if wrong := (*SettingError)(nil); !errors.As(err, &wrong) {
			err = &SettingError{"URL", fmt.Errorf("%s: %w", shown(o.servers), err)}
		}
		return nil, err
	}
	p.begun.Store(true)
	if away := p.away.Load(); away != nil {
		p.logAway(*away)
	}
	p.tasks.Go(p.listen)
	p.tasks.Go(p.beat)
	return p, nil
}

func (p *presence) up(*natsgo.Conn) {
	p.connected.Store(p.denials.mark())
	p.tell()
}

func (p *presence) down(err error) {
	p.unshare(err)
	p.tell()
}

func (p *presence) tell() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// share lets the channels' workers at the stream, and has all logs read anew.
func (p *presence) share() {
	p.mu.Lock()
	p.epoch++
	p.unlink(nil)
	p.linkCtx, p.unlink = context.WithCancelCause(context.Background())
	close(p.shared)
	p.shared = make(chan struct{})
	p.mu.Unlock()
	p.stale()
	p.fine()
}

// unshare ends what is under way, because of err.
func (p *presence) unshare(err error) {
	p.mu.Lock()
	p.unlink(err)
	if context.Cause(p.linkCtx) != err {
		// It had ended already: what is tried from now on fails for the new reason.
		p.linkCtx, p.unlink = context.WithCancelCause(context.Background())
		p.unlink(err)
	}
	p.mu.Unlock()
	p.nodes.unsteady()
	p.trouble(err)
}

func (p *presence) hears(sub *natsgo.Subscription, err error) {
	if sub != nil && errors.Is(err, natsgo.ErrSlowConsumer) {
		return // listen sees it
	}
	a, denied := p.denials.heard(err)
	if !denied {
		p.o.notices.Warn("NATS refuses something", err.Error(), slog.String("for", "presence"), slog.Any("error", err))
		return
	}
	if a.publishes {
		return // whoever publishes gets the error
	}
	p.mu.Lock()
	c := p.byTold[a.subject]
	if c != nil && !p.closed {
		p.tasks.Go(c.stale) // its worker subscribes again
	}
	p.mu.Unlock()
	if c == nil {
		p.tell() // the next sign of life finds out
	}
}

// link returns a context that ends when the stream cannot be written any more.
func (p *presence) link() (epoch uint64, ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch, p.linkCtx
}

// sharedAfter returns a channel that is closed once share has been called since
// epoch.
func (p *presence) sharedAfter(epoch uint64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch {
		now := make(chan struct{})
		close(now)
		return now
	}
	return p.shared
}

func (p *presence) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// use returns a channel that is followed until end is called.
func (p *presence) use(name string) (*channel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, errClosed
	}
	c := p.channels[name]
	if c == nil {
		c = &channel{p: p, name: name, subject: p.stream.channelSubject(name), changed: make(chan struct{})}
		p.channels[name] = c
		p.byTold[p.stream.told(c.subject)] = c
	}
	c.uses++
	return c, nil
}

// start counts a use by the channel's worker. A channel that is not in use any more
// has no worker: another may follow the same log by now.
func (p *presence) start(c *channel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.channels[c.name] != c {
		return false
	}
	c.uses++
	p.tasks.Add(1)
	return true
}

// isLast reports whether the channel's worker is its only user.
func (p *presence) isLast(c *channel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.uses == 1
}

// worked ends the worker's use.
func (p *presence) worked(c *channel) {
	p.refuse(c, nil)
	p.leave(c)
	p.tasks.Done()
}

// leave ends a use. A channel without any is not followed any more.
func (p *presence) leave(c *channel) {
	p.mu.Lock()
	c.uses--
	gone := c.uses == 0
	if gone {
		delete(p.channels, c.name)
		delete(p.byTold, p.stream.told(c.subject))
	}
	p.mu.Unlock()
	if !gone {
		return
	}
	c.mu.Lock()
	sub := c.sub
	c.sub, c.fresh = nil, false
	c.mu.Unlock()
	if sub != nil {
		_ = sub.Unsubscribe() // it fails if the connection is closed
	}
}

func (p *presence) all() []*channel {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*channel, 0, len(p.channels))
	for _, c := range p.channels {
		all = append(all, c)
	}
	return all
}

// stale has all logs read anew.
func (p *presence) stale() {
	for _, c := range p.all() {
		c.stale()
	}
}

func (p *presence) join(ctx context.Context, channelName string, m pushy.Member) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if most := p.nc.MaxPayload(); most > 0 && int64(len(m.JSON)+len(m.ID)+entryOverhead) > most {
		return fmt.Errorf("nats: join: %w: the member has %d bytes, and the max_payload of NATS is %d",
			pushy.ErrTooLarge, len(m.JSON), most)
	}
	c, err := p.use(channelName)
	if err != nil {
		return err
	}
	defer p.leave(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ours := c.own[m.ID]; !ours {
		if _, err := p.use(channelName); err != nil { // until Leave
			return err
		}
		if c.own == nil {
			c.own = map[string]owned{}
		}
		c.turn++
		c.own[m.ID] = owned{m, c.turn}
		c.changeLocked()
	}
	err = c.waitLocked(ctx, func() bool {
		_, in := c.members[m.ID]
		_, ours := c.own[m.ID]
		return in && (c.fresh || c.alone != nil) || !ours
	})
	if err == nil && isDenied(c.alone) {
		err = c.alone
		c.disownLocked(m.ID)
	}
	if err != nil {
		return fmt.Errorf("nats: join: %w", err)
	}
	return nil
}

func (p *presence) quit(ctx context.Context, channelName, memberID string) error {
	if err := ctx.Err(); err != nil {
		// It must be seen to all the same.
		defer p.quitSoon(channelName, memberID)
		return err
	}
	c, err := p.use(channelName)
	if err != nil {
		return err
	}
	defer p.leave(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.disownLocked(memberID) {
		return nil
	}
	err = c.waitLocked(ctx, func() bool {
		_, in := c.members[memberID]
		return !in && (c.fresh || c.alone != nil)
	})
	if err != nil {
		return fmt.Errorf("nats: leave: %w", err)
	}
	return nil
}

func (p *presence) quitSoon(channelName, memberID string) {
	c, err := p.use(channelName)
	if err != nil {
		return
	}
	defer p.leave(c)
	c.mu.Lock()
	c.disownLocked(memberID)
	c.mu.Unlock()
}

// disownLocked takes a member out of this node's.
func (c *channel) disownLocked(memberID string) bool {
	if _, ours := c.own[memberID]; !ours {
		return false
	}
	delete(c.own, memberID)
	c.changeLocked()
	c.p.leave(c) // never the last use: the caller has one
	return true
}

// changeLocked has the log follow what this node wants.
func (c *channel) changeLocked() {
	if c.alone != nil {
		c.loneLocked(c.alone)
	}
	c.kickLocked()
}

func (p *presence) watch(ctx context.Context, channelName string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	c, err := p.use(channelName)
	if err != nil {
		return pushy.Snapshot{}, err
	}
	c.mu.Lock()
	if !c.fresh && c.alone == nil {
		c.kickLocked()
	}
	err = c.waitLocked(ctx, func() bool { return c.fresh || c.alone != nil })
	if err == nil && !c.fresh && isDenied(c.alone) {
		err = c.alone
	}
	if err != nil {
		c.mu.Unlock()
		p.leave(c)
		return pushy.Snapshot{}, fmt.Errorf("nats: watch: %w", err)
	}
	defer c.mu.Unlock()
	w := &watch{ctx, apply}
	c.watches = append(c.watches, w)
	context.AfterFunc(ctx, func() { // perhaps after Close
		c.mu.Lock()
		c.watches = slices.DeleteFunc(c.watches, func(other *watch) bool { return other == w })
		c.mu.Unlock()
		p.leave(c)
	})
	return c.snapshot(), nil
}

// close logs that this node's members left, as far as it can in closeGrace.
func (p *presence) close() {
	p.mu.Lock()
	was := p.closing
	p.closing = true
	p.mu.Unlock()
	if was {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	for _, c := range p.all() {
		c.mu.Lock()
		for id := range c.own {
			c.disownLocked(id)
		}
		_ = c.waitLocked(ctx, func() bool { return c.alone != nil || !c.holdsOwnLocked() })
		c.mu.Unlock()
	}
	p.goodbye(ctx)
	p.stop()
	p.tasks.Wait()
}

// stop ends all work.
func (p *presence) stop() {
	p.mu.Lock()
	p.closed = true
	p.unlink(errClosed)
	p.mu.Unlock()
	close(p.done)
	p.nc.Close()
}

// holdsOwnLocked reports whether the log still has members of this node.
func (c *channel) holdsOwnLocked() bool {
	for _, m := range c.members {
		if m.node == c.p.id {
			return true
		}
	}
	return len(c.own) > 0
}
