package pusher

import (
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// Close codes of the protocol. Clients stop for good after 4000 to 4099, connect again after a second
// after 4100 to 4199, and at once after 4200 to 4299.
const (
	codeUnknownApp  = 4001
	codePath        = 4005
	codeProtocol    = 4007
	codeRefused     = 4009
	codeUnavailable = 4100
	codeDrain       = 4200
)

// The versions of the protocol that are served.
const (
	oldestProtocol = 5
	newestProtocol = 7
)

// withoutErrors is the first version whose clients need no pusher:error before a close frame.
const withoutErrors = 6

// serveSocket serves the WebSocket endpoint. All that is not a mistake of the handshake is refused
// with a close code, after the handshake: pages do not see the status of one that was refused, and
// pusher-js would neither report an error nor connect again.
func (a *Adapter) serveSocket(w http.ResponseWriter, r *http.Request, key string) {
	if r.Header.Get("Upgrade") == "" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "connect with a WebSocket", http.StatusUpgradeRequired)
		return
	}
	handshake, refused := websocket.CheckHandshake(r)
	if refused != nil {
		refused.Write(w)
		a.parts.Notices.Warn("WebSocket handshake refused", refused.Text,
			slog.Int("status", refused.Status),
			slog.String("error", refused.Text),
			slog.String("endpoint", "pusher"),
			slog.String("hint", "a proxy must speak HTTP/1.1 and pass Upgrade and Connection on"))
		return
	}
	version, code, reason := a.check(r, key)
	if code != 0 {
		a.turnAway(w, r, handshake, version, code, reason)
		return
	}
	id := newSocketID()
	place, why := a.parts.Enter(r, hub.Client{
		ID:      id,
		Foreign: a.id,
		Version: uint8(version),
	})
	if why != nil {
		a.turnAway(w, r, handshake, version, closeCode(why), why.Message)
		return
	}
	session, err := websocket.Upgrade(w, r, handshake, a.socket)
	if err != nil {
		place.GiveBack()
		a.parts.Notices.Warn("cannot upgrade to WebSocket", "", slog.String("error", err.Error()))
		return
	}
	place.Connect(session)
}

// check checks the path, the version of the protocol and the origin of a request.
func (a *Adapter) check(r *http.Request, key string) (version, code int, reason string) {
	version = newestProtocol
	if asked := r.URL.Query().Get("protocol"); asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < oldestProtocol || n > newestProtocol {
			return version, codeProtocol, "protocol " + httperror.Shown(asked) + " is not supported: use 5, 6 or 7"
		}
		version = n
	}
	if _, refused := a.parts.Origin(r); refused != nil {
		return version, codeRefused, refused.Message
	}
	switch {
	case strings.Contains(key, "/"):
		return version, codePath, "path not found: connect to " + a.prefix + "/app/{key}"
	case key != a.key:
		a.parts.Notices.Warn("pusher: connection with an unknown key", "",
			slog.String("key", httperror.Shown(key)),
			slog.String("hint", "clients must use the key of pusher.Options"))
		return version, codeUnknownApp, "app key " + httperror.Shown(key) + " does not exist"
	}
	return version, 0, ""
}

// closeCode returns the close code for a connection that the Server does not accept.
func closeCode(refused *seam.Refusal) int {
	if refused.Again != "" || refused.Status >= http.StatusInternalServerError {
		return codeUnavailable
	}
	return codeRefused
}

// turnAway accepts a connection only to close it. If there are too many of these, it is refused
// before the handshake, which costs less.
func (a *Adapter) turnAway(w http.ResponseWriter, r *http.Request, handshake string, version, code int, reason string) {
	if !a.parts.MayTurnAway() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	session, err := websocket.Upgrade(w, r, handshake, a.socket)
	if err != nil {
		return
	}
	var last []*fanout.Frame
	if version < withoutErrors {
		last = append(last, fanout.RawFrame(errorFrame(code, reason)))
	}
	a.hub.TurnAway(session, code, reason, func() {}, last...)
}
