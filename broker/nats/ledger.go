package nats

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

const (
	// shortLife is how long an entry's ID is remembered: 20 minutes, and one minute for clocks
	// that differ. Records with at most this lifetime are in the same stream, whose messages
	// NATS removes by their age. The others are in a stream from which the nodes remove
	// expired records.
	shortLife = 21 * time.Minute
)

// recordStream is one of the two streams with records.
type recordStream struct {
	stream jetstream.Stream
	kind   string // in subjects
}

// recordStreams returns both streams with records. The first is the one for records with the
// lifetime ttl.
func (b *Broker) recordStreams(ttl time.Duration) []recordStream {
	both := []recordStream{{b.streams.Load().ids, "i"}, {b.streams.Load().records, "l"}}
	if ttl > shortLife {
		slices.Reverse(both)
	}
	return both
}

// found is a record as it is stored.
type found struct {
	claim
	recordStream recordStream
	subject      string
	seq          uint64 // 0 if there is no record
	at           time.Time
}

// find returns the record of a key in a stream, also if it has expired.
func (b *Broker) find(ctx context.Context, s recordStream, key string) (found, error) {
	hash := sha256.Sum256([]byte(key))
	f := found{recordStream: s, subject: b.subjects.claim(s.kind, hex.EncodeToString(hash[:]))}
	msg, err := b.last(ctx, s.stream, f.subject)
	if err != nil {
		return f, ignore(err, errNone)
	}
	f.seq = msg.Sequence
	f.at = msg.Time
	f.claim, err = decodeClaim(msg.Data)
	if err != nil || f.key != key {
		b.skipped(f.subject, errBroken)
		f.claim = claim{}
	}
	return f, nil
}

// isValid reports whether there is a record that has not expired.
func (f found) isValid() bool { return f.seq > 0 && time.Now().Before(f.until) }

// findAny returns the record of a key from the stream where it has not expired.
func (b *Broker) findAny(ctx context.Context, key string) (found, error) {
	var f found
	for _, s := range b.recordStreams(0) {
		var err error
		f, err = b.find(ctx, s, key)
		if err != nil || f.isValid() {
			return f, err
		}
	}
	return f, nil
}

// Claim implements broker.Ledger.
func (b *Broker) Claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	if err := b.usable(ctx, key, digest, nil); err != nil {
		return broker.Claim{}, err
	}
	for range appendAttempts {
		c, err := b.claim(ctx, userKey+key, digest, ttl)
		if !errors.Is(err, errConflict) {
			return c, err
		}
	}
	return broker.Claim{}, errChanging
}

// The first byte of a key is its kind: a key of the Ledger, or an entry's ID.
const (
	userKey  = "k"
	entryKey = "e"
)

// claim claims a key that has no valid record, or whose claim has no answer in time. It returns
// errConflict if another node has written a record of the key meanwhile.
func (b *Broker) claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	recordStreams := b.recordStreams(ttl)
	own, err := b.find(ctx, recordStreams[0], key)
	if err != nil {
		return broker.Claim{}, err
	}
	other, err := b.find(ctx, recordStreams[1], key)
	if err != nil {
		return broker.Claim{}, err
	}
	for _, f := range []found{other, own} {
		state, ok := f.state(digest)
		if ok && state.State == broker.Finished {
			err = b.prolong(ctx, f, own, ttl)
		}
		if err != nil {
			return broker.Claim{}, full(err)
		}
		if ok {
			return state, nil
		}
	}
	mine := claim{
		key:    key,
		digest: digest,
		until:  time.Now().Add(ttl),
	}
	if _, err = b.compareAndStore(ctx, own.subject, own.seq, mine.encode()); err != nil {
		return broker.Claim{}, full(err)
	}
	return broker.Claim{State: broker.Claimed, Again: own.isValid() || other.isValid()}, nil
}

// prolong makes a record with an answer last for at least ttl from now. own is what the stream for
// ttl has of that key: a record whose messages would be removed earlier is moved there.
func (b *Broker) prolong(ctx context.Context, f, own found, ttl time.Duration) error {
	if time.Until(f.until) >= ttl {
		return nil
	}
	// A twentieth more, so that a key which is used all the time is seldom written.
	life := ttl + ttl/20
	if ttl <= shortLife {
		life = min(life, shortLife)
	}
	longer := f.claim
	longer.until = time.Now().Add(life)
	if f.subject == own.subject || ttl <= shortLife {
		_, err := b.compareAndStore(ctx, f.subject, f.seq, longer.encode())
		return err
	}
	if _, err := b.compareAndStore(ctx, own.subject, own.seq, longer.encode()); err != nil {
		return err
	}
	// If it has got another answer meanwhile, this is a conflict, and the next try moves that.
	_, err := b.compareAndStore(ctx, f.subject, f.seq, claim{key: f.key}.encode())
	return err
}

