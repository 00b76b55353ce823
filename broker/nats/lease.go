package nats

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// key is this node's sign of life.
type key struct {
	mu     sync.Mutex // held while it is renewed
	seq    uint64     // of the last; 0 before the first
	at     time.Time  // when that was asked for
	lapsed bool       // the lease has expired since the node last had a Reset
	inbox  struct {   // of the permission for it
		mark  uint64
		tried time.Time
	}
	epoch string // that the sink's revisions have
}

var errLapsed = errors.New("nats: the lease of this node has expired")

// join makes what the node needs in NATS, begins to vouch for it, and reads all members.
// Then it resets the channels that are followed. It runs at the start, and each time
// that NATS has been away.
func (b *Broker) join(ctx context.Context) error {
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
	b.key.mu.Lock()
	lapsed := b.key.lapsed
	b.key.mu.Unlock()
	if lapsed {
		err := b.leaveOwn(ctx, r)
		if err != nil {
			r.stop()
			return err
		}
	}
	reason := broker.ResetGap
	switch {
	case b.key.epoch != "" && b.key.epoch != r.epoch:
		reason = broker.ResetEpoch
	case lapsed:
		reason = broker.ResetLease
	}
	b.replace(r)
	following, ok := b.comeBack(link)
	if !ok {
		return errNotConnected
	}
	err = each(len(following), func(i int) error { return b.reopen(link, following[i], reason) })
	if err != nil {
		return err
	}
	b.key.mu.Lock()
	b.key.lapsed = b.key.lapsed && !lapsed
	b.key.epoch = r.epoch
	b.key.mu.Unlock()
	return nil
}

// prepare checks the permissions and makes the streams.
func (b *Broker) prepare(ctx, link context.Context) (err error) {
	if err := b.permitted(ctx, link); err != nil {
		return err
	}
	b.classes.forget()
	b.logs.forget()
	base, made := b.subjects.base, &streams{}
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
		_, err = b.put(ctx, b.subjects.epoch(), 0, []byte(brokerkit.NewEpoch()))
		err = ignore(err, errConflict)
	}
	return err
}

// inboxRetry is how long a node whose inbox is denied waits before it connects anew:
// nats.go subscribes again with a new connection only.
const inboxRetry = 5 * time.Second

// permitted returns an error if NATS denies what every node needs. It tries that on
// subjects that no channel and no stream has, and with requests that JetStream refuses
// before it looks at the stream, but after it has checked the permission: a message to
// delete that is not named, and two limits of a purge of which only one may be set. Requests
// that reach a stream while another node creates it can crash NATS 2.9.
func (b *Broker) permitted(ctx, link context.Context) error {
	base, stream := b.subjects.base, b.subjects.stream+"members"
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
	err = b.denials.since(b.denials.inbox(), b.key.inbox.mark)
	if err != nil && time.Since(b.key.inbox.tried) > inboxRetry {
		b.key.inbox.mark, b.key.inbox.tried = b.denials.mark(), time.Now()
		_ = b.nc.ForceReconnect() // it fails if the connection is closed
	}
	return err
}

// replace lets the entries of a replica be delivered. The channels that are followed have
// missed some, and get none until they are opened again.
func (b *Broker) replace(r *replica) {
	old := b.replica.Load()
	if old != nil {
		old.stop()
	}
	for _, f := range b.allFollowed() {
		f.mu.Lock()
		f.live, f.stalled, f.early = false, true, nil
		f.mu.Unlock()
	}
	b.replica.Store(r)
	r.mu.Lock()
	r.current = !r.ended
	r.mu.Unlock()
}

// leaveOwn appends the Leaves of this node's members from before its lease expired, as
// other nodes do at the same time. So what the node joins afterwards stays.
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

// renew stores a sign of life. It notes whether the lease has expired: by this node's
// clock, or because another node has said so.
func (b *Broker) renew(ctx context.Context) (seq uint64, err error) {
	k := &b.key
	k.mu.Lock()
	defer k.mu.Unlock()
	t := time.Now()
	// A clock that stands still while the machine sleeps counts as little as one that is set.
	if k.seq > 0 && max(t.Sub(k.at), t.Round(0).Sub(k.at.Round(0))) > b.lease {
		k.lapsed = true
	}
	prev := k.seq
	data := sign{lease: b.lease, settings: b.settings}.encode()
	for range 3 {
		seq, err = b.put(ctx, b.subjects.node(b.node), prev, data)
		if err == nil {
			k.seq, k.at = seq, t
			return seq, nil
		}
		if !errors.Is(err, errConflict) {
			return 0, err
		}
		msg, err := b.last(ctx, b.streams.Load().members, b.subjects.node(b.node))
		if errors.Is(err, errNone) {
			prev, k.lapsed = 0, k.lapsed || k.seq > 0
			continue
		}
		if err != nil {
			return 0, err
		}
		s, err := decodeSign(msg.Data)
		prev = msg.Sequence
		k.lapsed = k.lapsed || err != nil || s.lease == 0 // else NATS's answer to the last one was lost
	}
	return 0, err
}

// beatsInLease is how many signs of life a node gives in its lease.
const beatsInLease = 3

// beat gives signs of life.
func (b *Broker) beat() {
	ticker := time.NewTicker(b.lease / beatsInLease)
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
			b.goAway(link, err)
			continue
		}
		b.key.mu.Lock()
		lapsed := b.key.lapsed
		b.key.mu.Unlock()
		if lapsed && b.Away() == nil {
			b.goAway(link, errLapsed)
		}
	}
}

const (
	mostLook = time.Second // between two looks for the dead
	// rankDelay lets one node act for a dead one, and others only if it does not.
	rankDelay = 150 * time.Millisecond
	mostRank  = 4
	// keepLeft is how many leases the record of a member that left is kept: adoptions
	// count for two.
	keepLeft     = 3
	recordsSweep = 10 * time.Minute
	openRetry    = 5 * time.Second // for channels that NATS does not permit
)

var errDeaf = errors.New("nats: the members' stream brings nothing any more")

// watch looks for nodes that are gone, and removes what is not needed any more.
func (b *Broker) watch() {
	every := min(b.lease/10, mostLook)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last, swept, records, opened := time.Now(), time.Now(), time.Now(), time.Now()
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
		rank, dead, deaf := r.inspect(t, stopped)
		if deaf {
			b.goAway(link, errDeaf)
			continue
		}
		for _, id := range dead {
			if err := b.bury(link, r, id); err != nil {
				b.o.notices.Warn("the members of a node that is gone cannot be removed yet", "", slog.Any("error", err))
			}
		}
		if t.Sub(swept) > min(b.lease, time.Minute) {
			swept = t
			b.sweep(r, rank == 0)
			b.trim()
		}
		if t.Sub(opened) > openRetry {
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
