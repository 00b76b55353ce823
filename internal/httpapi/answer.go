package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// TriggerAnswer is the response to a trigger.
type TriggerAnswer struct {
	status  int
	code    string
	message string
	header  [2]string // the name and value of an additional header field, or empty
	at      string    // the position of an event that is kept, or ""
	hint    string    // replaces message in the log, unless it is ""
}

// Done returns the response to a trigger that was delivered: 201 if the channel had a
// subscriber, otherwise 200. position is that of an event that is kept, or "".
func Done(received bool, position string) *TriggerAnswer {
	done := &TriggerAnswer{
		status: http.StatusOK,
		at:     position,
	}
	if received {
		done.status = http.StatusCreated
	}
	return done
}

// Unavailable returns the response if the event could not be published now.
func Unavailable() *TriggerAnswer {
	return &TriggerAnswer{
		status:  http.StatusServiceUnavailable,
		code:    "503",
		message: "Service unavailable",
		header:  [2]string{"Retry-After", "1"},
	}
}

// TooLarge returns the response if the event is too large to be published.
func TooLarge(message string) *TriggerAnswer {
	return refuse(http.StatusRequestEntityTooLarge, message)
}

// bodyTooLarge returns the response to a body that exceeds the limit. size describes the
// size of the body for the log.
func bodyTooLarge(size string, limit int) *TriggerAnswer {
	refused := TooLarge("Body too large")
	refused.hint = fmt.Sprintf("a body of %s is over the limit of %d: "+
		"send less, or raise Options.Limits.TriggerBytes", size, limit)
	return refused
}

// tooMany returns the response if no more ids can be remembered.
func tooMany() *TriggerAnswer {
	refused := Unavailable()
	refused.message = "Too many triggers with an id in 20 minutes: this server remembers " +
		strconv.Itoa(MaxRepeats) + " of them"
	refused.header[1] = "10"
	return refused
}

func (a *TriggerAnswer) received() bool { return a.status == http.StatusCreated }

// Refusal returns the code and the reason for the log if the request was at fault (4xx). ok
// is false for other responses.
func (a *TriggerAnswer) Refusal() (code, reason string, ok bool) {
	if a.status < 400 || a.status >= 500 {
		return "", "", false
	}
	if a.hint != "" {
		return a.code, a.hint, true
	}
	return a.code, a.message, true
}

// Delivered reports whether the event was published.
func (a *TriggerAnswer) Delivered() bool { return a.status < 300 }

// Write writes the response.
func (a *TriggerAnswer) Write(w http.ResponseWriter) {
	if a.header[0] != "" {
		w.Header().Set(a.header[0], a.header[1])
	}
	if !a.Delivered() {
		httperror.WriteCode(w, a.status, a.code, a.message)
		return
	}
	status := jsvalue.Object(nil).Raw("code", strconv.AppendInt(nil, int64(a.status), 10)).Text("message", "Ok")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	answer := jsvalue.Object(nil).Raw("status", status)
	if a.at != "" {
		answer = answer.Text("position", a.at)
	}
	_, _ = w.Write(answer)
}

func refuse(status int, message string) *TriggerAnswer {
	return &TriggerAnswer{
		status:  status,
		code:    strconv.Itoa(status),
		message: message,
	}
}

// badName returns the response for an error of the Channel or Event func of a TriggerReader.
func badName(kind string, err error) *TriggerAnswer {
	if errors.Is(err, names.ErrNotChecked) {
		return refuse(http.StatusInternalServerError, "Internal error")
	}
	return bad("Invalid " + kind + " name: " + err.Error())
}

func bad(message string) *TriggerAnswer { return refuse(http.StatusBadRequest, message) }
