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

// replica is the state that results from the members' stream: the members of all channels of
// the cluster, its nodes and its classes. One consumer delivers all messages of the stream in
// its order, which is the same on all nodes. A replica that has missed a message is replaced
// by a new one, which is loaded from the beginning.
type replica struct {
	b        *Broker
	link     context.Context
	consumer jetstream.ConsumeContext

	mu       sync.Mutex // held while the members' entries are delivered
	ended    bool
	current  bool   // its entries are delivered
	received uint64 // the number of messages of the consumer
	applied  uint64 // the sequence of the last message
	waiting  []waiter
	epoch    string // set by the message that has it; "" before that
	epochSeq uint64
	channels map[string]*channelMembers
	nodes    map[string]*peer
	classes  map[string]bool
}

// waiter is notified when a sequence has been applied.
type waiter struct {
	seq  uint64
	done chan struct{}
}

// channelMembers are the members of a channel, and those that have left a short time ago.
type channelMembers struct {
	revision       uint64 // the sequence of the last entry
	members        map[string]*record
	left           map[string]*record // the records of members that have left
	joinedWithData int                // the number of members that joined with data
	hints          int                // the number of records on which State.On can depend otherwise
}

// peer is a node of the cluster.
type peer struct {
	seq       uint64    // the sequence of its last heartbeat; 0 if there is none
	heartbeat heartbeat // the last one
	lastSeen  time.Time
	members   map[*record]string // the members that depend on its lease, with their channels
}

// load reads the members' stream, at least up to the sequence seq.
func (b *Broker) load(ctx, link context.Context, seq uint64) (_ *replica, err error) {
	r := &replica{
		b:        b,
		link:     link,
		channels: map[string]*channelMembers{},
		nodes:    map[string]*peer{},
		classes:  map[string]bool{},
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
	ctx, done := b.denials.guard(ctx, api("CONSUMER.MSG.NEXT"))
	defer done(&err)
	fail := func(_ jetstream.ConsumeContext, err error) { b.markAway(link, b.explain(err)) }
	r.consumer, err = c.Consume(func(msg jetstream.Msg) { b.guarded(func() { r.handle(msg) }) },
		jetstream.PullMaxMessages(consumerBatch),
		jetstream.PullHeartbeat(consumerBeat),
		jetstream.PullExpiry(consumerExpiry),
		jetstream.ConsumeErrHandler(fail))
	if err != nil {
		return nil, b.explain(err)
	}
	context.AfterFunc(link, r.consumer.Stop)
	for before := ^uint64(0); ; {
		err = r.wait(ctx, seq)
		got := r.progress()
		if err == nil || link.Err() != nil || ctx.Err() != nil || got == before {
			break
		}
		before = got // reading many members can take longer than Options.Timeout
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
		return nil, errEpoch // the epoch was removed just now
	}
	// Heartbeats of other nodes may have been delayed until now.
	for _, p := range r.nodes {
		p.lastSeen = time.Now()
	}
	return r, nil
}

const (
	consumerIdle  = time.Minute // after which the server removes the consumer of a dead node
	consumerBatch = 2000
	consumerBeat  = 5 * time.Second
	// consumerExpiry is so long that no request for messages expires. NATS 2.9 removes a
	// request without notice if a message arrives just after the request has expired, and then
	// delivers nothing. With a shorter expiry, the heartbeats often arrive exactly then,
	// because their interval divides it.
	consumerExpiry = 365 * 24 * time.Hour
)

func (r *replica) stop() {
	r.mu.Lock()
	r.ended = true
	r.current = false
	r.mu.Unlock()
	r.consumer.Stop()
}

func (r *replica) progress() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.received
}

var errSlow = errors.New("nats: the members' stream is not read to its end")

// wait returns when the sequence seq has been applied, or an error after Options.Timeout.
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

// catchUp returns when all messages that were stored before the call have been applied.
func (b *Broker) catchUp(ctx context.Context) error {
	r := b.replica.Load()
	applied := r.lastApplied()
	seq, err := b.lastStored.get(ctx)
	if err != nil {
		return err
	}
	if seq < applied {
		return r.replaced()
	}
	r = b.replica.Load()
	err = r.wait(ctx, seq)
	if errors.Is(err, errSlow) {
		b.markAway(r.link, err)
	}
	return err
}

// lastApplied returns the sequence of the last message that was applied.
func (r *replica) lastApplied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

var errReplaced = errors.New("nats: the members' stream was deleted and created again")

// replaced marks NATS as away, because the stream has sequences that are lower than those that
// were applied. NATS usually notifies the consumers of a stream that is deleted, but the
// notification can be lost.
func (r *replica) replaced() error {
	r.b.markAway(r.link, errReplaced)
	return fmt.Errorf("%w: %w", broker.ErrAway, errReplaced)
}

