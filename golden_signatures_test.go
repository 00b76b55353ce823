package pushy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/require"
)

// signature is one recorded vector: what was signed, by whom, and what the
// original said to it.
type signature struct {
	Kind, Name, Source string
	Secret             string
	Channel            string
	SHA256             string
	Accepted           bool

	// Of a trigger.
	ChannelInURL   string `json:"channel_in_url"`
	Event          string
	EventInURL     string          `json:"event_in_url"`
	Timestamp      json.RawMessage // a number or a text
	ServerClock    int64           `json:"server_clock"`
	ContentType    *string         `json:"content_type"`
	Headers        map[string]string
	BodyRaw        *string `json:"body_raw"`
	BodyBase64     string  `json:"body_raw_base64"`
	AuthKeySent    string  `json:"auth_key_sent"`
	SDKAuthKey     string  `json:"sdk_auth_key"`
	Status         int
	ReplyBody      string `json:"reply_body"`
	DeliveredFrame string `json:"delivered_frame"`

	// Of a subscription.
	SocketID      string  `json:"socket_id"`
	CanonicalJSON *string `json:"canonical_json"` // the data as browsers send it
	DataPresent   bool    `json:"data_present"`
	SDKAuth       string  `json:"sdk_auth"`
	Reply         string
}

// unsent are the vectors for which the SDK sent nothing: there is no key.
var unsent = map[string]string{
	"php-event-space":   "curl refused the URL",
	"php-channel-space": "curl refused the URL",
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	var vectors []signature
	readGolden(t, "signatures.json", &vectors)
	kinds := map[string]string{}
	for _, v := range vectors {
		kinds[v.Name] = v.Kind
	}
	require.Len(t, kinds, len(vectors))
	for name, d := range triggerVectorDeviations {
		require.Equal(t, "trigger", kinds[name], "a deviation of no vector: %s", name)
		require.Regexp(t, deviationNumber, d.number, name)
	}
	for name, d := range subscribeVectorDeviations {
		require.Equal(t, "subscribe", kinds[name], "a deviation of no vector: %s", name)
		require.Regexp(t, deviationNumber, d.number, name)
	}
	for name := range unsent {
		require.Contains(t, kinds, name)
	}
	for _, v := range vectors {
		if _, none := unsent[v.Name]; none {
			require.Zero(t, v.SDKAuthKey+v.SHA256, v.Name)
			continue
		}
		name := v.Name
		if d, ok := triggerVectorDeviations[v.Name]; ok {
			name += "," + d.number
		}
		if d, ok := subscribeVectorDeviations[v.Name]; ok {
			name += "," + d.number
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch v.Kind {
			case "trigger":
				checkTriggerVector(t, v)
			case "subscribe":
				checkSubscribeVector(t, v)
			default:
				t.Fatalf("kind %q", v.Kind)
			}
		})
	}
}

// vectorDeviation is what the server says to a vector instead of what is
// recorded.
type vectorDeviation struct {
	number string
	reply  reply  // to the recorded key; none is as recorded
	data   string // delivered, none if nothing is
	signed string // another form of the body, whose key is accepted, and data delivered
}

