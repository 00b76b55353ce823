package sse

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/eventstream"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// first is the first of the forms of a message. The others follow it in the order of these
// constants.
var first = fanout.NewFamily(func(text []byte) fanout.Encoding { return newMessage(text, false) })

// firstChunk is the first of the same forms for a socket: each is a whole event, as a chunk of the
// response.
var firstChunk = fanout.NewFamily(func(text []byte) fanout.Encoding { return newMessage(text, true) })

// What a form has as the event's name, and how it has the data. Of the last one, the name is part of
// the data.
const (
	nameEvent = iota
	nameChannel
	nameNone
	envelope
)

// The forms: two for each of the names, with raw data and with JSON, and those below.
const (
	formEnvelope = 2 * envelope
	formDatastar = formEnvelope + 1 // as nameEvent with raw data, see appendSignals
	formCount    = formDatastar + 1
)

// formOf returns the form for the parameters names and data, which can be "".
func formOf(names, data string) (form fanout.Form, ok bool) {
	name := nameEvent
	switch names {
	case "", "event":
	case "channel":
		name = nameChannel
	case "none":
		name = nameNone
	case "datastar":
		return first + formDatastar, data == "" || data == "raw"
	default:
		return 0, false
	}
	switch data {
	case "", "raw":
		return first + fanout.Form(2*name), true
	case "json":
		return first + fanout.Form(2*name+1), true
	case "envelope":
		return first + formEnvelope, true
	}
	return 0, false
}

// kind is what a stream does with a message.
type kind uint8

const (
	published  kind = iota
	subscribed      // it is not sent: pushy:open says it
	ignored
	gap
	ended
	notice // another message of the server
)

// message is a message of pushy's protocol in the forms of streams: a block of lines without the id
// and without the blank line at its end. It implements fanout.Encoding.
type message struct {
	chunk   bool // for a socket
	kind    kind
	event   string
	channel string
	data    []byte // JSON
	text    []byte
	at      broker.Position // of gap and subscribed; of published the Offset, or 0
	reason  string          // of gap and ended
	again   bool            // of ended
	forms   [formCount]atomic.Pointer[[]byte]
}

var _ fanout.Encoding = (*message)(nil)

// newMessage reads a message that package pushyjson has written.
func newMessage(text []byte, chunk bool) *message {
	m := &message{
		chunk: chunk,
		text:  text,
	}
	_ = jsvalue.Fields(text, func(name, value []byte) {
		switch string(name) {
		case "event":
			m.event, _ = jsvalue.Text(value)
		case "channel":
			m.channel, _ = jsvalue.Text(value)
		case "data":
			m.data = value
		case "offset":
			m.at.Offset, _ = strconv.ParseUint(string(value), 10, 64)
		}
	})
	if !strings.HasPrefix(m.event, "pushy:") {
		return m
	}
	m.kind = notice
	switch m.event {
	case "pushy:connect":
		m.kind = ignored
	case "pushy:subscription-success":
		m.kind = subscribed
		m.readData()
	case "pushy:resync":
		m.kind = gap
		m.readData()
	case "pushy:subscription-end":
		m.kind = ended
		m.readData()
	}
	return m
}

// readData reads what a stream needs of the data of the server's own messages.
func (m *message) readData() {
	_ = jsvalue.Fields(m.data, func(name, value []byte) {
		switch string(name) {
		case "channel":
			m.channel, _ = jsvalue.Text(value)
		case "epoch":
			m.at.Epoch, _ = jsvalue.Text(value)
		case "offset":
			m.at.Offset, _ = strconv.ParseUint(string(value), 10, 64)
		case "reason":
			m.reason, _ = jsvalue.Text(value)
		case "again":
			m.again = string(value) == "true"
		}
	})
}

// place returns the place of a form in forms.
func (m *message) place(form fanout.Form) int {
	if m.chunk {
		return int(form - firstChunk)
	}
	return int(form - first)
}

func (m *message) Has(form fanout.Form) bool { return m.forms[m.place(form)].Load() != nil }

func (m *message) Size() (n int) {
	for i := range m.forms {
		if p := m.forms[i].Load(); p != nil {
			n += len(*p)
		}
	}
	return n
}

func (m *message) Bytes(form fanout.Form) []byte {
	place := m.place(form)
	slot := &m.forms[place]
	if p := slot.Load(); p != nil {
		return *p
	}
	b := m.encode(place)
	if m.chunk && len(b) > 0 {
		b = appendChunk(nil, append(b, '\n'))
	}
	slot.Store(&b)
	return b
}

func (m *message) encode(form int) []byte {
	switch m.kind {
	case subscribed, ignored:
		return nil
	case gap, ended, notice:
		return m.encodeOwn(form)
	}
	b := make([]byte, 0, len(m.text)+len(m.text)/8+16)
	asJSON := form%2 == 1
	switch form {
	case formEnvelope:
		return appendJSON(b, m.text)
	case formDatastar:
		form, asJSON = nameEvent, false
	}
	switch form / 2 {
	case nameEvent:
		b = eventstream.AppendName(b, m.event)
	case nameChannel:
		if m.channel == "" { // a direct message of the host
			b = eventstream.AppendName(b, m.event)
		} else {
			b = eventstream.AppendName(b, m.channel)
		}
	}
	if text, is := jsvalue.Text(m.data); is && !asJSON {
		return eventstream.AppendLines(b, text)
	}
	return appendJSON(b, m.data)
}

