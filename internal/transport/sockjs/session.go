package sockjs

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/session"
)

var (
	_ session.Session = (*httpSession)(nil)
	_ fanout.Puller   = (*httpSession)(nil)
)

var (
	errAbsent  = errors.New("no request arrived within the disconnect delay")
	errAborted = errors.New("the client aborted a request that was being answered")
	errInbox   = errors.New("too many messages waiting")
)

// attachWait is how long a request waits until the previous request has detached. The
// server may detect the end of a request only after the client, which has read the response
// completely or aborted the request, has sent the next one.
const attachWait = 250 * time.Millisecond

// maxInbox is the largest number of bodies in an inbox. In addition, their messages have at
// most four times MaxMessage bytes.
const maxInbox = 1000

// inboxBody is a body whose messages wait until earlier commands have ended.
type inboxBody struct {
	frame []byte
	size  int64 // the size of its messages, with escapes decoded
}

// httpSession is a Session over the HTTP transports of SockJS. Messages of the client arrive
// in separate requests. Messages for the client are written in the response to a receiving
// request, the receiver. The session ends when there has been no receiver for
// DisconnectDelay, or when the client aborts a receiver.
type httpSession struct {
	h        *Handler
	id       string
	protocol string
	polls    bool     // it began with a transport that does not stream
	elements elements // of the body whose messages Receive returns; only the reader uses it

	wake    chan struct{} // has an element if frames are queued, or the session has ended
	arrived chan struct{} // has an element if the inbox may have bodies
	halt    chan struct{} // closed when halted is set
	started chan struct{} // closed when out is set
	dead    chan struct{} // closed by Abort

	stream atomic.Pointer[stream] // the receiver, if that is a stream

	mu         sync.Mutex // guards the fields below
	out        *fanout.Outbox
	page       *string // the origin of the page of the session; nil until a request has one
	opened     bool    // the open frame of SockJS has been sent
	streams    int     // streams that have begun
	inbox      []inboxBody
	inboxBytes int64 // the size of all messages in inbox
	halted     *session.CloseError
	receiver   chan struct{} // closed when the current receiver detaches; nil if there is none
	answering  int           // the number of receivers that have not returned; one may still write
	absent     *time.Timer   // runs while there is no receiver; nil before the first time
	until      time.Time     // the end of the absence; zero while there is a receiver
	aborted    bool
	closed     *fanout.CloseFrame // set when the session has ended; the response to later receivers
}

func newHTTPSession(h *Handler, id string, f *framing) *httpSession {
	return &httpSession{
		h:        h,
		id:       id,
		protocol: f.protocol,
		polls:    !f.streaming,
		wake:     make(chan struct{}, 1),
		arrived:  make(chan struct{}, 1),
		halt:     make(chan struct{}),
		started:  make(chan struct{}),
		dead:     make(chan struct{}),
	}
}

// belongsTo reports whether r has the same page origin as the session, or no page origin. A
// client that knows the id of a session can use it, except scripts of other sites.
func (s *httpSession) belongsTo(r *http.Request) bool {
	page, said := origin.Page(r)
	if !said {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.page == nil {
		s.page = &page
	}
	return *s.page == page
}

func (s *httpSession) Form() fanout.Form { return fanout.Text }
func (s *httpSession) Protocol() string  { return s.protocol }
func (s *httpSession) ShutdownCode() int { return session.CloseShutdown }

// Wake leaves what is queued to the stream. Without a stream, a receiver writes it.
func (s *httpSession) Wake() time.Duration {
	if st := s.stream.Load(); st != nil && st.push() {
		return 0
	}
	signal(s.wake)
	if s.polls {
		return pollCost
	}
	return fanout.IndirectCost
}

// pollCost is about what the response to a poll costs, and the next request.
const pollCost = 40 * time.Microsecond

// signal adds an element to a channel of capacity 1, unless it has one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *httpSession) Start(out *fanout.Outbox) {
	s.mu.Lock()
	s.out = out
	s.mu.Unlock()
	close(s.started)
}

func (s *httpSession) Receive() ([]byte, error) {
	for {
		s.mu.Lock()
		if s.halted != nil {
			s.inbox = nil
			s.countLocked(-s.inboxBytes)
			s.mu.Unlock()
			return nil, s.halted
		}
		s.mu.Unlock()
		if message, ok := s.elements.next(); ok {
			return message, nil
		}
		s.mu.Lock()
		if len(s.inbox) > 0 {
			body := s.inbox[0]
			s.inbox = s.inbox[1:]
			s.countLocked(-body.size)
			s.mu.Unlock()
			s.elements.openValid(body.frame)
			continue
		}
		s.inbox = nil // also releases its array
		s.mu.Unlock()
		select {
		case <-s.arrived:
		case <-s.halt:
		}
	}
}

// deliver adds a body, which is a valid SockJS frame, to the inbox. A client that sends
// messages faster than its commands are handled is disconnected.
func (s *httpSession) deliver(frame []byte) {
	body := inboxBody{frame, messagesLen(frame)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.halted != nil: // the response to the client's receiver has the close frame
	case len(s.inbox) >= maxInbox, len(s.inbox) > 0 && s.inboxBytes+body.size > 4*int64(s.h.cfg.MaxMessage):
		s.haltLocked(&session.CloseError{
			Cause:  session.Fault,
			Code:   1008,
			Reason: errInbox.Error(),
			Err:    errInbox,
		})
	default:
		s.inbox = append(s.inbox, body)
		s.countLocked(body.size)
		signal(s.arrived)
	}
}

