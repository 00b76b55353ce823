package pusher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
)

func TestPublicChannel(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	a, b := n.dial(), n.dial()
	assert.NotEqual(t, a.id, b.id)
	assert.Equal(t, "{}", a.join("news"))
	assert.Equal(t, "{}", a.join("news"), "the same answer for a channel that it is in")
	b.send("pusher:subscribe", "", `{"channel":"news"}`) // a string that contains the data
	b.expect("pusher_internal:subscription_succeeded")
	require.NoError(t, n.srv.Publish(t.Context(), "news", "headline", map[string]any{"text": "Hello"}))
	for _, p := range []*peer{a, b} {
		g := p.expect("headline")
		assert.Equal(t, "news", g.Channel)
		assert.Equal(t, `{"text":"Hello"}`, g.content(t))
		assert.Nil(t, g.UserID)
	}
	// Except works across protocols.
	_, err := n.srv.PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "others", Data: 1, Except: []string{a.id}})
	require.NoError(t, err)
	b.expect("others")
	a.sync()
	a.send("pusher:unsubscribe", "", map[string]any{"channel": "news"})
	a.sync()
	require.NoError(t, n.srv.Publish(t.Context(), "news", "last", nil))
	b.expect("last")
	a.sync()
	// An event that clients would take for one of the protocol.
	require.NoError(t, n.srv.Publish(t.Context(), "news", "pusher:error", nil))
	require.NoError(t, n.srv.Publish(t.Context(), "news", "pusher_internal:x", nil))
	b.sync()
}

// TestData publishes values from Go, and compares what pusher-js makes of the data: it parses the
// string as JSON, and takes it as it is if that fails.
func TestData(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	c.join("news")
	for _, value := range []string{
		`{"a":1}`, `[1,2]`, `123`, `"123"`, `"text"`, `"{\"a\":1}"`, `"null"`, `null`, `true`, `""`, `"\"quoted\""`,
		`9007199254740993`, `"😀 é"`, `"a\nb\\"`, `" 1"`, `"App\\Events\\OrderShipped"`,
	} {
		require.NoError(t, n.srv.Publish(t.Context(), "news", "e", json.RawMessage(value)))
		content := c.expect("e").content(t)
		parsed := content
		if !json.Valid([]byte(content)) {
			quoted, err := json.Marshal(content)
			require.NoError(t, err)
			parsed = string(quoted)
		}
		assert.JSONEq(t, value, parsed, value)
		if value[0] >= '0' && value[0] <= '9' {
			assert.Equal(t, value, parsed, "the digits are kept")
		}
	}
}

