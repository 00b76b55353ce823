package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// ownLease is the lease of this node.
type ownLease struct {
	mu     sync.Mutex    // held while the lease is renewed
	length time.Duration // that the next heartbeat has; Extend makes it longer
	seq    uint64        // the sequence of the last heartbeat; 0 before the first
	at     time.Time     // when the last heartbeat was sent
	stored time.Duration // the length that the last heartbeat had
	lapsed bool          // the lease has expired since the last Resets
	// reporting is set while join reports with Resets that the lease has expired.
	reporting bool
	inbox     struct { // of the permission to subscribe to the inbox
		mark  uint64
		tried time.Time
	}
	epoch string // the epoch of the revisions that the sink has
}

var errLapsed = errors.New("nats: the lease of this node has expired")

// join creates the missing streams, renews the node's lease, and reads all members. Then it
// resets the followed channels. It runs at the start, and whenever NATS has been away.
func (b *Broker) join(ctx context.Context) error {
	b.joining.Store(true)
	defer b.joining.Store(false)
	link := b.renewLink()
	if !b.nc.IsConnected() {
		return errNotConnected
	}
	if err := b.prepare(ctx, link); err != nil {
		return err
	}
	seq, err := b.renew(ctx)
	if err != nil {
		return err
	}
	r, err := b.load(ctx, link, seq)
	if err != nil {
		return err
	}
	b.ownLease.mu.Lock()
	lapsed := b.ownLease.lapsed
	b.ownLease.reporting = lapsed
	b.ownLease.mu.Unlock()
	defer func() {
		b.ownLease.mu.Lock()
		b.ownLease.reporting = false
		b.ownLease.mu.Unlock()
	}()
	if lapsed {
		err := b.leaveOwn(ctx, r)
		if err != nil {
			r.stop()
			return err
		}
	}
	reason := broker.ResetGap
	switch {
	case b.ownLease.epoch != "" && b.ownLease.epoch != r.epoch:
		reason = broker.ResetEpoch
	case lapsed:
		reason = broker.ResetLease
	}
	b.replace(r)
	following, ok := b.markBack(link)
	if !ok {
		return errNotConnected
	}
	err = each(len(following), func(i int) error { return b.reopen(link, following[i], reason) })
	if err != nil {
		return err
	}
	b.ownLease.mu.Lock()
	b.ownLease.lapsed = b.ownLease.lapsed && !lapsed
	b.ownLease.epoch = r.epoch
	b.ownLease.mu.Unlock()
	return nil
}

// prepare checks the permissions and creates the missing streams.
func (b *Broker) prepare(ctx, link context.Context) (err error) {
	if err := b.checkPermissions(ctx, link); err != nil {
		return err
	}
	b.classes.forget()
	b.logs.forget()
	base := b.subjects.base
	made := &streams{}
	made.members, err = b.stream(ctx, jetstream.StreamConfig{
		Name:              b.subjects.stream + "members",
		Subjects:          []string{base + ".m.>"},
		Description:       "pushy: members and nodes",
		Storage:           b.storage(),
		MaxMsgsPerSubject: maxVersion,
	})
	if err != nil {
		return err
	}
	if err := b.checkFormat(ctx); err != nil {
		return err
	}
	made.ids, err = b.stream(ctx, jetstream.StreamConfig{
		Name:              b.subjects.stream + "ids",
		Subjects:          []string{base + ".i.*"},
		Description:       "pushy: ids of entries, and records with a short life",
		Storage:           b.storage(),
		MaxMsgsPerSubject: 1,
		MaxMsgs:           brokerkit.MaxRecords,
		MaxAge:            shortLife + time.Minute,
	})
	if err != nil {
		return err
	}
	made.records, err = b.stream(ctx, jetstream.StreamConfig{
		Name:              b.subjects.stream + "records",
		Subjects:          []string{base + ".l.*"},
		Description:       "pushy: records with a long life",
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           brokerkit.MaxRecords,
	})
	if err != nil {
		return err
	}
	b.streams.Store(made)
	_, err = b.last(ctx, made.members, b.subjects.epoch())
	if errors.Is(err, errNone) {
		_, err = b.compareAndStore(ctx, b.subjects.epoch(), 0, []byte(brokerkit.NewEpoch()))
		err = ignore(err, errConflict)
	}
	return err
}

