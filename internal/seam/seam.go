// Package seam gives the packages of this module outside the root, such as pushytest,
// access to parts of a pushy.Server that are not in its public API. Package pushy sets
// its variables. Hosts cannot import it.
package seam

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/transport"
)

// Server has the internal parts of a pushy.Server.
type Server struct {
	// Hub is the core: connections, channels and publishing.
	Hub *hub.Hub
	// Extras has what packages of this module keep with the Server, each under a key of its own
	// type.
	Extras *sync.Map
	// Local means that no other Server shares the broker.
	Local bool
	// Keys are the secret key and the old ones.
	Keys []string
	Log  *slog.Logger
	// HandlePrompt is Server.HandleAsk for a func that only computes and waits for nothing. So this
	// node's own answer has no time limit.
	HandlePrompt func(name string, answer func(ctx context.Context, data json.RawMessage) (any, error))
	// Admit decides whether r can open a connection, by the limits and Options.Accept, as
	// for a SockJS session over HTTP. It does not check the origin of the request. If ok is false, the
	// response has been written to w. Otherwise the Ticket starts the session.
	Admit func(w http.ResponseWriter, r *http.Request) (ticket *transport.Ticket, ok bool)
}

// Of returns the internal parts of a *pushy.Server. Package pushy sets it.
var Of func(server any) Server
