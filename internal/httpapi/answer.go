package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

// TriggerAnswer is the response to a trigger.
type TriggerAnswer struct {
	refused  *Refusal // nil if the event was published
	received bool
	at       string // the position of an event that is kept, or ""
}

// Done returns the response to a trigger that was delivered: 201 if the channel had a
// subscriber, otherwise 200. position is that of an event that is kept, or "".
func Done(received bool, position string) *TriggerAnswer {
	return &TriggerAnswer{
		received: received,
		at:       position,
	}
}

// Refused returns the response to a trigger that was not delivered.
func Refused(refused *Refusal) *TriggerAnswer { return &TriggerAnswer{refused: refused} }

// tooMany returns the response if no more ids can be remembered.
func tooMany() *TriggerAnswer {
	return Refused(RefuseRetry(10*time.Second, "Too many triggers with an id in 20 minutes: this server remembers "+
		strconv.Itoa(MaxRepeats)+" of them"))
}

// Refusal returns the code and the reason for the log if the request was at fault (4xx). ok
// is false for other responses.
func (a *TriggerAnswer) Refusal() (code, reason string, ok bool) {
	if a.Delivered() {
		return "", "", false
	}
	return a.refused.Fault()
}

// Delivered reports whether the event was published.
func (a *TriggerAnswer) Delivered() bool { return a.refused == nil }

// Write writes the response.
func (a *TriggerAnswer) Write(w http.ResponseWriter) {
	if !a.Delivered() {
		a.refused.Write(w)
		return
	}
	code, answer := http.StatusOK, answerOK
	if a.received {
		code, answer = http.StatusCreated, answerCreated
	}
	w.Header()["Content-Type"] = []string{"application/json"} // the key has its canonical form
	w.WriteHeader(code)
	if a.at != "" {
		answer = jsvalue.Object(nil).Raw("status", statusOf(code)).Text("position", a.at)
	}
	_, _ = w.Write(answer)
}

// The responses to triggers of events that are not kept.
var (
	answerOK      = jsvalue.Object(nil).Raw("status", statusOf(http.StatusOK))
	answerCreated = jsvalue.Object(nil).Raw("status", statusOf(http.StatusCreated))
)

func statusOf(code int) jsvalue.Object {
	return jsvalue.Object(nil).Raw("code", strconv.AppendInt(nil, int64(code), 10)).Text("message", "Ok")
}

// badName returns the response for an error of the Channel or Event func of a TriggerReader.
func badName(kind string, err error) *Refusal {
	if errors.Is(err, names.ErrNotChecked) {
		return Refuse(http.StatusInternalServerError, "Internal error")
	}
	return bad("Invalid " + kind + " name: " + err.Error())
}
