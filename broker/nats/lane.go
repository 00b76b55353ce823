package nats

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/guard"
)

// laneSize is how many messages may wait to be delivered before some are lost, and
// their channels reset.
const laneSize = 1 << 16

// lane delivers the messages of some channels, in the order in which they came. nats.go
// would start a goroutine for every channel instead.
type lane struct {
	b  *Broker
	in chan *natsgo.Msg

	mu   sync.Mutex
	subs map[*natsgo.Subscription]*followed
}

func (l *lane) run() {
	consume(l.in, l.b.done, func(msg *natsgo.Msg) { l.b.guarded(func() { l.take(msg) }) }, l.lost)
}

// guarded runs f for one message. A panic ends it, and not the process.
func (b *Broker) guarded(f func()) {
	if err := guard.Run(f); err != nil {
		b.o.notices.Warn("panic over a message from NATS", "", slog.Any("error", err), guard.Stack(err))
	}
}

// consume has what comes in taken until done is closed. When nats.go may have
// dropped messages, since it found in full, lost is called once what was in has been
// taken. Its own report comes for the first of several only. Nobody else may take
// from in.
func consume(in <-chan *natsgo.Msg, done <-chan struct{}, take func(*natsgo.Msg), lost func()) {
	full, older := false, 0 // of the messages in, those from before it was full
	for {
		select {
		case <-done:
			return
		case msg := <-in:
			if !full && len(in) >= cap(in)-1 { // it was full just before
				full, older = true, cap(in)
			}
			take(msg)
			older--
		}
		if full && (older <= 0 || len(in) == 0) {
			full = false
			lost()
		}
	}
}

func (l *lane) take(msg *natsgo.Msg) {
	l.mu.Lock()
	f := l.subs[msg.Sub]
	l.mu.Unlock()
	if f == nil {
		return // unfollowed meanwhile
	}
	var err error
	if len(msg.Data) > 0 && msg.Data[0] == formKept {
		err = l.b.takeKept(f, msg)
	} else {
		err = f.takePlain(msg.Data)
	}
	if err != nil {
		l.b.skipped(msg.Subject, err)
	}
}

// skipped logs what is wrong with a message, once a minute.
func (b *Broker) skipped(subject string, err error) {
	b.o.notices.Warn("skipped a message that is not pushy's, or is broken", "",
		slog.String("subject", subject), slog.Any("error", err))
}

func (f *followed) takePlain(data []byte) error {
	e, err := decodePlain(data)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.gone {
		f.b.sink.Deliver(f.channel, e)
	}
	return nil
}

// decodePlain reads an event that is not kept.
func decodePlain(data []byte) (broker.Entry, error) {
	if len(data) == 0 || data[0] != formPlain {
		return broker.Entry{}, errBroken
	}
	e, err := broker.ParseEntry(data[1:])
	if err == nil && (e.Kind != broker.Event || e.Keep.Size > 0) {
		err = errBroken
	}
	return e, err
}

// takeKept takes a message of a log, which its stream has sent again.
func (b *Broker) takeKept(f *followed, msg *natsgo.Msg) error {
	m, err := decodeKept(msg.Data)
	if err != nil {
		return err
	}
	class, ok := strings.CutPrefix(msg.Header.Get(jetstream.StreamHeader), b.subjects.stream)
	seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if !ok || err != nil || seq == 0 || seq > maxNumber || !older(reversed(m.tail), seq) {
		return errors.New("nats: a message that no stream of pushy sent")
	}
	b.logs.learn(f.channel, class, seq, m)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.class = class
	f.takeKeptLocked(m)
	return nil
}

// lost resets the channels whose messages nats.go had no room for.
func (l *lane) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sub, f := range l.subs {
		dropped, err := sub.Dropped()
		if err == nil && dropped != f.dropped {
			f.dropped = dropped
			l.b.reset(f, broker.ResetGap)
		}
	}
}
