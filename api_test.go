package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

const someID = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"

type allowAll struct{ err error }

func (a allowAll) Authorize(context.Context, pushy.AuthRequest) error { return a.err }

func TestNewSaysWhichOptionIsWrong(t *testing.T) {
	t.Parallel()
	cannotOpen := &altered{
		Broker: memory.New(),
		open:   func(context.Context, broker.OpenOptions, broker.Sink) error { return errBroker },
	}
	for _, c := range []struct {
		name    string
		options pushy.Options
		says    string // "" for no error
	}{
		{"noSecret", pushy.Options{}, "SecretKey"},
		{"noSecretAuthorizer", pushy.Options{Authorizer: allowAll{}}, "SecretKey"},
		{"noSecretNoTrigger", pushy.Options{DisableTrigger: true}, "SecretKey"},
		{"noSecretNeeded", pushy.Options{Authorizer: allowAll{}, DisableTrigger: true}, ""},
		{"prefix", pushy.Options{SecretKey: peerKey, Prefix: "rt"}, "Prefix"},
		{"prefixQuery", pushy.Options{SecretKey: peerKey, Prefix: "/rt?"}, "Prefix"},
		{"sockjsPrefix", pushy.Options{SecretKey: peerKey, SockJS: pushy.SockJS{Prefix: "x"}}, "SockJS.Prefix"},
		{"origin", pushy.Options{SecretKey: peerKey, Origins: []string{"example.com"}}, "Origins"},
		{"originPath", pushy.Options{SecretKey: peerKey, Origins: []string{"https://example.com/x"}}, "Origins"},
		{"broker", pushy.Options{SecretKey: peerKey, Broker: cannotOpen}, errBroker.Error()},
		{"good", pushy.Options{SecretKey: peerKey, Origins: []string{"*", "https://a.example"}, Prefix: "/a/b/"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, err := pushy.New(c.options)
			if c.says == "" {
				require.NoError(t, err)
				assert.NoError(t, srv.Close())
				return
			}
			require.ErrorContains(t, err, c.says)
			assert.True(t, strings.HasPrefix(err.Error(), "pushy: "), "%s", err)
		})
	}
}

// The ways in which a host mounts a Server.
func TestMounts(t *testing.T) {
	t.Parallel()
	mux := func(patterns ...string) func(*pushy.Server) http.Handler {
		return func(srv *pushy.Server) http.Handler {
			m := http.NewServeMux()
			for _, p := range patterns {
				m.Handle(p, srv)
			}
			return m
		}
	}
	for _, c := range []struct {
		name, prefix, at string
		mount            func(*pushy.Server) http.Handler
	}{
		{"default", "", "/pushy", mux("/pushy/")},
		{"otherPrefix", "/rt", "/rt", mux("/rt/")},
		{"slashAtTheEnd", "/rt/", "/rt", mux("/rt/")},
		{"root", "/", "", func(srv *pushy.Server) http.Handler { return srv }},
		{"stripPrefix", "/", "/api/v1", func(srv *pushy.Server) http.Handler { return http.StripPrefix("/api/v1", srv) }},
		{"wildcard", "/rt", "/rt", mux("/rt/{rest...}")},
		{"methods", "/rt", "/rt", mux("GET /rt/", "POST /rt/channel/{name}/trigger")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := triggerServer(t, pushy.Options{Prefix: c.prefix})
			h := c.mount(srv)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", c.at+"/socket/info", nil))
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, 200, call{body: "{}", channel: "a b/c", path: c.at + "/channel/a%20b%2Fc/trigger"}.do(h).Code)
			w = httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/elsewhere", nil))
			assert.Equal(t, 404, w.Code)
		})
	}
	srv := startServer(t, pushy.Options{})
	for _, path := range []string{"/pushyx/socket/info", "/pushy", "/pushy/", "/pushy/channel/x", "/pushy/socketx/info", "/PUSHY/socket/info"} {
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		assert.Equal(t, 404, w.Code, path)
	}
	off := startServer(t, pushy.Options{DisableTrigger: true, SecretKey: peerKey})
	assert.Equal(t, 404, call{body: "{}"}.do(off).Code)
}

