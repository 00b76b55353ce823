package subscriber_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

// Reach C4: a Token func that fails, panics, and takes too long is called again; one that denies is not.
func TestTokenFunc(t *testing.T) {
	type (
		request = subscriber.TokenRequest
		tokens  = map[string]subscriber.Token
	)
	sign := subscriber.SignWith(secret)
	tests := []struct {
		name  string
		token func(call int, ctx context.Context, r request) (tokens, error)
		calls int
		want  error
	}{
		{"error twice", func(call int, ctx context.Context, r request) (tokens, error) {
			if call <= 2 {
				return nil, errors.New("down")
			}
			return sign(ctx, r)
		}, 3, nil},
		{"error of the token", func(call int, ctx context.Context, r request) (tokens, error) {
			if call == 1 {
				return tokens{r.Channels[0]: {Err: errors.New("down")}}, nil
			}
			return sign(ctx, r)
		}, 2, nil},
		{"panic", func(call int, ctx context.Context, r request) (tokens, error) {
			if call == 1 {
				panic("oops")
			}
			return sign(ctx, r)
		}, 2, nil},
		{"blocks 11 s", func(call int, ctx context.Context, r request) (tokens, error) {
			if call == 1 {
				time.Sleep(11 * time.Second)
			}
			return sign(ctx, r)
		}, 2, nil},
		{"denied", func(int, context.Context, request) (tokens, error) {
			return nil, fmt.Errorf("not you: %w", subscriber.ErrDenied)
		}, 1, subscriber.ErrDenied},
		{"no token", func(int, context.Context, request) (tokens, error) {
			return nil, nil
		}, 1, subscriber.ErrDenied},
		{"wrong token", func(_ int, ctx context.Context, r request) (tokens, error) {
			return subscriber.SignWith("another secret of the server")(ctx, r)
		}, 1, &subscriber.Error{Message: "Invalid credentials"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, _ *pushy.Server) {
				var calls atomic.Int64
				o := n.options()
				o.Token = func(ctx context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
					return test.token(int(calls.Add(1)), ctx, r)
				}
				c := connect(t, "a", o)
				_, err := c.Subscribe(t.Context(), "private-room", nil)
				var refused *subscriber.Error
				if want, is := test.want.(*subscriber.Error); is {
					require.ErrorAs(t, err, &refused)
					assert.Equal(t, want, refused)
				} else {
					require.ErrorIs(t, err, test.want)
				}
				assert.EqualValues(t, test.calls, calls.Load())
				_, err = c.Subscribe(t.Context(), "news", nil) // the others do not wait for it
				require.NoError(t, err)
			})
		})
	}
}

// Reach C4: the tokens of 200 channels need two calls after a reconnect, and one subscription is asked
// for alone if only the server knows that it is private.
func TestTokensInBatches(t *testing.T) {
	onNetwork(t, pushy.Options{Channel: func(name string) pushy.ChannelOptions {
		if name == "secret" {
			return pushy.ChannelOptions{Access: pushy.AccessPrivate}
		}
		return pushy.ChannelOptions{}
	}}, func(t *testing.T, n *network, srv *pushy.Server) {
		var mu sync.Mutex
		var sizes []int
		o := n.options()
		o.Token = func(ctx context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
			mu.Lock()
			sizes = append(sizes, len(r.Channels))
			mu.Unlock()
			return subscriber.SignWith(secret)(ctx, r)
		}
		c := connect(t, "a", o)
		subscribe(t, c, "secret", nil)
		for i := range 198 {
			subscribe(t, c, fmt.Sprintf("private-%d", i), nil)
		}
		subscribe(t, c, "public", nil)
		take := func() []int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			taken := sizes
			sizes = nil
			return taken
		}
		assert.Len(t, take(), 199)
		n.cut()
		time.Sleep(time.Minute)
		assert.ElementsMatch(t, []int{100, 99}, take())
		conn, ok := srv.Conn(c.ConnID())
		require.True(t, ok)
		assert.Len(t, conn.Channels(), 200)
		_, err := c.Subscribe(t.Context(), "one too many", nil)
		var refused *subscriber.Error
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, "302", refused.Code)
	})
}

