// Package httpapi implements the HTTP endpoints that are not transports: the trigger, with
// which a backend publishes (PROTOCOL.md, section 7), the auth endpoint, from which pages
// request tokens (section 11), and the entry of the signed API (section 15). They parse and validate requests as the
// protocol requires; callbacks make the decisions.
package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/formbody"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
)

// TriggerWindow is the limit for the difference between the timestamp of a trigger and the
// time of the server.
const TriggerWindow = 600 * time.Second

// Trigger is a valid request to publish an event.
type Trigger struct {
	Channel string // in lower case
	Event   string
	Data    []byte // compact JSON
	Except  string // the id of the connection to exclude, or ""
	// Repeat identifies the request, so that a retry can be recognized, or is "".
	Repeat string

	timestamp string
	authKey   string
}

// TriggerReader reads and validates triggers. Cheap checks, and checks that do not need the
// body, come first. All fields must be set, unless their comment says otherwise.
type TriggerReader struct {
	Keys        []string      // the secret keys, each of which is valid for a signature
	MaxBody     int           // bytes; if it is not positive, there is no limit
	BodyTimeout time.Duration // for the body to arrive
	Now         func() time.Time
	Channel     func(name string) (lower string, err error)
	Event       func(name string) error
	// AllowPrivateEvents accepts event names that begin with "private-" or "presence-".
	AllowPrivateEvents bool
	// Used is called with the index in Keys of the key that has verified a trigger. It can be
	// nil.
	Used func(key int)
}

// Read reads a trigger for the channel whose name is in the path. If the trigger is refused,
// Read returns why.
func (rd *TriggerReader) Read(w http.ResponseWriter, r *http.Request, name string) (*Trigger, *Refusal) {
	// A client that sends its body very slowly must not block the handler, nor the server,
	// which reads the rest of a body. If deadlines are not supported, the host's server must
	// have a timeout.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(rd.BodyTimeout))
	if r.Method != http.MethodPost {
		refused := Refuse(http.StatusMethodNotAllowed, "Method not allowed")
		refused.Header = [2]string{"Allow", http.MethodPost}
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
	// The body has been read. If the deadline expired later, it would end r's context.
	_ = rc.SetReadDeadline(time.Time{})
	refused = rd.verify(t, body, isJSON)
	if refused != nil {
		return nil, refused
	}
	return t, nil
}

func (rd *TriggerReader) parameters(rawQuery, name string) (*Trigger, *Refusal) {
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
	if lower := jsvalue.Lower(t.Event); !rd.AllowPrivateEvents && names.Private(lower) {
		// A token for a private channel is a signature of the same form as the key of a
		// trigger for such an event. An auth endpoint that signs any connection id could
		// therefore be used to make a key.
		prefix, _, _ := strings.Cut(lower, "-")
		return nil, bad(`Invalid event name: must not begin with "` + prefix + `-"`)
	}
	at, ok := unixSeconds(t.timestamp)
	if !ok {
		return nil, bad("Invalid timestamp")
	}
	now := rd.Now().Add(time.Second / 2).Unix() // rounded to the nearest second
	if window := int64(TriggerWindow / time.Second); at-now >= window || now-at >= window {
		refused := Refuse(http.StatusForbidden, "Timestamp out of bounds (600 seconds)")
		refused.Code = "501"
		refused.Hint = fmt.Sprintf("the trigger's timestamp is %d and this server's time is %d: "+
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

func (rd *TriggerReader) body(w http.ResponseWriter, r *http.Request) (body []byte, isJSON bool, refused *Refusal) {
	isJSON, isForm := bodyType(r.Header.Get("Content-Type"))
	body, refused = readBody(w, r, bodyRules{
		max:     rd.MaxBody,
		cure:    "send less, or raise Options.Limits.TriggerBytes",
		allowed: func(string) bool { return isJSON || isForm },
		unknown: "Content-Type must be JSON or application/x-www-form-urlencoded",
	})
	return body, isJSON, refused
}

// verify parses body, checks the signature of each form of the body that the protocol
// accepts, and sets t.Data to the data that is delivered.
func (rd *TriggerReader) verify(t *Trigger, body []byte, isJSON bool) *Refusal {
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
		// The raw bytes are not an accepted form, because then a token for a private channel
		// could be valid as the key of a trigger with a form body.
		data, err := formbody.Parse(body)
		if err != nil {
			return bad("Malformed form: " + err.Error())
		}
		t.Data = data
		if rd.signed(t, data) || rd.signed(t, jsvalue.AppendPHP(nil, data)) {
			return nil
		}
	}
	refused := Refuse(http.StatusForbidden, "Invalid credentials ("+clip(t.authKey)+")")
	refused.Hint = "auth_key is not over this channel, event, timestamp and body with Options.SecretKey: " +
		"compare the keys, and the body byte by byte"
	return refused
}

func (rd *TriggerReader) signed(t *Trigger, body []byte) bool {
	for i, key := range rd.Keys {
		if sign.Equal(t.authKey, sign.Trigger(key, t.Channel, t.Event, t.timestamp, body)) {
			if rd.Used != nil {
				rd.Used(i)
			}
			return true
		}
	}
	return false
}

// clip truncates a value that a client sent to 64 characters, for a response to that client.
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
