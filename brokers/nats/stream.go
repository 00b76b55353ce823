package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/internal/names"
)

// stream is the JetStream stream that keeps all logs of a prefix.
//
// It is a stream and not a key-value bucket because a bucket keeps a key's last
// value only: a join that is followed by its leave at once would be seen by some
// and not by others. And its watchers are consumers, which cost the server a
// goroutine each, where these are plain subscriptions to what the stream tells
// again (RePublish), in the stream's order and with its sequence numbers.
type stream struct {
	js      jetstream.JetStream
	name    string
	base    string // "pushy"
	o       settings
	denials *denials
	made    atomic.Pointer[jetstream.Stream] // nil until it is known to be there
}

const (
	// consumerIdle is how long the server keeps a reader that is gone.
	consumerIdle = 10 * time.Second
	readBatch    = 500
	// readFirst is up to how many entries are asked for one by one.
	readFirst = 16
	// readWait is how long a batch may take that is deleted meanwhile.
	readWait     = 100 * time.Millisecond
	readAttempts = 20
)

// The server's error codes for which nats.go has no names.
const (
	errMaxBytesRequired     jetstream.ErrorCode = 10113
	errMaxBytesOverLimit    jetstream.ErrorCode = 10122
	errReplicasNotClustered jetstream.ErrorCode = 10074
	errNoPeers              jetstream.ErrorCode = 10005
	errSubjectsOverlap      jetstream.ErrorCode = 10065
)

var (
	errTorn     = errors.New("nats: a presence log changes faster than it can be read")
	errDamaged  = errors.New("nats: a presence log has lost entries")
	errNoStream = errors.New("nats: the stream is not there yet")
)

func newStream(nc *natsgo.Conn, o settings, denials *denials) (*stream, error) {
	js, err := jetstream.New(nc)
	return &stream{js: js, name: o.streamName(), base: o.Prefix, o: o, denials: denials}, err
}

// api is the subject of JetStream's requests of a kind.
func api(kind string) string { return "$JS.API." + kind }

func (s *stream) channelSubject(channel string) string { return s.base + ".p.c." + token(channel) }

// channel is the name of the channel whose log is at subject.
func (s *stream) channel(subject string) (name string, ok bool) {
	return channelOf(strings.TrimPrefix(subject, s.base+".p.c."))
}

func (s *stream) nodeSubject(node string) string { return s.base + ".p.n." + node }

// told is the subject on which the stream tells again what it has stored.
func (s *stream) told(subject string) string {
	return s.base + ".o" + strings.TrimPrefix(subject, s.base+".p")
}

// open makes the stream if it is not there.
func (s *stream) open(ctx context.Context) (err error) {
	ctx, done := s.denials.guard(ctx, api("STREAM.INFO"), api("STREAM.CREATE"))
	defer done(&err)
	made, err := s.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		storage := jetstream.FileStorage
		if s.o.Memory {
			storage = jetstream.MemoryStorage
		}
		made, err = s.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: s.name, Subjects: []string{s.base + ".p.>"}, Description: "pushy: who is in which channel",
			Storage: storage, Replicas: s.o.Replicas, MaxBytes: s.maxBytes(), Discard: jetstream.DiscardNew, AllowRollup: true,
			RePublish: &jetstream.RePublish{Source: s.base + ".p.>", Destination: s.base + ".o.>"},
		})
		// Another node may have created it meanwhile.
		var answered *jetstream.APIError
		if errors.As(err, &answered) && answered.ErrorCode == errSubjectsOverlap {
			if there, again := s.js.Stream(ctx, s.name); again == nil {
				made, err = there, nil
			}
		}
	}
	if err != nil {
		return s.explain(err)
	}
	if made.CachedInfo().Config.RePublish == nil {
		return &SettingError{"Prefix", fmt.Errorf("%q: the stream %s is not pushy's", s.base, s.name)}
	}
	s.made.Store(&made)
	return nil
}

// maxBytes is the size that the stream may reach, in JetStream's terms.
func (s *stream) maxBytes() int64 {
	if s.o.MaxBytes == 0 {
		return -1
	}
	return s.o.MaxBytes
}

