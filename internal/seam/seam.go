// Package seam lets the packages of this module that are outside the root, such as
// pushytest, reach what a pushy.Server has and its public API does not show. Package
// pushy sets it, and nothing of it is exported to hosts.
package seam

import (
	"net/http"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/transport"
)

// Server is a pushy.Server from within.
type Server struct {
	// Hub is its core: connections, channels, publishing.
	Hub *hub.Hub
	// Admit decides whether r may open a connection, as an upgrade does: by the limits
	// and Options.Accept. If it may not, w has the answer. The Ticket starts the session.
	// It does not look at the request's origin.
	Admit func(w http.ResponseWriter, r *http.Request) (ticket *transport.Ticket, ok bool)
}

// Of returns a *pushy.Server from within. Package pushy sets it.
var Of func(server any) Server
