package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// postAuth asks an AuthHandler for a token.
func postAuth(h http.Handler, channel string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/auth", strings.NewReader("channel="+channel+"&connection_id="+someID))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Issue 11, number 25: what is refused because of its size is logged with its size,
// the limit, and the option that sets it.
func TestRefusedSizesAreLogged(t *testing.T) {
	t.Parallel()
	large := map[string]string{"about": strings.Repeat("x", 5000)}
	largeJSON := `{"about":"` + large["about"] + `"}`
	size := fmt.Sprint(len(largeJSON))
	limits := pushy.Limits{PresenceBytes: 1000, TriggerBytes: 2000, MessageBytes: 9000}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, srv *pushy.Server)
		logs []string
	}{
		{
			name: "authHandler",
			run: func(t *testing.T, srv *pushy.Server) {
				allow := func(*http.Request, string, string) (any, error) { return large, nil }
				w := postAuth(srv.AuthHandler(allow), "private-x")
				assert.Equal(t, 500, w.Code)
				assert.JSONEq(t, `{"error":{"code":"500","message":"Internal error"},"batch":100}`, w.Body.String())
			},
			logs: []string{size + " bytes", "limit of 1000", "raise Options.Limits.PresenceBytes", "channel=private-x"},
		},
		{
			name: "authHandlerNoObject",
			run: func(t *testing.T, srv *pushy.Server) {
				allow := func(*http.Request, string, string) (any, error) { return []int{1}, nil }
				assert.Equal(t, 500, postAuth(srv.AuthHandler(allow), "private-x").Code)
			},
			logs: []string{"presence data", "object", "array"},
		},
		{
			name: "subscribe",
			run: func(t *testing.T, srv *pushy.Server) {
				p := connectPeer(t, srv)
				p.send(subscribeText(t, p.id, "private-x", largeJSON))
				p.expect(`pushy:subscription-failed {"channel":"private-x","reason":"Presence data too large"}`)
			},
			logs: []string{size + " bytes", "limit of 1000", "raise Options.Limits.PresenceBytes", "channel=private-x"},
		},
		{
			name: "join",
			run: func(t *testing.T, srv *pushy.Server) {
				p := connectPeer(t, srv)
				var refused *pushy.JoinError
				require.ErrorAs(t, srv.Channels().Join(p.conn(srv), "private-x", []byte(largeJSON)), &refused)
				assert.Equal(t, "Presence data too large", refused.Reason)
				for _, part := range []string{size + " bytes", "limit of 1000", "Options.Limits.PresenceBytes"} {
					assert.ErrorContains(t, refused, part)
				}
			},
		},
		{
			name: "trigger",
			run: func(t *testing.T, srv *pushy.Server) {
				w := call{body: largeJSON}.do(srv)
				assert.Equal(t, 413, w.Code)
				assert.JSONEq(t, `{"error":{"code":"413","message":"Body too large"}}`, w.Body.String())
			},
			logs: []string{size + " bytes", "limit of 2000", "raise Options.Limits.TriggerBytes"},
		},
		{
			name: "xhrSend",
			run: func(t *testing.T, srv *pushy.Server) {
				session := fmt.Sprintf("/pushy/socket/0/s%d/", srv.Stats().Connections)
				require.Equal(t, 200, ask(allAbilities(srv), "POST", session+"xhr").StatusCode)
				r := httptest.NewRequest("POST", session+"xhr_send", strings.NewReader(`["`+strings.Repeat("x", 9500)+`"]`))
				w := httptest.NewRecorder()
				allAbilities(srv).ServeHTTP(w, r)
				assert.Equal(t, 413, w.Code)
			},
			logs: []string{"limit of 9000 bytes", "Options.Limits.MessageBytes"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := triggerServer(t, pushy.Options{Logger: log, Limits: limits})
			for range 3 {
				c.run(t, srv)
			}
			if c.logs == nil {
				assert.Empty(t, lines(), "an error that the host receives is not logged as well")
				return
			}
			require.Len(t, lines(), 1, "one a minute")
			for _, part := range c.logs {
				assert.Contains(t, lines()[0], part)
			}
		})
	}
}