// explain names the setting that an error of JetStream is about.
func (s *stream) explain(err error) error {
	var api *jetstream.APIError
	var setting *SettingError
	switch {
	case errors.As(err, &setting):
		return setting
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, natsgo.ErrNoResponders):
		return &SettingError{"URL", fmt.Errorf("%s has no JetStream, which presence needs (nats-server -js)", shown(s.o.servers))}
	case errors.As(err, &api) && (api.ErrorCode == errMaxBytesRequired || api.ErrorCode == errMaxBytesOverLimit):
		return &SettingError{"MaxBytes", fmt.Errorf("%d: %s", s.o.MaxBytes, api.Description)}
	case errors.As(err, &api) && api.ErrorCode == errReplicasNotClustered:
		return &SettingError{"Replicas", fmt.Errorf("%d: %s", s.o.Replicas, api.Description)}
	case errors.As(err, &api) && api.ErrorCode == errNoPeers: // perhaps not yet: the cluster may be starting
		return fmt.Errorf("nats: stream %s with %d replicas: %s (JetStream error %d)", s.name, s.o.Replicas, api.Description, api.ErrorCode)
	case errors.As(err, &api):
		return fmt.Errorf("nats: stream %s: %s (JetStream error %d)", s.name, api.Description, api.ErrorCode)
	}
	return fmt.Errorf("nats: stream %s: %w", s.name, err)
}

// append stores data as the subject's next message, if its last is prev.
func (s *stream) append(ctx context.Context, subject string, prev uint64, data []byte) (seq uint64, err error) {
	ctx, done := s.denials.guard(ctx, subject)
	defer done(&err)
	ack, err := s.js.PublishMsg(ctx, &natsgo.Msg{Subject: subject, Data: data},
		jetstream.WithExpectLastSequencePerSubject(prev), jetstream.WithExpectStream(s.name))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// isConflict reports whether somebody else has appended meanwhile.
func isConflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// renew stores a node's sign of life in place of its last.
func (s *stream) renew(ctx context.Context, node string, data []byte) (seq uint64, err error) {
	ctx, done := s.denials.guard(ctx, s.nodeSubject(node))
	defer done(&err)
	msg := &natsgo.Msg{Subject: s.nodeSubject(node), Data: data, Header: natsgo.Header{}}
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(s.name))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// purge deletes the subject's messages before a sequence, or all if it is 0.
func (s *stream) purge(ctx context.Context, subject string, before uint64) (err error) {
	ctx, done := s.denials.guard(ctx, api("STREAM.PURGE"))
	defer done(&err)
	opts := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subject)}
	if before > 0 {
		opts = append(opts, jetstream.WithPurgeSequence(before))
	}
	made, err := s.get()
	if err != nil {
		return err
	}
	return made.Purge(ctx, opts...)
}

func (s *stream) delete(ctx context.Context, seq uint64) (err error) {
	ctx, done := s.denials.guard(ctx, api("STREAM.MSG.DELETE"))
	defer done(&err)
	made, err := s.get()
	if err != nil {
		return err
	}
	return made.DeleteMsg(ctx, seq)
}

func (s *stream) get() (jetstream.Stream, error) {
	if made := s.made.Load(); made != nil {
		return *made, nil
	}
	return nil, errNoStream
}

// nodes returns the ids of the nodes whose signs of life are stored.
func (s *stream) nodes(ctx context.Context) (ids []string, err error) {
	ctx, done := s.denials.guard(ctx, api("STREAM.INFO"))
	defer done(&err)
	own, err := s.js.Stream(ctx, s.name) // Info writes to what the other calls read
	if err != nil {
		return nil, err
	}
	info, err := own.Info(ctx, jetstream.WithSubjectFilter(s.nodeSubject("*")))
	if err != nil {
		return nil, err
	}
	for subject := range info.State.Subjects {
		if id := strings.TrimPrefix(subject, s.nodeSubject("")); names.IsToken(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// read returns the stored entries of a subject, and what they amount to.
func (s *stream) read(ctx context.Context, subject string) (_ map[uint64]*entry, _ replica, err error) {
	ctx, done := s.denials.guard(ctx, api("STREAM.MSG.GET"))
	defer done(&err)
	made, err := s.get()
	if err != nil {
		return nil, replica{}, err
	}
	var before struct { // what the last attempt found
		seq    uint64
		stored int
	}
	for range readAttempts {
		// The stream's leader knows the last; a consumer may be behind it.
		last, err := made.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, replica{members: map[string]held{}}, nil
		}
		if err != nil {
			return nil, replica{}, err
		}
		entries, whole, err := s.first(ctx, subject, last.Sequence)
		if err == nil && !whole {
			var logs map[string]map[uint64]*entry
			logs, err = s.fetch(ctx, subject)
			entries = logs[subject]
		}
		if err != nil {
			return nil, replica{}, err
		}
		r, ok := replay(entries, false)
		upToDate := len(r.seqs) > 0 && r.seqs[len(r.seqs)-1] >= last.Sequence
		if ok && upToDate && hasForeign(entries) {
			// What precedes such a message is only known if nobody deletes meanwhile.
			now, err := made.GetLastMsgForSubject(ctx, subject)
			ok = err == nil && now.Sequence == last.Sequence
		}
		if ok && upToDate {
			return entries, r, nil
		}
		if upToDate && before.seq == last.Sequence && before.stored == len(entries) {
			// Nobody writes, and still it does not fit: others have deleted or forged
			// entries. The nodes whose members are missing log them again.
			s.skipped(subject, errDamaged)
			r, _ = replay(entries, true)
			return entries, r, nil
		}
		before.seq, before.stored = last.Sequence, len(entries)
	}
	return nil, replica{}, errTorn
}

// first returns the first stored entries of a subject, and whether those are all
// up to last. A log that is emptied again and again is short, and fetch would
// wait each time for what is deleted meanwhile.
func (s *stream) first(ctx context.Context, subject string, last uint64) (entries map[uint64]*entry, whole bool, err error) {
	made, err := s.get()
	if err != nil {
		return nil, false, err
	}
	entries = map[uint64]*entry{}
	for seq := uint64(1); len(entries) < readFirst; seq++ {
		msg, err := made.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject)) // or the next
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return entries, true, nil // deleted meanwhile
		}
		if err != nil {
			return nil, false, err
		}
		seq = msg.Sequence
		entries[seq] = s.decode(subject, seq, msg.Data)
		if seq >= last {
			return entries, true, nil
		}
	}
	return nil, false, nil
}

