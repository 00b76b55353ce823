// Package calls has the bodies and answers of the calls of the signed API (PROTOCOL.md, section
// 15), which the server and package backend share.
package calls

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Limits of one call of publish.
const (
	MaxEvents   = 100
	MaxChannels = 100  // of one event
	MaxPairs    = 1000 // of an event and a channel
)

// Limits of one event, for every way to publish it.
const (
	MaxExcept = 64  // ids, as package broker encodes
	MaxID     = 128 // bytes of Latest, of an ID and of each id in Except
)

// Publish is the body of the call publish.
type Publish struct {
	Events []Event `json:"events"`
	Count  bool    `json:"count,omitempty"`
}

// Event is an event in the body of publish.
type Event struct {
	Channels  []string        `json:"channels"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data,omitempty"`
	Except    []string        `json:"except,omitempty"`
	ID        string          `json:"id,omitempty"`
	Latest    string          `json:"latest,omitempty"`
	Droppable bool            `json:"droppable,omitempty"`
}

// CheckEvent checks what does not depend on a server. The error says what is wrong with the field.
func CheckEvent(id, latest string, except []string) (field string, err error) {
	switch {
	case len(id) > MaxID:
		return "id", fmt.Errorf("must not be longer than %d bytes", MaxID)
	case len(latest) > MaxID:
		return "latest", fmt.Errorf("must not be longer than %d bytes", MaxID)
	case len(except) > MaxExcept:
		return "except", fmt.Errorf("must have at most %d ids", MaxExcept)
	}
	for i, id := range except {
		if id == "" || len(id) > MaxID {
			return "except[" + strconv.Itoa(i) + "]", fmt.Errorf("must have 1 to %d bytes", MaxID)
		}
	}
	return "", nil
}

// Published is the answer to publish, as clients decode it.
type Published struct {
	Events []struct {
		Channels map[string]Receipt `json:"channels"`
	} `json:"events"`
	Silent []string `json:"silent"`
}

// Receipt is the result of publishing an event in one channel.
type Receipt struct {
	Received    bool     `json:"received"`
	Position    Position `json:"position"`
	Duplicate   bool     `json:"duplicate"`   // an event with the same own ID was published before
	Subscribers uint64   `json:"subscribers"` // if the body has Count
	Fault       *Fault   `json:"error"`       // if the event was not published
}

// Fault is an error in an answer.
type Fault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Position is a broker.Position as JSON has it, a string.
type Position broker.Position

// MarshalText implements encoding.TextMarshaler.
func (p Position) MarshalText() ([]byte, error) { return []byte(broker.Position(p).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Position) UnmarshalText(text []byte) error {
	parsed, err := broker.ParsePosition(string(text))
	*p = Position(parsed)
	return err
}

// PublishAnswer is the answer to publish, as the server makes it.
type PublishAnswer struct {
	Events   []Event   // of the body, with the names of their channels in lower case
	Receipts []Receipt // one for each channel of each event, in their order
	Counted  bool      // Silent, and Subscribers of the receipts, are set
	Silent   []string  // the nodes that have not answered
}

// JSON encodes the answer. The receipts have the order of the request.
func (a *PublishAnswer) JSON() jsvalue.Object {
	out := []byte(`{"events":[`)
	n := 0
	for i, e := range a.Events {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"channels":{`...)
		for j, channel := range e.Channels {
			if j > 0 {
				out = append(out, ',')
			}
			out = append(jsvalue.AppendQuote(out, channel), ':')
			out = append(out, a.Receipts[n].json(a.Counted)...)
			n++
		}
		out = append(out, "}}"...)
	}
	out = append(out, ']', '}')
	answer := jsvalue.Object(out)
	if a.Counted {
		silent, _ := json.Marshal(append([]string{}, a.Silent...)) // strings can be encoded
		answer = answer.Raw("silent", silent)
	}
	return answer
}

func (r *Receipt) json(counted bool) jsvalue.Object {
	if f := r.Fault; f != nil {
		return jsvalue.Object(nil).Raw("error", jsvalue.Object(nil).Text("code", f.Code).Text("message", f.Message))
	}
	o := jsvalue.Object(nil).Raw("received", strconv.AppendBool(nil, r.Received))
	if at := broker.Position(r.Position).String(); at != "" {
		o = o.Text("position", at)
	}
	if r.Duplicate {
		o = o.Raw("duplicate", []byte("true"))
	}
	if counted {
		o = o.Raw("subscribers", strconv.AppendUint(nil, r.Subscribers, 10))
	}
	return o
}
