package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
)

// authorized is one answer of an auth endpoint.
type authorized struct {
	Auth    string
	Data    json.RawMessage
	Expires int64
	Batch   int
	Error   any
	Code    string
	Status  int
}

// askAuth posts a form to an auth endpoint and returns the body.
func askAuth(t testing.TB, h http.Handler, form url.Values) (status int, body string) {
	t.Helper()
	r := httptest.NewRequest("POST", "/auth", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func decodeAuth[T any](t testing.TB, body string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), &v), body)
	return v
}

const foreignConn = "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8" // of another node

// Which clients get a token that ends, and which learn that they can ask for many.
func TestAuthHandlerKnowsItsClients(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		allow := func(*http.Request, string, string) (any, error) { return map[string]string{"name": "Ann"}, nil }
		srv := startServer(t, pushy.Options{TokenLife: 10 * time.Minute})
		strict := startServer(t, pushy.Options{DisableV1: true})
		end := time.Now().Add(10 * time.Minute).UnixMilli()
		hour := time.Now().Add(time.Hour).UnixMilli()
		for _, c := range []struct {
			name    string
			srv     *pushy.Server
			conn    string
			v       string
			expires int64
			batch   int
		}{
			{"oldHere", srv, connectPeer(t, srv).id, "", 0, 0},
			{"oldHereSaysOtherwise", srv, connectPeer(t, srv).id, "2", 0, 0},
			{"newHere", srv, connectUser(t, srv, "").id, "", end, 100},
			{"elsewhere", srv, foreignConn, "", 0, 100},
			{"newElsewhere", srv, foreignConn, "2", end, 100},
			{"otherVersion", srv, foreignConn, "3", 0, 100},
			{"oldHereWithoutV1", strict, connectPeer(t, strict).id, "", hour, 0},
		} {
			form := url.Values{"channel": {"Private-Room"}, "connection_id": {c.conn}}
			if c.v != "" {
				form.Set("v", c.v)
			}
			status, body := askAuth(t, c.srv.AuthHandler(allow), form)
			require.Equal(t, 200, status, body)
			a := decodeAuth[authorized](t, body)
			assert.Equal(t, c.expires, a.Expires, c.name)
			assert.Equal(t, c.batch, a.Batch, c.name)
			assert.JSONEq(t, `{"name":"Ann"}`, string(a.Data), c.name)
			exp := ""
			if c.expires > 0 {
				exp = fmt.Sprintf(`,"exp":%d`, c.expires/1000)
			}
			assert.Equal(t, ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["private-room"],"conn":%q,"iat":%d%s,"data":{"name":"Ann"}}`,
				c.conn, time.Now().Unix(), exp)), a.Auth, c.name)

			// A client that can batch asks for its other channels at once, also if this one is refused.
			batch := ""
			if c.batch > 0 {
				batch = `"batch":100,`
			}
			for refused, want := range map[error]string{
				pushy.ErrDenied:           `"error":{"code":"403","message":"not authorized"}`,
				errors.New("no database"): `"error":{"code":"500","message":"Internal error"}`,
			} {
				_, body = askAuth(t, c.srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, refused }), form)
				assert.Equal(t, "{"+batch+want+"}", body, c.name)
			}
		}
	})
}

// Acceptance test 12 of the signed API, the part of the server: one of 40 channels is refused.
func TestAuthBatch(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(srv *pushy.Server, calls *[][]string) http.Handler{
		"one": func(srv *pushy.Server, calls *[][]string) http.Handler {
			return srv.AuthHandler(func(_ *http.Request, _, channel string) (any, error) {
				*calls = append(*calls, []string{channel})
				switch channel {
				case "private-7":
					return nil, pushy.ErrDenied
				case "private-8":
					return nil, errors.New("the database is away")
				case "private-9":
					panic("bug")
				case "private-10":
					return nil, &pushy.Error{Code: "full", Message: "No seats"}
				case "private-11":
					return nil, pushy.ErrNeedAuth
				}
				return map[string]string{"in": channel}, nil
			})
		},
		"all": func(srv *pushy.Server, calls *[][]string) http.Handler {
			return srv.AuthAll(func(_ *http.Request, _ string, channels []string) (map[string]any, error) {
				*calls = append(*calls, channels)
				all := map[string]any{}
				for _, channel := range channels {
					all[channel] = map[string]string{"in": channel}
				}
				delete(all, "private-7")
				all["private-8"] = errors.New("the database is away")
				all["private-9"] = panickingData{}
				all["private-10"] = &pushy.Error{Code: "full", Message: "No seats"}
				all["private-11"] = pushy.ErrNeedAuth
				return all, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, pushy.Options{Channel: func(channel string) pushy.ChannelOptions {
				if channel == "private-public" {
					return pushy.ChannelOptions{Access: pushy.AccessPublic}
				}
				return pushy.ChannelOptions{}
			}})
			p := connectUser(t, srv, "")
			form := url.Values{"connection_id": {p.id}, "channel": {"Private-0", "private-0", "lobby", "a:b", "private-public", ""}}
			for i := range 40 {
				form.Add("channel", fmt.Sprintf("private-%d", i))
			}
			var calls [][]string
			status, body := askAuth(t, handler(srv, &calls), form)
			require.Equal(t, 200, status, body)
			answer := decodeAuth[struct{ Channels map[string]authorized }](t, body)
			require.Len(t, answer.Channels, 45)
			assert.Len(t, calls, map[string]int{"one": 40, "all": 1}[name])
			for channel, want := range map[string]string{
				"private-7":      `{"error":"not authorized","code":"403","status":403}`,
				"private-8":      `{"error":"Internal error","code":"500","status":500}`,
				"private-9":      `{"error":"Internal error","code":"500","status":500}`,
				"private-10":     `{"error":"No seats","code":"full","status":403}`,
				"private-11":     `{"error":"authentication needed","code":"401","status":401}`,
				"lobby":          `{"error":"the channel is not private: it needs no token","code":"403","status":403}`,
				"a:b":            `{"error":"channel name must not contain :","code":"400","status":400}`,
				"":               `{"error":"channel name must not be empty","code":"400","status":400}`,
				"private-public": `{"auth":""}`,
			} {
				assert.Contains(t, body, fmt.Sprintf("%q:%s", channel, want))
			}
			assert.Equal(t, answer.Channels["private-0"], answer.Channels["Private-0"])
			in := 0
			for channel, a := range answer.Channels {
				if a.Auth == "" {
					continue
				}
				assert.NotZero(t, a.Expires)
				if f := p.subscribeWith(channel, a.Auth, string(a.Data)); f.Event == "pushy:subscription-success" {
					in++
					assert.Contains(t, f.String(), `"in":"`+strings.ToLower(channel)+`"`)
				}
			}
			assert.Equal(t, 35, in)
		})
	}
}

type panickingData struct{}

func (panickingData) MarshalJSON() ([]byte, error) { panic("bug") }

// The error of the func, and its panic, are those of all channels.
func TestAuthAllFails(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	for want, allow := range map[string]func() (map[string]any, error){
		`{"error":"authentication needed","code":"401","status":401}`: func() (map[string]any, error) {
			return map[string]any{"private-a": nil}, pushy.ErrNeedAuth
		},
		`{"error":"Internal error","code":"500","status":500}`: func() (map[string]any, error) { panic("bug") },
		`{"error":"not authorized","code":"403","status":403}`: func() (map[string]any, error) { return nil, nil },
	} {
		h := srv.AuthAll(func(*http.Request, string, []string) (map[string]any, error) { return allow() })
		status, body := askAuth(t, h, url.Values{"connection_id": {foreignConn}, "channel": {"private-a", "private-b"}})
		assert.Equal(t, 200, status)
		assert.Equal(t, `{"channels":{"private-a":`+want+`,"private-b":`+want+`}}`, body)
		status, body = askAuth(t, h, url.Values{"connection_id": {foreignConn}, "channel": {"private-a"}})
		assert.Contains(t, want, fmt.Sprintf(`"status":%d`, status), body)
	}
}

// The bounds of a request, as a form and as JSON.
func TestAuthBatchLimits(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	h := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil })
	long := url.Values{"connection_id": {foreignConn}, "v": {"2"}}
	for i := range 100 {
		long.Add("channel", fmt.Sprintf("private-%s%02d", strings.Repeat("ö", 95), i))
	}
	require.Greater(t, len(long.Encode()), 55_000)
	status, body := askAuth(t, h, long)
	require.Equal(t, 200, status, body)
	assert.Len(t, decodeAuth[struct{ Channels map[string]authorized }](t, body).Channels, 100)
	long.Add("channel", "x")
	status, body = askAuth(t, h, long)
	assert.Equal(t, 400, status)
	assert.Contains(t, body, "at most 100 channels are allowed")

	for body, want := range map[string]string{
		`{"channel":["private-a"],"connection_id":"` + foreignConn + `"}`:       `{"channels":{"private-a":{"auth":"v2.`,
		`{"channel":["private-a"],"connection_id":"` + foreignConn + `","v":2}`: `"expires":`,
		`{"channel":"private-a","connection_id":"` + foreignConn + `"}`:         `"batch":100}`,
		`{"channel":[],"connection_id":"` + foreignConn + `"}`:                  "are needed",
		`{"channel":["private-a",7],"connection_id":"` + foreignConn + `"}`:     "malformed body",
		`{"channel":7,"connection_id":"` + foreignConn + `"}`:                   "are needed",
		`{"channel":["private-a","private-b"],"connection_id":"x"}`:             "connection_id is not",
		`{"channel":["private-a","private-b"]}`:                                 "are needed",
	} {
		r := httptest.NewRequest("POST", "/auth", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Contains(t, w.Body.String(), want, body)
	}
}

// A client that has left is not asked about any more.
func TestAuthBatchOfAClientThatHasLeft(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	h := srv.AuthHandler(func(*http.Request, string, string) (any, error) {
		asked++
		cancel()
		return nil, nil
	})
	form := url.Values{"connection_id": {foreignConn}, "channel": {"private-a", "private-b", "private-c"}}
	r := httptest.NewRequestWithContext(ctx, "POST", "/auth", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, 1, asked)
}

// Presence data that is too large for a token of version 2 is not a failure.
func TestAuthHandlerSignsLargeData(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		srv := startServer(t, pushy.Options{DisableV1: strict, Limits: pushy.Limits{PresenceBytes: 32 << 10}})
		p := connectUser(t, srv, "")
		data := fmt.Sprintf(`{"name":"Ann","text":%q}`, strings.Repeat("x", 16<<10))
		status, body := askAuth(t, srv.AuthHandler(func(*http.Request, string, string) (any, error) {
			return json.RawMessage(data), nil
		}), url.Values{"connection_id": {p.id}, "channel": {room}})
		if strict {
			assert.Equal(t, 500, status, body)
			continue
		}
		a := decodeAuth[authorized](t, body)
		assert.Equal(t, ownToken(p.id, room, data), a.Auth)
		assert.Zero(t, a.Expires)
		assert.Equal(t, "pushy:subscription-success", p.subscribeWith(room, a.Auth, string(a.Data)).Event)
	}
}

// A token of version 1 is refused once the host has turned that off.
func TestDisableV1RefusesTokens(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	srv := startServer(t, pushy.Options{DisableV1: true, Logger: log.Logger()})
	p := connectUser(t, srv, "")
	answer := p.subscribeWith(room, ownToken(p.id, room, ""), "")
	assert.Equal(t, `pushy:subscription-failed {"channel":"private-room","reason":"Invalid credentials"}`, answer.String())
	assert.Contains(t, log.String(), "Options.DisableV1")
	assert.NotContains(t, log.String(), ownToken(p.id, room, ""))
	assert.Contains(t, p.subscribeWith(room, p.expiring(room, time.Minute, ""), "").Event, "success")
	assert.Contains(t, p.refresh(room, ownToken(p.id, room, "")).String(), `"code":"403"`)
}
