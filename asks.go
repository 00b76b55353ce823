package pushy

// registerAsks sets how this node answers the Server's own questions.
func (s *Server) registerAsks() {
	s.askable[askCount] = s.answerCount
	s.askable[askKick] = s.answerKick
	s.askable[askBan] = s.answerKick
	s.askable[askSend] = s.answerSend
	s.askable[askChannels] = s.answerChannels
	s.askable[askMembers] = s.answerMembers
	s.askable[askConnections] = s.answerConnections
}
