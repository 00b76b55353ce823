package pushy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// orders makes channels whose names begin with "orders-" private, one channel
// public in spite of its name, and one private channel without presence.
func orders(name string) pushy.ChannelOptions {
	switch {
	case strings.HasPrefix(name, "orders-"):
		return pushy.ChannelOptions{Access: pushy.AccessPrivate}
	case name == "private-lobby":
		return pushy.ChannelOptions{Access: pushy.AccessPublic}
	case name == "private-silent":
		return pushy.ChannelOptions{Presence: pushy.PresenceOptions{Off: true}}
	case name == "unknown":
		return pushy.ChannelOptions{Access: 7}
	case name == "broken":
		panic("no policy")
	}
	return pushy.ChannelOptions{}
}

// Issue 12: the default Authorizer, AuthHandler, the commands and Channels.Join agree
// on what a channel is, since they ask one function.
func TestChannelPolicyIsOne(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Channel: orders})
	auth := srv.AuthHandler(func(*http.Request, string, string) (any, error) {
		return map[string]string{"name": "Ann"}, nil
	})
	grant := func(p *peer, channel string) (status int, token struct {
		Auth string
		Data json.RawMessage
	}) {
		form := url.Values{"connection_id": {p.id}, "channel": {channel}}
		r := httptest.NewRequest(http.MethodPost, "/auth", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		auth.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &token))
		}
		return w.Code, token
	}
	ask := func(p *peer, channel, token, data string) string {
		return p.ask(`{"command":"subscribe","data":{"channel":"` + channel + `","auth":"` + token + `","data":` + data + `}}`).String()
	}

	p := connectPeer(t, srv)
	assert.Equal(t, `pushy:subscription-needauth {"channel":"presence-room"}`, ask(p, "Presence-room", "", "null"))
	assert.Equal(t, `pushy:subscription-needauth {"channel":"orders-7"}`, ask(p, "Orders-7", "", "null"))
	status, token := grant(p, "orders-7")
	require.Equal(t, http.StatusOK, status)
	in := ask(p, "orders-7", token.Auth, string(token.Data))
	assert.Contains(t, in, "pushy:subscription-success")
	assert.Contains(t, in, `"presence":[{"name":"Ann"`)
	ch, ok := srv.Channels().Lookup("orders-7")
	require.True(t, ok)
	assert.True(t, ch.Private())

	assert.Contains(t, ask(p, "private-lobby", "", "null"), "pushy:subscription-success")
	status, token = grant(p, "private-lobby")
	assert.Equal(t, http.StatusOK, status, "a client that goes by the name gives up after a refusal")
	assert.Empty(t, token.Auth, "a public channel needs no token")
	status, _ = grant(p, "news")
	assert.Equal(t, http.StatusForbidden, status)
	ch, ok = srv.Channels().Lookup("private-lobby")
	require.True(t, ok)
	assert.False(t, ch.Private())

	status, token = grant(p, "private-silent")
	require.Equal(t, http.StatusOK, status)
	in = ask(p, "private-silent", token.Auth, string(token.Data))
	assert.Contains(t, in, "pushy:subscription-success")
	assert.NotContains(t, in, "presence")
	ch, ok = srv.Channels().Lookup("private-silent")
	require.True(t, ok)
	_, on := ch.Presence()
	assert.False(t, on)

	assert.Equal(t, `pushy:subscription-needauth {"channel":"unknown"}`, ask(p, "unknown", "", "null"),
		"an Access that there is not opens nothing")

	require.NoError(t, srv.Channels().Join(p.conn(srv), "orders-8", json.RawMessage(`{"name":"Ann"}`)))
	assert.Contains(t, p.next().String(), `"presence":[{"name":"Ann"`)
}

// An Authorizer of the host's sees what Options.Channel says, not what the name looks like.
func TestAuthorizerSeesThePolicy(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{
		Channel: orders,
		Authorizer: authorizerFunc(func(_ context.Context, r pushy.AuthRequest) error {
			if r.Private {
				return pushy.ErrDenied
			}
			return nil
		}),
	})
	p := connectPeer(t, srv)
	for channel, want := range map[string]string{
		"orders-7":      "pushy:subscription-failed",
		"private-room":  "pushy:subscription-failed",
		"private-lobby": "pushy:subscription-success",
		"news":          "pushy:subscription-success",
	} {
		assert.Equal(t, want, p.ask(`{"command":"subscribe","data":{"channel":"`+channel+`"}}`).Event, channel)
	}
}