// full wraps broker.ErrBusy if err means that a stream is full.
func full(err error) error {
	text := err.Error()
	if strings.Contains(text, "maximum messages exceeded") || strings.Contains(text, "maximum bytes exceeded") {
		return fmt.Errorf("%w: %w", broker.ErrBusy, err)
	}
	return err
}

// state returns the result of a Claim for this record. ok is false if the key can be claimed.
func (f found) state(digest string) (broker.Claim, bool) {
	switch {
	case !f.isValid():
		return broker.Claim{}, false
	case f.digest != digest:
		return broker.Claim{State: broker.Mismatch}, true
	case f.answered:
		return broker.Claim{State: broker.Finished, Answer: f.answer}, true
	case time.Since(f.at) < broker.ClaimTimeout:
		return broker.Claim{State: broker.Pending}, true
	}
	return broker.Claim{}, false
}

// Finish implements broker.Ledger.
func (b *Broker) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if err := b.usable(ctx, key, digest, answer); err != nil {
		return err
	}
	return b.finish(ctx, userKey+key, digest, answer)
}

func (b *Broker) finish(ctx context.Context, key, digest string, answer []byte) error {
	for range appendAttempts {
		f, err := b.findAny(ctx, key)
		if err != nil {
			return err
		}
		if !f.isValid() || f.digest != digest {
			return fmt.Errorf("nats: finish: %w", broker.ErrNotOwner)
		}
		f.answered = true
		f.answer = answer
		_, err = b.compareAndStore(ctx, f.subject, f.seq, f.encode())
		if !errors.Is(err, errConflict) {
			return err
		}
	}
	return errChanging
}

// Release implements broker.Ledger.
func (b *Broker) Release(ctx context.Context, key, digest string) error {
	if err := b.usable(ctx, key, digest, nil); err != nil {
		return err
	}
	return b.release(ctx, userKey+key, digest)
}

// release replaces the record by one that has expired. Unlike a deletion, that is refused if
// another node has claimed the key in the meantime.
func (b *Broker) release(ctx context.Context, key, digest string) error {
	f, err := b.findAny(ctx, key)
	if err != nil || !f.isValid() || f.digest != digest || f.answered {
		return err
	}
	_, err = b.compareAndStore(ctx, f.subject, f.seq, claim{key: key}.encode())
	return ignore(err, errConflict)
}

// List implements broker.Ledger.
func (b *Broker) List(ctx context.Context, prefix string) ([]broker.Record, error) {
	if err := b.usable(ctx, prefix, "", nil); err != nil {
		return nil, err
	}
	var list []broker.Record
	for _, s := range b.recordStreams(0) {
		err := b.scan(ctx, s, func(f found) {
			key, ok := strings.CutPrefix(f.key, userKey+prefix)
			if !ok || !f.isValid() {
				return
			}
			r := broker.Record{
				Key:    prefix + key,
				Digest: f.digest,
				Until:  f.until,
			}
			if f.answered {
				r.Answer = f.answer
			}
			list = append(list, r)
		})
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
	}
	slices.SortFunc(list, func(x, y broker.Record) int { return cmp.Compare(x.Key, y.Key) })
	return list[:min(len(list), brokerkit.MaxListed)], nil
}

// scan calls visit with all records of a stream.
func (b *Broker) scan(ctx context.Context, s recordStream, visit func(found)) error {
	var c jetstream.Consumer
	err := b.call(ctx, func(ctx context.Context) (err error) {
		c, err = s.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			AckPolicy:         jetstream.AckNonePolicy,
			DeliverPolicy:     jetstream.DeliverAllPolicy,
			InactiveThreshold: consumerIdle,
			MemoryStorage:     true,
			Replicas:          1,
		})
		return err
	})
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	defer func() { _ = b.nc.Publish(api("CONSUMER.DELETE.")+info.Stream+"."+info.Name, nil) }()
	for left := info.NumPending; left > 0; {
		got := false
		err := b.call(ctx, func(context.Context) error {
			batch, err := c.Fetch(int(min(left, scanBatch)), jetstream.FetchMaxWait(scanWait))
			if err != nil {
				return err
			}
			for msg := range batch.Messages() {
				meta, err := msg.Metadata()
				if err != nil {
					return err
				}
				got = true
				left = meta.NumPending
				f := found{
					recordStream: s,
					subject:      msg.Subject(),
					seq:          meta.Sequence.Stream,
					at:           meta.Timestamp,
				}
				f.claim, err = decodeClaim(msg.Data())
				if err != nil {
					b.skipped(msg.Subject(), err)
				}
				visit(f)
			}
			return batch.Error()
		})
		if err != nil || !got {
			return err // without an error, the remaining records were removed during the scan
		}
	}
	return nil
}

