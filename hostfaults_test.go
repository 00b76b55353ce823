package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
)

// faults are the ways in which a host's func does not return.
var faults = map[string]func(){
	"panic":        func() { panic("boom") },
	"panicNil":     func() { panic(nil) }, //nolint:govet // that is the test
	"panicError":   func() { panic(errSecret) },
	"panicStruct":  func() { panic(struct{ A, B any }{1, []string{"x"}}) },
	"panicPeevish": func() { panic(peevish{}) },
	"abortHandler": func() { panic(http.ErrAbortHandler) },
	"runtimeError": func() { _ = os.Args[len(os.Args)] },
	"goexit":       func() { runtime.Goexit() },
}

// peevish panics when it is printed, unwrapped or compared.
type peevish struct{}

func (peevish) Error() string  { panic("Error") }
func (peevish) Unwrap() error  { panic("Unwrap") }
func (peevish) Is(error) bool  { panic("Is") }
func (peevish) As(any) bool    { panic("As") }
func (peevish) String() string { panic("String") }

func eachFault(t *testing.T, run func(t *testing.T, fail func(), log *testlog.Log)) {
	t.Parallel()
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, fail, &testlog.Log{})
		})
	}
}

func shutDown(t *testing.T, srv *pushy.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
	defer cancel()
	require.NoError(t, srv.Shutdown(ctx))
}

// Issue 11, number 26: a hook that does not return ends nothing else.
func TestFailingHooks(t *testing.T) {
	eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
		srv := startServer(t, pushy.Options{
			Logger: log.Logger(),
			Hooks: pushy.Hooks{
				Connect:         func(*pushy.Conn) { fail() },
				Disconnect:      func(*pushy.Conn, int, string) { fail() },
				Subscribe:       func(*pushy.Conn, *pushy.Channel) { fail() },
				Unsubscribe:     func(*pushy.Conn, *pushy.Channel) { fail() },
				ChannelOccupied: func(*pushy.Channel) { fail() },
				ChannelVacated:  func(*pushy.Channel) { fail() },
			},
		})
		p, q := connectPeer(t, srv), connectPeer(t, srv)
		for _, channel := range []string{"news", "private-room"} {
			for range 2 {
				p.subscribe(channel, "")
				p.expect0(`{"command":"unsubscribe","data":{"channel":"`+channel+`"}}`, `pushy:subscription-end {"channel":"`+channel+`"}`)
			}
			q.subscribe(channel, "")
		}
		p.quiet()
		p.Close(1000, "")
		p.ended()
		go q.ended()
		shutDown(t, srv)
		assert.Zero(t, srv.Entries())
		assert.Zero(t, srv.Stats().Connections)
		for _, hook := range []string{"Connect", "Disconnect", "Subscribe", "Unsubscribe", "ChannelOccupied", "ChannelVacated"} {
			assert.Contains(t, log.String(), "hook="+hook)
		}
	})
}

func (p *peer) expect0(send, want string) {
	p.t.Helper()
	p.send(send)
	p.expect(want)
}

