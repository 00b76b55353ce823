package pushytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// recorder is a test that may fail: what it says is what is tested.
type recorder struct {
	mu       sync.Mutex
	said     []string
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// record runs a test and returns what it failed with.
func record(run func(t pushytest.TB)) (said []string) {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(r.cleanups); i > 0; i-- {
				r.cleanups[i-1]()
			}
		}()
		run(r)
	}()
	<-done
	return r.said
}

func start(t pushytest.TB, o pushy.Options) *pushy.Server {
	o.SecretKey, o.Logger = "a secret for tests alone", slog.New(slog.DiscardHandler)
	srv, err := pushy.New(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

type line struct{ Text string }

// withCommands adds the commands that the tests use.
func withCommands(srv *pushy.Server) *pushy.Server {
	pushy.Handle(srv, "say", func(ctx context.Context, conn *pushy.Conn, l line) (int, error) {
		if l.Text == "" {
			return 0, &pushy.Error{Code: "silence", Message: "Say something"}
		}
		_, err := srv.PublishEvent(ctx, pushy.Event{
			Channel: "lobby",
			Name:    "said",
			Data:    l,
			Except:  []string{conn.ID()},
		})
		return len(l.Text), err
	})
	srv.RegisterCommand("old", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("old-answer", map[string]int{"a": 1})
	})
	srv.RegisterCommand("flood", func(srv *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		for i := range 5000 {
			_ = srv.Publish(conn.Context(), "lobby", "n", i)
		}
	})
	return srv
}

// both runs a test in a bubble and outside.
func both(t *testing.T, run func(t *testing.T)) {
	t.Parallel()
	t.Run("bubble", func(t *testing.T) { t.Parallel(); synctest.Test(t, run) })
	t.Run("outside", func(t *testing.T) { t.Parallel(); run(t) })
}

func TestClients(t *testing.T) {
	both(t, func(t *testing.T) {
		left := make(chan string, 2)
		srv := withCommands(start(t, pushy.Options{Hooks: pushy.Hooks{Disconnect: func(conn *pushy.Conn, code int, _ string) {
			left <- fmt.Sprint(conn.ID(), code)
		}}}))
		kit := pushytest.New(t, srv)
		ann, bob := kit.Connect(), kit.Connect()
		require.NotEqual(t, ann.ID(), bob.ID())
		assert.Equal(t, bob.ID(), bob.Conn().ID())
		assert.Equal(t, "lobby", ann.Subscribe("Lobby").Channel)
		bob.Subscribe("lobby")

		var n int
		require.NoError(t, ann.Exec("say", line{"Hello"}, &n))
		assert.Equal(t, 5, n)
		var got line
		e := bob.ExpectEvent("LOBBY", "said", &got)
		assert.Equal(t, line{"Hello"}, got)
		assert.Equal(t, `said on lobby {"Text":"Hello"}`, e.String())
		ann.ExpectNone("lobby", "said")
		bob.ExpectNone("lobby", "said")

		err := ann.Exec("say", nil, nil)
		assert.Equal(t, &pushy.Error{Code: "silence", Message: "Say something"}, err)
		var refused *pushy.Error
		require.ErrorAs(t, ann.Exec("nowhere", nil, nil), &refused)
		assert.Equal(t, "200", refused.Code)
		var answer struct{ A int }
		require.NoError(t, ann.Exec("old", nil, &answer))
		assert.Equal(t, 1, answer.A)
		ann.SendText("{")
		ann.ExpectEvent("", "pushy:error", nil)

		require.NoError(t, bob.Unsubscribe("lobby"))
		require.Error(t, bob.Unsubscribe("lobby"))
		require.NoError(t, ann.Exec("say", line{"Anybody?"}, nil))
		bob.ExpectNone("lobby", "said")

		bob.Drop()
		assert.Equal(t, bob.ID()+"1006", <-left)
		ann.Close(1001)
		assert.Equal(t, ann.ID()+"1001", <-left)
		code, _ := ann.ExpectClose()
		assert.Equal(t, 1001, code)
		assert.Zero(t, srv.Stats().Connections)
	})
}

func TestPresenceAndPrivateChannels(t *testing.T) {
	both(t, func(t *testing.T) {
		srv := start(t, pushy.Options{})
		kit := pushytest.New(t, srv)
		ann, bob := kit.Connect(), kit.Connect()
		assert.Nil(t, ann.Subscribe("private-plain").Presence)
		ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		in := bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))
		assert.Len(t, in.Presence, 2)
		var add, quit struct {
			Member struct{ Name, MemberID string }
		}
		ann.ExpectEvent("private-room", "pushy:presence-add", &add)
		assert.Equal(t, "Bob", add.Member.Name)
		bob.Drop()
		ann.ExpectEvent("private-room", "pushy:presence-quit", &quit)
		assert.Equal(t, add, quit)

		_, err := ann.TrySubscribe("private-other", pushytest.Token("wrong", nil))
		assert.Equal(t, &pushytest.RefusedError{Event: "pushy:subscription-failed", Reason: "Invalid credentials"}, err)
		_, err = ann.TrySubscribe("private-other", pushytest.Token("", nil))
		assert.Equal(t, &pushytest.RefusedError{Event: "pushy:subscription-needauth"}, err)
		var refused *pushy.Error
		_, err = ann.TrySubscribe("a:b")
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, "301", refused.Code)
	})
}

