package triggerhttp

import (
	"net/http"
	"strconv"

	"github.com/gopushy/pushy/internal/wire"
)

// Answer is a trigger's reply.
type Answer struct {
	status  int
	code    string
	message string
	header  [2]string // one more, or none
}

// Done is the answer to a trigger that was delivered: 201 if there was anybody
// to get it, else 200.
func Done(received bool) *Answer {
	if received {
		return &Answer{status: http.StatusCreated}
	}
	return &Answer{status: http.StatusOK}
}

// Unavailable is the answer when the event could not be taken.
func Unavailable() *Answer {
	return &Answer{http.StatusServiceUnavailable, "503", "Service unavailable", [2]string{"Retry-After", "1"}}
}

// Delivered reports whether the event was taken.
func (a *Answer) Delivered() bool { return a.status < 300 }

// Write writes the answer.
func (a *Answer) Write(w http.ResponseWriter) {
	var body wire.Object
	if a.Delivered() {
		status := wire.Object(nil).Raw("code", strconv.AppendInt(nil, int64(a.status), 10)).Text("message", "Ok")
		body = body.Raw("status", status)
	} else {
		body = body.Raw("error", wire.Object(nil).Text("code", a.code).Text("message", a.message))
	}
	w.Header().Set("Content-Type", "application/json")
	if a.header[0] != "" {
		w.Header().Set(a.header[0], a.header[1])
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

func refuse(status int, message string) *Answer {
	return &Answer{status: status, code: strconv.Itoa(status), message: message}
}

func bad(message string) *Answer { return refuse(http.StatusBadRequest, message) }