// Issue 11, number 26: every command is answered, and the connection goes on.
func TestFailingCommands(t *testing.T) {
	eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
		srv := startServer(t, pushy.Options{
			Logger:     log.Logger(),
			Authorizer: authorizerFunc(func(context.Context, pushy.AuthRequest) error { fail(); return nil }),
		})
		srv.RegisterCommand("plain", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { fail() })
		pushy.Handle(srv, "typed", func(context.Context, *pushy.Conn, struct{}) (any, error) { fail(); return nil, nil })
		pushy.Handle(srv, "decodes", func(context.Context, *pushy.Conn, faultyJSON) (any, error) { return nil, nil })
		pushy.Handle(srv, "encodes", func(context.Context, *pushy.Conn, struct{}) (any, error) { return faultyJSON{fail}, nil })
		pushy.Handle(srv, "nil-error", func(context.Context, *pushy.Conn, struct{}) (any, error) { return nil, (*pushy.Error)(nil) })
		pushy.Handle(srv, "peevish", func(context.Context, *pushy.Conn, struct{}) (any, error) { return nil, peevish{} })
		faultyJSONFault.Store(t.Name(), fail)
		p := connectPeer(t, srv)
		for range 3 {
			for _, command := range []string{"plain", "typed", "encodes", "nil-error", "peevish"} {
				p.expect0(`{"command":"`+command+`","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
				p.expect0(`{"command":"`+command+`"}`, `pushy:error {"message":"Internal error","code":"500"}`)
			}
			p.expect0(`{"command":"decodes","id":1,"data":"`+t.Name()+`"}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
			p.expect0(`{"command":"subscribe","data":{"channel":"news"}}`, `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`)
		}
		for range 20 { // past the first messages, too, which have readers of their own
			p.send(`{"command":"plain","id":1}`)
			p.send(`{"command":"plain","id":2}`)
			p.expect(`pushy:error {"message":"Internal error","code":"500","id":1}`)
			p.expect(`pushy:error {"message":"Internal error","code":"500","id":2}`)
		}
		p.quiet()
		assert.Contains(t, log.String(), "command=plain")
		assert.Contains(t, log.String(), "command=typed")
		go p.ended()
		shutDown(t, srv)
		assert.Zero(t, srv.Stats().Connections)
	})
}

// faultyJSON fails where JSON is made of it or from it.
type faultyJSON struct{ fail func() }

// faultyJSONFault has the fault for each test's name, which is the JSON.
var faultyJSONFault sync.Map

func (f faultyJSON) MarshalJSON() ([]byte, error) {
	f.fail()
	return []byte("{}"), nil
}

func (f *faultyJSON) UnmarshalJSON(raw []byte) error {
	fail, _ := faultyJSONFault.Load(strings.Trim(string(raw), `"`))
	fail.(func())()
	return nil
}

// Issue 11, number 26: every HTTP request that reaches code of the host is answered.
func TestFailingCallbacksOverHTTP(t *testing.T) {
	eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
		failingOn := func(bad string) func(string) error {
			return func(name string) error {
				if name == bad {
					fail()
				}
				return nil
			}
		}
		srv, base := serve(t, pushy.Options{
			SecretKey:    peerKey,
			Logger:       log.Logger(),
			CheckChannel: failingOn("private-bad"),
			CheckEvent:   failingOn("bad"),
			Accept: func(r *http.Request) (any, error) {
				if r.Header.Get("Authorization") != "" {
					fail()
				}
				return nil, nil
			},
		})
		for _, c := range []struct{ channel, event string }{{"private-bad", "x"}, {"news", "bad"}} {
			status, body := signedTrigger(t, base, c.channel, c.event)
			assert.Equal(t, 500, status)
			assert.JSONEq(t, `{"error":{"code":"500","message":"Internal error"}}`, body)
		}
		status, _ := signedTrigger(t, base, "news", "x")
		assert.Equal(t, 200, status)
		assert.Contains(t, []int{403, 500}, handshake(t, base, http.Header{"Authorization": {"x"}}))
		assert.Equal(t, 101, handshake(t, base, nil))

		auth := srv.AuthHandler(func(_ *http.Request, _, channel string) (any, error) {
			switch channel {
			case "private-encode":
				return faultyJSON{fail}, nil
			case "private-error":
				return nil, peevish{}
			case "private-allow":
				fail()
			}
			return nil, nil
		})
		mux := http.NewServeMux()
		mux.Handle("/pushy/", srv)
		mux.Handle("/auth", auth)
		base = serveHandler(t, srv, mux)
		for channel, want := range map[string]int{"private-bad": 500, "private-allow": 500, "private-encode": 500, "private-error": 500, "private-fine": 200} {
			form := url.Values{"channel": {channel}, "connection_id": {"3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"}}
			resp, err := http.PostForm(base+"/auth", form)
			require.NoError(t, err, channel)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, want, resp.StatusCode, channel)
			assert.True(t, json.Valid(body), "%s", body)
		}

		p := connectPeer(t, srv)
		p.expect0(`{"command":"subscribe","id":1,"data":{"channel":"PRIVATE-bad"}}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
		p.expect0(`{"command":"unsubscribe","id":1,"data":{"channel":"private-bad"}}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
		assert.ErrorContains(t, srv.Publish(t.Context(), "private-bad", "x", 1), "CheckChannel")
		assert.ErrorContains(t, srv.Publish(t.Context(), "news", "bad", 1), "CheckEvent")
		var refused *pushy.Error
		require.ErrorAs(t, srv.Channels().Join(p.conn(srv), "private-bad", nil), &refused)
		assert.Equal(t, "500", refused.Code)
		p.quiet()
		for _, name := range []string{"Options.CheckChannel", "Options.CheckEvent", "Options.Accept", "the func given to AuthHandler"} {
			assert.Contains(t, log.String(), name)
		}
		go p.ended()
		shutDown(t, srv)
	})
}

