package backend_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/pushytest"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: secret, Prefix: "/rt"})
	require.NoError(t, err)
	web := httptest.NewServer(srv) // the only test over real sockets
	t.Cleanup(func() {
		web.Close()
		_ = srv.Close()
	})
	c, err := backend.New(backend.Options{URL: web.URL + "/rt/", SecretKey: secret})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdleConnections)
	publish := func(e backend.Event) backend.Receipt {
		t.Helper()
		receipts, err := c.PublishEvent(t.Context(), e)
		require.NoError(t, err)
		require.Len(t, receipts, 1)
		for _, receipt := range receipts {
			return receipt
		}
		return backend.Receipt{}
	}
	assert.Equal(t, backend.Receipt{}, publish(backend.Event{Channels: []string{"nobody is here"}, Name: "x"}))
	kit := pushytest.New(t, srv)
	ann, bob := kit.Connect(), kit.Connect()
	const channel = "Ünï/co de?&#%+"
	ann.Subscribe(channel)
	bob.Subscribe(channel)
	require.NoError(t, c.Publish(t.Context(), channel, "say: x", map[string]any{"a": []int{1, 2}, "html": "<é>"}))
	for _, client := range []*pushytest.Client{ann, bob} {
		e := client.ExpectEvent(channel, "say: x", nil)
		assert.Equal(t, `{"a":[1,2],"html":"<é>"}`, string(e.Data))
	}
	list := backend.Event{
		Channels: []string{channel},
		Name:     "list",
		Data:     "text",
		Except:   []string{ann.ID()},
		ID:       "list-1",
	}
	assert.Equal(t, backend.Receipt{Received: true}, publish(list))
	assert.Equal(t, backend.Receipt{Received: true, Duplicate: true}, publish(list))
	ann.ExpectNone(channel, "list")
	bob.ExpectEvent(channel, "list", nil)
	bob.ExpectNone(channel, "list")
	require.NoError(t, c.Publish(t.Context(), channel, "same", nil))
	require.NoError(t, c.Publish(t.Context(), channel, "same", nil))
	bob.ExpectEvent(channel, "same", nil)
	e := bob.ExpectEvent(channel, "same", nil) // the same event twice is two events
	assert.Equal(t, `{}`, string(e.Data))
	bob.ExpectNone(channel, "same")
}

