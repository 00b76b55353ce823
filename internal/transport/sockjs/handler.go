// Package sockjs implements the endpoints of SockJS. It has its own sessions for HTTP
// streaming and polling. For WebSockets it uses package websocket, with SockJS frames or
// without (the raw WebSocket endpoint).
package sockjs

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// Config configures a Handler.
type Config struct {
	transport.Config
	DisableWebSocket bool
	// ResponseLimit is the number of bytes of frames after which a streaming response ends,
	// so that the client has to send the next request.
	ResponseLimit int
	// DisconnectDelay is how long an HTTP session stays open without a request to answer.
	DisconnectDelay time.Duration
	// JSessionID sets the JSESSIONID cookie, which some load balancers need for session
	// affinity.
	JSessionID bool
	// Legacy also serves old browsers: jsonp, htmlfile and, if ScriptURL is set, the iframe
	// page, which loads sockjs-client from ScriptURL.
	Legacy    bool
	ScriptURL string
	// SessionID reports whether a client may use a session id. If it is nil, clients can use
	// all ids that SockJS allows.
	SessionID func(id string) bool
	// BodyTimeout is the time within which the body of a request must arrive.
	BodyTimeout time.Duration
	// Refused is called when a body is refused, with the reason "slow body" or "large body".
	// It can be nil.
	Refused func(reason string)
	// Admit decides whether a request may open a session, which is a WebSocket if socket is true.
	// If it returns false, it has answered the request.
	Admit func(w http.ResponseWriter, r *http.Request, socket bool) (*transport.Ticket, bool)
	Log   *slog.Logger
}

// Handler serves the endpoints of SockJS.
type Handler struct {
	cfg     Config
	bare    *websocket.Config
	framed  *websocket.Config
	table   table
	iframe  *iframe // nil without a ScriptURL
	notices *ratelog.Logger

	middleware transport.Middleware

	// plain has for each *http.Server whose connections are known whether they are plain sockets, to
	// which flushers can write.
	plain sync.Map

	waiting sync.Map // has for each *http.Server its *waiting

	wrap func(line) line // for tests, or nil
}

// NewHandler returns a Handler.
func NewHandler(cfg Config) *Handler {
	notices := ratelog.New(cfg.Log)
	return &Handler{
		cfg:        cfg,
		bare:       websocket.New(websocket.Config{Config: cfg.Config}),
		framed:     Framed(cfg.Config),
		iframe:     newIframe(cfg.ScriptURL),
		notices:    notices,
		middleware: transport.Middleware{Log: notices},
	}
}

// Values of Cache-Control: never, or for a year.
const (
	notCached = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
	cached    = "public, max-age=31536000"
)

// ServeSockJS serves the path that follows the SockJS prefix. The caller has checked the
// origin and set the CORS headers.
func (h *Handler) ServeSockJS(w http.ResponseWriter, r *http.Request, path string) {
	switch path {
	case "", "/":
		h.greeting(w, r)
		return
	case "/info":
		h.info(w, r)
		return
	case "/websocket":
		h.serveWebSocket(w, r, h.bare)
		return
	}
	if h.cfg.Legacy && isIframe(path) {
		h.serveIframe(w, r, path)
		return
	}
	parts := strings.Split(path, "/") // "", server, session, transport
	if len(parts) != 4 || !isPart(parts[1]) || !isPart(parts[2]) || h.cfg.SessionID != nil && !h.cfg.SessionID(parts[2]) {
		notFound(w)
		return
	}
	id := parts[2]
	name := parts[3]
	f := receivers[name]
	switch {
	case f != nil && (h.cfg.Legacy || !f.legacy):
		h.receive(w, r, id, f)
	case name == "xhr_send":
		h.send(w, r, id)
	case name == "jsonp_send" && h.cfg.Legacy:
		h.sendForm(w, r, id)
	case name == "websocket":
		h.serveWebSocket(w, r, h.framed)
	default:
		notFound(w)
	}
}