// decode returns the entry that a stored message is. One that is none, or has broken
// members, is logged.
func (s *stream) decode(subject string, seq uint64, data []byte) *entry {
	e, err := decodeEntry(seq, data)
	if err != nil {
		s.skipped(subject, err)
		return foreignEntry(seq, 0)
	}
	for _, err := range e.skipped {
		s.skipped(subject, err)
	}
	return e
}

// skipped logs what is wrong with a message, once a minute.
func (s *stream) skipped(subject string, err error) {
	s.o.notices.Warn("skipped a presence message that is not pushy's, or is broken", "",
		slog.String("subject", subject), slog.Any("error", err))
}

// fetch returns the stored entries, by subject and sequence, of the subjects
// that match filter.
func (s *stream) fetch(ctx context.Context, filter string) (map[string]map[uint64]*entry, error) {
	logs := map[string]map[uint64]*entry{}
	err := s.each(ctx, filter, func(subject string, seq uint64, data []byte) {
		if logs[subject] == nil {
			logs[subject] = map[uint64]*entry{}
		}
		logs[subject][seq] = s.decode(subject, seq, data)
	})
	return logs, err
}

// each calls take with the stored messages of the subjects that match filter.
func (s *stream) each(ctx context.Context, filter string, take func(subject string, seq uint64, data []byte)) (err error) {
	ctx, done := s.denials.guard(ctx, api("CONSUMER.CREATE"), api("CONSUMER.MSG.NEXT"))
	defer done(&err)
	made, err := s.get()
	if err != nil {
		return err
	}
	c, err := made.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject:     filter,
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		InactiveThreshold: consumerIdle,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return err
	}
	name := c.CachedInfo().Name
	defer func() {
		// Nobody waits for the answer; a consumer that is left ends by itself.
		_ = s.js.Conn().Publish("$JS.API.CONSUMER.DELETE."+s.name+"."+name, nil)
	}()
	for left := c.CachedInfo().NumPending; left > 0; {
		// Not FetchNoWait: when the messages are deleted meanwhile the server may
		// not answer that, and nats.go waits for a second.
		batch, err := c.Fetch(int(min(left, readBatch)), jetstream.FetchMaxWait(readWait))
		if err != nil {
			return err
		}
		got := false
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil {
				return err
			}
			got, left = true, meta.NumPending
			take(msg.Subject(), meta.Sequence.Stream, msg.Data())
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if !got || ctx.Err() != nil {
			return ctx.Err() // deleted meanwhile
		}
	}
	return nil
}

// checkTold returns a told message's place in the stream, and that of the one before
// it of its subject. ok is false for one that the stream did not send.
func (s *stream) checkTold(msg *natsgo.Msg) (seq, prev uint64, ok bool) {
	stored := s.base + ".p" + strings.TrimPrefix(msg.Subject, s.base+".o")
	if msg.Header.Get(jetstream.StreamHeader) != s.name || msg.Header.Get(jetstream.SubjectHeader) != stored {
		return 0, 0, false
	}
	seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || seq == 0 || seq > maxSequence {
		return 0, 0, false
	}
	prev, err = strconv.ParseUint(msg.Header.Get(jetstream.LastSequenceHeader), 10, 64)
	return seq, prev, err == nil && prev < seq
}