// A policy that fails opens nothing.
func TestChannelPolicyThatFailsRefuses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Channel: orders})
	p := connectPeer(t, srv)
	answer := p.ask(`{"command":"subscribe","data":{"channel":"broken"}}`).String()
	assert.Equal(t, `pushy:subscription-failed {"channel":"broken","reason":"Temporarily unavailable"}`, answer)
	var refused *pushy.JoinError
	require.ErrorAs(t, srv.Channels().Join(p.conn(srv), "broken", nil), &refused)
	assert.Zero(t, srv.Entries())

	form := url.Values{"connection_id": {p.id}, "channel": {"broken"}}
	r := httptest.NewRequest(http.MethodPost, "/auth", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(w, r)
	assert.Equal(t, http.StatusInternalServerError, w.Code)
}

type account struct{ id string }

func (a account) UserID() string { return a.id }

func TestUserID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user any
		id   string
	}{
		"string":  {"u7", "u7"},
		"method":  {account{"u8"}, "u8"},
		"other":   {7, ""},
		"nothing": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conns := make(chan *pushy.Conn, 1)
			srv := startServer(t, pushy.Options{
				Accept: func(*http.Request) (any, error) { return c.user, nil },
				Hooks:  pushy.Hooks{Connect: func(conn *pushy.Conn) { conns <- conn }},
			})
			server := httptest.NewServer(srv)
			t.Cleanup(server.Close)
			resp, err := http.Post(server.URL+"/pushy/socket/000/session/xhr", "", nil)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			conn := <-conns
			assert.Equal(t, c.id, conn.UserID())
			assert.Equal(t, c.user, conn.User())
		})
	}
}

// A user whose method panics is refused like any failing Accept.
type brokenAccount struct{}

func (brokenAccount) UserID() string { panic("no id") }

func TestUserIDThatPanics(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Accept: func(*http.Request) (any, error) { return brokenAccount{}, nil }})
	server := httptest.NewServer(srv)
	t.Cleanup(server.Close)
	resp, err := http.Post(server.URL+"/pushy/socket/000/session/xhr", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)
}

func TestPublishEvent(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	ann, bob, cyd := connectPeer(t, srv), connectPeer(t, srv), connectPeer(t, srv)
	e := pushy.Event{
		Channel: "News",
		Name:    "said",
		Data:    map[string]int{"n": 1},
		ID:      "first",
	}
	receipt, err := srv.PublishEvent(t.Context(), e)
	require.NoError(t, err)
	assert.Equal(t, pushy.Receipt{Receivers: broker.None}, receipt)
	for _, p := range []*peer{ann, bob, cyd} {
		p.subscribe("news", "")
	}
	receipt, err = srv.PublishEvent(t.Context(), e)
	require.NoError(t, err)
	assert.True(t, receipt.Duplicate)

	e.ID = "second"
	e.Except = []string{ann.id, cyd.id}
	receipt, err = srv.PublishEvent(t.Context(), e)
	require.NoError(t, err)
	assert.Equal(t, pushy.Receipt{Receivers: broker.Some}, receipt)
	bob.expect(`said news {"n":1}`)
	for _, p := range []*peer{ann, bob, cyd} {
		p.quiet()
	}

	for _, wrong := range []pushy.Event{
		{Channel: "a:b", Name: "said"},
		{Channel: "news", Name: "pushy:said"},
		{Channel: "news", Name: "said", Data: make(chan int)},
		{Channel: "news", Name: "said", ID: strings.Repeat("x", 129)},
		{Channel: "news", Name: "said", Latest: strings.Repeat("x", 129)},
		{Channel: "news", Name: "said", Except: make([]string, 65)},
	} {
		_, err := srv.PublishEvent(t.Context(), wrong)
		require.ErrorContains(t, err, "pushy: ")
	}
	bob.quiet()
}