// Without a Token func, a private channel is an error that says so.
func TestWithoutTokens(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, _ *pushy.Server) {
		c := connect(t, "a", subscriber.Options{NetDial: n.dial})
		_, err := c.Subscribe(t.Context(), "Private-Room", nil)
		require.EqualError(t, err, "subscriber: private-room needs a token: set Options.Token (401)")
		_, err = c.Subscribe(t.Context(), "a:b", nil)
		require.EqualError(t, err, "subscriber: subscribe: channel name must not contain :")
		_, err = c.Subscribe(t.Context(), "news", &subscriber.SubscribeOptions{Data: func() {}})
		require.ErrorContains(t, err, "subscriber: subscribe: Data: json")
		subscribe(t, c, "news", nil)
		_, err = c.Subscribe(t.Context(), "NEWS", nil)
		require.EqualError(t, err, "subscriber: subscribe: the Client has a Subscription of news")
	})
}

// signFor signs tokens that are valid for a time.
func signFor(t testing.TB, life time.Duration, asked *atomic.Int64) subscriber.TokenFunc {
	return func(_ context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
		asked.Add(1)
		tokens := map[string]subscriber.Token{}
		for _, channel := range r.Channels {
			var data any
			if r.Data[channel] != nil {
				data = r.Data[channel]
			}
			auth, err := pushy.SignToken(secret, pushy.Token{
				Channels: []string{channel},
				Conn:     r.ConnID,
				Expires:  time.Now().Add(life),
				Data:     data,
			})
			assert.NoError(t, err)
			tokens[channel] = subscriber.Token{Auth: auth}
		}
		return tokens, nil
	}
}

// Reach C4: tokens are renewed between 75 and 90 % of their life, together, and the others see no
// second join. If they cannot be renewed, the subscription ends 25 s after the token, and begins again
// when there are tokens again.
func TestTokensAreRenewed(t *testing.T) {
	onNetwork(t, keeping(100), func(t *testing.T, n *network, srv *pushy.Server) {
		var asked atomic.Int64
		var down atomic.Bool
		sign := signFor(t, time.Hour, &asked)
		o := n.options()
		o.Token = func(ctx context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
			if down.Load() {
				return nil, errors.New("down")
			}
			return sign(ctx, r)
		}
		watcher := connect(t, "a", n.options())
		seen := read(t, subscribe(t, watcher, "private-room", &subscriber.SubscribeOptions{Presence: true}))
		seen.expect("members private-room []")
		c := connect(t, "a", o)
		s := subscribe(t, c, "private-room", &subscriber.SubscribeOptions{Data: map[string]string{"name": "Ann"}})
		other := subscribe(t, c, "private-other", nil)
		r, ro := read(t, s), read(t, other)
		synctest.Wait()
		seen.mu.Lock()
		assert.Len(t, seen.got, 2) // the list of those before, and the join
		seen.got = nil
		seen.mu.Unlock()
		assert.EqualValues(t, 2, asked.Load())
		time.Sleep(45*time.Minute - time.Second)
		assert.EqualValues(t, 2, asked.Load())
		time.Sleep(9*time.Minute + 2*time.Second)
		assert.EqualValues(t, 3, asked.Load(), "one call for both")
		time.Sleep(10 * time.Hour)
		calls := asked.Load()
		assert.True(t, calls >= 13 && calls <= 18, "%d calls in 11 hours", calls)
		publish(t, srv, "private-room", "n", 1)
		r.expect("published private-room n 1 @1")
		seen.expect("published private-room n 1 @1")
		down.Store(true)
		time.Sleep(2 * time.Hour)
		publish(t, srv, "private-room", "n", 2)
		r.expect()
		down.Store(false)
		time.Sleep(time.Minute)
		r.expect("published private-room n 2 @2")
		ro.expect()
	})
}

// A handler for auth requests that the client reaches through the network.
func (n *network) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       n.dial,
		DisableKeepAlives: true,
	}}
}

