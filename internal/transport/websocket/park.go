package websocket

import (
	"crypto/tls"
	"errors"
	"os"
	"time"

	"github.com/gopushy/pushy/internal/session"
)

// Park implements session.Parker.
func (s *socket) Park(r session.Reader) bool {
	if s.failed != nil || len(s.messages) > 0 || s.frames != nil && !s.frames.idle() {
		return false
	}
	s.uncork()
	raw := s.stream.raw
	if over, ok := s.stream.Conn.(*tls.Conn); ok {
		raw = rawConn(over.NetConn())
		if raw != nil && s.hasRecord() {
			return false
		}
		releaseSpare(over)
	}
	if raw == nil {
		return false
	}
	s.releaseReader()
	s.messages = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.halted != nil {
		return false
	}
	s.waiting(true)
	return parking.parkLocked(s, raw, r)
}

// hasRecord reports whether the tls.Conn has read bytes from the socket that it has not returned: there
// is no event for these. They, or an error, are then returned by Receive.
func (s *socket) hasRecord() bool {
	if !s.setReadDeadline(pastDeadline) {
		return true
	}
	frames := s.reader()
	var err error
	frames.in, err = frames.src.next() // with this deadline it does not read from the socket
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	return !s.setReadDeadline(time.Time{}) || !timeout
}

// setReadDeadline sets the read deadline, and reports whether it did: a socket that is halted keeps
// its own.
func (s *socket) setReadDeadline(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halted == nil && s.stream.SetReadDeadline(t) == nil
}