func checkTriggerVector(t *testing.T, v signature) {
	srv, baseURL := serve(t, pushy.Options{SecretKey: v.Secret})
	timestamp := strings.Trim(string(v.Timestamp), `"`)
	clock := goldenClock()
	switch {
	case v.ServerClock != 0:
		clock = time.Unix(v.ServerClock, 0)
	case v.Source == "php-sdk": // which signed when it was recorded
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		require.NoError(t, err)
		clock = time.Unix(seconds, 0)
	}
	srv.SetClock(func() time.Time { return clock })

	channel, event := v.ChannelInURL, v.EventInURL
	switch {
	case channel != "":
	case v.Source == "php-sdk": // escapes nothing
		channel, event = v.Channel, v.Event
	default:
		channel, event = url.PathEscape(v.Channel), url.QueryEscape(v.Event)
	}
	body, err := goldenBody(v.BodyRaw, v.BodyBase64)
	require.NoError(t, err)
	headers := map[string]string{"Connection": "close"}
	maps.Copy(headers, v.Headers)
	if v.ContentType != nil {
		headers["Content-Type"] = *v.ContentType
	}
	if body != nil {
		headers["Content-Length"] = strconv.Itoa(len(body))
	}
	trigger := func(key string) reply {
		target := fmt.Sprintf("/pushy/channel/%s/trigger?event=%s&timestamp=%s&auth_key=%s", channel, event, timestamp, key)
		return roundTrip(t, baseURL, "POST", target, headers, body)
	}
	sign := func(form string) string {
		return sha256Hex(strings.ToLower(v.Channel) + ":" + v.Event + ":" + timestamp + ":" + form + ":" + v.Secret)
	}

	key := v.SHA256
	switch {
	case v.AuthKeySent != "":
		key = v.AuthKeySent
	case v.SDKAuthKey != "":
		key = v.SDKAuthKey
	case key == "":
		key = sign(string(body))
	}
	want, delivered := v.recorded(t, key)
	better := ""
	if d, ok := triggerVectorDeviations[v.Name]; ok {
		if d.reply != (reply{}) {
			require.NotEmpty(t, d.reply.differs(want), "stale deviation %s", d.number)
			want = d.reply
		} else {
			require.NotEqual(t, canon(delivered), canon(d.data), "stale deviation %s", d.number)
		}
		delivered, better = d.data, d.signed
	}

	var subscriber *client
	if v.Status != 200 {
		subscriber = dial(t, baseURL, true)
		subscriber.Send(fmt.Sprintf(`{"command":"SUBSCRIBE","data":{"channel":%q}}`, v.Channel))
		require.Contains(t, subscriber.Receive(), "pushy:subscription-success")
	}
	expectData := func() {
		require.Equal(t,
			canon(fmt.Sprintf(`{"event":%q,"channel":%q,"data":%s}`, v.Event, strings.ToLower(v.Channel), delivered)),
			canon(subscriber.message()))
	}
	got := trigger(key)
	require.Empty(t, want.differs(got), "got %+v\nwant %+v", got, want)
	if want.status == 201 {
		expectData()
	}
	if better != "" {
		got, want := trigger(sign(better)), triggered(201)
		require.Empty(t, want.differs(got), "signed over %s: got %+v", better, got)
		expectData()
	}
	if subscriber != nil { // and nothing else
		subscriber.Send(`{"command":"SUBSCRIBE","data":{"channel":"the last word"}}`)
		require.Contains(t, subscriber.message(), `{"channel":"the last word",`)
	}
}

// recorded is what the original answered, as far as it is recorded, in the
// server's words (section 7), and the data that a subscriber got.
func (v signature) recorded(t *testing.T, key string) (want reply, data string) {
	switch {
	case v.Status == 200 || v.Status == 201:
		want = triggered(v.Status)
	case v.ReplyBody != "":
		want = reply{v.Status, "application/json", v.ReplyBody}
	case v.Status == 403:
		want = refused(403, "403", "Invalid credentials ("+key+")")
	default:
		want = refused(v.Status, strconv.Itoa(v.Status), "…")
	}
	require.Equal(t, v.Accepted, v.Status < 300)
	if v.DeliveredFrame == "" {
		return want, ""
	}
	messages, ok := unframe(v.DeliveredFrame)
	require.True(t, ok)
	// D8: whatever spelling the original gave back, the server's is lower case.
	_, data, ok = strings.Cut(strings.ToLower(messages[0]), `"channel":"`+strings.ToLower(v.Channel)+`","data":`)
	require.True(t, ok, messages[0])
	data = messages[0][len(messages[0])-len(data) : len(messages[0])-1]
	return want, data
}

// message returns the next message without decoding what encoding/json would
// not keep.
func (c *client) message() string {
	c.t.Helper()
	messages, ok := unframe(c.Next())
	require.True(c.t, ok)
	require.Len(c.t, messages, 1)
	return messages[0]
}

func checkSubscribeVector(t *testing.T, v signature) {
	srv, baseURL := serve(t, pushy.Options{SecretKey: v.Secret})
	srv.SetClock(goldenClock)
	srv.SetConnIDs(func() string { return v.SocketID })
	c := dial(t, baseURL, true)
	require.Equal(t, v.SocketID, c.id)
	auth, data := v.SHA256, ""
	if v.SDKAuth != "" {
		auth = v.SDKAuth
	}
	if v.DataPresent {
		data = `,"data":` + *v.CanonicalJSON
	}
	recorded := v.Reply
	lower := strings.ReplaceAll(recorded, `"channel":"`+v.Channel+`"`, `"channel":"`+strings.ToLower(v.Channel)+`"`) // D8
	require.Contains(t, lower, `"channel":"private-`)
	want := lower
	if d, ok := subscribeVectorDeviations[v.Name]; ok {
		require.NotEqual(t, canon(want), canon(d.reply), "stale deviation %s", d.number)
		want = d.reply
	}
	require.Equal(t, v.Accepted, strings.HasPrefix(recorded, `{"event":"pushy:subscription-success"`))
	c.Send(fmt.Sprintf(`{"command":"SUBSCRIBE","data":{"channel":%q,"auth":%q%s}}`, v.Channel, auth, data))
	got := c.message()
	require.True(t, bindings{}.match(want, got), "got %s\nwant %s", got, want)
	c.Send(`{"command":"SUBSCRIBE","data":{"channel":"the last word"}}`)
	require.Contains(t, c.message(), `{"channel":"the last word",`)
}
