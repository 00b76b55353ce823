package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy"
)

// bus carries events through core NATS.
type bus struct {
	o     settings
	id    string // tells its own resyncs apart
	nc    *natsgo.Conn
	line  *line
	lanes []*lane
	// denials are of this connection.
	denials *denials
	seed    maphash.Seed
	away    atomic.Pointer[error]
	back    chan struct{} // holds one when the connection is up again
	again   chan struct{} // holds one when a channel is refused
	done    chan struct{}
	tasks   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	subs   map[string]*subscription // by channel
	// pending are the operations that subscribe. One that is not here any more does
	// nothing: its caller has given up, or the channel has been unsubscribed.
	pending map[string]*op
	// refused are the channels that NATS has ceased to permit, with its reasons.
	refused map[string]error
	// dirty are the channels that this node has served alone, and whose
	// subscribers elsewhere are to be told.
	dirty map[string]struct{}
}

// maxDirty is how many channels may take messages while NATS is away; more are
// refused, since it could not be told where something was missed.
const maxDirty = 10_000

// maxLanes bounds how many goroutines deliver: one for each processor, to this.
const maxLanes = 8

// newBus connects.
func newBus(ctx context.Context, o settings) (*bus, error) {
	b := &bus{
		o:       o,
		id:      newID(),
		denials: newDenials(o, "events"),
		seed:    maphash.MakeSeed(),
		subs:    map[string]*subscription{},
		dirty:   map[string]struct{}{},
		pending: map[string]*op{},
		refused: map[string]error{},
		back:    make(chan struct{}, 1),
		again:   make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	for range min(runtime.GOMAXPROCS(0), maxLanes) {
		b.lanes = append(b.lanes, newLane(b.id, o.notices))
	}
	nc, err := o.connect(ctx, o.Prefix+" events", callbacks{up: b.up, down: b.down, trouble: b.trouble})
	if err != nil {
		return nil, err
	}
	b.nc = nc
	b.line, err = newLine(nc, b.denials, o.Timeout)
	if err == nil {
		err = b.permitted()
	}
	if err != nil {
		close(b.done) // the caller gets the error, and the log nothing
		nc.Close()
		return nil, err
	}
	b.tasks.Go(func() { b.line.write(b.done) })
	b.tasks.Go(func() { b.line.confirm(b.done) })
	b.tasks.Go(b.recover)
	b.tasks.Go(b.resubscribe)
	return b, nil
}

// open begins to deliver.
func (b *bus) open(deliver func(string, pushy.Message)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	for _, l := range b.lanes {
		b.tasks.Go(func() { l.run(b.done, deliver) })
	}
	return nil
}

func (b *bus) up(*natsgo.Conn) {
	if b.away.Load() != nil { // else it is the first connection, at once
		b.wake()
	}
}

func (b *bus) down(err error) {
	select {
	case <-b.done:
		return // by close
	default:
	}
	if was := b.away.Swap(&err); was == nil {
		b.o.Logger.Warn("NATS is away; this node serves alone", "for", "events", "error", err)
	}
}

func (b *bus) trouble(sub *natsgo.Subscription, err error) {
	if sub != nil && errors.Is(err, natsgo.ErrSlowConsumer) {
		return // the lane sees it
	}
	if a, denied := b.denials.heard(err); denied {
		b.refuse(a)
		return
	}
	b.o.notices.Warn("NATS refuses something", err.Error(), slog.String("for", "events"), slog.Any("error", err))
}

func (b *bus) lane(channel string) *lane {
	return b.lanes[maphash.String(b.seed, channel)%uint64(len(b.lanes))]
}

func (b *bus) subject(channel string) string { return b.o.Prefix + ".e." + token(channel) }

func (b *bus) publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	b.mu.Lock()
	here := b.subs[channel] != nil
	b.mu.Unlock()
	p := &op{subject: b.subject(channel), data: encodeEvent(m), asks: !here}
	if most := b.nc.MaxPayload(); most > 0 && int64(len(p.data)) > most {
		return pushy.None, fmt.Errorf("nats: publish: %w: the message has %d bytes, and the max_payload of NATS is %d",
			pushy.ErrTooLarge, len(p.data), most)
	}
	p.alone = func() error { return b.alone(channel, p.data) }
	if err := b.do(ctx, p); err != nil {
		return pushy.None, fmt.Errorf("nats: publish: %w", err)
	}
	if p.nobody {
		return pushy.None, nil
	}
	return pushy.Unknown, nil
}

// alone delivers a message on this node because NATS is away.
func (b *bus) alone(channel string, data []byte) error {
	b.mu.Lock()
	s := b.subs[channel]
	_, known := b.dirty[channel]
	full := !known && len(b.dirty) >= maxDirty
	if !full {
		b.dirty[channel] = struct{}{}
	}
	b.mu.Unlock()
	if full {
		return errAlone
	}
	if s != nil {
		s.push(data, b.done)
	}
	if b.away.Load() == nil {
		b.wake() // it is back, and recover may not have seen the channel
	}
	return nil
}