const (
	scanBatch = 1000
	scanWait  = 200 * time.Millisecond
)

// sweepRecords removes expired records from the stream that has no limit of age.
func (b *Broker) sweepRecords(ctx context.Context) {
	var old []uint64
	_ = b.scan(ctx, recordStream{b.streams.Load().records, "l"}, func(f found) {
		if !f.isValid() {
			old = append(old, f.seq)
		}
	})
	b.remove(b.subjects.stream+"records", old...)
}

func (b *Broker) usable(ctx context.Context, key, digest string, answer []byte) error {
	if err := brokerkit.CheckRecord(key, digest, answer); err != nil {
		return err
	}
	return b.ready(ctx)
}

// pollID is how often an append checks whether another one with the same ID has finished.
const pollID = 20 * time.Millisecond

// appendOnce appends an entry with an ID, unless one with that ID was appended before. It
// claims the record of the ID first, which succeeds for only one of several concurrent
// appends.
func (b *Broker) appendOnce(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	s := b.recordStreams(0)[0]
	key := entryKey + channel + "\x00" + e.ID
	if len(key) > maxText {
		return broker.Appended{}, fmt.Errorf("nats: append: the channel's name and the ID have over %d bytes in total",
			maxText)
	}
	hash := sha256.Sum256([]byte(key))
	f := found{recordStream: s, subject: b.subjects.claim(s.kind, hex.EncodeToString(hash[:]))}
	for {
		mine := claim{key: key, until: time.Now().Add(shortLife)}
		seq, err := b.compareAndStore(ctx, f.subject, f.seq, mine.encode())
		if err == nil {
			again := f.isValid()
			f.seq = seq
			f.claim = mine
			return b.appendClaimed(ctx, channel, e, f, again)
		}
		if !errors.Is(err, errConflict) {
			return broker.Appended{}, full(err)
		}
		for wait := true; wait; {
			f, err = b.find(ctx, s, key)
			if err != nil {
				return broker.Appended{}, err
			}
			var state broker.Claim
			state, wait = f.state("")
			if state.State == broker.Finished {
				return decodeResult(state.Answer)
			}
			if !wait {
				break // the key can be claimed
			}
			select {
			case <-time.After(pollID):
			case <-ctx.Done():
				return broker.Appended{}, fmt.Errorf("nats: %w", context.Cause(ctx))
			}
		}
	}
}

// appendClaimed appends an entry whose ID is claimed by f, and stores the result. again means
// that an earlier claim without an answer was replaced: its owner may have appended the entry.
func (b *Broker) appendClaimed(
	ctx context.Context, channel string, e broker.Entry, f found, again bool,
) (a broker.Appended, err error) {
	if again && e.Keep.Size > 0 {
		a.At, err = b.findEvent(ctx, channel, e.ID)
		a.Duplicate = a.At != broker.Position{}
	}
	if err == nil && !a.Duplicate {
		a, err = b.appendEntry(ctx, channel, e)
	}
	switch {
	case err == nil:
		f.answered = true
		f.answer = encodeResult(a)
	case errors.Is(err, broker.ErrAway) || ctx.Err() != nil:
		return a, err // it may have been appended
	default:
		f.claim = claim{key: f.key} // an expired claim, so that the append can be repeated
	}
	// If that fails, a repetition waits for broker.ClaimTimeout and then searches for the
	// entry itself.
	_, _ = b.compareAndStore(context.WithoutCancel(ctx), f.subject, f.seq, f.encode())
	return a, err
}

// findEvent returns the position of the kept event with an ID.
func (b *Broker) findEvent(ctx context.Context, channel, id string) (at broker.Position, err error) {
	h, err := b.head(ctx, channel)
	if err != nil {
		return at, err
	}
	err = b.back(ctx, channel, h, 0, func(m kept) bool {
		if m.entry.ID == id {
			at = m.at
		}
		return at == broker.Position{}
	})
	return at, err
}