// inboxRetry is how long a node whose inbox is denied waits before it reconnects: nats.go
// repeats the subscription only on a new connection.
const inboxRetry = 5 * time.Second

// checkPermissions returns an error if NATS denies what every node needs. It uses subjects
// that no channel and no stream has, and requests that JetStream refuses after it has checked
// the permission, but before it accesses the stream: to delete a message without its
// sequence, and to purge with two limits of which only one is allowed. Requests that access a
// stream while another node creates it can crash NATS 2.9.
func (b *Broker) checkPermissions(ctx, link context.Context) error {
	base := b.subjects.base
	stream := b.subjects.stream + "members"
	probe := base + ".c.%probe"
	mark := b.denials.mark()
	sub, err := b.nc.SubscribeSync(probe)
	if err != nil {
		return b.o.explain(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails if the connection is closed
	needs := []action{{subject: probe}}
	for subject, request := range map[string]string{
		probe:                                   "",
		base + ".i.%probe.%.%":                  "",
		base + ".k.%probe.%.%":                  "",
		base + ".l.%probe.%.%":                  "",
		api("STREAM.MSG.DELETE.") + stream:      "",
		api("STREAM.PURGE.") + stream:           `{"filter":"` + probe + `","seq":1,"keep":1}`,
		api("CONSUMER.DELETE.") + stream + ".%": "",
	} {
		if err := b.nc.Publish(subject, []byte(request)); err != nil {
			return b.o.explain(err)
		}
		needs = append(needs, action{publishes: true, subject: withoutConsumer(subject, b.subjects.stream)})
	}
	if err := b.confirm(ctx, link); err != nil {
		return err
	}
	for _, a := range needs {
		if err := b.denials.since(a, mark); err != nil {
			return err
		}
	}
	err = b.denials.since(b.denials.inbox(), b.ownLease.inbox.mark)
	if err != nil && time.Since(b.ownLease.inbox.tried) > inboxRetry {
		b.ownLease.inbox.mark = b.denials.mark()
		b.ownLease.inbox.tried = time.Now()
		_ = b.nc.ForceReconnect() // it fails if the connection is closed
	}
	return err
}

// replace makes r the current replica, whose entries are delivered. The followed channels have
// missed entries, and receive no others until they are opened again.
func (b *Broker) replace(r *replica) {
	old := b.replica.Load()
	if old != nil {
		old.stop()
	}
	for _, f := range b.allFollowed() {
		f.mu.Lock()
		f.live = false
		f.stalled = true
		f.early = nil
		f.mu.Unlock()
	}
	b.replica.Store(r)
	r.mu.Lock()
	r.current = !r.ended
	r.mu.Unlock()
}

// leaveOwn appends the Leaves of the members that this node had before its lease expired. The
// other nodes may do the same at this time. So members that the node appends afterwards
// remain.
func (b *Broker) leaveOwn(ctx context.Context, r *replica) error {
	r.mu.Lock()
	own := maps.Clone(r.peerLocked(b.node).members)
	r.mu.Unlock()
	seq, err := b.leave(ctx, own)
	if err != nil {
		return err
	}
	return r.wait(ctx, seq)
}

// renew stores a heartbeat. It sets lapsed if the lease has expired by this node's clock, or
// if another node has declared this node dead.
func (b *Broker) renew(ctx context.Context) (seq uint64, err error) {
	k := &b.ownLease
	k.mu.Lock()
	defer k.mu.Unlock()
	if b.isClosed() {
		return 0, broker.ErrClosed // it must not replace the last heartbeat
	}
	t := time.Now()
	// The monotonic clock can stop while the machine sleeps, and the wall clock can be set.
	if k.seq > 0 && max(t.Sub(k.at), t.Round(0).Sub(k.at.Round(0))) > k.stored {
		k.lapsed = true
	}
	prev := k.seq
	data := heartbeat{lease: k.length, settings: b.settings}.encode()
	for range 3 {
		seq, err = b.compareAndStore(ctx, b.subjects.node(b.node), prev, data)
		if err == nil {
			k.seq = seq
			k.at = t
			k.stored = k.length
			return seq, nil
		}
		if !errors.Is(err, errConflict) {
			return 0, err
		}
		msg, err := b.last(ctx, b.streams.Load().members, b.subjects.node(b.node))
		if errors.Is(err, errNone) {
			prev = 0
			k.lapsed = k.lapsed || k.seq > 0
			continue
		}
		if err != nil {
			return 0, err
		}
		s, err := decodeHeartbeat(msg.Data)
		prev = msg.Sequence
		// Otherwise it is this node's own heartbeat, and the answer to it was lost.
		k.lapsed = k.lapsed || err != nil || s.lease == 0
	}
	return 0, err
}

// Extend implements broker.Leaser.
func (b *Broker) Extend(ctx context.Context, lease time.Duration) error {
	if lease > maxLease {
		return fmt.Errorf("nats: extend: a lease of %v is over the limit of %v", lease, maxLease)
	}
	b.ownLease.mu.Lock()
	b.ownLease.length = max(b.ownLease.length, lease)
	b.ownLease.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	_, err := b.renew(ctx)
	return err
}

// sayGoodbye stores the last heartbeat of a node that is being closed, so that the other nodes
// do not list it any more. Its members remain for the lease that the heartbeat begins.
func (b *Broker) sayGoodbye(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	k := &b.ownLease
	k.mu.Lock()
	defer k.mu.Unlock()
	last := heartbeat{lease: k.length, closed: true}.encode()
	// It is stored whatever the last message is. A heartbeat that was sent before, and to which
	// the answer was not received, is stored before it on the same connection, or not at all.
	_, err := b.js.Publish(ctx, b.subjects.node(b.node), last)
	return err
}

// heartbeatsPerLease is the number of heartbeats that a node sends in the time of its lease.
const heartbeatsPerLease = 3

// heartbeatLoop sends heartbeats.
func (b *Broker) heartbeatLoop() {
	ticker := time.NewTicker(b.lease / heartbeatsPerLease)
	defer ticker.Stop()
	for {
		select {
		case <-b.done:
			return
		case <-ticker.C:
		}
		link := b.link()
		if link.Err() != nil || b.replica.Load() == nil {
			continue
		}
		_, err := b.renew(link)
		if err != nil {
			b.markAway(link, err)
			continue
		}
		b.ownLease.mu.Lock()
		lapsed := b.ownLease.lapsed && !b.ownLease.reporting
		b.ownLease.mu.Unlock()
		if lapsed && b.Away() == nil {
			b.markAway(link, errLapsed)
		}
	}
}

const (
	maxWatchInterval = time.Second
	// rankDelay delays the nodes by their rank, so that usually only one removes the members
	// of a dead node.
	rankDelay = 150 * time.Millisecond
	maxRank   = 4
	// leftLeases is the number of leases for which the record of a member that has left is
	// kept. An adoption must be remembered for two.
	leftLeases   = 3
	recordsSweep = 10 * time.Minute
	openRetry    = 5 * time.Second // for channels that NATS does not permit
)

var errStreamSilent = errors.New("nats: the members' stream delivers nothing any more")

// watch detects dead nodes, and removes data that is not needed any more.
func (b *Broker) watch() {
	every := min(b.lease/10, maxWatchInterval)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := time.Now()
	swept := last
	records := last
	opened := last
	for {
		select {
		case <-b.done:
			return
		case <-ticker.C:
		}
		t := time.Now()
		stopped := t.Sub(last) > every+b.lease/4
		last = t
		if b.Away() != nil {
			continue
		}
		link, r := b.link(), b.replica.Load()
		rank, dead, streamSilent := r.inspect(t, stopped)
		if streamSilent {
			b.markAway(link, errStreamSilent)
			continue
		}
		for _, id := range dead {
			if err := b.removeDeadNode(link, r, id); err != nil {
				b.o.notices.Warn("cannot remove the members of a dead node yet", "", slog.Any("error", err))
			}
		}
		if t.Sub(swept) > min(b.lease, time.Minute) {
			swept = t
			b.sweep(r, rank == 0)
			b.trim()
		}
		if t.Sub(opened) > openRetry && !b.joining.Load() { // join opens all channels
			opened = t
			b.openAgain(link)
		}
		if rank == 0 && t.Sub(records) > recordsSweep {
			records = t
			b.sweepRecords(link)
			b.keepGenerations(link)
		}
	}
}
