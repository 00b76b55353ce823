package sockjs

import (
	"log/slog"
	"net/http"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// Framed returns the configuration of a WebSocket that carries SockJS frames.
func Framed(cfg transport.Config) *websocket.Config {
	return websocket.New(websocket.Config{
		Config:  cfg,
		Framing: webSocketFraming{},
	})
}

// webSocketFraming is the framing of SockJS on a WebSocket.
type webSocketFraming struct{}

var _ websocket.Framing = webSocketFraming{}

var (
	openFrame     = fanout.RawFrame(fanout.TextFrame([]byte("o")))
	heartbeatText = fanout.TextFrame([]byte("h"))
	errNotJSON    = &websocket.FramingError{
		Reason: "Broken framing.",
		Err:    errFraming,
	}
)

func (webSocketFraming) Form() fanout.Form      { return fanout.Framed }
func (webSocketFraming) Protocol() string       { return "websocket" }
func (webSocketFraming) ShutdownCode() int      { return session.CloseShutdown }
func (webSocketFraming) Limit(max int) int      { return frameLimit(max) }
func (webSocketFraming) Opening() *fanout.Frame { return openFrame }
func (webSocketFraming) Heartbeat() []byte      { return heartbeatText }

// Parse ignores an empty frame, as SockJS does.
func (webSocketFraming) Parse(frame []byte, max int) ([]byte, error) {
	if len(frame) == 0 {
		return nil, nil
	}
	switch err := checkFrame(frame, max); err {
	case nil:
		var e elements
		e.openValid(frame)
		return e.rest, nil
	case errFraming:
		return nil, errNotJSON
	default:
		return nil, err
	}
}

func (webSocketFraming) Next(messages []byte) (message, rest []byte) {
	e := elements{messages}
	message, _ = e.next()
	return message, e.rest
}

// CloseFrame returns c[code,"reason"].
func (webSocketFraming) CloseFrame(code int, reason string) []byte {
	return fanout.TextFrame(appendCloseFrame(nil, code, jsvalue.AppendQuote(nil, reason)))
}

func (h *Handler) serveWebSocket(w http.ResponseWriter, r *http.Request, cfg *websocket.Config) {
	if h.cfg.DisableWebSocket {
		notFound(w)
		return
	}
	key, refused := websocket.CheckHandshake(r)
	if refused != nil { // before Admit calls the host
		refused.Write(w)
		h.notices.Warn("WebSocket handshake refused", refused.Text,
			slog.Int("status", refused.Status),
			slog.String("error", refused.Text),
			slog.String("method", httperror.Shown(r.Method)),
			slog.String("protocol", r.Proto),
			slog.String("hint", "clients fall back to HTTP; a proxy in between must speak HTTP/1.1 and pass Upgrade and "+
				"Connection on (nginx: proxy_http_version 1.1, proxy_set_header Upgrade and Connection)"))
		return
	}
	if !h.middleware.CheckSockJS(w) {
		hiddenWriter.Write(w)
		return
	}
	ticket, ok := h.cfg.Admit(w, r, true)
	if !ok {
		return
	}
	sess, err := websocket.Upgrade(w, r, key, cfg)
	if err != nil {
		ticket.GiveBack()
		// The handshake was valid, so the client has disconnected, or middleware interferes.
		h.notices.Warn("cannot upgrade to WebSocket", "", slog.String("error", err.Error()))
		return
	}
	ticket.Start(sess)
}
