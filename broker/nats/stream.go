package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
)

var (
	errConflict = errors.New("nats: another node has written in the meantime")
	errNone     = errors.New("nats: the message does not exist")
	errChanging = errors.New("nats: too many conflicts with other nodes")
)

// Error codes of the server for which nats.go has no names.
const (
	errMaxBytesRequired     jetstream.ErrorCode = 10113
	errMaxBytesOverLimit    jetstream.ErrorCode = 10122
	errReplicasNotClustered jetstream.ErrorCode = 10074
	errSubjectsOverlap      jetstream.ErrorCode = 10065
)

// subjects returns the subjects and the names of streams.
type subjects struct{ base, stream string }

func newSubjects(prefix string) subjects {
	version := strconv.Itoa(broker.FormatVersion)
	return subjects{base: prefix + "." + version, stream: prefix + "-" + version + "-"}
}

func (s subjects) channel(channel string) string { return s.base + ".c." + token(channel) }
func (s subjects) log(class, channel string) string {
	return s.base + ".k." + class + "." + token(channel)
}
func (s subjects) logs(class string) string       { return s.base + ".k." + class + ".*" }
func (s subjects) generation(class string) string { return s.base + ".k." + class + ".%gen" }
func (s subjects) member(channel, member string) string {
	return s.base + ".m.c." + token(channel) + "." + token(member)
}
func (s subjects) node(node string) string   { return s.base + ".m.n." + token(node) }
func (s subjects) class(class string) string { return s.base + ".m.k." + class }
func (s subjects) epoch() string             { return s.base + ".m.s.epoch" }
func (s subjects) claim(stream, hash string) string {
	return s.base + "." + stream + "." + hash
}