// countLocked adds to the size of the messages in the inbox.
func (s *httpSession) countLocked(bytes int64) {
	s.inboxBytes += bytes
	if reading := s.h.cfg.Reading; reading != nil {
		reading.Add(bytes)
	}
}

func (s *httpSession) haltLocked(err *session.CloseError) {
	if s.halted == nil {
		s.halted = err
		close(s.halt)
	}
}

func (s *httpSession) Stop() {
	s.mu.Lock()
	s.haltLocked(&session.CloseError{Cause: session.Stopped})
	s.mu.Unlock()
}

// markLost ends the session without a close frame. Its id can be used again at once.
func (s *httpSession) markLost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.markLostLocked(err)
}

func (s *httpSession) markLostLocked(err error) {
	s.haltLocked(session.LostError(err))
	if !s.aborted {
		s.aborted = true
		s.presentLocked()
		// Remove it before other requests can see that it is aborted, because they then open
		// a new session with the same id.
		s.h.table.remove(s)
		close(s.dead)
		if st := s.stream.Load(); st != nil {
			go st.over() // it needs s.mu
		}
	}
}

// Abort also ends the requests of the session. A request whose write blocks ends with the
// write timeout.
func (s *httpSession) Abort() { s.markLost(net.ErrClosed) }

// Linger waits until a receiver has written the close frame, for at most WriteTimeout and
// CloseTimeout. Then it keeps the session, so that later receivers get the close frame
// again, for the smaller of DisconnectDelay and CloseTimeout.
func (s *httpSession) Linger() {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	if out != nil {
		timer := time.NewTimer(s.h.cfg.WriteTimeout + s.h.cfg.CloseTimeout)
		defer timer.Stop()
		select {
		case <-out.Done():
		case <-s.dead:
		case <-timer.C:
		}
		defer out.Discard()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil {
		s.markLostLocked(errAbsent)
	} else if !s.aborted {
		s.absentLocked(min(s.h.cfg.DisconnectDelay, s.h.cfg.CloseTimeout))
	}
}

// absentLocked ends the session after delay, unless presentLocked is called before.
func (s *httpSession) absentLocked(delay time.Duration) {
	s.until = time.Now().Add(delay)
	if s.absent != nil {
		s.absent.Reset(delay)
		return
	}
	s.absent = time.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.until.IsZero() && !time.Now().Before(s.until) { // a stopped timer may have fired already
			s.markLostLocked(errAbsent)
		}
	})
}

func (s *httpSession) presentLocked() {
	s.until = time.Time{}
	if s.absent != nil {
		s.absent.Stop()
	}
}

// attach makes the caller the receiver when the previous one has detached. The caller must
// call detach and then responseDone. If the caller cannot be the receiver, detach is nil, and
// instead is the close frame for the client. Both are nil if the session was aborted or ctx
// has ended.
func (s *httpSession) attach(ctx context.Context) (detach func(), instead *fanout.CloseFrame) {
	var timer *time.Timer // most requests do not wait
	for {
		s.mu.Lock()
		before := s.receiver
		dead := s.aborted
		end := s.closed
		if before == nil && !dead && end == nil {
			gone := make(chan struct{})
			s.receiver = gone
			s.answering++
			s.presentLocked()
			s.mu.Unlock()
			return func() { s.detach(gone) }, nil
		}
		s.mu.Unlock()
		if dead || end != nil {
			return nil, end
		}
		if timer == nil {
			timer = time.NewTimer(attachWait)
			defer timer.Stop()
		}
		select {
		case <-before:
		case <-s.dead:
		case <-ctx.Done():
			return nil, nil
		case <-timer.C:
			return nil, &fanout.CloseFrame{Code: 2010, Reason: "Another connection still open"}
		}
	}
}

// detach makes room for the next receiver. It can be called more than once for the same
// receiver.
func (s *httpSession) detach(receiver chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receiver == receiver {
		s.receiver = nil
		close(receiver)
	}
}

// responseDone is called when a receiver has finished its response. After the last receiver, the
// client is absent.
func (s *httpSession) responseDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answering--
	if s.answering == 0 && !s.aborted && s.closed == nil {
		s.absentLocked(s.h.cfg.DisconnectDelay)
	}
}

// open sets the limit of a response, and reports whether the open frame is to be sent now. The second
// stream of a session is shorter, by an amount at random, because the clients of a channel receive the
// same frames: otherwise they would send all their requests at the same time.
func (s *httpSession) open(r *renderer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.opened
	s.opened = true
	r.limit = s.h.cfg.ResponseLimit
	if r.streaming {
		s.streams++
		if s.streams == 2 {
			r.limit -= rand.N(r.limit*3/4 + 1)
		}
	}
	return first
}

// closeFrameSent records the close frame that the client receives.
func (s *httpSession) closeFrameSent(end *fanout.CloseFrame) {
	s.mu.Lock()
	s.closed = end
	s.mu.Unlock()
	s.out.CloseFrameSent()
}

// table has the sessions by the ids that their clients have chosen.
type table struct {
	mu       sync.Mutex
	sessions map[string]*httpSession
}

func (t *table) find(id string) *httpSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[id]
}

// add adds s. If there is already a session with that id, add returns that one instead.
func (t *table) add(s *httpSession) (other *httpSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	other = t.sessions[s.id]
	if other != nil {
		return other
	}
	if t.sessions == nil {
		t.sessions = map[string]*httpSession{}
	}
	t.sessions[s.id] = s
	return nil
}

func (t *table) remove(s *httpSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[s.id] == s {
		delete(t.sessions, s.id)
	}
}