func signedTrigger(t *testing.T, base, channel, event string) (status int, body string) {
	t.Helper()
	now := time.Now().Unix()
	key, err := pushy.SignTrigger(peerKey, channel, event, now, []byte("{}"))
	require.NoError(t, err)
	query := url.Values{"event": {event}, "timestamp": {fmt.Sprint(now)}, "auth_key": {key}}
	resp, err := http.Post(base+"/pushy/channel/"+channel+"/trigger?"+query.Encode(), "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

// Issue 11, number 26: a log handler that does not return drops no answer, and holds
// up no Shutdown.
func TestFailingLogHandler(t *testing.T) {
	for _, method := range []string{"Enabled", "Handle", "WithAttrs", "value"} {
		t.Run(method, func(t *testing.T) {
			eachFault(t, func(t *testing.T, fail func(), _ *testlog.Log) {
				handler := failingHandler{
					method: method,
					fail:   fail,
				}
				srv, base := serve(t, pushy.Options{
					SecretKey: "short", // which is logged
					Logger:    slog.New(handler),
					Accept: func(r *http.Request) (any, error) {
						if r.Header.Get("Authorization") != "" {
							return nil, errSecret
						}
						return nil, nil
					},
					Hooks: pushy.Hooks{
						Connect:         func(*pushy.Conn) { panic("hook") },
						Disconnect:      func(*pushy.Conn, int, string) { panic("hook") },
						Subscribe:       func(*pushy.Conn, *pushy.Channel) { panic("hook") },
						ChannelOccupied: func(*pushy.Channel) { panic("hook") },
						ChannelVacated:  func(*pushy.Channel) { panic("hook") },
					},
				})
				pushy.Handle(srv, "fail", func(context.Context, *pushy.Conn, struct{}) (any, error) {
					return nil, unloggable{fail, method == "value"}
				})
				pushy.Handle(srv, "panic", func(context.Context, *pushy.Conn, struct{}) (any, error) { panic(errSecret) })
				p := connectPeer(t, srv)
				for range 12 {
					p.expect0(`{"command":"fail","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
					p.expect0(`{"command":"panic","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`)
				}
				p.subscribe("news", "")
				status, _ := signedTrigger(t, base, "news", "x")
				assert.Equal(t, 403, status, "another key")
				for path, want := range map[string]int{"/nothing": 404, "/pushy/nothing": 404, "/pushy/socket/websocket": 400} {
					res, err := http.Get(base + path)
					require.NoError(t, err, path)
					require.NoError(t, res.Body.Close())
					assert.Equal(t, want, res.StatusCode)
				}
				assert.Equal(t, 403, handshake(t, base, http.Header{"Origin": {"https://evil.example"}}))
				assert.Equal(t, 403, handshake(t, base, http.Header{"Authorization": {"x"}}))
				assert.Equal(t, 101, handshake(t, base, nil))
				go p.ended()
				shutDown(t, srv)
				assert.Zero(t, srv.Stats().Connections)
			})
		})
	}
}

// failingHandler fails in one of its methods.
type failingHandler struct {
	method string
	fail   func()
}

func (h failingHandler) in(method string) {
	if h.method == method {
		h.fail()
	}
}

func (h failingHandler) Enabled(context.Context, slog.Level) bool {
	h.in("Enabled")
	return true
}

func (h failingHandler) Handle(ctx context.Context, r slog.Record) error {
	h.in("Handle")
	return slog.NewTextHandler(io.Discard, nil).Handle(ctx, r)
}

func (h failingHandler) WithAttrs([]slog.Attr) slog.Handler {
	h.in("WithAttrs")
	return h
}

func (h failingHandler) WithGroup(string) slog.Handler { return h }

// unloggable is an error that fails when it is logged.
type unloggable struct {
	fail  func()
	fails bool
}

func (unloggable) Error() string { return "unloggable" }

func (u unloggable) LogValue() slog.Value {
	if u.fails {
		u.fail()
	}
	return slog.StringValue("unloggable")
}

// Issue 11, number 26: a call of a broker that does not return is an
// error of that one operation.
func TestFailingBroker(t *testing.T) {
	calls := []string{"Event", "Follow", "Unfollow", "Join", "Leave", "Close", "Away"}
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
				f := newForeign()
				f.fail = fail
				srv, base := serve(t, pushy.Options{
					SecretKey: peerKey,
					Logger:    log.Logger(),
					Broker:    f,
				})
				p := connectPeer(t, srv)
				p.subscribe("private-before", "")
				f.panicIn(call)
				for range 3 {
					p.send(subscribeText(t, p.id, "private-room", ""))
					answer := p.next()
					switch call {
					case "Follow", "Join":
						assert.Equal(t, "pushy:subscription-failed", answer.Event)
						assert.Equal(t, "Temporarily unavailable", answer.field("reason"))
					default:
						assert.Equal(t, "pushy:subscription-success", answer.Event)
						p.expect0(`{"command":"unsubscribe","data":{"channel":"private-room"}}`,
							`pushy:subscription-end {"channel":"private-room"}`)
					}
					status, _ := signedTrigger(t, base, "private-before", "said")
					if call == "Event" {
						assert.Equal(t, 503, status)
					} else {
						assert.Equal(t, 201, status)
						p.expect("said private-before {}")
					}
				}
				p.quiet()
				if call == "Away" {
					assert.ErrorContains(t, srv.Stats().Away, "Away")
				} else {
					assert.NoError(t, srv.Stats().Away)
				}
				go p.ended()
				ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
				defer cancel()
				if err := srv.Shutdown(ctx); call == "Close" {
					assert.ErrorContains(t, err, "Broker.Close")
				} else {
					assert.NoError(t, err)
				}
				assert.Zero(t, srv.Stats().Connections)
				assert.Zero(t, srv.Entries())
				assert.Contains(t, log.String(), "call=")
			})
		})
	}
}

