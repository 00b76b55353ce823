// Package authhttp answers browsers that ask an auth endpoint for tokens.
package authhttp

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/wire"
)

const maxBody = 64 << 10

// Handler is an auth endpoint. Each field must be set.
type Handler struct {
	// FromAllowedOrigin applies the origin rule and sets the headers about it.
	FromAllowedOrigin func(w http.ResponseWriter, r *http.Request) bool
	// BodyTimeout is how long a body may take to come.
	BodyTimeout time.Duration
	// Channel checks a channel's name and returns it in lower case.
	Channel func(name string) (lower string, err error)
	// Grant decides by the request. A grant without auth is one that failed.
	Grant func(r *http.Request, connID, channel string) (auth string, data []byte, allowed bool)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.FromAllowedOrigin(w, r) {
		answerError(w, http.StatusForbidden, "origin not allowed")
		return
	}
	if !allowMethod(w, r) {
		return
	}
	connID, channel, refused := h.read(w, r)
	if refused != nil {
		answerError(w, refused.status, refused.message)
		return
	}
	lower, err := h.Channel(channel)
	switch {
	case err != nil:
		answerError(w, http.StatusBadRequest, "channel name "+err.Error())
		return
	case !names.IsUUID(connID):
		answerError(w, http.StatusBadRequest, "connection_id is not a connection's id")
		return
	}
	switch auth, data, allowed := h.Grant(r, connID, lower); {
	case !allowed:
		answerError(w, http.StatusForbidden, "not authorized")
	case auth == "":
		answerError(w, http.StatusInternalServerError, "internal error")
	default:
		grant(w, auth, data)
	}
}

// refusal is a request that is not even asked about.
type refusal struct {
	status  int
	message string
}

// read returns the two fields of a form or a JSON object. The body can be read
// again afterwards.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (connID, channel string, refused *refusal) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.BodyTimeout)) // where it can be set
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return "", "", &refusal{http.StatusBadRequest, "cannot read the body"}
	case len(body) > maxBody:
		return "", "", &refusal{http.StatusRequestEntityTooLarge, "body over 64 KiB"}
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
		channel, connID = form.Get("channel"), form.Get("connection_id")
	default:
		return "", "", &refusal{http.StatusUnsupportedMediaType, "body must be application/x-www-form-urlencoded (URLSearchParams) or application/json"}
	}
	switch {
	case err != nil:
		return "", "", &refusal{http.StatusBadRequest, "malformed body"}
	case channel == "" || connID == "":
		return "", "", &refusal{http.StatusBadRequest, "channel and connection_id are needed"}
	}
	return connID, channel, nil
}

// allowMethod answers preflights and methods other than POST, and reports
// whether there is more to do.
func allowMethod(w http.ResponseWriter, r *http.Request) bool {
	switch r.Method {
	case http.MethodPost:
		return true
	case http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "POST, OPTIONS")
		answerError(w, http.StatusMethodNotAllowed, "method not allowed")
	}
	return false
}

// answerError answers {"error":…}.
func answerError(w http.ResponseWriter, status int, message string) {
	write(w, status, wire.Object(nil).Text("error", message))
}

// grant answers {"auth":…,"data":…}, without data if it is nil.
func grant(w http.ResponseWriter, auth string, data []byte) {
	answer := wire.Object(nil).Text("auth", auth)
	if data != nil {
		answer = answer.Raw("data", data)
	}
	write(w, http.StatusOK, answer)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