// What an event permits reaches the broker, and the broker's position of it the publisher.
func TestPublishEventPassesOn(t *testing.T) {
	t.Parallel()
	entries := make(chan broker.Entry, 1)
	at := broker.Position{
		Epoch:  "e",
		Offset: 7,
	}
	srv := startOn(t, publishing(func(_ context.Context, _ string, e broker.Entry) (broker.Appended, error) {
		entries <- e
		return broker.Appended{At: at, Receivers: broker.Some}, nil
	}), pushy.Options{})
	receipt, err := srv.PublishEvent(t.Context(), pushy.Event{
		Channel:   "News",
		Name:      "moved",
		Data:      1,
		Except:    []string{"a"},
		ID:        "id",
		Latest:    "piece",
		Droppable: true,
	})
	require.NoError(t, err)
	assert.Equal(t, pushy.Receipt{Receivers: broker.Some, Position: at}, receipt)
	assert.Equal(t, broker.Entry{
		Kind:      broker.Event,
		Event:     "moved",
		Data:      json.RawMessage("1"),
		Except:    []string{"a"},
		ID:        "id",
		Latest:    "piece",
		Droppable: true,
	}, <-entries)
}

func TestHandleCommand(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	requests := make(chan *pushy.Request, 1)
	srv.HandleCommand("Look", func(r *pushy.Request) error {
		assert.Equal(t, []string{"lOOK", `{"a":1}`}, []string{r.Name, string(r.Data)})
		assert.Same(t, srv, r.Server())
		assert.NoError(t, r.Context().Err())
		requests <- r
		return nil
	})
	srv.HandleCommand("refuse", func(*pushy.Request) error { return &pushy.Error{Code: "7", Message: "No"} })
	srv.HandleCommand("fail", func(*pushy.Request) error { return assert.AnError })
	srv.HandleCommand("subscribe", func(r *pushy.Request) error {
		if err := r.Conn.Send("first", 1); err != nil {
			return err
		}
		r.Builtin()
		return nil
	})
	p := connectPeer(t, srv)
	p.send(`{"command":"lOOK","data":{"a":1},"id":"i"}`)
	p.send(`{"command":"refuse","id":2}`)
	p.expect(`pushy:error {"message":"No","code":"7","id":2}`)
	r := <-requests
	assert.Nil(t, r.Data, "the command has returned")
	require.NoError(t, r.Reply("later", struct{}{}))
	p.expect(`later {"id":"i"}`)
	require.NoError(t, r.ReplyError(&pushy.Error{Code: "8", Message: "Late"}))
	p.expect(`pushy:error {"message":"Late","code":"8","id":"i"}`)
	require.NoError(t, r.Channels.Join(r.Conn, "news", nil))
	assert.Contains(t, string(p.next().Data), `"id":"i"`)
	p.send(`{"command":"fail"}`)
	p.expect(`pushy:error {"message":"Internal error","code":"500"}`)
	p.send(`{"command":"subscribe","data":{"channel":"other"},"id":3}`)
	p.expect(`first 1`)
	assert.Contains(t, p.next().String(), `"id":3`)
	p.send(`{"command":"subscribe","data":{},"id":4}`)
	p.expect(`first 1`)
	p.expect(`pushy:error {"message":"No channel specified","code":"300","id":4}`)

	assert.Panics(t, func() { srv.HandleCommand("Pushy:x", func(*pushy.Request) error { return nil }) })
	assert.Panics(t, func() { srv.HandleCommand("x", nil) })
	assert.Panics(t, func() { (&pushy.Request{Name: "x"}).Builtin() })
}

// An id of a user that nodes could not share is none, and the log says so.
func TestUserIDThatCannotBeShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id   string
		want string
	}{
		"longest": {strings.Repeat("u", 128), strings.Repeat("u", 128)},
		"tooLong": {strings.Repeat("u", 129), ""},
		"notUTF8": {"u\xff", ""},
	} {
		for kind, user := range map[string]any{"string": c.id, "method": account{c.id}} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				log := &testlog.Log{}
				conns := make(chan *pushy.Conn, 1)
				srv := startOn(t, memory.New(), pushy.Options{
					Logger: log.Logger(),
					Accept: func(*http.Request) (any, error) { return user, nil },
					Hooks:  pushy.Hooks{Connect: func(conn *pushy.Conn) { conns <- conn }},
				})
				server := httptest.NewServer(srv)
				t.Cleanup(server.Close)
				resp, err := http.Post(server.URL+"/pushy/socket/000/session/xhr", "", nil)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				conn := <-conns
				assert.Equal(t, c.want, conn.UserID())
				assert.Equal(t, user, conn.User())
				require.NoError(t, srv.Channels().Join(conn, "private-room", nil))
				if c.want == "" {
					assert.Len(t, log.With("UserID"), 1)
				} else {
					assert.Empty(t, log.With("UserID"))
				}
			})
		}
	}
}
