package websocket

import "github.com/gopushy/pushy/internal/session"

// Park implements session.Parker.
func (s *socket) Park(r session.Reader) bool {
	if s.stream.raw == nil || s.failed != nil || len(s.messages) > 0 || s.frames != nil && !s.frames.idle() {
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
	return parking.parkLocked(s, r)
}