func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]backend.Options{
		"noURL":     {SecretKey: secret},
		"path":      {URL: "/pushy", SecretKey: secret},
		"webSocket": {URL: "ws://h/pushy", SecretKey: secret},
		"query":     {URL: "http://h/pushy?x", SecretKey: secret},
		"control":   {URL: "http://h\x00/", SecretKey: secret},
		"noSecret":  {URL: "http://h/pushy"},
		"timeout":   {URL: "http://h/pushy", SecretKey: secret, Timeout: -1},
	} {
		_, err := backend.New(o)
		assert.ErrorContains(t, err, "backend: ", name)
	}
	asked := false
	c, err := backend.New(backend.Options{URL: "http://h", SecretKey: secret, HTTPClient: &http.Client{
		Transport: roundTripper(func(*http.Request) (*http.Response, error) { asked = true; return nil, io.EOF }),
	}})
	require.NoError(t, err)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, bad := range []struct {
		name, channel, event string
		ctx                  context.Context
		data                 any
		says                 string
	}{
		{"channel", "a:b", "x", t.Context(), nil, "events[0].channels[0]: must not contain :"},
		{"event", "a", "pushy:x", t.Context(), nil, "events[0].event: "},
		{"noJSON", "a", "x", t.Context(), func() {}, "encode data"},
		{"cancelled", "a", "x", cancelled, nil, "context canceled"},
	} {
		err := c.Publish(bad.ctx, bad.channel, bad.event, bad.data)
		require.ErrorContains(t, err, bad.says, bad.name)
		assert.NotErrorIs(t, err, backend.ErrOutcomeUnknown, bad.name)
	}
	assert.False(t, asked)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRefusals(t *testing.T) {
	t.Parallel()
	say := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if header != nil {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name    string
		options backend.Options
		server  pushy.Options
		instead http.Handler
		data    any
		want    backend.Error
		is      error
	}{
		{"badEvent", backend.Options{}, pushy.Options{CheckEvent: func(string) error { return errors.New("is not one of ours") }}, nil, nil,
			backend.Error{Status: 400, Code: "400", Message: "events[0].event: is not one of ours"}, backend.ErrBadRequest},
		{"otherKey", backend.Options{SecretKey: "another"}, pushy.Options{}, nil, nil,
			backend.Error{Status: 403, Code: "403"}, backend.ErrDenied},
		{"tooLarge", backend.Options{}, pushy.Options{Limits: pushy.Limits{TriggerBytes: 10}}, nil, []string{"a long text"},
			backend.Error{Status: 413, Code: "413"}, backend.ErrTooLarge},
		{"otherPrefix", backend.Options{URL: "http://memory/rt"}, pushy.Options{}, nil, nil,
			backend.Error{Status: 404, Code: "404"}, backend.ErrNotFound},
		{"noPushyThere", backend.Options{}, pushy.Options{}, http.NotFoundHandler(), nil,
			backend.Error{Status: 404, Message: "Not Found; check that Options.URL has the prefix of the server"}, backend.ErrNotFound},
		{"redirect", backend.Options{}, pushy.Options{}, http.RedirectHandler("https://elsewhere/pushy", http.StatusTemporaryRedirect), nil,
			backend.Error{Status: 307, Message: "redirects to https://elsewhere/pushy; Options.URL must be the URL of that server"}, nil},
		{"anotherServer", backend.Options{}, pushy.Options{}, say(200, "<!doctype html>"), nil,
			backend.Error{Status: 200, Message: "not a response of a pushy server; check Options.URL"}, nil},
		{"anotherServersJSON", backend.Options{}, pushy.Options{}, say(201, `{"events":[]}`), nil,
			backend.Error{Status: 201, Message: "not a response of a pushy server; check Options.URL"}, nil},
		{"notImplemented", backend.Options{}, pushy.Options{}, say(501, ""), nil,
			backend.Error{Status: 501, Message: "Not Implemented"}, backend.ErrUnavailable},
		{"longMessage", backend.Options{}, pushy.Options{}, say(418, `{"error":{"message":"`+strings.Repeat("é", 201)+`"}}`), nil,
			backend.Error{Status: 418, Message: strings.Repeat("é", 200) + "…"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv, reader := startServer(t, c.server)
				requests := 0
				n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests++
					if c.instead != nil {
						c.instead.ServeHTTP(w, r)
						return
					}
					srv.ServeHTTP(w, r)
				}))
				err := n.client(t, c.options).Publish(t.Context(), "news", "x", c.data)
				var refused *backend.Error
				require.ErrorAs(t, err, &refused)
				if c.want.Message == "" {
					c.want.Message = refused.Message
				}
				assert.Equal(t, c.want, *refused)
				for _, kind := range []error{
					backend.ErrBadRequest, backend.ErrDenied, backend.ErrClock, backend.ErrNotFound, backend.ErrConflict,
					backend.ErrTooLarge, backend.ErrUnavailable, backend.ErrOutcomeUnknown,
				} {
					assert.Equal(t, kind == c.is, errors.Is(err, kind), "%v", kind)
				}
				assert.Equal(t, 1, requests, "another try would not help")
				reader.ExpectNone("news", "x")
			})
		})
	}
}

