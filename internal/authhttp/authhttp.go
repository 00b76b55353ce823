// Package authhttp reads what a browser asks an auth endpoint, and answers it.
package authhttp

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/wire"
)

const (
	maxBody     = 64 << 10
	bodyTimeout = 10 * time.Second
)

// Refusal is a request that is not even asked about.
type Refusal struct {
	Status  int
	Message string
}

// Read returns the two fields of a form or a JSON object. The body can be read
// again afterwards.
func Read(w http.ResponseWriter, r *http.Request) (connID, channel string, refused *Refusal) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // where it can be set
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return "", "", &Refusal{http.StatusBadRequest, "cannot read the body"}
	case len(body) > maxBody:
		return "", "", &Refusal{http.StatusRequestEntityTooLarge, "body over 64 KiB"}
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
		return "", "", &Refusal{http.StatusUnsupportedMediaType, "body must be application/x-www-form-urlencoded (URLSearchParams) or application/json"}
	}
	switch {
	case err != nil:
		return "", "", &Refusal{http.StatusBadRequest, "malformed body"}
	case channel == "" || connID == "":
		return "", "", &Refusal{http.StatusBadRequest, "channel and connection_id are needed"}
	}
	return connID, channel, nil
}

// AllowMethod answers preflights and methods other than POST, and reports
// whether there is more to do.
func AllowMethod(w http.ResponseWriter, r *http.Request) bool {
	switch r.Method {
	case http.MethodPost:
		return true
	case http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "POST, OPTIONS")
		Error(w, http.StatusMethodNotAllowed, "method not allowed")
	}
	return false
}

// Error answers {"error":…}.
func Error(w http.ResponseWriter, status int, message string) {
	write(w, status, wire.Object(nil).Text("error", message))
}

// Grant answers {"auth":…,"data":…}, without data if it is nil.
func Grant(w http.ResponseWriter, auth string, data []byte) {
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
