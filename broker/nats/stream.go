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
	errConflict = errors.New("nats: another node has written meanwhile")
	errNone     = errors.New("nats: there is no such message")
	errChanging = errors.New("nats: what was to be written changed too often meanwhile")
)

// The server's error codes for which nats.go has no names.
const (
	errMaxBytesRequired     jetstream.ErrorCode = 10113
	errMaxBytesOverLimit    jetstream.ErrorCode = 10122
	errReplicasNotClustered jetstream.ErrorCode = 10074
	errSubjectsOverlap      jetstream.ErrorCode = 10065
)

// subjects makes subjects and names of streams.
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

// token is a name as one token of a subject.
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

// untoken is token's inverse. ok is false for what token does not make.
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

// api is the subject of JetStream's requests of a kind.
func api(kind string) string { return "$JS.API." + kind }

// call bounds what is asked of NATS by Options.Timeout and by the connection's life,
// and sorts its errors. Denials of the subjects are its error.
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
	b.goAway(link, err)
	return fmt.Errorf("%w: %w", broker.ErrAway, err)
}

// hasCode reports whether err is JetStream's answer with a code.
func hasCode(err error, code jetstream.ErrorCode) bool {
	var answered *jetstream.APIError
	return errors.As(err, &answered) && answered.ErrorCode == code
}

// isGone reports whether an error of JetStream means that what was there is not.
func isGone(code jetstream.ErrorCode) bool {
	switch code {
	case jetstream.JSErrCodeStreamNotFound,
		jetstream.JSErrCodeJetStreamNotEnabled,
		jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return true
	}
	return false
}

// explain names the setting that an error of JetStream is about.
func (b *Broker) explain(err error) error {
	var answered *jetstream.APIError
	var setting *SettingError
	switch {
	case errors.As(err, &setting):
		return setting
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, natsgo.ErrNoResponders):
		return wrong("URL", "%s has no JetStream, which is needed (nats-server -js)", shown(b.o.servers))
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

// stream returns a stream, and makes it if it is not there.
func (b *Broker) stream(ctx context.Context, c jetstream.StreamConfig) (s jetstream.Stream, err error) {
	c.Replicas, c.MaxBytes, c.Discard = b.o.Replicas, -1, jetstream.DiscardNew
	if b.o.MaxBytes > 0 {
		c.MaxBytes = b.o.MaxBytes
	}
	err = b.call(ctx, func(ctx context.Context) error {
		s, err = b.js.Stream(ctx, c.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = b.js.CreateStream(ctx, c)
		}
		// Another node may have created it meanwhile. Which of the two errors the server
		// returns then depends on how far that request has come.
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || hasCode(err, errSubjectsOverlap) {
			if made, again := b.js.Stream(ctx, c.Name); again == nil {
				s, err = made, nil
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

// streams are those that there always are.
type streams struct {
	members jetstream.Stream // and the signs of life of nodes
	ids     jetstream.Stream // records with a short life
	records jetstream.Stream // and those with a long one
}

func (b *Broker) storage() jetstream.StorageType {
	if b.o.Files {
		return jetstream.FileStorage
	}
	return jetstream.MemoryStorage
}

// put stores data as the subject's next message if its last is prev, or fails with
// errConflict.
func (b *Broker) put(ctx context.Context, subject string, prev uint64, data []byte) (seq uint64, err error) {
	if err := b.fits(len(data)); err != nil {
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

// headers is how much of max_payload is left to headers, NATS's and ours.
const headers = 512

// fits fails with broker.ErrTooLarge for a message that NATS cannot take.
func (b *Broker) fits(size int) error {
	most := b.nc.MaxPayload()
	if most > 0 && int64(size+headers) > most {
		return fmt.Errorf("nats: %w: it has %d bytes, and the max_payload of NATS is %d", broker.ErrTooLarge, size, most)
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

// at returns the message with a sequence, or errNone.
func (b *Broker) at(ctx context.Context, s jetstream.Stream, seq uint64) (msg *jetstream.RawStreamMsg, err error) {
	err = b.call(ctx, func(ctx context.Context) error {
		msg, err = s.GetMsg(ctx, seq)
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errNone
	}
	return msg, err
}

// info returns what is known of a stream now.
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

// remove deletes messages of a stream. Nobody waits for it: one that stays is removed
// by the next who finds it useless, or by its age.
func (b *Broker) remove(stream string, seqs ...uint64) {
	for _, seq := range seqs {
		request, _ := json.Marshal(map[string]any{"seq": seq, "no_erase": true})
		_ = b.nc.Publish(api("STREAM.MSG.DELETE.")+stream, request)
	}
}

// removeSubject deletes the messages of a subject up to a sequence, like remove.
func (b *Broker) removeSubject(stream, subject string, seq uint64) {
	request, _ := json.Marshal(map[string]any{"filter": subject, "seq": seq + 1})
	_ = b.nc.Publish(api("STREAM.PURGE.")+stream, request)
}

// otherFormat is how long a stream of another format must be silent before its nodes
// count as gone.
const otherFormat = time.Minute

// checkFormat fails with broker.ErrVersion if nodes of another format are there.
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
		err = wrong("Prefix", "%q: %w: %s, this node has %d", b.o.Prefix, broker.ErrVersion, other, broker.FormatVersion)
	}
	return err
}