// Issue 11, number 15: what a client's limits refuse is in the log, once a minute, with
// the option.
func TestLimitsOfAClientAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := warned()
		srv := startServer(t, pushy.Options{
			Logger:    log,
			Heartbeat: -1,
			Limits: pushy.Limits{
				Channels:     1,
				Members:      1,
				CommandRate:  1,
				CommandBurst: 8,
			},
		})
		first := connectPeer(t, srv)
		first.subscribe("private-full", `{"a":1}`)
		for range 2 {
			p := connectPeer(t, srv)
			p.send(subscribeText(t, p.id, "private-full", `{"a":1}`))
			p.expect(`pushy:subscription-failed {"channel":"private-full","reason":"Channel is full"}`)
			p.subscribe("news", "")
			p.expect0(`{"command":"subscribe","data":{"channel":"more"}}`, `pushy:error {"message":"Too many channels","code":"302"}`)
			for range 5 {
				p.send(`{"command":"none"}`)
				p.expect(`pushy:error {"message":"Unknown command","code":"200"}`)
			}
			p.expect0(`{"command":"none"}`, `pushy:error {"message":"Too many requests","code":"429"}`)
			var sender sync.WaitGroup
			sender.Go(func() {
				for p.Send(`{"command":"none"}`) == nil { // until it is closed
					time.Sleep(50 * time.Millisecond)
				}
			})
			assert.Equal(t, 1008, p.ended().Code)
			sender.Wait()
		}
		all := strings.Join(lines(), "\n")
		assert.Len(t, lines(), 4, all)
		for _, part := range []string{
			"Options.Limits.Members is 1", "Options.Limits.Channels is 1", "Options.Limits.CommandRate is 1", "CommandBurst is 8",
			"connection closed: too many requests",
		} {
			assert.Contains(t, all, part)
		}
	})
}

// Issue 11, number 13: a WebSocket that a large message ends is in the log.
func TestLargeMessageOnAWebSocketIsLogged(t *testing.T) {
	t.Parallel()
	log, lines := warned()
	_, baseURL := serve(t, pushy.Options{SecretKey: peerKey, Logger: log, Limits: pushy.Limits{MessageBytes: 9000}})
	for _, framed := range []bool{false, true} {
		c := dial(t, baseURL, framed)
		c.SendFrame(ws.OpText, `["`+strings.Repeat("x", 9500)+`"]`)
		if framed {
			assert.Equal(t, `c[1009,"message too big"]`, c.Next())
		}
		code, _ := c.Closed()
		assert.Equal(t, 1009, code)
	}
	require.Len(t, lines(), 1, "one a minute")
	for _, part := range []string{"limit of 9000 bytes", "Options.Limits.MessageBytes", "too large"} {
		assert.Contains(t, lines()[0], part)
	}
}

// Issue 11, number 25: what the broker's nodes can never take is too large, and not
// something to try again.
func TestOverTheBoundOfSharedDataIsTooLarge(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	srv := triggerServer(t, pushy.Options{
		Broker: memory.New(),
		Logger: log.Logger(),
		Limits: pushy.Limits{TriggerBytes: -1, PresenceBytes: -1, MessageBytes: -1, ConnBuffer: -1},
	})
	huge := `{"a":"` + strings.Repeat("x", 16<<20) + `"}`
	w := call{body: huge}.do(srv)
	assert.Equal(t, 413, w.Code)
	assert.JSONEq(t, `{"error":{"code":"413","message":"Event too large for the broker"}}`, w.Body.String())
	require.Len(t, log.With("over the limit of 16777216"), 1)
	p := connectPeer(t, srv)
	p.send(subscribeText(t, p.id, "private-x", `{"a":"`+strings.Repeat("x", 256<<10)+`"}`))
	p.expect(`pushy:subscription-failed {"channel":"private-x","reason":"Presence data too large"}`)
	require.Len(t, log.With("over the limit of 262144"), 1)
}