func TestAuthorizers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		answer string
	}{
		{"needAuth", pushy.ErrNeedAuth, `pushy:subscription-needauth {"channel":"news"}`},
		{"denied", pushy.ErrDenied, `pushy:subscription-failed {"channel":"news","reason":"Invalid credentials"}`},
		{"shown", &pushy.Error{Code: "1", Message: "Not today"}, `pushy:subscription-failed {"channel":"news","reason":"Not today","code":"1"}`},
		{"hidden", errors.New("database is down"), `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, pushy.Options{Authorizer: allowAll{c.err}})
			p := connectPeer(t, srv)
			p.send(`{"command":"subscribe","data":{"channel":"News"}}`)
			p.expect(c.answer)
			p.quiet()
		})
	}
}

func TestAuthHandlerAnswers(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(1700000000, 0) })
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	for _, c := range []struct {
		name, body, contentType, origin string
		data                            any
		err                             error
		status                          int
		answer                          string // %auth is the right token
	}{
		{name: "form", body: "channel=private-X&connection_id=" + someID, contentType: form, status: 200, answer: `{"auth":"%auth","batch":100}`},
		{name: "json", body: `{"channel":"private-x","connection_id":"` + someID + `"}`, contentType: asJSON, status: 200, answer: `{"auth":"%auth","batch":100}`},
		{name: "data", body: "channel=private-x&data=evil&connection_id=" + someID, contentType: form, data: map[string]any{"n": 1}, status: 200,
			answer: `{"auth":"%auth","data":{"n":1},"batch":100}`},
		{name: "nilMap", body: "channel=private-x&connection_id=" + someID, contentType: form, data: map[string]any(nil), status: 200, answer: `{"auth":"%auth","batch":100}`},
		{name: "noObject", body: "channel=private-x&connection_id=" + someID, contentType: form, data: 7, status: 500},
		{name: "notEncodable", body: "channel=private-x&connection_id=" + someID, contentType: form, data: func() {}, status: 500},
		{name: "tooLargeData", body: "channel=private-x&connection_id=" + someID, contentType: form, data: map[string]string{"a": strings.Repeat("x", 5000)}, status: 500},
		{name: "refused", body: "channel=private-x&connection_id=" + someID, contentType: form, err: pushy.ErrDenied, status: 403},
		{name: "public", body: "channel=news&connection_id=" + someID, contentType: form, status: 403},
		{name: "badName", body: "channel=private-a:b&connection_id=" + someID, contentType: form, status: 400},
		{name: "badID", body: "channel=private-x&connection_id=x:y", contentType: form, status: 400},
		{name: "nothing", body: "", contentType: form, status: 400},
		{name: "brokenJSON", body: "{", contentType: asJSON, status: 400},
		{name: "otherType", body: "x", contentType: "text/plain", status: 415},
		{name: "huge", body: "channel=" + strings.Repeat("x", 64<<10), contentType: form, status: 413},
		{name: "foreign", body: "channel=private-x&connection_id=" + someID, contentType: form, origin: "https://evil.example", status: 403},
		{name: "null", body: "channel=private-x&connection_id=" + someID, contentType: form, origin: "null", status: 403},
		{name: "own", body: "channel=private-x&connection_id=" + someID, contentType: form, origin: "https://example.com", status: 200, answer: `{"auth":"%auth","batch":100}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := srv.AuthHandler(func(r *http.Request, connID, channel string) (any, error) {
				assert.Equal(t, someID, connID)
				assert.Equal(t, "private-x", channel)
				assert.NoError(t, r.ParseForm(), "the body can be read again")
				return c.data, c.err
			})
			r := httptest.NewRequest("POST", "http://example.com/auth", strings.NewReader(c.body))
			r.Header.Set("Content-Type", c.contentType)
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code, "%s", w.Body)
			assert.Equal(t, "Origin", w.Header().Get("Vary"))
			if c.answer != "" {
				data := ""
				if m, is := c.data.(map[string]any); is && m != nil {
					data = `,"data":{"n":1}`
				}
				token := ownTokenV2(peerKey, `{"sub":["private-x"],"conn":"`+someID+`","iat":1700000000`+data+`}`)
				assert.Equal(t, strings.Replace(c.answer, "%auth", token, 1), w.Body.String())
			} else {
				assert.Contains(t, w.Body.String(), `"error":{"code":"`+strconv.Itoa(c.status)+`","message":"`)
			}
		})
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("OPTIONS", "http://example.com/auth", nil)
	r.Header.Set("Origin", "http://example.com")
	srv.AuthHandler(nil).ServeHTTP(w, r)
	assert.Equal(t, 204, w.Code)
	assert.Equal(t, "http://example.com", w.Header().Get("Access-Control-Allow-Origin"))
	w = httptest.NewRecorder()
	srv.AuthHandler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/auth", nil))
	assert.Equal(t, 405, w.Code)
	assert.NotEmpty(t, w.Header().Get("Allow"))
}

func TestSigningRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key, id, channel string
		data                   any
	}{
		{"noKey", "", someID, "private-x", nil},
		{"noUUID", "k", "a:b", "private-x", nil},
		{"upperUUID", "k", strings.ToUpper(someID), "private-x", nil},
		{"name", "k", someID, "private-x:{}", nil},
		{"data", "k", someID, "private-x", func() {}},
	} {
		auth, err := pushy.SignChannel(c.key, c.id, c.channel, c.data)
		assert.Error(t, err, c.name)
		assert.Empty(t, auth, c.name)
	}
	auth, err := pushy.SignChannel(peerKey, someID, "private-x", json.RawMessage("null"))
	require.NoError(t, err)
	assert.Equal(t, ownToken(someID, "private-x", ""), auth, "null is absent")
	for _, c := range []struct {
		name, key, channel, event string
		at                        int64
	}{{"noKey", "", "x", "y", 1}, {"channel", "k", "a:b", "y", 1}, {"event", "k", "x", "pushy:y", 1}, {"time", "k", "x", "y", -1}} {
		_, err := pushy.SignTrigger(c.key, c.channel, c.event, c.at, nil)
		assert.Error(t, err, c.name)
	}
	key, err := pushy.SignTrigger("secret", "Hello", "test", 123456789, nil)
	require.NoError(t, err)
	assert.Equal(t, "fc7da7a7f1e50f242f6b57975ea4914aba1e6c31b56165948cd3d090b7ff0625", key)
}

func TestConnClose(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	p := connectPeer(t, srv)
	conn := p.conn(srv)
	for _, code := range []int{0, 999, 1002, 1003, 1004, 1005, 1006, 1007, 1009, 1010, 1015, 1016, 2999, 5000} {
		assert.Error(t, conn.Close(code, ""), "code %d", code)
	}
	assert.Error(t, conn.Close(3500, strings.Repeat("x", 124)))
	assert.Error(t, conn.Close(3500, "\xff"))
	p.quiet()
	require.NoError(t, conn.Send("last", 1))
	assert.Error(t, conn.Send("", 1))
	assert.Error(t, conn.Send("\xff", 1))
	assert.Error(t, conn.Send("x", func() {}))
	require.NoError(t, conn.Close(4999, strings.Repeat("x", 123)))
	assert.NoError(t, conn.Close(3000, "second"), "does nothing")
	assert.ErrorIs(t, conn.Send("x", 1), pushy.ErrClosed)
	assert.Error(t, conn.Context().Err())
	p.expect("last 1")
	end := p.ended()
	assert.Equal(t, 4999, end.Code)
	assert.Len(t, end.Reason, 123)
}

func TestPublishChecks(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{CheckEvent: func(event string) error {
		if event == "forbidden" {
			return errors.New("not here")
		}
		return nil
	}})
	p, q := connectPeer(t, srv), connectPeer(t, srv)
	p.subscribe("news", "")
	q.subscribe("news", "")
	ctx := t.Context()
	assert.Error(t, srv.Publish(ctx, "a:b", "x", 1))
	assert.Error(t, srv.Publish(ctx, "", "x", 1))
	assert.Error(t, srv.Publish(ctx, "news", "", 1))
	assert.Error(t, srv.Publish(ctx, "news", "PUSHY:x", 1))
	assert.ErrorContains(t, srv.Publish(ctx, "news", "forbidden", 1), "not here")
	assert.Error(t, srv.Publish(ctx, "news", "x", json.RawMessage(`{`)))
	_, err := srv.PublishEvent(ctx, pushy.Event{
		Channel: "NEWS",
		Name:    "a:b",
		Data:    map[string]string{"<": "&"},
		Except:  []string{p.id},
	})
	require.NoError(t, err)
	q.expect(`a:b news {"<":"&"}`)
	p.quiet()
	stats := srv.Stats()
	assert.Equal(t, 2, stats.Connections)
	assert.Equal(t, 1, stats.Channels)
	assert.EqualValues(t, 1, stats.Published)
	ch, ok := srv.Channels().Lookup("News")
	require.True(t, ok)
	assert.Equal(t, 2, ch.Len())
	seen := 0
	for range ch.Conns() {
		seen++
	}
	assert.Equal(t, 2, seen)
	_, ok = srv.Channels().Lookup("a:b")
	assert.False(t, ok)
	_, ok = srv.Conn("nobody")
	assert.False(t, ok)
}