// Issue 11, number 26: so is one of New's.
func TestFailingBrokerInNew(t *testing.T) {
	eachFault(t, func(t *testing.T, fail func(), log *testlog.Log) {
		for _, call := range []string{"Open", "Close"} {
			f := newForeign()
			f.panics, f.fail = call, fail
			o := pushy.Options{SecretKey: peerKey, Logger: log.Logger(), Broker: f}
			if call == "Close" {
				o.Origins = []string{"nonsense"} // so that New closes what it was given
			}
			_, err := pushy.New(o)
			require.Error(t, err)
			assert.Equal(t, 1, f.closes)
		}
	})
}

// Issue 11, number 26: an error whose methods fail is one of that operation, too.
func TestPeevishErrorsOfABroker(t *testing.T) {
	t.Parallel()
	b := newRefusing(map[string]error{
		"x":      peevish{},
		"Follow": peevish{},
	})
	srv, base := serve(t, pushy.Options{SecretKey: peerKey, Broker: b, Logger: slog.New(slog.DiscardHandler)})
	status, _ := signedTrigger(t, base, "news", "x")
	assert.Equal(t, 503, status)
	p := connectPeer(t, srv)
	p.expect0(`{"command":"subscribe","data":{"channel":"news"}}`,
		`pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`)
	p.quiet()
	go p.ended()
	shutDown(t, srv)
}