// wake has recover tell what there is to tell.
func (b *bus) wake() {
	select {
	case b.back <- struct{}{}:
	default:
	}
}

func (b *bus) do(ctx context.Context, p *op) error {
	select {
	case <-b.done:
		return errClosed
	default:
	}
	return b.line.do(ctx, b.done, p)
}

func (b *bus) subscribe(ctx context.Context, channel string) error {
	p := b.subscribing(channel, func(current *subscription) bool { return current == nil })
	b.mu.Lock()
	b.pending[channel] = p
	b.mu.Unlock()
	err := b.do(ctx, p)
	b.mu.Lock()
	if b.pending[channel] == p {
		delete(b.pending, channel) // an operation that is given up does nothing later
	}
	b.mu.Unlock()
	if isDenied(err) {
		b.unsubscribe(channel) // or the next attempt would find it subscribed
	}
	if err != nil {
		return fmt.Errorf("nats: subscribe: %w", err)
	}
	return nil
}

// subscribing is the operation that subscribes to a channel, unless the channel is
// unsubscribed first or is not to be subscribed in its current state.
func (b *bus) subscribing(channel string, due func(current *subscription) bool) *op {
	p := &op{subject: b.subject(channel)}
	p.run = func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		current := b.subs[channel]
		switch {
		case b.closed:
			return errClosed
		case b.pending[channel] != p || !due(current):
			return nil
		}
		s, err := b.lane(channel).subscribe(b.nc, p.subject, channel)
		if err != nil {
			return err
		}
		b.subs[channel] = s
		if current != nil {
			b.dropLocked(current)
		}
		return nil
	}
	// What is subscribed while NATS is away is so when it is back.
	p.alone = func() error { return nil }
	return p
}

// dropLocked ends a subscription. The server is notified when that can be.
func (b *bus) dropLocked(s *subscription) {
	if !b.closed {
		b.tasks.Go(func() {
			_ = s.sub.Unsubscribe() // it fails if the connection is closed
			s.lane.forget(s)
		})
	}
}

func (b *bus) unsubscribe(channel string) {
	b.mu.Lock()
	s := b.subs[channel]
	delete(b.subs, channel)
	delete(b.pending, channel)
	delete(b.refused, channel)
	if s != nil {
		b.dropLocked(s)
	}
	b.mu.Unlock()
	if s != nil {
		s.lane.forget(s)
	}
}

// close ends it at once.
func (b *bus) close() {
	b.mu.Lock()
	was := b.closed
	b.closed = true
	b.mu.Unlock()
	if was {
		return
	}
	close(b.done)
	b.nc.Close()
	for _, l := range b.lanes {
		l.close()
	}
	b.tasks.Wait()
}

// resync is what tells clients that they may have missed something.
func (b *bus) resync(by string) []byte {
	return encodeEvent(pushy.Message{Event: pushy.EventResync, Data: json.RawMessage("{}"), Node: by})
}

// recover tells clients what they may have missed, each time the connection is
// back.
func (b *bus) recover() {
	for {
		select {
		case <-b.done:
			return
		case <-b.back:
		}
		was := b.away.Load()
		// nats.go has subscribed again; the answer to a ping comes after that, and
		// only then is the node not alone.
		if b.line.flush() != nil || !b.away.CompareAndSwap(was, nil) {
			continue // lost again, or given up as too slow, and will be back again
		}
		if was != nil {
			b.o.Logger.Info("NATS is back", "for", "events")
		}
		b.mu.Lock()
		subs := make([]*subscription, 0, len(b.subs))
		for _, s := range b.subs {
			subs = append(subs, s)
		}
		dirty := b.dirty
		b.dirty = map[string]struct{}{}
		b.mu.Unlock()
		for _, s := range subs {
			s.push(b.resync(""), b.done)
		}
		if err := b.tell(dirty); err != nil {
			b.mu.Lock()
			for channel := range dirty {
				b.dirty[channel] = struct{}{}
			}
			b.mu.Unlock()
		}
	}
}

// tell has the other nodes tell their subscribers.
func (b *bus) tell(dirty map[string]struct{}) error {
	if len(dirty) == 0 {
		return nil
	}
	before := b.nc.Stats().Reconnects
	for channel := range dirty {
		if err := b.nc.Publish(b.subject(channel), b.resync(b.id)); err != nil {
			return err
		}
	}
	if err := b.line.flush(); err != nil {
		return err
	}
	if b.nc.Stats().Reconnects != before {
		return errLost
	}
	return nil
}