// A Server has nothing to say about another Server's connections.
func TestForeignConn(t *testing.T) {
	t.Parallel()
	here, there := startServer(t, pushy.Options{}), startServer(t, pushy.Options{})
	p, q := connectPeer(t, here), connectPeer(t, there)
	p.subscribe("news", "")
	q.subscribe("news", "")
	ch, _ := here.Channels().Lookup("news")
	foreign := q.conn(there)
	assert.ErrorIs(t, ch.Remove(foreign, "x"), pushy.ErrNotMember)
	assert.ErrorIs(t, here.Channels().Leave(foreign, "news"), pushy.ErrNotMember)
	assert.Error(t, here.Channels().Join(foreign, "other", nil))
	q.quiet()
}

func TestPanickingHooksAndAccept(t *testing.T) {
	t.Parallel()
	boom := func() { panic("boom") }
	srv := startServer(t, pushy.Options{Hooks: pushy.Hooks{
		Connect: func(*pushy.Conn) { boom() }, Disconnect: func(*pushy.Conn, int, string) { boom() },
		Subscribe: func(*pushy.Conn, *pushy.Channel) { boom() }, Unsubscribe: func(*pushy.Conn, *pushy.Channel) { boom() },
		ChannelOccupied: func(*pushy.Channel) { boom() }, ChannelVacated: func(*pushy.Channel) { boom() },
	}})
	p := connectPeer(t, srv)
	for range 3 {
		p.subscribe("news", "")
		p.send(`{"command":"unsubscribe","data":{"channel":"news"}}`)
		p.expect(`pushy:subscription-end {"channel":"news"}`)
	}
	p.quiet()
	assert.Zero(t, srv.Entries())
	p.Close(1000, "")
	p.ended()
	ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
	defer cancel()
	require.NoError(t, srv.Shutdown(ctx))

	for _, c := range []struct {
		name   string
		accept func(*http.Request) (any, error)
		status int
	}{
		{"refused", func(*http.Request) (any, error) { return nil, errors.New("no") }, 403},
		{"needAuth", func(*http.Request) (any, error) { return nil, pushy.ErrNeedAuth }, 401},
		{"panics", func(*http.Request) (any, error) { panic("boom") }, 403},
	} {
		srv, base := serveHTTP(t, pushy.Options{Accept: c.accept})
		assert.Equal(t, c.status, handshake(t, base, nil), c.name)
		assert.Equal(t, map[string]uint64{"accept": 1}, refusals(srv), c.name)
	}
	srv, base := serveHTTP(t, pushy.Options{Limits: pushy.Limits{Connections: 1}})
	connectPeer(t, srv)
	assert.Equal(t, 503, handshake(t, base, nil))
	foreign, base := serveHTTP(t, pushy.Options{Origins: []string{"https://friend.example:443"}})
	for origin, status := range map[string]int{"https://evil.example": 403, "null": 403, "https://FRIEND.example": 101, "http://friend.example": 403, base: 101} {
		assert.Equal(t, status, handshake(t, base, http.Header{"Origin": {origin}}), origin)
	}
	assert.Equal(t, 403, handshake(t, base, http.Header{"Origin": {base, base}}), "two Origins")
	for site, status := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 101, "none": 101} {
		assert.Equal(t, status, handshake(t, base, http.Header{"Sec-Fetch-Site": {site}}), site)
	}
	assert.EqualValues(t, 6, foreign.Stats().Refused["origin"])
}

func serveHTTP(t *testing.T, o pushy.Options) (*pushy.Server, string) {
	srv := startServer(t, o)
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		_ = srv.Close()
		web.Close()
	})
	return srv, web.URL
}

// handshake asks for a WebSocket and returns the status.
func handshake(t *testing.T, base string, header http.Header) int {
	u, err := url.Parse(base + "/pushy/socket/websocket")
	require.NoError(t, err)
	r := &http.Request{Method: "GET", URL: u, Header: header.Clone(), Host: u.Host}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	for k, v := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		r.Header.Set(k, v)
	}
	client := http.Client{Timeout: peerPatience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	return answer.StatusCode
}

// Nobody who is in all the time is missed by a walk over the members.
func TestConnsMissesNobody(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Limits: pushy.Limits{CommandRate: -1}})
	var peers []*peer
	for range 600 {
		p := connectPeer(t, srv)
		p.subscribe("news", "")
		peers = append(peers, p)
	}
	ch, _ := srv.Channels().Lookup("news")
	last := peers[len(peers)-1].conn(srv)
	found := false
	for c := range ch.Conns() {
		if c == last {
			found = true
		}
		if len(peers) == 600 { // at the first step: most leave, and a broadcast closes the gaps
			for _, p := range peers[:500] {
				require.NoError(t, ch.Remove(p.conn(srv), ""))
			}
			require.NoError(t, srv.Publish(t.Context(), "news", "x", 1))
			peers = peers[:500]
		}
	}
	assert.True(t, found, "a member that was in all the time")
}
