// Package inmemory is pushytest's way into a Server, which is no part of the
// public face: pushy fills it in, and so internal packages need not import it.
package inmemory

import (
	"net/http"

	"github.com/gopushy/pushy/internal/transport"
)

// Admit asks a *pushy.Server whether r may open a session, as an upgrade does;
// if it may not, w has the answer. The Ticket starts the session.
var Admit func(srv any, w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool)