// token encodes a name as one token of a subject.
func token(name string) string {
	const hex = "0123456789ABCDEF"
	if name == "" {
		return "%"
	}
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// untoken is the inverse of token. ok is false for strings that token does not return.
func untoken(t string) (name string, ok bool) {
	if t == "%" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		if t[i] != '%' {
			b.WriteByte(t[i])
			continue
		}
		if i+2 >= len(t) {
			return "", false
		}
		c, err := strconv.ParseUint(t[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), t != "" && token(b.String()) == t
}

// api returns the subject of JetStream's requests of a kind.
func api(kind string) string { return "$JS.API." + kind }

// call runs a request to JetStream. Its context ends after Options.Timeout, when NATS is away,
// and when NATS denies one of the subjects. If NATS cannot be used any more, call marks it as
// away, and the error wraps broker.ErrAway.
func (b *Broker) call(ctx context.Context, f func(context.Context) error, subjects ...string) error {
	link := b.link()
	inner, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	defer context.AfterFunc(link, cancel)()
	inner, done := b.denials.guard(inner, append(subjects, api(""))...)
	err := f(inner)
	done(&err)
	switch {
	case err == nil, errors.Is(err, jetstream.ErrMsgNotFound):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("nats: %w", context.Cause(ctx))
	case b.isClosed():
		return broker.ErrClosed
	case isDenied(err):
		return err
	}
	var answered *jetstream.APIError
	if errors.As(err, &answered) && !isGone(answered.ErrorCode) {
		return b.explain(err)
	}
	err = b.explain(err)
	b.markAway(link, err)
	return fmt.Errorf("%w: %w", broker.ErrAway, err)
}

// hasCode reports whether err is an answer of JetStream with a code.
func hasCode(err error, code jetstream.ErrorCode) bool {
	var answered *jetstream.APIError
	return errors.As(err, &answered) && answered.ErrorCode == code
}

// isGone reports whether an error code of JetStream means that the streams do not exist any
// more.
func isGone(code jetstream.ErrorCode) bool {
	switch code {
	case jetstream.JSErrCodeStreamNotFound,
		jetstream.JSErrCodeJetStreamNotEnabled,
		jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return true
	}
	return false
}

// explain returns the *SettingError for an error of JetStream, if it is about an option.
func (b *Broker) explain(err error) error {
	var answered *jetstream.APIError
	var setting *SettingError
	switch {
	case errors.As(err, &setting):
		return setting
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, natsgo.ErrNoResponders):
		return wrong("URL", "%s has no JetStream, which is required (nats-server -js)", shown(b.o.servers))
	case !errors.As(err, &answered):
		return fmt.Errorf("nats: %w", err)
	}
	switch answered.ErrorCode {
	case errMaxBytesRequired, errMaxBytesOverLimit:
		return wrong("MaxBytes", "%d: %s", b.o.MaxBytes, answered.Description)
	case errReplicasNotClustered:
		return wrong("Replicas", "%d: %s", b.o.Replicas, answered.Description)
	case errSubjectsOverlap:
		return wrong("Prefix", "%q: a stream of another program stores these subjects", b.o.Prefix)
	}
	return fmt.Errorf("nats: %s (JetStream error %d)", answered.Description, answered.ErrorCode)
}

// stream returns a stream, and creates it if it does not exist.
func (b *Broker) stream(ctx context.Context, c jetstream.StreamConfig) (s jetstream.Stream, err error) {
	c.Replicas = b.o.Replicas
	c.Discard = jetstream.DiscardNew
	c.MaxBytes = -1
	if b.o.MaxBytes > 0 {
		c.MaxBytes = b.o.MaxBytes
	}
	err = b.call(ctx, func(ctx context.Context) error {
		s, err = b.js.Stream(ctx, c.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = b.js.CreateStream(ctx, c)
		}
		// Another node may have created it since then. Which of the two errors the server
		// returns then depends on how far that request has come.
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || hasCode(err, errSubjectsOverlap) {
			if made, again := b.js.Stream(ctx, c.Name); again == nil {
				s = made
				err = nil
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	is := s.CachedInfo().Config
	if len(is.Subjects) != 1 || is.Subjects[0] != c.Subjects[0] || (is.RePublish == nil) != (c.RePublish == nil) {
		return nil, wrong("Prefix", "%q: the stream %s is not pushy's", b.o.Prefix, c.Name)
	}
	return s, nil
}

// streams are the streams that always exist.
type streams struct {
	members jetstream.Stream // members, heartbeats, classes and the epoch
	ids     jetstream.Stream // records with a short lifetime
	records jetstream.Stream // records with a long lifetime
}

func (b *Broker) storage() jetstream.StorageType {
	if b.o.Files {
		return jetstream.FileStorage
	}
	return jetstream.MemoryStorage
}

// compareAndStore stores data as the next message of a subject if the sequence of its last
// message is prev, and otherwise returns errConflict.
func (b *Broker) compareAndStore(
	ctx context.Context, subject string, prev uint64, data []byte,
) (seq uint64, err error) {
	if err := b.checkSize(len(data)); err != nil {
		return 0, err
	}
	msg := &natsgo.Msg{Subject: subject, Data: data}
	err = b.call(ctx, func(ctx context.Context) error {
		ack, err := b.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(prev))
		if err == nil {
			seq = ack.Sequence
		}
		if hasCode(err, jetstream.JSErrCodeStreamWrongLastSequence) {
			seq, err = 0, nil
		}
		return err
	}, subject)
	if err == nil && seq == 0 {
		return 0, errConflict
	}
	return seq, err
}

// headers is the part of max_payload that is reserved for headers.
const headers = 512

// checkSize returns broker.ErrTooLarge for a message that is too large for NATS.
func (b *Broker) checkSize(size int) error {
	limit := b.nc.MaxPayload()
	if limit > 0 && int64(size+headers) > limit {
		return fmt.Errorf("nats: %w: it has %d bytes, and the max_payload of NATS is %d", broker.ErrTooLarge, size, limit)
	}
	return nil
}

// last returns the last message of a subject, or errNone.
func (b *Broker) last(
	ctx context.Context, s jetstream.Stream, subject string,
) (msg *jetstream.RawStreamMsg, err error) {
	err = b.call(ctx, func(ctx context.Context) error {
		msg, err = s.GetLastMsgForSubject(ctx, subject)
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errNone
	}
	return msg, err
}

// at returns the message with a sequence, or errNone. With jetstream.WithGetMsgSubject, it
// returns the first message of a subject that has at least that sequence.
func (b *Broker) at(
	ctx context.Context, s jetstream.Stream, seq uint64, o ...jetstream.GetMsgOpt,
) (msg *jetstream.RawStreamMsg, err error) {
	err = b.call(ctx, func(ctx context.Context) error {
		msg, err = s.GetMsg(ctx, seq, o...)
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errNone
	}
	return msg, err
}

// info returns the current state of a stream.
func (b *Broker) info(ctx context.Context, name string) (info *jetstream.StreamInfo, err error) {
	err = b.call(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, name)
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	return info, err
}

// remove deletes messages of a stream. It does not wait for the result: a message that remains
// is removed by a later call, or because of its age.
func (b *Broker) remove(stream string, seqs ...uint64) {
	for _, seq := range seqs {
		request, _ := json.Marshal(map[string]any{"seq": seq, "no_erase": true})
		_ = b.nc.Publish(api("STREAM.MSG.DELETE.")+stream, request)
	}
}

// otherFormat is the time without messages after which a stream of another format counts as
// unused.
const otherFormat = time.Minute

// checkFormat returns an error that wraps broker.ErrVersion if nodes of another format use the
// same Prefix.
func (b *Broker) checkFormat(ctx context.Context) error {
	name := regexp.MustCompile("^" + regexp.QuoteMeta(b.o.Prefix) + `-(\d+)-members$`)
	other := ""
	err := b.call(ctx, func(ctx context.Context) error {
		list := b.js.ListStreams(ctx, jetstream.WithStreamListSubject(b.o.Prefix+".*.m.>"))
		for info := range list.Info() {
			match := name.FindStringSubmatch(info.Config.Name)
			recent := time.Since(info.State.LastTime) < max(otherFormat, 2*b.lease)
			if recent && match != nil && match[1] != strconv.Itoa(broker.FormatVersion) {
				other = match[1]
			}
		}
		return list.Err()
	})
	if err == nil && other != "" {
		err = wrong("Prefix", "%q: %w: they have version %s, this node has version %d",
			b.o.Prefix, broker.ErrVersion, other, broker.FormatVersion)
	}
	return err
}
