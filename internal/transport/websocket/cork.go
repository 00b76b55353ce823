package websocket

// cork is called when the reader has received a message. If the client has sent more, the answers to
// all that has been read are written together.
func (s *socket) cork() {
	if s.More() && !s.frames.corked {
		s.frames.corked = true
		s.out.Cork()
	}
}

// uncork is called before the reader waits, and at its end.
func (s *socket) uncork() {
	if s.frames != nil && s.frames.corked {
		s.frames.corked = false
		s.out.Uncork()
	}
}