func TestAcceptAndEndpoint(t *testing.T) {
	both(t, func(t *testing.T) {
		user := func(r *http.Request) (string, error) {
			cookie, err := r.Cookie("session")
			if err != nil {
				return "", pushy.ErrNeedAuth
			}
			return cookie.Value, nil
		}
		srv := start(t, pushy.Options{Accept: func(r *http.Request) (any, error) { return user(r) }})
		mux := http.NewServeMux()
		mux.Handle("POST /auth", srv.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
			name, err := user(r)
			if err == nil && channel != "private-"+name {
				err = pushy.ErrDenied
			}
			return nil, err
		}))
		kit := pushytest.New(t, srv)
		assert.Equal(t, http.StatusUnauthorized, kit.Refused())
		ann := kit.Connect(func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: "ann"}) })
		assert.Equal(t, "ann", ann.Conn().User())
		ann.Subscribe("private-ann", pushytest.Endpoint(mux, "/auth"))
		_, err := ann.TrySubscribe("private-bob", pushytest.Endpoint(mux, "/auth"))
		require.ErrorContains(t, err, "403")
	})
}

// A test that looks elsewhere for a while is no client that does not read.
func TestFloodIsKept(t *testing.T) {
	both(t, func(t *testing.T) {
		kit := pushytest.New(t, withCommands(start(t, pushy.Options{})))
		ann, bob := kit.Connect(), kit.Connect()
		ann.Subscribe("lobby")
		bob.Send("flood", nil)
		bob.ExpectNone("lobby", "n")
		for want := range 5000 {
			var n int
			ann.ExpectEvent("lobby", "n", &n)
			require.Equal(t, want, n)
		}
	})
}

func TestServerCloses(t *testing.T) {
	both(t, func(t *testing.T) {
		srv := start(t, pushy.Options{})
		kit := pushytest.New(t, srv)
		ann := kit.Connect()
		require.NoError(t, ann.Conn().Close(3500, "out you go"))
		code, reason := ann.ExpectClose()
		assert.Equal(t, 3500, code)
		assert.Equal(t, "out you go", reason)
		require.NoError(t, srv.Shutdown(t.Context()))
		assert.Equal(t, http.StatusServiceUnavailable, kit.Refused())
	})
}

func TestFailuresShowWhatArrived(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(kit *pushytest.Kit, srv *pushy.Server)
		says []string
	}{
		{"noEvent", func(kit *pushytest.Kit, srv *pushy.Server) {
			ann := kit.Connect()
			ann.Subscribe("lobby")
			_ = srv.Publish(context.Background(), "lobby", "other", 7)
			ann.ExpectEvent("lobby", "said", nil)
		}, []string{"client 1", "no said on lobby", "pushy:connect", "pushy:subscription-success", "not matched by an Expect call", "other on lobby 7"}},
		{"event", func(kit *pushytest.Kit, srv *pushy.Server) {
			ann := kit.Connect()
			ann.Subscribe("lobby")
			_ = srv.Publish(context.Background(), "lobby", "said", 7)
			ann.ExpectNone("lobby", "said")
		}, []string{"unexpected event: said on lobby 7"}},
		{"afterTheEnd", func(kit *pushytest.Kit, _ *pushy.Server) {
			ann := kit.Connect()
			_ = ann.Conn().Close(3500, "bye")
			ann.ExpectEvent("lobby", "said", nil)
		}, []string{"no said on lobby", "the connection ended", "3500", "bye"}},
		{"notAnswered", func(kit *pushytest.Kit, srv *pushy.Server) {
			srv.RegisterCommand("mute", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {})
			_ = kit.Connect().Exec("mute", nil, nil)
		}, []string{"mute was not answered"}},
		{"subscribe", func(kit *pushytest.Kit, _ *pushy.Server) {
			kit.Connect().Subscribe("private-x", pushytest.Token("no", nil))
		}, []string{"cannot subscribe to private-x", "Invalid credentials"}},
		{"wrongData", func(kit *pushytest.Kit, srv *pushy.Server) {
			ann := kit.Connect()
			ann.Subscribe("lobby")
			_ = srv.Publish(context.Background(), "lobby", "said", 7)
			var text string
			ann.ExpectEvent("lobby", "said", &text)
		}, []string{"cannot decode 7"}},
		{"refused", func(kit *pushytest.Kit, _ *pushy.Server) {
			kit.Connect(func(r *http.Request) { r.Header.Set("Refuse", "yes") })
		}, []string{"refused with 403"}},
		{"notRefused", func(kit *pushytest.Kit, _ *pushy.Server) { kit.Refused() }, []string{"was accepted"}},
		{"connOfNobody", func(kit *pushytest.Kit, _ *pushy.Server) {
			ann := kit.Connect()
			ann.Drop()
			ann.Conn()
		}, []string{"no longer has the connection client 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				said := record(func(rec pushytest.TB) {
					srv := start(rec, pushy.Options{Accept: func(r *http.Request) (any, error) {
						if r.Header.Get("Refuse") != "" {
							return nil, errors.New("no")
						}
						return nil, nil
					}})
					c.run(pushytest.New(rec, srv), srv)
				})
				require.Len(t, said, 1)
				for _, part := range c.says {
					assert.Contains(t, said[0], part)
				}
			})
		})
	}
}

