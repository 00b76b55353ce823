package publishers_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/webhook"
)

const (
	pusherKey    = "app-key"
	pusherSecret = "the secret of the application"
)

// pusherSDK is a publisher that calls and signs as an SDK of Pusher does.
type pusherSDK interface {
	// call calls a function of the SDK, and returns its answer or its error, which begins with the status.
	call(function string, arguments ...any) (answer string, err error)
}

// phpSDK runs testdata/pusher.php.
type phpSDK struct {
	t      *testing.T
	url    string
	secret string
}

func (s phpSDK) call(function string, arguments ...any) (string, error) {
	command := []string{"testdata/pusher.php", function}
	for _, argument := range arguments {
		text, err := json.Marshal(argument)
		require.NoError(s.t, err)
		command = append(command, string(text))
	}
	cmd := exec.CommandContext(s.t.Context(), "php", command...)
	cmd.Env = append(os.Environ(), "PUSHER_URL="+s.url, "PUSHER_APP=1", "PUSHER_KEY="+pusherKey, "PUSHER_SECRET="+s.secret)
	var failure strings.Builder
	cmd.Stderr = &failure
	answer, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s%w", failure.String(), err)
	}
	return string(answer), nil
}

// goSDK signs as pusher-http-go does: the path without that of the URL and not escaped, and the parameters
// as they are.
type goSDK struct {
	t      *testing.T
	url    string
	secret string
}

func (s goSDK) mac(text string) string {
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func (s goSDK) call(function string, arguments ...any) (string, error) {
	text := func(i int) string { return arguments[i].(string) }
	params := map[string]string{}
	if last, is := arguments[len(arguments)-1].(map[string]string); is {
		params = last
	}
	switch function {
	case "trigger":
		data, err := json.Marshal(arguments[2])
		require.NoError(s.t, err)
		body := map[string]any{
			"name":     text(1),
			"channels": arguments[0],
			"data":     string(data),
		}
		for name, value := range params {
			body[name] = value
		}
		return s.post("/events", body)
	case "sendToUser":
		return s.call("trigger", []string{"#server-to-user-" + text(0)}, text(1), arguments[2])
	case "triggerBatch":
		return s.post("/batch_events", map[string]any{"batch": arguments[0]})
	case "terminateUserConnections":
		return s.post("/users/"+text(0)+"/terminate_connections", nil)
	case "getChannels":
		return s.send(http.MethodGet, "/channels", params, nil)
	case "getChannelInfo":
		return s.send(http.MethodGet, "/channels/"+text(0), params, nil)
	case "getPresenceUsers":
		return s.send(http.MethodGet, "/channels/"+text(0)+"/users", nil, nil)
	case "authorizeChannel":
		return fmt.Sprintf(`{"auth":%q}`, pusherKey+":"+s.mac(text(1)+":"+text(0))), nil
	case "authorizePresenceChannel":
		data, err := json.Marshal(map[string]any{"user_id": text(2), "user_info": arguments[3]})
		require.NoError(s.t, err)
		return fmt.Sprintf(`{"auth":%q,"channel_data":%q}`, pusherKey+":"+s.mac(text(1)+":"+text(0)+":"+string(data)), data), nil
	case "authenticateUser":
		data, err := json.Marshal(arguments[1])
		require.NoError(s.t, err)
		return fmt.Sprintf(`{"auth":%q,"user_data":%q}`, pusherKey+":"+s.mac(text(0)+"::user::"+string(data)), data), nil
	case "webhook":
		head, body := arguments[0].(map[string]string), text(1)
		if head["X-Pusher-Key"] != pusherKey || head["X-Pusher-Signature"] != s.mac(body) {
			return "", errors.New("the signature is not valid")
		}
		var hook struct{ Events json.RawMessage }
		err := json.Unmarshal([]byte(body), &hook)
		return string(hook.Events), err
	}
	panic("there is no function " + function)
}

func (s goSDK) post(path string, value any) (string, error) {
	if value == nil {
		return s.send(http.MethodPost, path, nil, nil)
	}
	body, err := json.Marshal(value)
	require.NoError(s.t, err)
	digest := md5.Sum(body)
	return s.send(http.MethodPost, path, map[string]string{"body_md5": hex.EncodeToString(digest[:])}, body)
}

func (s goSDK) send(method, path string, params map[string]string, body []byte) (string, error) {
	path = "/apps/1" + path
	params = maps.Clone(params)
	if params == nil {
		params = map[string]string{}
	}
	params["auth_key"] = pusherKey
	params["auth_timestamp"] = strconv.FormatInt(time.Now().Unix(), 10)
	params["auth_version"] = "1.0"
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		pairs = append(pairs, name+"="+params[name])
	}
	query := strings.Join(pairs, "&")
	query += "&auth_signature=" + s.mac(method+"\n"+path+"\n"+query) // not escaped: SDKs send commas as they are
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path+"?"+query, bytes.NewReader(body))
	require.NoError(s.t, err)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	answer, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.NoError(s.t, response.Body.Close())
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%d %s", response.StatusCode, answer)
	}
	return string(answer), nil
}

