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

// queueSize is the number of messages that a worker's queue can hold. When it is full,
// messages are lost and their channels are reset.
const queueSize = 1 << 16

// worker delivers the messages of some channels, in the order in which they were received.
// nats.go would start one goroutine for every channel instead.
type worker struct {
	b  *Broker
	in chan *natsgo.Msg

	mu   sync.Mutex
	subs map[*natsgo.Subscription]*followed
}

func (w *worker) run() {
	consume(w.in, w.b.done, func(msg *natsgo.Msg) { w.b.guarded(func() { w.handle(msg) }) }, w.lost)
}

// guarded runs f for one message. It logs a panic, so that the process continues.
func (b *Broker) guarded(f func()) {
	if err := guard.Run(f); err != nil {
		b.o.notices.Warn("a message from NATS caused a panic", "", slog.Any("error", err), guard.Stack(err))
	}
}

// consume calls handle with the messages from in until done is closed. nats.go drops messages
// when in is full, and reports only the first of several drops. Therefore consume calls lost
// after in was full, when the messages that were in it then have been handled. Nothing else
// may receive from in.
func consume(in <-chan *natsgo.Msg, done <-chan struct{}, handle func(*natsgo.Msg), lost func()) {
	full := false
	older := 0 // messages that were in the channel when it was full
	for {
		select {
		case <-done:
			return
		case msg := <-in:
			if !full && len(in) >= cap(in)-1 { // it was full before this receive
				full = true
				older = cap(in)
			}
			handle(msg)
			older--
		}
		if full && (older <= 0 || len(in) == 0) {
			full = false
			lost()
		}
	}
}

func (w *worker) handle(msg *natsgo.Msg) {
	w.mu.Lock()
	f := w.subs[msg.Sub]
	w.mu.Unlock()
	if f == nil {
		return // no longer followed
	}
	var err error
	if len(msg.Data) > 0 && msg.Data[0] == formKept {
		err = w.b.handleKept(f, msg)
	} else {
		err = f.deliverPlain(msg.Data)
	}
	if err != nil {
		w.b.skipped(msg.Subject, err)
	}
}

// skipped logs that an invalid message was skipped, at most once a minute.
func (b *Broker) skipped(subject string, err error) {
	b.o.notices.Warn("skipped a message that is invalid or was not sent by pushy", "",
		slog.String("subject", subject), slog.Any("error", err))
}

func (f *followed) deliverPlain(data []byte) error {
	e, err := decodePlain(data)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.unfollowed {
		f.b.sink.Deliver(f.channel, e)
	}
	return nil
}

// decodePlain decodes an event that is not kept.
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

// handleKept handles a message of a log, which its stream has republished.
func (b *Broker) handleKept(f *followed, msg *natsgo.Msg) error {
	m, err := decodeKept(msg.Data)
	if err != nil {
		return err
	}
	class, ok := strings.CutPrefix(msg.Header.Get(jetstream.StreamHeader), b.subjects.stream)
	seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if !ok || err != nil || seq == 0 || seq > maxNumber || !older(reversed(m.tail), seq) {
		return errors.New("nats: the message was not sent by a stream of pushy")
	}
	b.logs.observe(f.channel, class, seq, m)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.class = class
	f.handleKeptLocked(m)
	return nil
}

// lost resets the channels of which nats.go has dropped messages.
func (w *worker) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for sub, f := range w.subs {
		dropped, err := sub.Dropped()
		if err == nil && dropped != f.dropped {
			f.dropped = dropped
			w.b.reset(f, broker.ResetGap)
		}
	}
}
