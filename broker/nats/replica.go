package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// replica is what the members' stream amounts to: the members of all channels of the
// cluster, its nodes and its classes. One consumer brings every message of the stream,
// in its order, which is the same on all nodes. A replica that has missed anything is
// replaced by another, which is loaded from the beginning.
type replica struct {
	b        *Broker
	link     context.Context
	consumer jetstream.ConsumeContext

	mu       sync.Mutex // held while the members' entries are delivered
	ended    bool
	current  bool   // entries are delivered
	received uint64 // messages of the consumer
	applied  uint64 // the last sequence
	waiting  []waiter
	epoch    string // set by the first message that has it
	epochSeq uint64
	rooms    map[string]*room
	nodes    map[string]*peer
	classes  map[string]bool
}

// waiter waits until a sequence has been applied.
type waiter struct {
	seq  uint64
	done chan struct{}
}

// room is a channel with members, or that has had some a short time ago.
type room struct {
	revision uint64 // the sequence of the last entry
	members  map[string]*record
	left     map[string]*record // the last messages of those that have left
	brought  int                // members that brought data
	hints    int                // records that may say more about State.On
}

// peer is a node of the cluster.
type peer struct {
	seq     uint64 // of its last sign of life; 0 if there is none
	sign    sign
	heard   time.Time
	members map[*record]string // that depend on its lease, with their channels
}