// Temporary failures are retried, and nothing is delivered twice. Each row has the failures of the
// tries before the last.
func TestTriesAgain(t *testing.T) {
	t.Parallel()
	publish := func(srv http.Handler, r *http.Request) { srv.ServeHTTP(httptest.NewRecorder(), r) }
	hang := func(r *http.Request) {
		discard(r)
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name        string
		fail        func(srv http.Handler, w http.ResponseWriter, r *http.Request, try int)
		failures    int
		least, most time.Duration
	}{
		{"503then201", func(_ http.Handler, w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, 1, 0, 200 * time.Millisecond},
		{"retryAfter", func(_ http.Handler, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, 2, 14 * time.Second, 15 * time.Second},
		{"retryAfterDate", func(_ http.Handler, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", time.Now().Add(9*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusTooManyRequests)
		}, 1, 8 * time.Second, 10 * time.Second},
		{"aProxysErrors", func(_ http.Handler, w http.ResponseWriter, _ *http.Request, try int) {
			w.WriteHeader([]int{500, 502, 504, 408}[try-1])
			_, _ = io.WriteString(w, "<html>")
		}, 4, 0, 2 * time.Second},
		{"cutBeforeDelivery", func(http.Handler, http.ResponseWriter, *http.Request, int) {
			panic(http.ErrAbortHandler)
		}, 3, 0, 2 * time.Second},
		{"cutAfterDelivery", func(srv http.Handler, _ http.ResponseWriter, r *http.Request, _ int) {
			publish(srv, r)
			panic(http.ErrAbortHandler)
		}, 3, 0, 2 * time.Second},
		{"502AfterDelivery", func(srv http.Handler, w http.ResponseWriter, r *http.Request, _ int) {
			publish(srv, r)
			w.WriteHeader(http.StatusBadGateway)
		}, 2, 0, 2 * time.Second},
		{"cutWithinTheAnswer", func(srv http.Handler, w http.ResponseWriter, r *http.Request, _ int) {
			publish(srv, r)
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 1, 0, time.Second},
		{"hangsBeforeDelivery", func(_ http.Handler, _ http.ResponseWriter, r *http.Request, _ int) {
			hang(r)
		}, 1, 15 * time.Second, 16 * time.Second},
		{"hangsAfterDelivery", func(srv http.Handler, _ http.ResponseWriter, r *http.Request, _ int) {
			publish(srv, r)
			hang(r)
		}, 1, 15 * time.Second, 16 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv, reader := startServer(t, pushy.Options{})
				var mu sync.Mutex
				var requests []string
				n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					requests = append(requests, requestID(r))
					try := len(requests)
					mu.Unlock()
					if try <= c.failures {
						c.fail(srv, w, r, try)
						return
					}
					srv.ServeHTTP(w, r)
				}))
				begun := time.Now()
				err := n.client(t, backend.Options{}).Publish(t.Context(), "news", "x", []int{1})
				require.NoError(t, err)
				took := time.Since(begun)
				assert.True(t, took >= c.least && took <= c.most, "it took %s", took)
				reader.ExpectEvent("news", "x", nil)
				reader.ExpectNone("news", "x")
				require.Len(t, requests, c.failures+1)
				for _, request := range requests {
					assert.Equal(t, requests[0], request, "the tries have the same id")
				}
			})
		})
	}
}

func TestConnectionsThatCannotBeMade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, reader := startServer(t, pushy.Options{})
		n := serve(t, srv)
		n.refuse = 4
		err := n.client(t, backend.Options{}).Publish(t.Context(), "news", "x", nil)
		require.NoError(t, err)
		reader.ExpectEvent("news", "x", nil)
		assert.Equal(t, 5, n.dialed())

		n.refuse = 1000
		begun := time.Now()
		err = n.client(t, backend.Options{}).Publish(t.Context(), "news", "y", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errRefused)
		assert.NotErrorIs(t, err, backend.ErrOutcomeUnknown, "nothing was sent")
		assert.LessOrEqual(t, time.Since(begun), 30*time.Second)
		assert.Greater(t, n.dialed(), 10)
		reader.ExpectNone("news", "y")

		n.refuse = 1000
		before := n.dialed()
		err = n.client(t, backend.Options{Tries: 3}).Publish(t.Context(), "news", "y", nil)
		require.ErrorIs(t, err, errRefused)
		assert.Equal(t, 3, n.dialed()-before)
	})
}