// Issue 11, number 25: errors that say two things are answered with one: to log in
// comes before a denial, since a client that has logged in is asked about anew.
func TestCombinedErrors(t *testing.T) {
	t.Parallel()
	shown := func(code, message string) error { return &pushy.Error{Code: code, Message: message} }
	both := errors.Join(pushy.ErrNeedAuth, pushy.ErrDenied)
	for _, c := range []struct {
		name    string
		err     error
		status  int
		code    string
		message string // of AuthHandler and, unless it is the fixed one, of Accept
		answer  string // to a SUBSCRIBE
	}{
		{"needAuthDenied", both, 401, "401", "authentication needed", `needauth {"channel":"news"}`},
		{"deniedNeedAuth", errors.Join(pushy.ErrDenied, pushy.ErrNeedAuth), 401, "401", "authentication needed",
			`needauth {"channel":"news"}`},
		{"wrapped", fmt.Errorf("%w: %w", errSecret, fmt.Errorf("session: %w", both)), 401, "401", "authentication needed",
			`needauth {"channel":"news"}`},
		{"needAuthShown", errors.Join(pushy.ErrNeedAuth, shown("expired", "Your session has ended")), 401, "expired",
			"Your session has ended", `needauth {"channel":"news","reason":"Your session has ended","code":"expired"}`},
		{"bothShown", errors.Join(both, shown("", "Log in first")), 401, "401", "Log in first",
			`needauth {"channel":"news","reason":"Log in first"}`},
		{"deniedShown", fmt.Errorf("%w: %w", pushy.ErrDenied, shown("banned", "You are banned")), 403, "banned",
			"You are banned",
			`failed {"channel":"news","reason":"You are banned","code":"banned"}`},
		{"needAuthShownStatus", errors.Join(pushy.ErrNeedAuth, shown("404", "No such room")), 404, "404", "No such room",
			`needauth {"channel":"news","reason":"No such room","code":"404"}`},
		{"twoShown", errors.Join(shown("429", "Slow down"), shown("404", "No such room")), 429, "429", "Slow down",
			`failed {"channel":"news","reason":"Slow down","code":"429"}`},
		{"noMessage", shown("403", ""), 403, "403", "not authorized",
			`failed {"channel":"news","reason":"Invalid credentials","code":"403"}`},
		{"noMessageNeedAuth", errors.Join(pushy.ErrNeedAuth, shown("", "")), 401, "401", "authentication needed",
			`needauth {"channel":"news"}`},
		{"status401", shown("401", ""), 401, "401", "authentication needed",
			`failed {"channel":"news","reason":"Invalid credentials","code":"401"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{
				Logger:     log,
				Authorizer: authorizerFunc(func(context.Context, pushy.AuthRequest) error { return c.err }),
				Accept:     func(*http.Request) (any, error) { return nil, c.err },
			})
			allow := func(*http.Request, string, string) (any, error) { return nil, c.err }
			w := postAuth(srv.AuthHandler(allow), "private-x").Result()
			assert.Equal(t, c.status, w.StatusCode)
			code, message := httpError(t, w)
			assert.Equal(t, []string{c.code, c.message}, []string{code, message})
			assert.Empty(t, lines())

			p := connectPeer(t, srv)
			p.send(`{"command":"subscribe","data":{"channel":"news"}}`)
			p.expect("pushy:subscription-" + c.answer)
			assert.Empty(t, lines())

			w = ask(allAbilities(srv), "POST", "/pushy/socket/0/s/xhr")
			assert.Equal(t, c.status, w.StatusCode)
			code, message = httpError(t, w)
			assert.Equal(t, c.code, code)
			switch c.message {
			case "authentication needed":
				assert.Equal(t, "Options.Accept wants this client to log in first", message)
			case "not authorized":
				assert.Equal(t, "Options.Accept refused this connection; the server's log says why", message)
			default:
				assert.Equal(t, c.message, message)
			}
		})
	}
}

// Issue 11, number 18: a refusal by Limits.PerAddress names the address that was
// counted, and where it came from.
func TestRefusedAddressIsTheOneThatWasCounted(t *testing.T) {
	t.Parallel()
	const header = "X-Real-IP"
	fromHeader := func(r *http.Request) string {
		if r.Header.Get(header) == "panic" {
			panic("no header")
		}
		return r.Header.Get(header)
	}
	for _, c := range []struct {
		name    string
		address func(*http.Request) string
		header  string
		remote  string
		says    []string
		not     string
	}{
		{"own", nil, "", "192.0.2.7:1234", []string{"192.0.2.7", "RemoteAddr", "set Options.Address"}, ""},
		{"ownIPv6", nil, "", "[2001:db8::7]:1234", []string{"2001:db8::7", "2001:db8::/64", "RemoteAddr"}, ""},
		{"given", fromHeader, "198.51.100.9", "192.0.2.7:1234", []string{"198.51.100.9", "from Options.Address"},
			"192.0.2.7"},
		{"givenPort", fromHeader, " 198.51.100.9:55 ", "@", []string{"198.51.100.9", "from Options.Address"}, "RemoteAddr"},
		{"givenIPv6", fromHeader, "[2001:db8:0:1::9]", "192.0.2.7:1234", []string{"2001:db8:0:1::9",
			"2001:db8:0:1::/64", "from Options.Address"},
			"192.0.2.7"},
		{"empty", fromHeader, "", "192.0.2.7:1234", []string{"192.0.2.7", "RemoteAddr",
			`Options.Address returned ""`}, "set Options.Address"},
		{"list", fromHeader, "203.0.113.1, 198.51.100.9", "192.0.2.7:1234",
			[]string{"address is 192.0.2.7", "RemoteAddr", "Options.Address returned 203.0.113.1, 198.51.100.9"}, ""},
		{"panic", fromHeader, "panic", "192.0.2.7:1234", []string{"address is 192.0.2.7", "RemoteAddr",
			"Options.Address failed"}, "returned"},
		{"neither", fromHeader, "unknown", "@", []string{"Options.Address returned unknown", "no address",
			"count as one"}, "192.0.2"},
		{"panicNeither", fromHeader, "panic", "", []string{"Options.Address failed", "no address", "count as one"},
			"returned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			srv := startServer(t, pushy.Options{
				Logger:  log,
				Address: c.address,
				Limits:  pushy.Limits{PerAddress: 1},
				SockJS:  pushy.SockJS{DisconnectDelay: time.Hour},
			})
			status := func(session string) *http.Response {
				r := httptest.NewRequest("POST", "/pushy/socket/0/"+session+"/xhr", nil)
				r.RemoteAddr = c.remote
				r.Header.Set(header, c.header)
				w := httptest.NewRecorder()
				allAbilities(srv).ServeHTTP(w, r)
				return w.Result()
			}
			require.Equal(t, 200, status("a").StatusCode)
			w := status("b")
			require.Equal(t, 503, w.StatusCode)
			_, message := httpError(t, w)
			last := lines()[len(lines())-1]
			assert.Contains(t, last, "connection refused")
			last = strings.ReplaceAll(last, `\"`, `"`)
			for _, text := range []string{message, last} {
				assert.Contains(t, text, "Options.Limits.PerAddress is 1")
				for _, part := range c.says {
					assert.Contains(t, text, part)
				}
				if c.not != "" {
					assert.NotContains(t, text, c.not)
				}
			}
		})
	}
}
