// Package httpapi is the two HTTP endpoints beside the transports: the signed trigger,
// by which a backend publishes (PROTOCOL.md, section 7), and the auth endpoint, which
// pages ask for tokens (section 11). Both decide nothing: they read a request, check
// what the protocol says of it, and call back.
package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/formbody"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
)

// TriggerWindow is how far a trigger's timestamp may be from now.
const TriggerWindow = 600 * time.Second

// Trigger is what a request asks to publish.
type Trigger struct {
	Channel string // lower-cased
	Event   string
	Data    []byte // one compact JSON text
	Except  string // the id of the connection to leave out, or ""
	// Repeat names the request, so that it is told from a new one, or is "".
	Repeat string

	timestamp string
	authKey   string
}

// TriggerReader reads triggers. What is cheap to check, and what needs no body, comes
// first. All fields must be set.
type TriggerReader struct {
	Keys        []string      // any of which may have signed
	MaxBody     int           // bytes; not above zero is no limit
	BodyTimeout time.Duration // for the body to arrive
	Now         func() time.Time
	Channel     func(name string) (lower string, err error)
	Event       func(name string) error
	// AllowPrivateEvents accepts event names that begin with "private-".
	AllowPrivateEvents bool
}

// Read reads a trigger for the channel named in the path. If it is not to be
// published, the TriggerAnswer says why, else it is nil.
func (rd *TriggerReader) Read(w http.ResponseWriter, r *http.Request, name string) (*Trigger, *TriggerAnswer) {
	// A client that sends a byte now and then must not hold the handler, nor the
	// server that reads what we did not. Where no deadline can be set, the host's
	// server has to see to that.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(rd.BodyTimeout))
	if r.Method != http.MethodPost {
		refused := refuse(http.StatusMethodNotAllowed, "Method not allowed")
		refused.header = [2]string{"Allow", http.MethodPost}
		return nil, refused
	}
	t, refused := rd.parameters(r.URL.RawQuery, name)
	if refused != nil {
		return nil, refused
	}
	body, isJSON, refused := rd.body(w, r)
	if refused != nil {
		return nil, refused
	}
	// The body is here. A deadline that passes later would end r's context.
	_ = rc.SetReadDeadline(time.Time{})
	if refused = rd.verify(t, body, isJSON); refused != nil {
		return nil, refused
	}
	return t, nil
}

func (rd *TriggerReader) parameters(rawQuery, name string) (*Trigger, *TriggerAnswer) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, bad("Malformed query")
	}
	for _, parameter := range []string{"event", "timestamp", "auth_key", "socket_id", "id"} {
		if len(query[parameter]) > 1 {
			return nil, bad("Parameter " + parameter + " given twice")
		}
	}
	t := &Trigger{
		Event:     query.Get("event"),
		timestamp: query.Get("timestamp"),
		authKey:   query.Get("auth_key"),
		Except:    strings.ToLower(query.Get("socket_id")),
	}
	id := query.Get("id")
	switch {
	case t.Event == "" || t.timestamp == "" || t.authKey == "":
		return nil, bad("Missing required parameters")
	case t.Except != "" && !names.IsUUID(t.Except):
		return nil, bad("Invalid socket_id: must be a connection's id")
	case id != "" && !names.IsToken(id):
		return nil, bad("Invalid id: must be 1 to 64 of A-Z a-z 0-9 _ -")
	case id != "":
		t.Repeat = t.authKey + ":" + id
	}
	if t.Channel, err = rd.Channel(name); err != nil {
		return nil, badName("channel", err)
	}
	if err = rd.Event(t.Event); err != nil {
		return nil, badName("event", err)
	}
	if !rd.AllowPrivateEvents && names.Private(jsvalue.Lower(t.Event)) {
		// An auth endpoint that signs any connection id would sign, as a token for
		// such a channel, what is the key of a trigger for such an event.
		return nil, bad(`Invalid event name: must not begin with "private-"`)
	}
	at, ok := unixSeconds(t.timestamp)
	if !ok {
		return nil, bad("Invalid timestamp")
	}
	now := rd.Now().Add(time.Second / 2).Unix() // the nearest second
	if window := int64(TriggerWindow / time.Second); at-now >= window || now-at >= window {
		refused := refuse(http.StatusForbidden, "Timestamp out of bounds (600 seconds)")
		refused.code = "501"
		refused.hint = fmt.Sprintf("the trigger's timestamp is %d and this server's time is %d: "+
			"they may differ by less than 600 seconds; compare the clocks", at, now)
		return nil, refused
	}
	return t, nil
}