// IsEndpoint reports whether path, which follows a SockJS prefix, has the form of an
// endpoint. The endpoint may be disabled.
func IsEndpoint(path string) bool {
	switch path {
	case "", "/", "/info", "/websocket":
		return true
	}
	if isIframe(path) {
		return true
	}
	parts := strings.Split(path, "/") // "", server, session, transport
	if len(parts) != 4 || !isPart(parts[1]) || !isPart(parts[2]) {
		return false
	}
	switch parts[3] {
	case "websocket", "xhr_send", "jsonp_send":
		return true
	}
	return receivers[parts[3]] != nil
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, "404 Error: Page not found\n")
}

// isPart reports whether SockJS allows s as a server id or session id in a URL.
func isPart(s string) bool { return s != "" && !strings.Contains(s, ".") }

func (h *Handler) greeting(w http.ResponseWriter, r *http.Request) {
	if h.allowMethod(w, r, http.MethodGet, http.MethodHead) {
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		_, _ = io.WriteString(w, "Welcome to SockJS!\n")
	}
}

func (h *Handler) info(w http.ResponseWriter, r *http.Request) {
	if !h.allowMethod(w, r, http.MethodGet) {
		return
	}
	var entropy [4]byte
	rand.Read(entropy[:])
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Cache-Control", notCached)
	fmt.Fprintf(w, `{"websocket":%t,"origins":["*:*"],"cookie_needed":%t,"entropy":%d}`,
		!h.cfg.DisableWebSocket, h.cfg.JSessionID, binary.BigEndian.Uint32(entropy[:]))
}

// session returns the session with that id. If there is none, it opens one. If it returns
// nil, it has answered the request.
func (h *Handler) session(w http.ResponseWriter, r *http.Request, id string, f *framing) *httpSession {
	s := h.table.find(id)
	if s == nil {
		ticket, ok := h.cfg.Admit(w, r, false)
		if !ok {
			return nil
		}
		fresh := newHTTPSession(h, id, f)
		fresh.belongsTo(r)
		s = h.table.add(fresh)
		if s == nil {
			ticket.Start(fresh)
			return fresh
		}
		ticket.GiveBack() // a concurrent request has opened the session
	}
	if !s.belongsTo(r) {
		notFound(w)
		return nil
	}
	return s
}

// send receives the messages of a client: all messages of the body, or none.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, id string) {
	limit := frameLimit(h.cfg.MaxMessage)
	if h.accept(w, r, id, limit, func(body []byte) []byte { return body }) {
		w.WriteHeader(http.StatusNoContent)
	}
}

// accept delivers the messages of a request to their session. The body has at most limit
// bytes, and payload returns the SockJS frame in it. If accept returns true, it has set the
// header of the response, and the caller writes the rest. Otherwise it has answered the
// request.
func (h *Handler) accept(
	w http.ResponseWriter, r *http.Request, id string, limit int, payload func(body []byte) []byte,
) bool {
	if !h.allowMethod(w, r, http.MethodPost) {
		return false
	}
	s := h.table.find(id)
	if s == nil || !s.belongsTo(r) {
		notFound(w)
		return false
	}
	body, refused := h.readBody(w, r, limit)
	if refused == nil {
		body = bytes.Clone(payload(body)) // a copy without spare capacity
		refused = h.checkBody(body)
	}
	if refused != nil {
		refused.Write(w)
		return false
	}
	s.deliver(body)
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=UTF-8") // without it, Firefox reports an empty body as invalid XML
	head.Set("Cache-Control", notCached)
	h.setCookie(w, r)
	return true
}

// The SockJS protocol prescribes these responses.
var (
	noPayload = &transport.Refusal{
		Status: http.StatusInternalServerError,
		Text:   "Payload expected.",
		Plain:  true,
	}
	brokenJSON = &transport.Refusal{
		Status: http.StatusInternalServerError,
		Text:   "Broken JSON encoding.",
		Plain:  true,
	}
)