// The vectors of the protocol's description: what the auth endpoints sign.
func TestCredentialVectors(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	ann := pusher.Member{ID: "42", Info: map[string]string{"name": "Ann"}}
	channels := n.p.AuthHandler(func(*http.Request, string) (*pusher.Member, error) { return &ann, nil })
	users := n.p.UserAuthHandler(func(*http.Request) (pusher.Member, error) { return pusher.Member{ID: "12345"}, nil })
	for _, vector := range []struct {
		handler http.Handler
		channel string
		signed  string
		auth    string
	}{
		{channels, "private-foobar", "1234.1234:private-foobar", "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"},
		{
			channels, "presence-a", `1234.1234:presence-a:{"user_id":"42","user_info":{"name":"Ann"}}`,
			"23c2b2865f9a3412a65cf6dabf1ccdce7093a86c184e2814d067b37ab312ee9e",
		},
		{users, "", `1234.1234::user::{"id":"12345"}`, "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"},
	} {
		form := url.Values{"socket_id": {"1234.1234"}, "channel_name": {vector.channel}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pushy.test/auth", strings.NewReader(form.Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := newRecorder()
		vector.handler.ServeHTTP(w, r)
		require.Equal(t, 200, w.status)
		var answer struct{ Auth string }
		require.NoError(t, json.Unmarshal([]byte(w.body.String()), &answer))
		assert.Equal(t, appKey+":"+vector.auth, answer.Auth)
		assert.Equal(t, answer.Auth, sign(vector.signed), "the clients of these tests sign in the same way")
	}
}

func TestPrivateChannel(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	name := "private-App.Models.User.1"
	right := sign(c.id + ":" + name)
	for _, wrong := range []any{
		nil, "", "x", ":", right[:len(right)-1], right + "0", strings.ToUpper(right), "other" + right,
		sign("1234.1234:" + name), sign(c.id + ":private-app.models.user.1"), sign(c.id + ":" + name + ":{}"),
		sign(c.id + "::user::" + name), 5, true, []string{right}, map[string]string{"auth": right}, " " + right,
	} {
		data := map[string]any{"channel": name}
		if wrong != nil {
			data["auth"] = wrong
		}
		status, kind := c.refused(data)
		assert.Equal(t, 401, status, "%v", wrong)
		assert.Equal(t, "AuthError", kind)
	}
	assert.Equal(t, "{}", c.join(name))
	require.NoError(t, n.srv.Publish(t.Context(), name, "folded", nil)) // another channel
	require.NoError(t, n.p.Publish(t.Context(), name, `App\Events\OrderShipped`, map[string]int{"id": 7}, ""))
	assert.Equal(t, `{"id":7}`, c.expect(`App\Events\OrderShipped`).content(t))
	// Names that pusher-js takes for public ones are private all the same.
	for _, look := range []string{"Private-x", "PRIVATE-x", "Presence-x", "PRESENCE-x", "pRivate-cache-x"} {
		status, _ := c.refused(map[string]any{"channel": look})
		assert.Equal(t, 401, status, look)
	}
	// A signature that is wrong is refused where none is needed.
	status, _ := c.refused(map[string]any{"channel": "news", "auth": right})
	assert.Equal(t, 401, status)
	for _, bad := range []string{".", "..", "a b", "é", "a:b", "a/b", strings.Repeat("x", 165), "#server-to-user", "#x", "a\n"} {
		status, _ := c.refused(map[string]any{"channel": bad, "auth": sign(c.id + ":" + bad)})
		assert.Equal(t, 403, status, bad)
	}
	c.join(strings.Repeat("x", 164))
}

// A credential of pushy is none for Pusher clients, and the other way round.
func TestCredentialsOfTheOtherProtocol(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{Accept: func(*http.Request) (any, error) { return "7", nil }})
	c := n.dial()
	_, err := pushy.SignChannel(secretKey, c.id, "private-x", nil)
	require.Error(t, err, "the id is not one of pushy's")
	v2, err := pushy.SignToken(secretKey, pushy.Token{Channels: []string{"private-x"}, User: "7"})
	require.NoError(t, err)
	status, _ := c.refused(map[string]any{"channel": "private-x", "auth": v2})
	assert.Equal(t, 401, status)
}

func TestHostRules(t *testing.T) {
	t.Parallel()
	var asked []pushy.AuthRequest
	n := serve(t, pushy.Options{
		Accept:       func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		CheckChannel: func(name string) error { return map[string]error{"private-No": errors.New("is closed")}[name] },
		Authorizer: authorizer(func(r pushy.AuthRequest) error {
			asked = append(asked, r)
			switch {
			case strings.HasSuffix(r.Channel, "banned"):
				return pushy.ErrDenied
			case strings.HasSuffix(r.Channel, "word"):
				return &pushy.Error{Message: "not today"}
			case r.Private && r.Claims == nil && r.Conn.UserID() == "":
				return pushy.ErrNeedAuth
			}
			return nil
		}),
	})
	c := n.dial()
	c.join("private-x")
	r := asked[0]
	assert.Equal(t, "pusher", r.Protocol)
	assert.Equal(t, "pusher-websocket", r.Conn.Protocol())
	require.NotNil(t, r.Claims)
	assert.Equal(t, []string{"private-x"}, r.Claims.Channels)
	assert.Equal(t, c.id, r.Claims.Conn)
	c.join("presence-x", channelData("42"))
	assert.Equal(t, "42", asked[1].Claims.User)
	assert.JSONEq(t, `{"user":"42","user_info":{"name":"N42"}}`, string(asked[1].Data))
	for name, want := range map[string]int{"private-banned": 403, "banned": 403, "private-word": 403, "private-No": 403} {
		data := map[string]any{"channel": name}
		if strings.HasPrefix(name, "private-") {
			data["auth"] = sign(c.id + ":" + name)
		}
		status, _ := c.refused(data)
		assert.Equal(t, want, status, name)
	}
	status, _ := c.refused(map[string]any{"channel": "private-y"})
	assert.Equal(t, 401, status)
	// A client that the host knows by its session needs no signature, and cannot choose its user.
	known := n.dial("X-User", "7")
	known.send("pusher:subscribe", "", map[string]any{"channel": "presence-y", "channel_data": channelData("8")})
	g := known.expect("pusher_internal:subscription_succeeded")
	assert.Contains(t, g.content(t), `"ids":["7"]`)
}

