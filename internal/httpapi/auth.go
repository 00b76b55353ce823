package httpapi

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/strictjson"
)

const maxAuthBody = 64 << 10

// MaxAuthChannels is the largest number of channels of one request for tokens.
const MaxAuthChannels = 100

// AuthHandler is the handler of an auth endpoint. All fields must be set.
type AuthHandler struct {
	// FromAllowedOrigin applies the origin policy and sets the CORS headers. If it returns
	// false, it has answered the request.
	FromAllowedOrigin func(w http.ResponseWriter, r *http.Request) bool
	// BodyTimeout is the time within which a body must arrive.
	BodyTimeout time.Duration
	// Channel validates the name of a channel and returns it in lower case.
	Channel func(name string) (lower string, err error)
	// Client returns what the client with that connection understands. v2 means that the request
	// says that the client renews its subscriptions.
	Client func(connID string, v2 bool) AuthClient
	// Grant decides whether the client of r may subscribe to channels, whose names are different
	// and in lower case, and returns an answer for each of them.
	Grant func(r *http.Request, connID string, client AuthClient, channels []string) []AuthAnswer
}

// AuthClient says what a client understands.
type AuthClient struct {
	Renews  bool // it renews its subscriptions
	Batches bool // it can ask for several channels at once, as far as the server knows
}

// AuthAnswer is the answer for one channel.
type AuthAnswer struct {
	Auth    string
	Data    []byte
	Expires int64    // of the token, in Unix milliseconds; 0 if it has no end
	Refused *Refusal // nil if the client may subscribe
}

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
	q, refused := h.read(r)
	if refused == nil && !q.batch {
		_, refused = h.name(q.channels[0]) // the name is the first to be checked
	}
	if refused == nil && !names.IsUUID(q.connID) {
		refused = bad("connection_id is not a connection's id")
	}
	if refused != nil {
		refused.Write(w)
		return
	}
	// The body has been read. If the deadline expired later, it would end r's context.
	_ = rc.SetReadDeadline(time.Time{})
	client := h.Client(q.connID, q.v2)
	answers := h.answer(r, &q, client)
	switch {
	case q.batch:
		writeTokens(w, q.channels, answers)
	case answers[0].Refused != nil:
		one := *answers[0].Refused
		if client.Batches { // so that the client asks for its other channels at once
			one.Answer = appendBatch(one.Answer)
		}
		one.Write(w)
	default:
		writeToken(w, &answers[0], client)
	}
}

// appendBatch says how many channels a request may have.
func appendBatch(body jsvalue.Object) jsvalue.Object {
	return body.Raw("batch", strconv.AppendInt(nil, MaxAuthChannels, 10))
}

// authQuery is a request for tokens.
type authQuery struct {
	connID   string
	channels []string // as they were sent
	batch    bool     // the answer has the form for several channels
	v2       bool
}

// answer returns an answer for each channel of q.
func (h *AuthHandler) answer(r *http.Request, q *authQuery, client AuthClient) []AuthAnswer {
	answers := make([]AuthAnswer, len(q.channels))
	var valid []string         // the different names in lower case
	places := map[string]int{} // of these
	place := make([]int, len(q.channels))
	for i, channel := range q.channels {
		lower, refused := h.name(channel)
		if refused != nil {
			answers[i].Refused = refused
			continue
		}
		if _, known := places[lower]; !known {
			places[lower] = len(valid)
			valid = append(valid, lower)
		}
		place[i] = places[lower]
	}
	if len(valid) == 0 {
		return answers
	}
	granted := h.Grant(r, q.connID, client, valid)
	for i := range answers {
		if answers[i].Refused == nil {
			answers[i] = granted[place[i]]
		}
	}
	return answers
}

func (h *AuthHandler) name(channel string) (lower string, refused *Refusal) {
	lower, err := h.Channel(channel)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return "", Refuse(http.StatusInternalServerError, "Internal error")
	case err != nil:
		return "", bad("channel name " + err.Error())
	}
	return lower, nil
}