// AuthURL asks the endpoint of a Server for all channels in one request, once it knows that it can.
func TestAuthURL(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
		var mu sync.Mutex
		var requests []string
		take := func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			taken := requests
			requests = nil
			return taken
		}
		handler := srv.AuthHandler(func(_ *http.Request, _, channel string) (any, error) {
			switch channel {
			case "private-no":
				return nil, pushy.ErrDenied
			case "private-broken":
				return nil, errors.New("broken")
			}
			return map[string]string{"name": channel}, nil
		})
		n.serve("auth", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			_ = r.ParseForm()
			r.Body = io.NopCloser(bytes.NewReader(body))
			mu.Lock()
			defer mu.Unlock()
			requests = append(requests, strings.Join(r.PostForm["channel"], "+")+r.PostForm.Get("v"))
			handler.ServeHTTP(w, r)
		}))
		o := n.options()
		o.Token = subscriber.AuthURL("http://auth/", n.client())
		c := connect(t, "a", o)
		first := subscribe(t, c, "private-first", &subscriber.SubscribeOptions{Presence: true})
		require.Len(t, first.Members(), 1)
		assert.Contains(t, string(first.Members()[0]), `"name":"private-first"`)
		subscribe(t, c, "private-second", nil)
		_, err := c.Subscribe(t.Context(), "private-no", nil)
		require.ErrorIs(t, err, subscriber.ErrDenied)
		require.ErrorContains(t, err, "403 not authorized")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Subscribe(ctx, "private-broken", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		asked := take()
		assert.Greater(t, len(asked), 5)
		assert.Equal(t, []string{"private-first", "private-second2", "private-no2"}, asked[:3])
		n.cut()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"private-first+private-second2"}, take())
		require.NotEmpty(t, c.ConnID())
	})
}

// Endpoints of other kinds: one that knows no batch, one that forgets it, and answers of all kinds.
func TestOtherAuthEndpoints(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		var answer func(channels []string) (int, string)
		var requests int
		n.serve("auth", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			requests++
			status, body := answer(r.PostForm["channel"])
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		ask := func(f subscriber.TokenFunc, channels ...string) (map[string]subscriber.Token, error) {
			requests = 0
			return f(t.Context(), subscriber.TokenRequest{ConnID: "id", Channels: channels})
		}
		f := subscriber.AuthURL("http://auth/", n.client())
		answer = func(channels []string) (int, string) {
			return 200, `{"auth":"token of ` + channels[0] + `","data":{"a":1}}`
		}
		tokens, err := ask(f, "a", "b")
		require.NoError(t, err)
		assert.Equal(t, 2, requests)
		assert.Equal(t, "token of b", tokens["b"].Auth)
		assert.Equal(t, json.RawMessage(`{"a":1}`), tokens["b"].Data)
		answer = func(channels []string) (int, string) {
			return 200, `{"auth":"token of ` + channels[0] + `","batch":10}`
		}
		tokens, err = ask(f, "a", "b", "c") // answers the second request as if it had one channel
		require.NoError(t, err)
		assert.Equal(t, "token of c", tokens["c"].Auth)
		for _, test := range []struct {
			status int
			body   string
			denied bool
			text   string
		}{
			{400, "", true, "400"},
			{403, `{"error":{"code":"403","message":"not you"}}`, true, "not you"},
			{200, "<html>", true, `answered "<html>"`},
			{200, "{}", true, "without a token"},
			{500, `{"error":{"code":"500","message":"Internal error"}}`, false, "500 Internal error"},
			{302, "", false, ""},
		} {
			answer = func([]string) (int, string) { return test.status, test.body }
			tokens, err = ask(subscriber.AuthURL("http://auth/", n.client()), "a")
			require.NoError(t, err)
			require.ErrorContains(t, tokens["a"].Err, test.text)
			assert.Equal(t, test.denied, errors.Is(tokens["a"].Err, subscriber.ErrDenied), test.status)
		}
		noNetwork := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
		nowhere := &http.Client{Transport: &http.Transport{DialContext: noNetwork}}
		tokens, err = ask(subscriber.AuthURL("http://auth/", nowhere), "a")
		require.NoError(t, err)
		require.ErrorContains(t, tokens["a"].Err, "no network")
		require.NotErrorIs(t, tokens["a"].Err, subscriber.ErrDenied)
	})
}

// Token can use the Client, and close it.
func TestCallsInToken(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
		pushy.Handle(srv, "ping", func(context.Context, *pushy.Conn, struct{}) (struct{}, error) { return struct{}{}, nil })
		var c *subscriber.Client
		o := n.options()
		o.Token = func(ctx context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
			assert.Equal(t, c.ConnID(), r.ConnID)
			assert.NoError(t, c.Exec(ctx, "ping", nil, nil))
			s, err := c.Subscribe(ctx, "news", nil)
			if assert.NoError(t, err) {
				assert.NoError(t, s.Unsubscribe(ctx))
			}
			c.Close()
			return nil, errors.New("closed")
		}
		c = connect(t, "a", o)
		_, err := c.Subscribe(t.Context(), "private-room", nil)
		require.ErrorIs(t, err, subscriber.ErrClosed)
	})
}