// encodeOwn encodes a message of the server's own, which is the same in all forms but that of Datastar.
func (m *message) encodeOwn(form int) []byte {
	event, retry, data := m.own()
	return appendOwn(nil, first+fanout.Form(form), event, retry, data)
}

// own returns what a message of the server's own is for a stream.
func (m *message) own() (event string, retry time.Duration, data []byte) {
	switch m.event {
	case "pushy:resync":
		return eventGap, noRetry, gapData(m.channel, m.reason)
	case "pushy:subscription-end":
		data := jsvalue.Object(nil).Text("channel", m.channel)
		if m.reason != "" {
			data = data.Text("reason", m.reason)
		}
		if m.again {
			data = data.Raw("again", []byte("true"))
		}
		return eventEnd, noRetry, data
	case "pushy:drain":
		in := minDrainReturn + m.duration("returnIn")
		return eventDrain, in, jsvalue.Object(nil).Raw("returnIn", strconv.AppendInt(nil, in.Milliseconds(), 10))
	case "pushy:return":
		return eventReturn, retryWithin(m.duration("returnWithin")), m.data
	case eventDropped:
		data := jsvalue.Object(nil).Text("channel", m.channel)
		_ = jsvalue.Fields(m.data, func(name, value []byte) {
			if string(name) == "count" {
				data = data.Raw("count", value)
			}
		})
		return eventDropped, noRetry, data
	}
	return m.event, noRetry, m.data
}

// duration returns a field of the data that is a number of milliseconds.
func (m *message) duration(field string) (d time.Duration) {
	_ = jsvalue.Fields(m.data, func(name, value []byte) {
		if string(name) == field {
			ms, _ := strconv.ParseInt(string(value), 10, 64)
			d = time.Duration(ms) * time.Millisecond
		}
	})
	return d
}

// Names of the server's own events.
const (
	eventOpen    = "pushy:open"
	eventGap     = "pushy:gap"
	eventDropped = "pushy:dropped"
	eventEnd     = "pushy:end"
	eventDrain   = "pushy:drain"
	eventReturn  = "pushy:return"
	eventBusy    = "pushy:busy"
)

func gapData(channel, reason string) []byte {
	data := jsvalue.Object(nil).Text("channel", channel)
	if reason != "" {
		data = data.Text("reason", reason)
	}
	return data
}

const noRetry = time.Duration(-1)

// retryAfter is the shortest time after which a client that has lost its stream is to reconnect. Up to
// half of it is added at random.
const retryAfter = 2 * time.Second

// retryWithin returns the time after which a client is to reconnect that may return within a time. It is
// not shorter because a window is short: a client that cannot connect tries again after the same time.
func retryWithin(window time.Duration) time.Duration {
	return max(retryAfter+rand.N(retryAfter/2), rand.N(max(window, 1)))
}

// appendOwn appends an event of the server's own, whose data is compact JSON. retry is the time
// after which the client is to reconnect, or noRetry. It always stands in an event with data, because
// htmx ignores it elsewhere.
func appendOwn(b []byte, form fanout.Form, event string, retry time.Duration, data []byte) []byte {
	if form == first+formDatastar {
		if signal, is := signals[event]; is {
			return appendSignals(b, signal, data)
		}
	}
	b = eventstream.AppendName(b, event)
	if retry >= 0 {
		b = append(b, "retry: "...)
		b = strconv.AppendInt(b, retry.Milliseconds(), 10)
		b = append(b, '\n')
	}
	return appendJSON(b, data)
}

// signals has the signals of Datastar's pages in which the server's own events are. Other events tell
// such a page nothing that it could act on.
var signals = map[string]string{
	eventGap:     "gap",
	eventDropped: "dropped",
	eventEnd:     "end",
}

// appendSignals appends an event of the server's own as the event of Datastar that changes signals,
// because a page of Datastar receives no other events. Datastar does not send signals back whose names
// begin with _. The time makes a difference between two equal events: without it, the page would not
// notice the second one.
func appendSignals(b []byte, signal string, data []byte) []byte {
	value := jsvalue.Object(bytes.Clone(data)).Raw("at", strconv.AppendInt(nil, time.Now().UnixMilli(), 10))
	b = append(b, "event: datastar-patch-signals\ndata: signals "...)
	b = append(b, jsvalue.Object(nil).Raw("_pushy", jsvalue.Object(nil).Raw(signal, value))...)
	return append(b, '\n')
}

// appendJSON appends JSON as the data of an event. Between its values, JSON can have line breaks.
func appendJSON(b, json []byte) []byte {
	b = append(b, "data: "...)
	if bytes.IndexByte(json, '\n') < 0 && bytes.IndexByte(json, '\r') < 0 {
		b = append(b, json...)
		return append(b, '\n')
	}
	compact, err := jsvalue.Compact(b, json, jsvalue.Limits{})
	if err != nil { // the core has only valid JSON
		return eventstream.AppendLines(b[:len(b)-len("data: ")], string(json))
	}
	return append(compact, '\n')
}

// appendChunk appends a chunk of a response of HTTP/1.1.
func appendChunk(b, data []byte) []byte {
	b = strconv.AppendInt(b, int64(len(data)), 16)
	b = append(b, "\r\n"...)
	b = append(b, data...)
	return append(b, "\r\n"...)
}