type authorizer func(r pushy.AuthRequest) error

func (f authorizer) Authorize(_ context.Context, r pushy.AuthRequest) error { return f(r) }

func TestLimitsOfChannels(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{Limits: pushy.Limits{Channels: 2, Members: 1, PresenceBytes: 100}})
	c := n.dial()
	c.join("a")
	c.join("presence-p", channelData("1"))
	_, kind := c.refused(map[string]any{"channel": "b"})
	assert.Equal(t, "LimitReached", kind)
	d := n.dial()
	data := channelData("2")
	_, kind = d.refused(map[string]any{"channel": "presence-p", "channel_data": data, "auth": sign(d.id + ":presence-p:" + data)})
	assert.Equal(t, "LimitReached", kind)
	data = `{"user_id":"3","user_info":"` + strings.Repeat("x", 100) + `"}`
	_, kind = d.refused(map[string]any{"channel": "presence-q", "channel_data": data, "auth": sign(d.id + ":presence-q:" + data)})
	assert.Equal(t, "AuthError", kind)
}

// More subscriptions at once than the limit allows are delayed, not refused, because clients do not
// try again.
func TestManySubscriptionsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{Limits: pushy.Limits{JoinRate: 10, JoinBurst: 20, Channels: 20, CommandRate: -1}})
		c := n.dial()
		began := time.Now()
		for i := range 30 {
			c.join(fmt.Sprintf("news-%d", i%20))
		}
		assert.Greater(t, time.Since(began), 500*time.Millisecond)
		assert.Less(t, time.Since(began), 5*time.Second)
	})
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{
		Origins: []string{"https://friend.example"},
		Accept: func(r *http.Request) (any, error) {
			if r.Header.Get("X-User") == "eve" {
				return nil, pushy.ErrDenied
			}
			return nil, nil
		},
	})
	res, err := n.http.Get("http://pushy.test/app/" + appKey)
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, 426, res.StatusCode)
	assert.Equal(t, "websocket", res.Header.Get("Upgrade"))
	for _, c := range []struct {
		path   string
		header []string
		code   int
	}{
		{"/app/other?protocol=7", nil, 4001},
		{"/app/", nil, 4001},
		{"/app/" + appKey + "/x", nil, 4005},
		{"/app/" + appKey + "?protocol=4", nil, 4007},
		{"/app/" + appKey + "?protocol=8", nil, 4007},
		{"/app/" + appKey + "?protocol=x", nil, 4007},
		{"/app/" + appKey, []string{"Origin", "https://evil.example"}, 4009},
		{"/app/" + appKey, []string{"Origin", "null"}, 4009},
		{"/app/" + appKey, []string{"X-User", "eve"}, 4009},
	} {
		p := n.open(c.path, c.header...)
		code, reason := p.closed()
		assert.Equal(t, c.code, code, c.path)
		assert.NotEmpty(t, reason)
	}
	old := n.open("/app/other?protocol=5")
	code, _ := old.failed()
	assert.Equal(t, 4001, code)
	code, _ = old.closed()
	assert.Equal(t, 4001, code)
	for _, path := range []string{"", "?protocol=5", "?protocol=6", "?protocol=7&client=js"} {
		n.open("/app/" + appKey + path).expect("pusher:connection_established")
	}
	n.dial("Origin", "https://friend.example")
	n.dial("Origin", "http://pushy.test")
	assert.Equal(t, 6, n.srv.Stats().Connections)
	assert.Equal(t, uint64(2), n.srv.Stats().Refused["origin"])
	assert.Equal(t, uint64(1), n.srv.Stats().Refused["accept"])
}

