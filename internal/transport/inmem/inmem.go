// Package inmem is connections in memory: a Session whose client is in the same
// process, for tests, and the way to one for package pushytest.
package inmem

import (
	"net/http"

	"github.com/gopushy/pushy/internal/transport"
)

// Admit asks a *pushy.Server whether r may open a session, as an upgrade does;
// if it may not, w has the answer. The Ticket starts the session. Package pushy sets
// it, so that it is no part of the public API.
var Admit func(srv any, w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool)
