package pushy

// registerAsks sets how this node answers the Server's own questions. All are prompt.
func (s *Server) registerAsks() {
	for name, answer := range map[string]AskFunc{
		askCount:       s.answerCount,
		askKick:        s.answerKick,
		askBan:         s.answerKick,
		askSend:        s.answerSend,
		askChannels:    s.answerChannels,
		askMembers:     s.answerMembers,
		askConnections: s.answerConnections,
	} {
		s.setAnswer(name, askable{
			run:    answer,
			prompt: true,
		})
	}
}
