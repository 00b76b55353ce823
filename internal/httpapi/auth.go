package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/origin"
)

const maxAuthBody = 64 << 10

// AuthHandler is the handler of an auth endpoint. All fields must be set.
type AuthHandler struct {
	// FromAllowedOrigin applies the origin policy and sets the CORS headers. If it returns
	// false, it has answered the request.
	FromAllowedOrigin func(w http.ResponseWriter, r *http.Request) bool
	// BodyTimeout is the time within which a body must arrive.
	BodyTimeout time.Duration
	// Channel validates the name of a channel and returns it in lower case.
	Channel func(name string) (lower string, err error)
	// Grant decides whether the client of r may subscribe, and returns its token.
	Grant func(r *http.Request, connID, channel string) (auth string, data []byte, refused *AuthRefusal)
}

// AuthRefusal is a response without a token.
type AuthRefusal = Refusal

func (h *AuthHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Body == nil { // net/http always sets a body, but middleware may not
		r.Body = http.NoBody
	}
	// The deadline comes first, because the server also reads the rest of a refused body.
	// Some ResponseWriters do not support deadlines.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(h.BodyTimeout))
	if !h.FromAllowedOrigin(w, r) || !allowMethod(w, r) {
		return
	}
	connID, channel, refused := h.read(r)
	if refused != nil {
		refused.write(w)
		return
	}
	// The body has been read. If the deadline expired later, it would end r's context.
	_ = rc.SetReadDeadline(time.Time{})
	auth, data, refused := h.grant(r, connID, channel)
	if refused != nil {
		refused.write(w)
		return
	}
	writeToken(w, auth, data)
}

func (h *AuthHandler) grant(r *http.Request, connID, channel string) (auth string, data []byte, refused *AuthRefusal) {
	lower, err := h.Channel(channel)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return "", nil, &AuthRefusal{Status: http.StatusInternalServerError, Message: "Internal error"}
	case err != nil:
		return "", nil, badAuth("channel name " + err.Error())
	case !names.IsUUID(connID):
		return "", nil, badAuth("connection_id is not a connection's id")
	}
	return h.Grant(r, connID, lower)
}

func badAuth(message string) *AuthRefusal {
	return &AuthRefusal{Status: http.StatusBadRequest, Message: message}
}

// read returns the two fields of the body, which is a form or a JSON object. The body can be
// read again afterwards.
func (h *AuthHandler) read(r *http.Request) (connID, channel string, refused *AuthRefusal) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAuthBody+1))
	var over *http.MaxBytesError // from middleware
	switch {
	case errors.As(err, &over):
		return "", "", &AuthRefusal{
			Status:  http.StatusRequestEntityTooLarge,
			Message: httperror.OverMiddleware(over),
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", "", &AuthRefusal{Status: http.StatusRequestTimeout, Message: "the body did not come in time"}
	case err != nil:
		return "", "", badAuth("cannot read the body")
	case len(body) > maxAuthBody:
		return "", "", &AuthRefusal{Status: http.StatusRequestEntityTooLarge, Message: "body over 64 KiB"}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch media {
	case "application/json":
		err = jsvalue.Fields(body, func(name, value []byte) {
			switch string(name) {
			case "channel":
				channel, _ = jsvalue.Text(value)
			case "connection_id":
				connID, _ = jsvalue.Text(value)
			}
		})
	case "application/x-www-form-urlencoded":
		var form url.Values
		form, err = url.ParseQuery(string(body))
		channel = form.Get("channel")
		connID = form.Get("connection_id")
	default:
		return "", "", &AuthRefusal{
			Status:  http.StatusUnsupportedMediaType,
			Message: "body must be application/x-www-form-urlencoded (URLSearchParams) or application/json",
		}
	}
	switch {
	case err != nil:
		return "", "", badAuth("malformed body")
	case channel == "" || connID == "":
		return "", "", badAuth("channel and connection_id are needed")
	}
	return connID, channel, nil
}

// allowMethod reports whether the method is POST. It answers preflight requests and requests
// with other methods.
func allowMethod(w http.ResponseWriter, r *http.Request) bool {
	switch r.Method {
	case http.MethodPost:
		return true
	case http.MethodOptions:
		// The request can have headers of the application, such as Authorization.
		origin.Preflight(w.Header(), r, "POST, OPTIONS", "Content-Type")
		w.Header().Set("Access-Control-Max-Age", preflightAge)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "POST, OPTIONS")
		httperror.Write(w, http.StatusMethodNotAllowed, "method not allowed: POST channel and connection_id")
	}
	return false
}

// preflightAge is the number of seconds for which browsers may cache a preflight response.
// It is the maximum of Chromium.
const preflightAge = "7200"

// writeToken writes the response {"auth":…,"data":…}, without data if it is nil.
func writeToken(w http.ResponseWriter, auth string, data []byte) {
	body := jsvalue.Object(nil).Text("auth", auth)
	if data != nil {
		body = body.Raw("data", data)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}