// handle applies a message of the stream.
func (r *replica) handle(msg jetstream.Msg) {
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
		r.ended = true
		r.current = false
		r.b.markAway(r.link, errMissed)
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
		err = r.handleMemberLocked(channel, member, data, seq, at)
	case parts[0] == "n" && len(parts) == 2:
		node, ok := untoken(parts[1])
		s, broken := decodeHeartbeat(data)
		if !ok || broken != nil {
			err = errBroken
			break
		}
		p := r.peerLocked(node)
		p.seq = seq
		p.heartbeat = s
		p.lastSeen = time.Now()
		if node != r.b.node && s.lease > 0 && !s.closed {
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
			r.ended = true
			r.current = false
			r.b.markAway(r.link, errEpoch)
			break
		}
		r.epoch = string(data)
		r.epochSeq = seq
	default:
		err = errBroken
	}
	if err != nil {
		r.b.skipped(subject, err)
	}
}

// peerLocked returns a node's entry, and creates it if there is none.
func (r *replica) peerLocked(node string) *peer {
	p := r.nodes[node]
	if p == nil {
		p = &peer{members: map[*record]string{}, lastSeen: time.Now()}
		r.nodes[node] = p
	}
	return p
}

// handleMemberLocked applies the message of a member's subject, and delivers it.
func (r *replica) handleMemberLocked(channel, member string, data []byte, seq uint64, at time.Time) error {
	next, err := decodeRecord(data, member, seq)
	m := r.channels[channel]
	if m == nil && err == nil {
		m = &channelMembers{members: map[string]*record{}, left: map[string]*record{}}
		r.channels[channel] = m
	}
	if m == nil {
		return err
	}
	old := m.members[member]
	if err != nil {
		// A node that reads the stream from the beginning finds no member there.
		r.removeLocked(m, member)
		if old != nil {
			m.revision = seq
			r.resetLocked(channel)
		}
		return err
	}
	prev := m.revision
	m.revision = seq
	next.taken = time.Now()
	r.removeLocked(m, member)
	r.addLocked(channel, m, next)
	follows := old != nil && old.member.Since == next.member.Since && old.member.Owner == next.expects()
	switch {
	case next.kind == broker.Join && old == nil, next.kind != broker.Join && follows:
		r.deliverLocked(channel, next, prev, at)
	case next.left() && old == nil:
		// The join and the leave followed each other closely, and both are omitted.
	default:
		r.resetLocked(channel) // entries were removed before they were read
	}
	return nil
}

func (r *replica) removeLocked(m *channelMembers, member string) {
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

func (r *replica) addLocked(channel string, m *channelMembers, next *record) {
	if next.left() {
		m.left[next.member.ID] = next
	} else {
		m.members[next.member.ID] = next
		p := r.peerLocked(next.member.Node)
		p.members[next] = channel
	}
	m.tally(next, 1)
}

// deliverLocked delivers the entry of a member's message.
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
		e.User = next.member.User
		e.Joined = next.member.Joined
		e.Data = next.member.Data
		e.State = next.member.State
	case broker.Update:
		e.Data = next.member.Data
		e.State = next.member.State
	case broker.Adopt:
		e.OldOwner = next.oldOwner
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live {
		r.b.sink.Deliver(channel, e)
	}
}

// resetLocked delivers a Reset, because entries may have been missed.
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
	m := r.channels[channel]
	if m == nil {
		return s
	}
	s.Revision.Offset = m.revision
	s.On = m.on()
	for _, member := range m.members {
		s.Members = append(s.Members, member.member)
	}
	slices.SortFunc(s.Members, func(x, y broker.Member) int { return cmp.Compare(x.Since, y.Since) })
	return s
}

// beginning returns the position of a channel to which nothing was appended. Its epoch changes
// each day, and a log is remembered for at least two days. So a log that begins after another
// one was removed has a different epoch.
func (r *replica) beginning(t time.Time) broker.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return broker.Position{Epoch: r.epoch + "_" + strconv.FormatInt(t.Unix()/(24*60*60), 36)}
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

// beginEpoch begins a new epoch on all nodes.
func (b *Broker) beginEpoch(ctx context.Context) error {
	r := b.replica.Load()
	r.mu.Lock()
	seq := r.epochSeq
	r.mu.Unlock()
	b.o.notices.Warn("a new epoch begins, because NATS has lost messages", "", slog.String("prefix", b.o.Prefix))
	_, err := b.compareAndStore(ctx, b.subjects.epoch(), seq, []byte(brokerkit.NewEpoch()))
	if err == nil || errors.Is(err, errConflict) {
		b.markAway(b.link(), errEpoch)
	}
	return ignore(err, errConflict)
}
