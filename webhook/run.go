package webhook

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
)

// handoverTime limits how long a shutdown waits for the events of this node.
const handoverTime = 5 * time.Second

// forever makes sleep wait until something happens.
const forever time.Duration = -1

// phase is how far the end of a Sender has come.
type phase struct {
	mu       sync.Mutex
	stopping bool // the Server shuts down
	retired  bool // another node sends from now on
	closing  bool // Close was called
	refused  bool // the receiver wants no more requests

	retiring chan struct{} // closed when retired is set
	handed   chan struct{} // closed when stopping is set and there is nothing to send
}

func newPhase() phase {
	return phase{
		retiring: make(chan struct{}),
		handed:   make(chan struct{}),
	}
}

// hurries reports whether events are sent without waiting for others.
func (p *phase) hurries() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping || p.closing
}

func (p *phase) isRetired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retired
}

func (p *phase) isRefused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *phase) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
}

func (p *phase) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = true
}

// stop begins the end. With retire, this node sends no more requests.
func (p *phase) stop(retire bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	if retire {
		p.retired = true
		close(p.retiring)
	}
}

// idle is called when there is nothing to send. It reports whether that is the end.
func (p *phase) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		select {
		case <-p.handed:
		default:
			close(p.handed)
		}
	}
	return p.closing
}

// sequence makes the ids of events that no entry of the log has caused.
type sequence struct {
	prefix string
	n      atomic.Uint64
}

func (q *sequence) next() string { return q.prefix + "-" + strconv.FormatUint(q.n.Add(1), 10) }

func (s *Sender) lostEvent(count int, reason string) item {
	data, _ := s.form.encode(event{ // it has nothing that cannot be encoded
		ID:     s.ids.next(),
		Event:  EventsLost,
		At:     time.Now().UnixMilli(),
		Reason: reason,
		Count:  count,
	})
	return item{
		json:  data,
		lost:  reason,
		count: count,
	}
}

// run sends the events while it is the turn of this node.
func (s *Sender) run() {
	defer close(s.ended)
	for s.ctx.Err() == nil {
		wait, idle := s.step()
		if idle && s.phase.idle() {
			return
		}
		s.sleep(wait)
	}
}

// step does what is to be done next. It returns how long to wait after that, and whether there is
// nothing to send.
func (s *Sender) step() (wait time.Duration, idle bool) {
	c := &s.cursor
	switch {
	case s.phase.isRefused():
		s.queue.clear()
		return c.save(), true
	case s.phase.isRetired():
		return c.save(), true
	case !s.isSender():
		return c.follow(), true
	case !c.take():
		return cursorRetry, s.hub.Stopping()
	}
	items, wait := s.queue.batch(time.Now(), s.phase.hurries())
	if len(items) == 0 {
		if wait > 0 {
			return wait, false
		}
		return c.save(), true
	}
	s.send(items)
	c.savedAt = time.Time{} // at once, so that the next node does not send the same again
	c.save()
	return 0, false
}

// send sends the first events of the queue.
func (s *Sender) send(items []item) {
	switch s.post(s.ctx, items) {
	case accepted:
		s.logLost(items)
		s.queue.done(len(items))
	case expired:
		s.log.Error("events were not sent: the receiver of webhooks has not accepted them",
			"name", s.opts.Name, "events", len(items), "for", s.form.trying())
		s.queue.expire(len(items))
	case refused:
		s.log.Error("the receiver of webhooks wants no more events (status 410): pushy sends none until the next start",
			"name", s.opts.Name)
		s.phase.refuse()
	}
}

// logLost logs what the receiver is not told.
func (s *Sender) logLost(items []item) {
	for _, it := range items {
		if len(it.json) == 0 && it.lost != reasonExpired { // which was logged when it happened
			s.log.Error("webhooks were lost: read the lists of channels and members again",
				"name", s.opts.Name, "events", it.count, "reason", it.lost)
		}
	}
}

// sleep waits until something happens, at most for that time.
func (s *Sender) sleep(wait time.Duration) {
	if wait == 0 {
		return
	}
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-s.wake:
	case <-timeout:
	case <-s.ctx.Done():
	}
}

// isSender reports whether it is the turn of this node.
func (s *Sender) isSender() bool {
	if s.local {
		return true
	}
	first, _ := s.view.sender()
	return first == s.view.node
}

// handOver waits until the Server shuts down. Then this node stops sending if there is another
// one; otherwise it sends what it has. Shutdown waits for that before it closes the broker,
// because the cursor is there.
func (s *Sender) handOver(ctx context.Context) {
	<-ctx.Done()
	_, others := s.view.sender()
	s.phase.stop(others)
	s.signal()
	timer := time.NewTimer(handoverTime)
	defer timer.Stop()
	select {
	case <-s.phase.handed:
	case <-s.ended:
	case <-timer.C:
	}
	if !others {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handoverTime)
	defer cancel()
	_, err := s.hub.Broker().Append(ctx, s.writer.channel, broker.Entry{
		Kind:   broker.Leave,
		Member: s.nodeRecord(),
		Owner:  s.writer.owner,
	})
	if err != nil { // the others continue when the lease of this node has expired
		s.logFailed("cannot hand over the webhooks at once", err)
	}
}

// closeIdle closes the connections to the receiver.
func (s *Sender) closeIdle() {
	if t, ok := s.client.Transport.(*http.Transport); ok && s.opts.Transport == nil {
		t.CloseIdleConnections()
	}
}
