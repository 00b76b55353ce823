package websocket

import "time"

func (s *socket) Linger() {
	if s.awaitAnswer() {
		frames := s.reader()
		frames.discard()
		if frames.garbled {
			s.markGarbled()
			frames.drain()
		}
	}
	s.releaseReader()
	s.messages = nil
	if s.awaitOutbox() {
		_ = s.stream.Close()
	} else {
		s.stream.abort() // so that the kernel drops the bytes that the peer does not read
	}
}

// markGarbled records that the close frame of the peer cannot be recognized any more. It
// closes the write side, so that the peer sees the end of the stream after the close frame.
func (s *socket) markGarbled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.garbled = true
	if s.closeSent {
		s.stream.closeWrite()
	}
}

// awaitAnswer sets the read deadline for the close frame of the peer, and reports whether
// one can still arrive.
func (s *socket) awaitAnswer() bool {
	ended := !s.isLost() && s.outboxDone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lingering = true
	s.stopBeatLocked()
	if s.answered || s.lost || ended && !s.closeSent {
		return false
	}
	wait := s.cfg.CloseTimeout
	if !s.closeSent {
		wait += s.cfg.WriteTimeout // Finish shortens it
	}
	return s.stream.SetReadDeadline(time.Now().Add(wait)) == nil
}

func (s *socket) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

func (s *socket) outboxDone() bool {
	if s.out == nil {
		return true
	}
	select {
	case <-s.out.Done():
		return true
	default:
		return false
	}
}

// awaitOutbox waits until the Outbox has written all frames, unless the connection has
// failed, and reports whether the close frame is written.
func (s *socket) awaitOutbox() bool {
	if !s.isLost() && !s.outboxDone() {
		timer := time.NewTimer(s.cfg.WriteTimeout)
		defer timer.Stop()
		select {
		case <-s.out.Done():
		case <-timer.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeSent
}