// unixSeconds parses "0" or a number of up to 16 digits without a leading zero.
func unixSeconds(s string) (int64, bool) {
	if len(s) > 16 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func (rd *TriggerReader) body(w http.ResponseWriter, r *http.Request) (body []byte, isJSON bool, refused *TriggerAnswer) {
	isJSON, isForm := bodyType(r.Header.Get("Content-Type"))
	unknown := refuse(http.StatusUnsupportedMediaType, "Content-Type must be JSON or application/x-www-form-urlencoded")
	encoding := r.Header.Get("Content-Encoding")
	if r.ContentLength != 0 && encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, false, refuse(http.StatusUnsupportedMediaType, "Content-Encoding "+clip(encoding)+" is not supported")
	}
	if r.ContentLength > 0 && !isJSON && !isForm {
		return nil, false, unknown
	}
	if rd.MaxBody > 0 {
		if r.ContentLength > int64(rd.MaxBody) {
			return nil, false, bodyTooLarge(fmt.Sprintf("%d bytes", r.ContentLength), rd.MaxBody)
		}
		r.Body = http.MaxBytesReader(w, r.Body, int64(rd.MaxBody))
	}
	// Memory grows with what arrives, not with what a header claims.
	var b bytes.Buffer
	b.Grow(int(min(max(r.ContentLength, 0), 8<<10)) + bytes.MinRead)
	_, err := b.ReadFrom(r.Body)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		refused = bodyTooLarge(fmt.Sprintf("more than %d bytes", over.Limit), rd.MaxBody)
		if rd.MaxBody <= 0 || over.Limit < int64(rd.MaxBody) {
			refused.hint = httperror.OverMiddleware(over)
		}
		return nil, false, refused
	case err != nil:
		return nil, false, refuse(http.StatusRequestTimeout, "Cannot read the body")
	case b.Len() > 0 && !isJSON && !isForm:
		return nil, false, unknown // chunked, so only now known not to be empty
	}
	return b.Bytes(), isJSON, nil
}

func bodyType(header string) (isJSON, isForm bool) {
	media, _, err := mime.ParseMediaType(header)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false, false
	}
	isJSON = media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")
	return isJSON, media == "application/x-www-form-urlencoded"
}

// verify parses body, checks the key over each form of it that the protocol
// accepts, and sets the data as it is delivered.
func (rd *TriggerReader) verify(t *Trigger, body []byte, isJSON bool) *TriggerAnswer {
	switch {
	case len(body) == 0:
		t.Data = []byte("{}")
		if rd.signed(t, t.Data) || rd.signed(t, []byte("[]")) {
			return nil
		}
	case isJSON:
		data, err := jsvalue.Compact(make([]byte, 0, len(body)), body, jsvalue.TriggerLimits)
		if err != nil {
			return bad("Malformed JSON: " + err.Error())
		}
		if k := jsvalue.Kind(data); k != '{' && k != '[' {
			return bad("Malformed JSON: must be an object or an array")
		}
		t.Data = data
		if rd.signed(t, body) {
			return nil
		}
		canonical, err := jsvalue.Canonical(make([]byte, 0, len(body)), body, jsvalue.TriggerLimits)
		if err == nil && rd.signed(t, canonical) {
			return nil
		}
	default:
		// Never over the raw bytes: a token for a private channel could be
		// made to look like a trigger with a form body.
		data, err := formbody.Parse(body)
		if err != nil {
			return bad("Malformed form: " + err.Error())
		}
		t.Data = data
		if rd.signed(t, data) || rd.signed(t, jsvalue.AppendPHP(nil, data)) {
			return nil
		}
	}
	refused := refuse(http.StatusForbidden, "Invalid credentials ("+clip(t.authKey)+")")
	refused.hint = "auth_key is not over this channel, event, timestamp and body with Options.SecretKey: " +
		"compare the keys, and the body byte by byte"
	return refused
}

func (rd *TriggerReader) signed(t *Trigger, body []byte) bool {
	for _, key := range rd.Keys {
		if sign.Equal(t.authKey, sign.Trigger(key, t.Channel, t.Event, t.timestamp, body)) {
			return true
		}
	}
	return false
}

// clip cuts what a client sent to 64 characters, to be said back to it.
func clip(s string) string {
	n := 0
	for i := range s {
		if n == 64 {
			return s[:i]
		}
		n++
	}
	return s
}