func TestLimitsOfConnections(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{Limits: pushy.Limits{Connections: 1}})
	n.dial()
	code, reason := n.open("/app/" + appKey).closed()
	assert.Equal(t, 4100, code)
	assert.Contains(t, reason, "Limits.Connections")
}

// A connection that is only accepted to be closed costs more than one that is refused, so there are
// not more of them than of pushy's own.
func TestTurnedAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		closed, refused := 0, 0
		for range 250 {
			d := ws.Dialer{NetDial: n.pipes.Dial}
			conn, _, _, err := d.Dial(t.Context(), "ws://pushy.test/app/other")
			var status ws.StatusError
			switch {
			case err == nil:
				closed++
				_ = conn.Close()
			case errors.As(err, &status):
				assert.Equal(t, 503, int(status))
				refused++
			default:
				t.Fatal(err)
			}
		}
		assert.Equal(t, 200, closed)
		assert.Equal(t, 50, refused)
	})
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	for _, text := range []string{
		"", "x", "{", "[]", "5", "null", "{}", `{"event":5}`, `{"event":null}`, `{"event":""}`, `{"event":"pusher:nothing"}`,
		`{"event":"pusher_internal:member_added","channel":"news"}`, `{"event":"pusher:subscribe"}`, `{"event":"pusher:ping","channel":5}`,
		`{"event":"pusher:subscribe","data":5}`, `{"event":"pusher:subscribe","data":[]}`, `{"event":"pusher:subscribe","data":"x"}`,
		`{"event":"pusher:subscribe","data":{}}`, `{"event":"pusher:subscribe","data":{"channel":5}}`, `{"event":"pusher:unsubscribe"}`,
	} {
		c.sendText(text)
		code, _ := c.failed()
		assert.Zero(t, code, text)
	}
	c.sendText(`{"event":"pusher:ping"}`)
	c.expect("pusher:pong")
	c.sendText(`{"event":"pusher:pong","data":"{}"}`)
	c.sendText(`{"event":"pusher:unsubscribe","data":{"channel":"nowhere"}}`)
	c.sync()
	for _, f := range []struct {
		frame ws.Frame
		code  int
	}{
		{ws.NewBinaryFrame([]byte(`{"event":"pusher:ping"}`)), 1003},
		{ws.NewTextFrame([]byte("\xff")), 1007},
		{ws.NewTextFrame(make([]byte, 65<<10)), 1009},
	} {
		p := n.dial()
		p.conn.SetWriteDeadline(time.Now().Add(patience))
		go func() { _ = ws.WriteFrame(p.conn, ws.MaskFrame(f.frame)) }() // not all of it is read
		code, _ := p.closed()
		assert.Equal(t, f.code, code)
	}
}