// If the outcome cannot be known, the error says so.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		serve func(srv http.Handler, w http.ResponseWriter, r *http.Request)
		is    error
	}{
		{"hangs", func(_ http.Handler, _ http.ResponseWriter, r *http.Request) {
			discard(r)
			<-r.Context().Done()
		}, context.DeadlineExceeded},
		{"deliversAndHangs", func(srv http.Handler, _ http.ResponseWriter, r *http.Request) {
			srv.ServeHTTP(httptest.NewRecorder(), r)
			<-r.Context().Done()
		}, context.DeadlineExceeded},
		{"alwaysCut", func(http.Handler, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, io.EOF},
		{"always503", func(_ http.Handler, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, context.DeadlineExceeded},
		{"noTimeForRetryAfter", func(_ http.Handler, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, context.DeadlineExceeded},
		{"cancelled", func(_ http.Handler, _ http.ResponseWriter, r *http.Request) {
			discard(r)
			<-r.Context().Done()
		}, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv, reader := startServer(t, pushy.Options{})
				n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(srv, w, r) }))
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				if errors.Is(c.is, context.Canceled) {
					time.AfterFunc(5*time.Second, cancel)
				}
				begun := time.Now()
				err := n.client(t, backend.Options{}).Publish(ctx, "news", "x", nil)
				require.ErrorIs(t, err, backend.ErrOutcomeUnknown)
				require.ErrorIs(t, err, c.is)
				assert.LessOrEqual(t, time.Since(begun), 25*time.Second)
				assert.NotContains(t, err.Error(), "v2 ")
				assert.NotContains(t, err.Error(), secret)
				if c.name == "noTimeForRetryAfter" {
					assert.Less(t, time.Since(begun), time.Second, "nothing is gained by waiting")
				}
				if c.name == "deliversAndHangs" {
					reader.ExpectEvent("news", "x", nil)
				}
				reader.ExpectNone("news", "x")
			})
		})
	}
}

// An error can say both why the tries have failed and that the outcome is unknown.
func TestUnavailableAndUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                 string
		status               int
		body                 string
		unavailable, unknown bool
	}{
		{"tooMany", http.StatusTooManyRequests, `{"error":{"code":"429","message":"Too many events"}}`, true, false},
		{"notImplemented", http.StatusNotImplemented, `{"error":{"code":"501","message":"no bans"}}`, true, false},
		{"unavailable", http.StatusServiceUnavailable, `{"error":{"code":"503","message":"Service unavailable"}}`, true, true},
		{"aProxy", http.StatusBadGateway, `<html>`, true, true},
		{"unreadableAnswer", http.StatusOK, `{"events":7,"closed":"x","channels":7}`, false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			api := n.client(t, backend.Options{Tries: 2})
			_, kick := api.Kick(t.Context(), backend.Kick{Target: "user:42"})
			for _, err := range []error{api.Publish(t.Context(), "news", "x", nil), kick} {
				assert.Equal(t, c.unavailable, errors.Is(err, backend.ErrUnavailable), "%s: %v", c.name, err)
				assert.Equal(t, c.unknown, errors.Is(err, backend.ErrOutcomeUnknown), "%s: %v", c.name, err)
			}
			_, err := api.ListChannels(t.Context(), backend.ChannelQuery{})
			require.Error(t, err)
			assert.Equal(t, c.unavailable, errors.Is(err, backend.ErrUnavailable), "%s: %v", c.name, err)
			assert.NotErrorIs(t, err, backend.ErrOutcomeUnknown, "a query changes nothing")
		})
	}
}

