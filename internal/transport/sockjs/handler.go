// Package sockjs is the transport of SockJS: its endpoints, of which those that stream
// or poll over HTTP are sessions of its own, and those of WebSockets are package
// websocket's with SockJS's frames or bare.
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
	// ResponseLimit is how many bytes of frames a streaming response carries
	// before the client has to ask for the next.
	ResponseLimit int
	// DisconnectDelay is how long a session over HTTP lives without a request
	// to answer.
	DisconnectDelay time.Duration
	// JSessionID sets the cookie that some load balancers want.
	JSessionID bool
	// Legacy serves old browsers, too: jsonp, htmlfile and, if ScriptURL is set,
	// the iframe page, which loads sockjs-client from there.
	Legacy    bool
	ScriptURL string
	// SessionID reports whether a client may use a session id; any that SockJS
	// allows if nil.
	SessionID func(id string) bool
	// BodyTimeout is how long a request's body may take to come.
	BodyTimeout time.Duration
	// Refused is told why a body was refused, "slow body" or "large body", if
	// it is not nil.
	Refused func(reason string)
	// Admit decides whether a request may open a session; if not, it has
	// answered.
	Admit func(w http.ResponseWriter, r *http.Request) (*transport.Ticket, bool)
	Log   *slog.Logger
}

// Handler serves SockJS's endpoints.
type Handler struct {
	cfg     Config
	bare    websocket.Config
	framed  websocket.Config
	table   table
	iframe  http.Handler // nil without a ScriptURL
	notices *ratelog.Logger
	checked sync.Map // types of ResponseWriter that were logged

	deadlines sync.Once // logs that a context's deadline ended a response
}

// NewHandler returns a Handler.
func NewHandler(cfg Config) *Handler {
	return &Handler{
		cfg:     cfg,
		bare:    websocket.Config{Config: cfg.Config},
		framed:  Framed(cfg.Config),
		iframe:  newIframe(cfg.ScriptURL),
		notices: ratelog.New(cfg.Log),
	}
}

// What answers say of caching: never, or for a year.
const (
	notCached = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
	cached    = "public, max-age=31536000"
)

// ServeSockJS serves the path that follows the SockJS prefix. Origins have been
// checked, and the headers about them are set.
func (h *Handler) ServeSockJS(w http.ResponseWriter, r *http.Request, path string) {
	switch path {
	case "", "/":
		h.greeting(w, r)
		return
	case "/info":
		h.info(w, r)
		return
	case "/websocket":
		h.serveWebSocket(w, r, &h.bare)
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
	id, name := parts[2], parts[3]
	switch f := receivers[name]; {
	case f != nil && (h.cfg.Legacy || !f.legacy):
		h.receive(w, r, id, f)
	case name == "xhr_send":
		h.send(w, r, id)
	case name == "jsonp_send" && h.cfg.Legacy:
		h.sendForm(w, r, id)
	case name == "websocket":
		h.serveWebSocket(w, r, &h.framed)
	default:
		notFound(w)
	}
}

// IsEndpoint reports whether path, which follows a SockJS prefix, has the form of an
// endpoint's, whether that is switched on or not.
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

// isPart reports whether SockJS allows s as a server or session in a URL.
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

// session returns the session of that id, a new one if there is none, or nil if
// the request has been answered.
func (h *Handler) session(w http.ResponseWriter, r *http.Request, id, protocol string) *httpSession {
	s := h.table.find(id)
	if s == nil {
		ticket, ok := h.cfg.Admit(w, r)
		if !ok {
			return nil
		}
		fresh := newHTTPSession(h, id, protocol)
		fresh.belongsTo(r)
		if s = h.table.add(fresh); s == nil {
			ticket.Start(fresh)
			return fresh
		}
		ticket.GiveBack() // another request was faster
	}
	if !s.belongsTo(r) {
		notFound(w)
		return nil
	}
	return s
}

// send takes messages from a client: all in the body, or none.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, id string) {
	limit := frameLimit(h.cfg.MaxMessage)
	if h.accept(w, r, id, limit, func(body []byte) []byte { return body }) {
		w.WriteHeader(http.StatusNoContent)
	}
}

// accept hands the messages that payload finds in a body of at most limit bytes to
// their session. If it fails it has answered; if not, it has set the answer's header.
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
		body = bytes.Clone(payload(body)) // a copy of just that size
		refused = h.checkBody(body)
	}
	if refused != nil {
		refused.Write(w)
		return false
	}
	s.deliver(body)
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=UTF-8") // or Firefox takes nothing for broken XML
	head.Set("Cache-Control", notCached)
	h.setCookie(w, r)
	return true
}

// SockJS's words.
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

// checkBody returns why a SockJS frame in a body is refused, or nil.
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

// readBody reads a body within a limit and the time for it.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, *transport.Refusal) {
	// First, since the server reads on for what we refuse.
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
		if errors.Is(err, os.ErrDeadlineExceeded) { // and not a client that has gone
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

// misplaced is for a host that has mounted us where the server's
// ResponseWriter is hidden, which checkWriter has logged.
var misplaced = &transport.Refusal{
	Status: http.StatusInternalServerError,
	Text:   "the server is not set up for this transport: middleware hides its ResponseWriter",
}

// deadlineError is the answer where no deadline can be set: under middleware,
// and on a connection that is gone.
func (h *Handler) deadlineError(w http.ResponseWriter, err error) *transport.Refusal {
	if errors.Is(err, http.ErrNotSupported) {
		h.checkWriter(w)
		return misplaced
	}
	return &transport.Refusal{Status: http.StatusRequestTimeout, Text: "cannot read the body"}
}

// allowMethod reports whether r's method is one of those given. Other requests
// it answers: preflights, and all else with 405.
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

// setCookie sets the cookie that makes some load balancers send all requests of
// a session to one server.
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