// checkBody validates the SockJS frame of a body. It returns nil if the frame is valid.
func (h *Handler) checkBody(frame []byte) *transport.Refusal {
	if len(frame) == 0 {
		return noPayload
	}
	switch checkFrame(frame, h.cfg.MaxMessage) {
	case nil:
		return nil
	case websocket.ErrTooBig:
		return h.tooLarge()
	default:
		return brokenJSON
	}
}

func (h *Handler) tooLarge() *transport.Refusal {
	h.refused("large body")
	h.notices.Warn("message refused: too large", "",
		slog.Int("limit", h.cfg.MaxMessage),
		slog.String("hint", fmt.Sprintf("a body has a message over the limit of %d bytes, or more than %d messages: "+
			"send less, or raise Options.Limits.MessageBytes", h.cfg.MaxMessage, maxElements)))
	return &transport.Refusal{
		Status: http.StatusRequestEntityTooLarge,
		Text:   fmt.Sprintf("a message has at most %d bytes, and a body at most %d messages", h.cfg.MaxMessage, maxElements),
	}
}

// readBody reads a body of at most limit bytes within BodyTimeout.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, *transport.Refusal) {
	// The deadline comes first, because the server also reads the rest of a refused body.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.cfg.BodyTimeout)); err != nil {
		return nil, h.deadlineError(w, err)
	}
	if r.ContentLength > int64(limit) {
		return nil, h.tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limit)))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over) && over.Limit < int64(limit):
		h.refused("large body")
		hint := httperror.OverMiddleware(over)
		h.notices.Warn("message refused: too large", "middleware", slog.String("hint", hint))
		return nil, &transport.Refusal{Status: http.StatusRequestEntityTooLarge, Text: hint}
	case errors.As(err, &over):
		return nil, h.tooLarge()
	case err != nil:
		if errors.Is(err, os.ErrDeadlineExceeded) { // do not count clients that have disconnected
			h.refused("slow body")
		}
		return nil, &transport.Refusal{Status: http.StatusRequestTimeout, Text: "cannot read the body"}
	}
	return body, nil
}

func (h *Handler) refused(reason string) {
	if h.cfg.Refused != nil {
		h.cfg.Refused(reason)
	}
}

// hiddenWriter is the response if middleware hides the server's ResponseWriter. checkWriter
// logs the details.
var hiddenWriter = &transport.Refusal{
	Status: http.StatusInternalServerError,
	Text:   "the server is not set up for this transport: middleware hides its ResponseWriter",
}

// deadlineError returns the response if a deadline cannot be set, because of middleware or
// because the connection is closed.
func (h *Handler) deadlineError(w http.ResponseWriter, err error) *transport.Refusal {
	if errors.Is(err, http.ErrNotSupported) {
		h.middleware.CheckSockJS(w)
		return hiddenWriter
	}
	return &transport.Refusal{Status: http.StatusRequestTimeout, Text: "cannot read the body"}
}

// allowMethod reports whether the method of r is one of methods. If not, it answers the
// request: a preflight request with its headers, others with 405.
func (h *Handler) allowMethod(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	allowed := "OPTIONS, " + strings.Join(methods, ", ")
	if r.Method != http.MethodOptions {
		w.Header().Set("Allow", allowed)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return false
	}
	head := w.Header()
	origin.Preflight(head, r, allowed, "")
	head.Set("Access-Control-Max-Age", "31536000")
	head.Set("Cache-Control", cached)
	head.Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	h.setCookie(w, r)
	w.WriteHeader(http.StatusNoContent)
	return false
}

// setCookie sets the cookie with which some load balancers send all requests of a session to
// the same server.
func (h *Handler) setCookie(w http.ResponseWriter, r *http.Request) {
	if !h.cfg.JSessionID {
		return
	}
	value := "dummy"
	if c, err := r.Cookie("JSESSIONID"); err == nil {
		value = c.Value
	}
	http.SetCookie(w, &http.Cookie{
		Name:  "JSESSIONID",
		Value: value,
		Path:  "/",
	})
}