// read returns the fields of the body, which is a form or a JSON object. The body can be read
// again afterwards.
func (h *AuthHandler) read(r *http.Request) (q authQuery, refused *Refusal) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAuthBody+1))
	var over *http.MaxBytesError // from middleware
	switch {
	case errors.As(err, &over):
		return q, &Refusal{
			Status:  http.StatusRequestEntityTooLarge,
			Message: httperror.OverMiddleware(over),
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return q, Refuse(http.StatusRequestTimeout, "the body did not come in time")
	case err != nil:
		return q, bad("cannot read the body")
	case len(body) > maxAuthBody:
		return q, Refuse(http.StatusRequestEntityTooLarge, "body over 64 KiB")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch media {
	case "application/json":
		q, err = parseAuthJSON(body)
	case "application/x-www-form-urlencoded":
		var form url.Values
		form, err = url.ParseQuery(string(body))
		q = authQuery{
			connID:   form.Get("connection_id"),
			channels: form["channel"],
			batch:    len(form["channel"]) > 1,
			v2:       form.Get("v") == "2",
		}
	default:
		return q, &Refusal{
			Status:  http.StatusUnsupportedMediaType,
			Message: "body must be application/x-www-form-urlencoded (URLSearchParams) or application/json",
		}
	}
	switch {
	case err != nil:
		return q, bad("malformed body")
	case len(q.channels) == 0 || !q.batch && q.channels[0] == "" || q.connID == "":
		return q, bad("channel and connection_id are needed")
	case len(q.channels) > MaxAuthChannels:
		return q, bad("at most 100 channels are allowed")
	}
	return q, nil
}

// channelLists decodes the channels of a JSON body.
var channelLists = func() *strictjson.Decoder[[]string] {
	d, err := strictjson.New[[]string]()
	if err != nil {
		panic(err)
	}
	return d
}()

func parseAuthJSON(body []byte) (q authQuery, err error) {
	malformed := jsvalue.Fields(body, func(name, value []byte) {
		switch string(name) {
		case "channel":
			q.channels = nil
			q.batch = jsvalue.Kind(value) == '['
			if q.batch {
				q.channels, err = channelLists.Decode(value)
			} else if channel, ok := jsvalue.Text(value); ok {
				q.channels = []string{channel}
			}
		case "connection_id":
			q.connID, _ = jsvalue.Text(value)
		case "v":
			q.v2 = string(value) == `2` || string(value) == `"2"`
		}
	})
	if malformed != nil {
		err = malformed
	}
	return q, err
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

// fields returns the token, the data and the end if there are any, or the refusal.
func (a *AuthAnswer) fields() jsvalue.Object {
	if refused := a.Refused; refused != nil {
		status := strconv.Itoa(refused.Status)
		return jsvalue.Object(nil).
			Text("error", refused.Message).
			Text("code", cmp.Or(refused.Code, status)).
			Raw("status", []byte(status))
	}
	body := jsvalue.Object(nil).Text("auth", a.Auth)
	if a.Data != nil {
		body = body.Raw("data", a.Data)
	}
	if a.Expires > 0 {
		body = body.Raw("expires", strconv.AppendInt(nil, a.Expires, 10))
	}
	return body
}

// writeToken writes the response for one channel.
func writeToken(w http.ResponseWriter, a *AuthAnswer, client AuthClient) {
	body := a.fields()
	if client.Batches {
		body = appendBatch(body)
	}
	writeAuth(w, body)
}

// writeTokens writes the response for several channels, by their names as they were sent.
func writeTokens(w http.ResponseWriter, channels []string, answers []AuthAnswer) {
	var all jsvalue.Object
	written := map[string]bool{}
	for i, channel := range channels {
		if !written[channel] {
			written[channel] = true
			all = all.Raw(channel, answers[i].fields())
		}
	}
	writeAuth(w, jsvalue.Object(nil).Raw("channels", all))
}

func writeAuth(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}