// A server that has lost its memory because of a restart delivers a retry again, as the
// documentation of the package says.
func TestAnotherServerDeliversAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, before := startServer(t, pushy.Options{})
		second, after := startServer(t, pushy.Options{})
		once := false
		n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !once {
				once = true
				first.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			second.ServeHTTP(w, r)
		}))
		c := n.client(t, backend.Options{})
		err := c.Publish(t.Context(), "news", "x", nil)
		require.NoError(t, err)
		before.ExpectEvent("news", "x", nil)
		after.ExpectEvent("news", "x", nil)

		once = false
		err = n.client(t, backend.Options{Tries: 1}).Publish(t.Context(), "news", "y", nil)
		require.ErrorIs(t, err, backend.ErrOutcomeUnknown)
		before.ExpectEvent("news", "y", nil)
		after.ExpectNone("news", "y")
	})
}

// A server can close a connection that was kept open at any time, also while a request is in
// progress, before or after it reads the request or publishes the event.
func TestKeptConnectionsThatClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		each func(srv http.Handler, conn net.Conn, r *http.Request, n int) bool
	}{
		{"afterTheAnswer", func(srv http.Handler, conn net.Conn, r *http.Request, _ int) bool {
			answer(conn, srv, r)
			return false
		}},
		{"unread", func(srv http.Handler, conn net.Conn, r *http.Request, n int) bool {
			if n == 3 {
				return false
			}
			answer(conn, srv, r)
			return true
		}},
		{"published", func(srv http.Handler, conn net.Conn, r *http.Request, n int) bool {
			if n == 1 {
				srv.ServeHTTP(httptest.NewRecorder(), r)
				return false
			}
			answer(conn, srv, r)
			return true
		}},
		{"withinTheAnswer", func(srv http.Handler, conn net.Conn, r *http.Request, n int) bool {
			if n == 2 {
				srv.ServeHTTP(httptest.NewRecorder(), r)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
				return false
			}
			answer(conn, srv, r)
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv, reader := startServer(t, pushy.Options{})
				n := serveConns(t, func(conn net.Conn, r *http.Request, i int) bool { return c.each(srv, conn, r, i) })
				client := n.client(t, backend.Options{})
				for i := range 50 {
					err := client.Publish(t.Context(), "news", "x", []int{i})
					require.NoError(t, err)
				}
				for i := range 50 {
					var got []int
					reader.ExpectEvent("news", "x", &got)
					require.Equal(t, []int{i}, got)
				}
				reader.ExpectNone("news", "x")
				client.CloseIdleConnections()
			})
		})
	}
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, reader := startServer(t, pushy.Options{})
		n := serve(t, srv)
		c := n.client(t, backend.Options{})
		for range 100 {
			err := c.Publish(t.Context(), "news", "x", nil)
			require.NoError(t, err)
		}
		assert.Equal(t, 1, n.dialed())
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for range 10 {
					err := c.Publish(t.Context(), "news", "x", nil)
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
		assert.Less(t, n.dialed(), 100, "of 300 requests, 20 at a time")
		for range 300 {
			reader.ExpectEvent("news", "x", nil)
		}
		reader.ExpectNone("news", "x")
	})
}

// A RoundTripper of the host may not report whether it has sent the request.
func TestOtherTransports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := backend.New(backend.Options{URL: "http://h/pushy", SecretKey: secret, Tries: 2, HTTPClient: &http.Client{
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				signature := strings.Split(r.Header.Get("Pushy-Signature"), " ")
				require.Len(t, signature, 5)
				assert.Equal(t, strconv.FormatInt(time.Now().Unix(), 10), signature[2])
				assert.Regexp(t, "^[0-9a-f]{32}$", signature[3])
				assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
				return nil, io.ErrClosedPipe
			}),
		}})
		require.NoError(t, err)
		err = c.Publish(t.Context(), "news", "x", nil)
		require.ErrorIs(t, err, backend.ErrOutcomeUnknown)
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.ErrorContains(t, err, "try 2")
	})
}

// requestID returns the id of a signed request.
func requestID(r *http.Request) string {
	parts := strings.Split(r.Header.Get("Pushy-Signature"), " ")
	if len(parts) != 5 {
		return ""
	}
	return parts[3]
}
