package sockjs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
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

// attachWait is how long a request waits for the one before it to be gone: a
// client that has read a response to its end, or aborted it, may be faster than
// the news of that.
const attachWait = 250 * time.Millisecond

// maxInbox is how many bodies of a client may wait for its commands to end.
// The bytes of their messages are bounded by four of the largest.
const maxInbox = 1000

// inboxBody is a body that waits.
type inboxBody struct {
	frame []byte
	size  int64 // of its messages, escapes undone
}

// httpSession is a Session over SockJS's HTTP transports: the client's messages
// come with requests of their own, and ours go out with whatever request of it
// is there to be answered, the receiver. It ends when none has been there for
// the disconnect delay, or one is aborted.
type httpSession struct {
	h        *Handler
	id       string
	protocol string
	elements elements // of the body whose messages Receive returns; the reader's alone

	wake    chan struct{} // there is something to take, or the end
	arrived chan struct{} // there is something in the inbox
	halt    chan struct{} // closed with halted
	started chan struct{} // closed when out is set
	dead    chan struct{} // closed by Abort

	mu         sync.Mutex
	out        *fanout.Outbox
	page       *string // origin of the page that it belongs to, once one has said so
	opened     bool    // SockJS's open frame has been sent
	inbox      []inboxBody
	inboxBytes int64 // of their messages
	halted     *session.CloseError
	receiver   chan struct{} // closed when the receiver that is there is gone; nil without one
	answering  int           // receivers that have not left, such as one whose last write waits
	absent     *time.Timer   // runs while there is none
	absence    int           // which one it is, since a timer that is stopped may have fired
	aborted    bool
	bye        *fanout.CloseFrame // the session has ended, and this is what a client that asks is told
}

func newHTTPSession(h *Handler, id, protocol string) *httpSession {
	return &httpSession{
		h:        h,
		id:       id,
		protocol: protocol,
		wake:     make(chan struct{}, 1),
		arrived:  make(chan struct{}, 1),
		halt:     make(chan struct{}),
		started:  make(chan struct{}),
		dead:     make(chan struct{}),
	}
}

// belongsTo reports whether r comes from the page of the session, or does not
// say what page it comes from. Who knows the id of a session is let in, but for
// the scripts of other sites.
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
func (s *httpSession) Wake()             { signal(s.wake) }

// signal leaves a note in a channel that holds one.
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
			s.inboxBytes -= body.size
			s.mu.Unlock()
			s.elements.openValid(body.frame)
			continue
		}
		s.inbox = nil // and the array that has grown under it
		s.mu.Unlock()
		select {
		case <-s.arrived:
		case <-s.halt:
		}
	}
}

// deliver puts a body, a valid SockJS frame, into the inbox. A client that
// sends faster than its commands end is cut.
func (s *httpSession) deliver(frame []byte) {
	body := inboxBody{frame, messagesLen(frame)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.halted != nil: // it will be told when it asks
	case len(s.inbox) >= maxInbox, len(s.inbox) > 0 && s.inboxBytes+body.size > 4*int64(s.h.cfg.MaxMessage):
		s.haltLocked(&session.CloseError{
			Cause:  session.Fault,
			Code:   1008,
			Reason: errInbox.Error(),
			Err:    errInbox,
		})
	default:
		s.inbox = append(s.inbox, body)
		s.inboxBytes += body.size
		signal(s.arrived)
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

// lose ends the session without a goodbye. Its id may be used again at once.
func (s *httpSession) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseLocked(err)
}

func (s *httpSession) loseLocked(err error) {
	s.haltLocked(session.LostError(err))
	if !s.aborted {
		s.aborted = true
		s.presentLocked()
		s.h.table.remove(s) // before anybody can see that it is aborted
		close(s.dead)
	}
}

// Abort ends the requests of the session, too; one whose write waits for the
// client ends with the write timeout.
func (s *httpSession) Abort() { s.lose(net.ErrClosed) }

// Linger waits for a client that comes for the goodbye, as long as it may be
// absent, and leaves what it was told behind for as long again.
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
	if s.bye == nil {
		s.loseLocked(errAbsent)
	} else if !s.aborted {
		s.absentLocked(min(s.h.cfg.DisconnectDelay, s.h.cfg.CloseTimeout))
	}
}

// absentLocked gives the session up after delay, unless presentLocked is called.
func (s *httpSession) absentLocked(delay time.Duration) {
	s.presentLocked()
	absence := s.absence
	s.absent = time.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.absence == absence {
			s.loseLocked(errAbsent)
		}
	})
}

func (s *httpSession) presentLocked() {
	s.absence++
	if s.absent != nil {
		s.absent.Stop()
		s.absent = nil
	}
}

// attach makes the caller the receiver, once the one before is gone; detach
// ends that. leave must follow. It returns what to tell the client instead, or
// nil, nil if the session is dead or ctx ended.
func (s *httpSession) attach(ctx context.Context) (detach func(), instead *fanout.CloseFrame) {
	timer := time.NewTimer(attachWait)
	defer timer.Stop()
	for {
		s.mu.Lock()
		before, dead, bye := s.receiver, s.aborted, s.bye
		if before == nil && !dead && bye == nil {
			gone := make(chan struct{})
			s.receiver = gone
			s.answering++
			s.presentLocked()
			s.mu.Unlock()
			return func() { s.detach(gone) }, nil
		}
		s.mu.Unlock()
		if dead || bye != nil {
			return nil, bye
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

// detach may be called more than once by the same receiver.
func (s *httpSession) detach(receiver chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receiver == receiver {
		s.receiver = nil
		close(receiver)
	}
}

// leave notes that a receiver has written its last: from the last one's on the
// client is absent.
func (s *httpSession) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answering--
	if s.answering == 0 && !s.aborted && s.bye == nil {
		s.absentLocked(s.h.cfg.DisconnectDelay)
	}
}

// open reports whether the open frame is to be sent now.
func (s *httpSession) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.opened
	s.opened = true
	return first
}

// said notes what the client has been told at the end.
func (s *httpSession) said(bye *fanout.CloseFrame) {
	s.mu.Lock()
	s.bye = bye
	s.mu.Unlock()
	s.out.CloseFrameSent()
}

// table finds sessions by the id that their clients chose.
type table struct {
	mu       sync.Mutex
	sessions map[string]*httpSession
}

func (t *table) find(id string) *httpSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[id]
}

// add puts s in, unless there is one of that id already, which it returns.
func (t *table) add(s *httpSession) (other *httpSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other = t.sessions[s.id]; other != nil {
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
