package pushy

import (
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/session"
)

// SetClock pins what the Server takes for the time of triggers, signed requests and members. If
// its ids end with the process, it has begun to remember them at that time.
func (s *Server) SetClock(now func() time.Time) {
	s.clock.Store(&now)
	if !s.idsSince.IsZero() {
		s.idsSince = now()
	}
}

// SetConnIDs makes next give the ids of connections.
func (s *Server) SetConnIDs(next func() string) { s.newConnID = next }

// Connect brings a session of the test's own, as an upgrade would.
func (s *Server) Connect(session session.Session, user any) {
	s.hub.Admission().Reserve(0)
	s.hub.Connect(session, hub.Client{User: user})
}

// Connect2 is Connect for a client of version 2 of the protocol.
func (s *Server) Connect2(session session.Session) {
	s.hub.Admission().Reserve(0)
	s.hub.Connect(session, hub.Client{Version: 2})
}

// ConnectAs is Connect2 for a user with an id, from an address.
func (s *Server) ConnectAs(session session.Session, userID, address string) {
	from := limit.NetworkOf(address)
	s.hub.Admission().Reserve(from)
	s.hub.Connect(session, hub.Client{
		UserID:  userID,
		Version: 2,
		Network: from,
	})
}

// Entries returns how many channels the registry holds, in whatever state.
func (s *Server) Entries() int {
	return len(s.hub.Channels())
}