// pusherMessage is what a Pusher client receives.
type pusherMessage struct {
	Event, Channel string
	Data           string
}

// pusherClient is a client of the Pusher protocol.
type pusherClient struct {
	t    *testing.T
	conn io.ReadWriteCloser
	id   string
}

func dialPusher(t *testing.T, url string) *pusherClient {
	t.Helper()
	conn, buffered, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"/app/"+pusherKey)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Minute)))
	c := &pusherClient{t: t, conn: conn}
	if buffered != nil {
		c.conn = struct {
			io.Reader
			io.WriteCloser
		}{buffered, conn}
	}
	var first struct {
		SocketID string `json:"socket_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(c.expect("pusher:connection_established").Data), &first))
	c.id = first.SocketID
	return c
}

// expect returns the next message, which must be of an event.
func (c *pusherClient) expect(event string) (m pusherMessage) {
	c.t.Helper()
	text, err := wsutil.ReadServerText(c.conn)
	require.NoError(c.t, err)
	require.NoError(c.t, json.Unmarshal(text, &m), string(text))
	require.Equal(c.t, event, m.Event, string(text))
	return m
}

// send sends an event whose data are the fields of answer, that of an auth endpoint, and others.
func (c *pusherClient) send(event, answer string, others map[string]any) {
	c.t.Helper()
	data := map[string]any{}
	require.NoError(c.t, json.Unmarshal([]byte(cmp.Or(answer, "{}")), &data))
	maps.Copy(data, others)
	text, err := json.Marshal(map[string]any{"event": event, "data": data})
	require.NoError(c.t, err)
	require.NoError(c.t, wsutil.WriteClientText(c.conn, text))
}

// Publishers that sign as Pusher's SDKs for PHP and Go do, which cannot be installed where these tests run:
// they sign the path of the API without that under which the application is mounted, and not escaped.
func TestPusherSDKs(t *testing.T) {
	t.Parallel()
	for name, sdk := range map[string]func(t *testing.T, url, secret string) pusherSDK{
		"php": func(t *testing.T, url, secret string) pusherSDK { return phpSDK{t, url, secret} },
		"go":  func(t *testing.T, url, secret string) pusherSDK { return goSDK{t, url, secret} },
	} {
		for mount, path := range map[string]string{"root": "", "prefix": "/real/time", "stripped": "/real/time"} {
			t.Run(name+"/"+mount, func(t *testing.T) {
				t.Parallel()
				o := pusher.Options{App: "1", Key: pusherKey, Secret: pusherSecret}
				if mount == "prefix" {
					o.Prefix = path
				}
				n := startPusher(t, o, mount == "stripped")
				publishAsSDK(t, n, path, func(secret string) pusherSDK { return sdk(t, n.url+path, secret) })
			})
		}
	}
}

// pusherNode is a Server with the Pusher protocol and webhooks.
type pusherNode struct {
	url   string
	hooks chan [2]string // the signature and the body of each request
}

func startPusher(t *testing.T, o pusher.Options, stripped bool) *pusherNode {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Channel:   pusher.Channels(nil),
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	p, err := pusher.New(srv, o)
	require.NoError(t, err)
	handler := p.Handler()
	if stripped {
		handler = http.StripPrefix("/real/time", handler)
	}
	n := &pusherNode{hooks: make(chan [2]string, 100)}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		n.hooks <- [2]string{r.Header.Get("X-Pusher-Signature"), string(body)}
	}))
	sender, err := webhook.New(srv, webhook.Options{
		URL:    receiver.URL,
		Format: webhook.Pusher(pusherKey, pusherSecret),
	})
	require.NoError(t, err)
	web := httptest.NewServer(handler)
	n.url = web.URL
	t.Cleanup(func() {
		_ = srv.Close()
		_ = sender.Close(t.Context())
		web.Close()
		receiver.Close()
	})
	return n
}

// publishAsSDK calls all functions of an SDK.
func publishAsSDK(t *testing.T, n *pusherNode, path string, with func(secret string) pusherSDK) {
	sdk := with(pusherSecret)
	do := func(function string, arguments ...any) string {
		t.Helper()
		answer, err := sdk.call(function, arguments...)
		require.NoError(t, err)
		return answer
	}
	refused := func(status int, function string, arguments ...any) string {
		t.Helper()
		answer, err := sdk.call(function, arguments...)
		require.Error(t, err, answer)
		assert.True(t, strings.HasPrefix(err.Error(), strconv.Itoa(status)+" "), "%v", err)
		return err.Error()
	}
	const user, room = "Zoë 😀 /1", "presence-App.Room"
	c := dialPusher(t, n.url+path)
	subscribe := func(channel, answer string) string {
		t.Helper()
		c.send("pusher:subscribe", answer, map[string]any{"channel": channel})
		m := c.expect("pusher_internal:subscription_succeeded")
		require.Equal(t, channel, m.Channel)
		return m.Data
	}
	subscribe("news", "")
	subscribe("private-App.User.1", do("authorizeChannel", "private-App.User.1", c.id))
	list := subscribe(room, do("authorizePresenceChannel", room, c.id, user, map[string]string{"url": "https://é/😀"}))
	assert.JSONEq(t, `{"presence":{"ids":["Zoë 😀 /1"],"count":1,"hash":{"Zoë 😀 /1":{"url":"https://é/😀"}}}}`, list)
	c.send("pusher:signin", do("authenticateUser", c.id, map[string]string{"id": user}), nil)
	c.expect("pusher:signin_success")
	c.send("pusher:subscribe", "", map[string]any{"channel": "#server-to-user-" + user})
	c.expect("pusher_internal:subscription_succeeded")

	value := map[string]any{"text": "Zoë / \"🎉\" \\", "n": 1.5, "none": nil}
	text, err := json.Marshal(value)
	require.NoError(t, err)
	assert.Equal(t, "{}", do("trigger", []string{"news", "private-App.User.1"}, `App\Events\Shipped`, value))
	for _, channel := range []string{"news", "private-App.User.1"} {
		m := c.expect(`App\Events\Shipped`)
		assert.Equal(t, channel, m.Channel)
		assert.JSONEq(t, string(text), m.Data)
	}
	assert.Equal(t, "{}", do("trigger", []string{"news"}, "others", value, map[string]string{"socket_id": c.id}))
	assert.JSONEq(t, `{"channels":{"news":{"subscription_count":1},"presence-App.Room":{"user_count":1,"subscription_count":1}}}`,
		do("trigger", []string{"news", room}, "counted", 1, map[string]string{"info": "user_count,subscription_count"}))
	c.expect("counted")
	c.expect("counted")
	var channels []string
	var batch []map[string]string
	for i := range 101 {
		channels = append(channels, fmt.Sprint("many-", i))
	}
	for i := range 11 {
		batch = append(batch, map[string]string{"channel": "news", "name": "batch", "data": strconv.Itoa(i)})
	}
	do("trigger", channels[:100], "e", value)
	assert.Contains(t, refused(400, "trigger", channels, "e", value), "101 names")
	assert.Equal(t, "{}", do("triggerBatch", batch[:10]))
	for i := range 10 {
		assert.Equal(t, strconv.Itoa(i), c.expect("batch").Data)
	}
	assert.Contains(t, refused(400, "triggerBatch", batch), "11 events")
	assert.Contains(t, refused(413, "trigger", []string{"news"}, "e", strings.Repeat("x", 10<<10-1)), "at most 10240") // with its quotes
	assert.Equal(t, "{}", do("sendToUser", user, "hello", value))
	assert.Equal(t, "#server-to-user-"+user, c.expect("hello").Channel)

	assert.JSONEq(t, `{"channels":{"presence-App.Room":{"user_count":1}}}`,
		do("getChannels", map[string]string{"filter_by_prefix": "presence-", "info": "user_count"}))
	assert.JSONEq(t, `{"occupied":true,"user_count":1,"subscription_count":1}`,
		do("getChannelInfo", room, map[string]string{"info": "user_count,subscription_count"}))
	assert.JSONEq(t, `{"users":[{"id":"Zoë 😀 /1"}]}`, do("getPresenceUsers", room))
	wrong, err := with("another secret").call("getPresenceUsers", room)
	require.Error(t, err, wrong)
	assert.Contains(t, err.Error(), "401 ")
	assert.Contains(t, err.Error(), "GET\n/apps/1/channels/"+room+"/users\nauth_key="+pusherKey, "what the server has signed")

	hook := <-n.hooks
	head := map[string]string{"X-Pusher-Key": pusherKey, "X-Pusher-Signature": hook[0]}
	assert.Contains(t, do("webhook", head, hook[1]), `"channel_occupied"`)
	_, err = sdk.call("webhook", head, hook[1]+" ")
	require.ErrorContains(t, err, "the signature is not valid")

	assert.Equal(t, "{}", do("terminateUserConnections", "Zoë 😀"), "of another user")
	subscribe("still-there", "")
	const simple = "Zoë 😀"
	other := dialPusher(t, n.url+path)
	other.send("pusher:signin", do("authenticateUser", other.id, map[string]string{"id": simple}), nil)
	other.expect("pusher:signin_success")
	assert.Equal(t, "{}", do("terminateUserConnections", simple))
	_, err = wsutil.ReadServerText(other.conn)
	var closed wsutil.ClosedError
	require.ErrorAs(t, err, &closed)
	assert.Equal(t, ws.StatusCode(4009), closed.Code)
}