func lostInACommand(release chan struct{}) { <-release }

func TestLeaksAreFound(t *testing.T) {
	t.Parallel()
	leak := func(t *testing.T, allow string, command func(release chan struct{})) []string {
		release := make(chan struct{})
		said := record(func(rec pushytest.TB) {
			srv := start(rec, pushy.Options{})
			srv.RegisterCommand("leak", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { command(release) })
			rec.Cleanup(func() { close(release) })
			kit := pushytest.New(rec, srv)
			if allow != "" {
				kit.Allow(allow)
			}
			kit.Connect().Send("leak", nil)
			kit.Connect().ExpectNone("", "anything")
			synctest.Wait()
		})
		synctest.Wait()
		return said
	}
	for _, c := range []struct {
		name, allow string
		command     func(release chan struct{})
		says        string // "" for nothing
	}{
		{"goroutine", "", func(release chan struct{}) { go lostInACommand(release) }, "have started still run"},
		{"command", "", lostInACommand, "still holds client 1"},
		{"allowed", "lostInACommand", func(release chan struct{}) { go lostInACommand(release) }, ""},
		{"endsSoon", "", func(chan struct{}) { go time.Sleep(time.Second) }, ""},
		{"none", "", func(chan struct{}) {}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				said := leak(t, c.allow, c.command)
				if c.says == "" {
					assert.Empty(t, said)
					return
				}
				require.Len(t, said, 1)
				assert.Contains(t, said[0], c.says)
				assert.Contains(t, said[0], "pushytest_test.lostInACommand", "the stack")
				assert.NotContains(t, strings.ToLower(said[0]), "recorder", "only what the command started")
			})
		})
	}
}

// Issue 11, number 27: an answer whose data cannot carry the id carries it itself.
func TestExecOfAnswersThatAreNoObjects(t *testing.T) {
	t.Parallel()
	srv := start(t, pushy.Options{})
	srv.RegisterCommand("echo", func(_ *pushy.Server, c *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = c.Reply("echo", data)
	})
	c := pushytest.New(t, srv).Connect()
	for _, data := range []string{`[1,2]`, `"text"`, `7`, `true`, `[]`, `{"id":7}`, `{"id":"pushytest-9"}`} {
		var got json.RawMessage
		require.NoError(t, c.Exec("echo", json.RawMessage(data), &got))
		assert.JSONEq(t, data, string(got))
	}
}

// Options.Channel decides which channels need a token, and Subscribe finds out.
func TestSubscribeToAChannelThatThePolicyMakesPrivate(t *testing.T) {
	t.Parallel()
	srv := start(t, pushy.Options{Channel: func(name string) pushy.ChannelOptions {
		if name == "orders" {
			return pushy.ChannelOptions{Access: pushy.AccessPrivate}
		}
		return pushy.ChannelOptions{}
	}})
	kit := pushytest.New(t, srv)
	ann, bob := kit.Connect(), kit.Connect()
	ann.Subscribe("orders", pushytest.Member(map[string]string{"name": "Ann"}))
	in := bob.Subscribe("Orders")
	require.Len(t, in.Presence, 2)
	require.NotEmpty(t, ann.Subscribe("news").MemberID)
}

func TestSendEvent(t *testing.T) {
	srv := start(t, pushy.Options{Channel: func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{
			ClientEvent: func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) { return data, nil },
		}
	}})
	kit := pushytest.New(t, srv)
	ann, bob := kit.Connect(), kit.Connect()
	ann.Subscribe("private-room")
	bob.Subscribe("private-room")
	ann.SendEvent("private-room", "client-typing", map[string]int{"n": 1})
	var got struct{ N int }
	e := bob.ExpectEvent("private-room", "client-typing", &got)
	assert.Equal(t, 1, got.N)
	assert.Len(t, e.From, 32)
	ann.ExpectNone("private-room", "client-typing")
	ann.SendEvent("private-room", "typing", nil)
	ann.ExpectEvent("", "pushy:error", nil)
}