// load reads the members' stream, up to a sequence at least.
func (b *Broker) load(ctx, link context.Context, seq uint64) (_ *replica, err error) {
	r := &replica{
		b:       b,
		link:    link,
		rooms:   map[string]*room{},
		nodes:   map[string]*peer{},
		classes: map[string]bool{},
	}
	var c jetstream.Consumer
	err = b.call(ctx, func(ctx context.Context) (err error) {
		c, err = b.streams.Load().members.CreateConsumer(ctx, jetstream.ConsumerConfig{
			FilterSubject:     b.subjects.base + ".m.>",
			DeliverPolicy:     jetstream.DeliverLastPerSubjectPolicy,
			AckPolicy:         jetstream.AckNonePolicy,
			InactiveThreshold: consumerIdle,
			MemoryStorage:     true,
			Replicas:          1,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	fail := func(_ jetstream.ConsumeContext, err error) { b.goAway(link, b.explain(err)) }
	r.consumer, err = c.Consume(func(msg jetstream.Msg) { b.guarded(func() { r.take(msg) }) },
		jetstream.PullMaxMessages(consumerBatch),
		jetstream.PullHeartbeat(consumerBeat),
		jetstream.PullExpiry(consumerExpiry),
		jetstream.ConsumeErrHandler(fail))
	if err != nil {
		return nil, b.explain(err)
	}
	context.AfterFunc(link, r.consumer.Stop)
	ctx, done := b.denials.guard(ctx, api("CONSUMER.MSG.NEXT"))
	defer done(&err)
	for before := ^uint64(0); ; {
		err = r.wait(ctx, seq)
		got := r.progress()
		if err == nil || link.Err() != nil || ctx.Err() != nil || got == before {
			break
		}
		before = got // there are many members, and it takes more than one Options.Timeout
	}
	if err != nil {
		r.stop()
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == "" {
		r.ended = true
		r.consumer.Stop()
		return nil, errEpoch // it was removed just now
	}
	// Until now a node may only have seemed to be silent.
	for _, p := range r.nodes {
		p.heard = time.Now()
	}
	return r, nil
}

const (
	consumerIdle   = time.Minute // after which the server removes a consumer whose node is gone
	consumerBatch  = 2000
	consumerBeat   = 5 * time.Second
	consumerExpiry = 20 * time.Second
)

func (r *replica) stop() {
	r.mu.Lock()
	r.ended, r.current = true, false
	r.mu.Unlock()
	r.consumer.Stop()
}

func (r *replica) progress() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.received
}

var errSlow = errors.New("nats: the members' stream is not read to its end")

// wait returns when a sequence has been applied, or after Options.Timeout.
func (r *replica) wait(ctx context.Context, seq uint64) error {
	r.mu.Lock()
	if r.applied >= seq {
		r.mu.Unlock()
		return nil
	}
	w := waiter{seq: seq, done: make(chan struct{})}
	r.waiting = append(r.waiting, w)
	r.mu.Unlock()
	late := time.NewTimer(r.b.o.Timeout)
	defer late.Stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nats: %w", context.Cause(ctx))
	case <-r.link.Done():
		return fmt.Errorf("%w: %w", broker.ErrAway, context.Cause(r.link))
	case <-late.C:
		return fmt.Errorf("%w: %w", broker.ErrAway, errSlow)
	}
}

// catchUp returns when all has been applied that was stored before the call.
func (b *Broker) catchUp(ctx context.Context) error {
	seq, err := b.stored.get(ctx)
	if err != nil {
		return err
	}
	r := b.replica.Load()
	err = r.wait(ctx, seq)
	if errors.Is(err, errSlow) {
		b.goAway(r.link, err)
	}
	return err
}

// take applies a message of the stream.
func (r *replica) take(msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		r.b.skipped(msg.Subject(), err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.received++
	if meta.Sequence.Consumer != r.received || meta.Sequence.Stream <= r.applied {
		r.ended, r.current = true, false
		r.b.goAway(r.link, errMissed)
		return
	}
	r.applyLocked(msg.Subject(), msg.Data(), meta.Sequence.Stream, meta.Timestamp)
	r.applied = meta.Sequence.Stream
	r.waiting = slices.DeleteFunc(r.waiting, func(w waiter) bool {
		if w.seq > r.applied {
			return false
		}
		close(w.done)
		return true
	})
}

var errMissed = errors.New("nats: a message of the members' stream was missed")

func (r *replica) applyLocked(subject string, data []byte, seq uint64, at time.Time) {
	parts := strings.Split(strings.TrimPrefix(subject, r.b.subjects.base+".m."), ".")
	var err error
	switch {
	case parts[0] == "c" && len(parts) == 3:
		channel, ok := untoken(parts[1])
		member, ok2 := untoken(parts[2])
		if !ok || !ok2 {
			err = errBroken
			break
		}
		err = r.takeMemberLocked(channel, member, data, seq, at)
	case parts[0] == "n" && len(parts) == 2:
		node, ok := untoken(parts[1])
		s, broken := decodeSign(data)
		if !ok || broken != nil {
			err = errBroken
			break
		}
		p := r.peerLocked(node)
		p.seq, p.sign, p.heard = seq, s, time.Now()
		if node != r.b.node && s.lease > 0 {
			r.b.compared.Compare(r.b.o.Logger, r.b.settings, s.settings)
		}
	case parts[0] == "k" && len(parts) == 2:
		_, _, ok := parseClass(parts[1])
		if !ok || len(r.classes) >= maxClasses {
			err = errBroken
			break
		}
		r.classes[parts[1]] = true
	case subject == r.b.subjects.epoch():
		if !broker.ValidEpoch(string(data)) {
			err = errBroken
			break
		}
		if r.epoch != "" {
			r.ended, r.current = true, false
			r.b.goAway(r.link, errEpoch)
			break
		}
		r.epoch, r.epochSeq = string(data), seq
	default:
		err = errBroken
	}
	if err != nil {
		r.b.skipped(subject, err)
	}
}

// peerLocked returns a node's entry, and makes one.
func (r *replica) peerLocked(node string) *peer {
	p := r.nodes[node]
	if p == nil {
		p = &peer{members: map[*record]string{}, heard: time.Now()}
		r.nodes[node] = p
	}
	return p
}

// takeMemberLocked applies the message of a member's subject, and delivers it.
func (r *replica) takeMemberLocked(channel, member string, data []byte, seq uint64, at time.Time) error {
	next, err := decodeRecord(data, member, seq)
	m := r.rooms[channel]
	if m == nil && err == nil {
		m = &room{members: map[string]*record{}, left: map[string]*record{}}
		r.rooms[channel] = m
	}
	if m == nil {
		return err
	}
	old := m.members[member]
	if err != nil {
		// Who reads the stream from the beginning finds no member there.
		r.removeLocked(m, member)
		if old != nil {
			m.revision = seq
			r.resetLocked(channel)
		}
		return err
	}
	prev := m.revision
	m.revision, next.taken = seq, time.Now()
	r.removeLocked(m, member)
	r.addLocked(channel, m, next)
	follows := old != nil && old.member.Since == next.member.Since && old.member.Owner == next.expects()
	switch {
	case next.kind == broker.Join && old == nil, next.kind != broker.Join && follows:
		r.deliverLocked(channel, next, prev, at)
	case next.left() && old == nil:
		// The join and the leave followed each other closely: both are left out.
	default:
		r.resetLocked(channel) // some entries were removed before they could be read
	}
	return nil
}

func (r *replica) removeLocked(m *room, member string) {
	if gone := m.left[member]; gone != nil {
		delete(m.left, member)
		m.tally(gone, -1)
	}
	if old := m.members[member]; old != nil {
		delete(m.members, member)
		m.tally(old, -1)
		delete(r.peerLocked(old.member.Node).members, old)
	}
}

func (r *replica) addLocked(channel string, m *room, next *record) {
	if next.left() {
		m.left[next.member.ID] = next
	} else {
		m.members[next.member.ID] = next
		p := r.peerLocked(next.member.Node)
		p.members[next] = channel
	}
	m.tally(next, 1)
}

// deliverLocked tells the sink what a member's message did.
func (r *replica) deliverLocked(channel string, next *record, prev uint64, at time.Time) {
	f := r.b.followedLive(channel)
	if !r.current || f == nil {
		return
	}
	e := broker.Entry{
		Kind:   next.kind,
		Member: next.member.ID,
		Owner:  next.member.Owner,
		At:     broker.Position{Epoch: r.epoch, Offset: next.seq},
		Prev:   prev,
		Time:   at,
	}
	switch next.kind {
	case broker.Join:
		e.User, e.Joined, e.Data = next.member.User, next.member.Joined, next.member.Data
	case broker.Update:
		e.Data = next.member.Data
	case broker.Adopt:
		e.OldOwner = next.oldOwner
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live {
		r.b.sink.Deliver(channel, e)
	}
}

// resetLocked tells the sink that it may have missed entries.
func (r *replica) resetLocked(channel string) {
	f := r.b.followedLive(channel)
	if !r.current || f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live {
		r.b.sink.Reset(channel, r.b.stateLocked(r, f), broker.ResetGap)
	}
}

func (b *Broker) followedLive(channel string) *followed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.following[channel]
}

// stateLocked returns a channel's State without the position of its events.
func (r *replica) stateLocked(channel string) broker.State {
	s := broker.State{Revision: broker.Position{Epoch: r.epoch}}
	m := r.rooms[channel]
	if m == nil {
		return s
	}
	s.Revision.Offset, s.On = m.revision, m.on()
	for _, member := range m.members {
		s.Members = append(s.Members, member.member)
	}
	slices.SortFunc(s.Members, func(x, y broker.Member) int { return cmp.Compare(x.Since, y.Since) })
	return s
}

// beginning is the position of a channel to which nothing was appended. The epoch in it
// is another one each day, and a log is remembered for two days at least, so that one
// which begins after a log was forgotten begins in an epoch that the other did not have.
func (r *replica) beginning(t time.Time) broker.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return broker.Position{Epoch: r.epoch + "-" + strconv.FormatInt(t.Unix()/(24*60*60), 36)}
}

func (r *replica) classNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.classes {
		names = append(names, name)
	}
	return names
}

// beginEpoch has another epoch begin on all nodes.
func (b *Broker) beginEpoch(ctx context.Context) error {
	r := b.replica.Load()
	r.mu.Lock()
	seq := r.epochSeq
	r.mu.Unlock()
	b.o.notices.Warn("another epoch begins, because NATS has lost messages", "", slog.String("prefix", b.o.Prefix))
	_, err := b.put(ctx, b.subjects.epoch(), seq, []byte(brokerkit.NewEpoch()))
	if err == nil || errors.Is(err, errConflict) {
		b.goAway(b.link(), errEpoch)
	}
	return ignore(err, errConflict)
}