func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{Limits: pushy.Limits{CommandRate: 10, CommandBurst: 10}})
		c := n.dial()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 10_000 {
				if ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"event":"pusher:ping"}`)))) != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		code, reason := c.closed()
		assert.Equal(t, 4100, code)
		assert.Equal(t, "too many requests", reason)
		_ = c.conn.Close()
		<-done
	})
}

// A client that answers WebSocket pings only stays; one that answers only pusher:ping stays, too; and
// one that is silent is closed with 4201 (laravel/reverb#224).
func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		pongs, answers, silent := n.dial(), n.dial(), n.dial()
		serveFor := func(p *peer, until time.Time, answer func(f ws.Frame)) {
			for time.Now().Before(until) {
				_ = p.conn.SetReadDeadline(until)
				f, err := ws.ReadFrame(p.in)
				if err != nil {
					return
				}
				answer(f)
			}
		}
		until := time.Now().Add(10 * time.Minute)
		done := make(chan struct{}, 2)
		asked := 0
		go func() {
			serveFor(pongs, until, func(f ws.Frame) {
				if f.Header.OpCode == ws.OpPing {
					pongs.write(ws.NewPongFrame(f.Payload))
				}
			})
			done <- struct{}{}
		}()
		go func() {
			serveFor(answers, until, func(f ws.Frame) {
				if f.Header.OpCode == ws.OpText && strings.Contains(string(f.Payload), "pusher:ping") {
					asked++
					answers.sendText(`{"event":"pusher:pong","data":"{}"}`)
				}
			})
			done <- struct{}{}
		}()
		began := time.Now()
		code, _ := silent.closed()
		assert.Equal(t, 4201, code)
		assert.InDelta(t, 50, time.Since(began).Seconds(), 1)
		<-done
		<-done
		assert.Greater(t, asked, 10)
		pongs.sync()
		answers.sendText(`{"event":"pusher:ping"}`)
		for answers.next().Event != "pusher:pong" {
		}
	})
}

// A Shutdown closes with 4200, after which pusher-js connects again at once, without a random pause. So the
// closes are spread, and with them the connections to another node: 1,000 clients (10,000 with PUSHY_SOAK)
// over 5 s, in no 100 ms more than twice the mean.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clients := 1000
		if os.Getenv("PUSHY_SOAK") != "" {
			clients = 10_000
		}
		n := serve(t, pushy.Options{ReturnRate: clients / 5}) // a window of 5 s
		other := serve(t, pushy.Options{})
		returned := make(chan time.Time, clients)
		var returning sync.WaitGroup
		for range clients {
			c := n.dial()
			returning.Go(func() {
				code, _ := c.closed()
				assert.Equal(t, 4200, code)
				_ = c.conn.Close()
				again := other.dial()
				returned <- time.Now()
				_ = again.conn.Close()
			})
		}
		began := time.Now()
		require.NoError(t, n.srv.Shutdown(t.Context()))
		returning.Wait()
		close(returned)
		counts := map[int]int{}
		var last time.Duration
		for at := range returned {
			counts[int(at.Sub(began)/(100*time.Millisecond))]++
			last = max(last, at.Sub(began))
		}
		assert.InDelta(t, 5, last.Seconds(), 1)
		most, total := 0, 0
		for slot, count := range counts {
			assert.LessOrEqual(t, count, 2*clients/50, "slot %d", slot)
			most = max(most, count)
			total += count
		}
		assert.Equal(t, clients, total)
		t.Logf("%d clients within %v, at most %d in 100 ms; the mean is %d", clients, last, most, clients/50)
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := pusher.Options{App: "1", Key: "k", Secret: appSecret}
	for name, c := range map[string]struct {
		server pushy.Options
		change func(o *pusher.Options)
		says   string
	}{
		"noApp":      {pushy.Options{}, func(o *pusher.Options) { o.App = "" }, "Options.App"},
		"key":        {pushy.Options{}, func(o *pusher.Options) { o.Key = "a/b" }, "Options.Key"},
		"noSecret":   {pushy.Options{}, func(o *pusher.Options) { o.Secret = "" }, "Options.Secret is empty"},
		"secretKey":  {pushy.Options{}, func(o *pusher.Options) { o.Secret = secretKey }, "secret key of the Server"},
		"oldKey":     {pushy.Options{OldSecretKeys: []string{appSecret}}, func(*pusher.Options) {}, "secret key of the Server"},
		"oldSecret":  {pushy.Options{}, func(o *pusher.Options) { o.OldSecrets = []string{secretKey} }, "OldSecrets[0]"},
		"activity":   {pushy.Options{}, func(o *pusher.Options) { o.ActivityTimeout = 30 }, "ActivityTimeout"},
		"prefix":     {pushy.Options{}, func(o *pusher.Options) { o.Prefix = "x" }, "Options.Prefix"},
		"connection": {pushy.Options{Channel: func(string) pushy.ChannelOptions { return pushy.ChannelOptions{} }}, func(*pusher.Options) {}, "users"},
		"public": {pushy.Options{Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Access: pushy.AccessPublic}
		}}, func(*pusher.Options) {}, "are public"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, err := pushy.New(defaults(c.server))
			require.NoError(t, err)
			defer func() { _ = srv.Close() }()
			o := good
			c.change(&o)
			_, err = pusher.New(srv, o)
			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), secretKey)
			assert.NotContains(t, err.Error(), appSecret)
		})
	}
	_, err := pusher.New(nil, good)
	require.Error(t, err)
	n := serve(t, pushy.Options{Channel: pusher.Channels(func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Access: pushy.AccessPublic}
	})})
	_, err = pusher.New(n.srv, good)
	require.ErrorContains(t, err, "Adapter already")
}
