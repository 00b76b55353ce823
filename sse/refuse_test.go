package sse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/sse"
)

// plain checks an answer that is not a stream: a line of text that no page shows by itself.
func plain(t *testing.T, res *http.Response, body string, status int, parts ...string) {
	t.Helper()
	assert.Equal(t, status, res.StatusCode, body)
	assert.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
	assert.Equal(t, "none", res.Header.Get("HX-Reswap"))
	assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	assert.Equal(t, 1, strings.Count(body, "\n"), body)
	for _, part := range parts {
		assert.Contains(t, body, part)
	}
}

func channels(n int) string {
	query := ""
	for i := range n {
		query += fmt.Sprintf("channel=c%d&", i)
	}
	return query
}

// S6: what is not valid.
func TestInvalidRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		v1, err := pushy.SignChannel(secret, "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8", "private-a", nil)
		require.NoError(t, err)
		for query, want := range map[string]string{
			"":                             "no channel",
			"channels=a":                   "no channel",
			"channel=":                     "must not be empty",
			"channel=a&channel=%0a":        "must not contain control",
			"channel=a:b":                  `channel a:b: must not contain :`,
			channels(21):                   "21 channels, at most 20",
			"channel=a&names=both":         "names must be",
			"channel=a&data=xml":           "data \"raw\"",
			"channel=private-a&auth=" + v1: "version 1",
		} {
			res, body := s.refused(query)
			plain(t, res, body, http.StatusBadRequest, want)
		}
		for _, m := range []string{http.MethodPost, http.MethodDelete, http.MethodPut} {
			res, body := s.refused("channel=a", method(m))
			plain(t, res, body, http.StatusMethodNotAllowed)
			assert.Equal(t, "GET, HEAD, OPTIONS", res.Header.Get("Allow"))
		}
		res, body := s.refused("channel=a", func(r *http.Request) {
			r.Body = http.NoBody
			r.ContentLength = -1
			r.Body = struct {
				readCloser
			}{readCloser{strings.NewReader("x")}}
		})
		plain(t, res, body, http.StatusBadRequest, "must not have a body")
		assert.Zero(t, s.srv.Stats().Connections)

		// These are valid.
		st := s.listen(channels(20) + "channel=C0&datastar=%7B%7D&x=y")
		assert.Len(t, st.opened().Channels, 20)
		head := s.get("channel=a", method(http.MethodHead))
		assert.Equal(t, http.StatusOK, head.StatusCode)
		assert.Equal(t, "text/event-stream", head.Header.Get("Content-Type"))
		settle()
		assert.Equal(t, 1, s.srv.Stats().Connections)
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// S6: what the host refuses.
func TestHostRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var accept, authorize error
		s := start(t, pushy.Options{
			Accept:     func(*http.Request) (any, error) { return "ann", accept },
			Authorizer: authorizer(func(pushy.AuthRequest) error { return authorize }),
		}, sse.Options{}, nil)
		for _, c := range []struct {
			accept, authorize error
			status            int
			text              string
		}{
			{errors.New("no"), nil, http.StatusForbidden, "Options.Accept"},
			{pushy.ErrNeedAuth, nil, http.StatusUnauthorized, "log in"},
			{&pushy.Error{Code: "418", Message: "Tea\nonly"}, nil, http.StatusTeapot, "Tea only"},
			{nil, pushy.ErrNeedAuth, http.StatusUnauthorized, "channel a: authentication needed"},
			{nil, pushy.ErrDenied, http.StatusForbidden, "channel a: invalid credentials"},
			{nil, &pushy.Error{Code: "451", Message: "Not here"}, 451, "channel a: Not here"},
			{nil, &pushy.Error{Code: "x", Message: "Nope"}, http.StatusForbidden, "channel a: Nope"},
		} {
			accept, authorize = c.accept, c.authorize
			res, body := s.refused("channel=a")
			plain(t, res, body, c.status, c.text)
		}
		settle()
		assert.Zero(t, s.srv.Stats().Connections)
		accept, authorize = nil, nil
		_, err := s.srv.Kick(t.Context(), pushy.Kick{Target: "user:ann", Until: time.Now().Add(time.Minute), Reason: "Spam"})
		require.NoError(t, err)
		res, body := s.refused("channel=a")
		plain(t, res, body, http.StatusForbidden, "Spam")
	})
}

type authorizer func(r pushy.AuthRequest) error

func (a authorizer) Authorize(_ context.Context, r pushy.AuthRequest) error { return a(r) }

// The Authorizer receives the protocol. All channels are asked for at the same time, within 10 s.
func TestAuthorizations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		slow := make(chan struct{})
		s := start(t, pushy.Options{Authorizer: authorizer(func(r pushy.AuthRequest) error {
			assert.Equal(t, "sse", r.Protocol)
			asked.Add(1)
			pause(time.Second)
			if r.Channel == "slow" {
				<-slow
			}
			return nil
		})}, sse.Options{}, nil)
		began := time.Now()
		s.listen(channels(20))
		assert.Equal(t, time.Second, time.Since(began))
		assert.EqualValues(t, 20, asked.Load())
		st := s.stream("channel=a&channel=slow")
		assert.Equal(t, 11*time.Second, time.Since(began))
		e := st.next()
		assert.Equal(t, "pushy:busy", e.name)
		assert.Contains(t, e.data, `"reason":"unavailable"`)
		close(slow)
	})
}

// A client that disconnects while its channels are authorized is not one that the Authorizer has failed:
// the counts, and the log, do not say that.
func TestDisconnectedWhileAuthorized(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := &testlog.Log{}
		release := make(chan struct{})
		s := start(t, pushy.Options{
			Logger: log.Logger(),
			Authorizer: authorizer(func(pushy.AuthRequest) error {
				<-release
				return nil
			}),
		}, sse.Options{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan error)
		go func() {
			res, err := s.try(ctx, "channel=a&channel=b")
			if err == nil {
				_ = res.Body.Close()
			}
			answered <- err
		}()
		settle()
		cancel()
		require.Error(t, <-answered)
		settle()
		close(release)
		settle()
		joins := s.srv.Stats().Joins
		assert.EqualValues(t, 2, joins["disconnected"])
		assert.Zero(t, joins["unavailable"])
		assert.Empty(t, log.With("level=WARN"))
		assert.Zero(t, s.srv.Stats().Connections)
	})
}

// A request that is refused now and could be accepted later gets an event that says when to return,
// and its response is aborted.
func (st *stream) busy(reason string, from, to time.Duration) {
	st.t.Helper()
	e := st.next()
	assert.Equal(st.t, "pushy:busy", e.name)
	var data struct {
		Reason   string
		ReturnIn int
	}
	require.NoError(st.t, json.Unmarshal([]byte(e.data), &data))
	assert.Equal(st.t, reason, data.Reason)
	assert.Equal(st.t, data.ReturnIn, e.retry)
	assert.GreaterOrEqual(st.t, e.retry, int(from.Milliseconds()))
	assert.LessOrEqual(st.t, e.retry, int(to.Milliseconds()))
	assert.Empty(st.t, e.id, "the client keeps its position")
	st.ends(true)
}

func TestBusyAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fails := func(r pushy.AuthRequest) error {
			if r.Channel == "broken" {
				return errors.New("the database is away")
			}
			return nil
		}
		for reason, o := range map[string]pushy.Options{
			"connections": {Limits: pushy.Limits{Connections: 1}},
			"address":     {Limits: pushy.Limits{PerAddress: 1}},
			"rate":        {Limits: pushy.Limits{AcceptRate: 1}},
			"unavailable": {Authorizer: authorizer(fails)},
		} {
			s := start(t, o, sse.Options{}, nil)
			s.listen("channel=a")
			from, to := 5*time.Second, 10*time.Second
			if reason == "address" {
				from, to = 30*time.Second, 30*time.Second
			}
			s.stream("channel=broken").busy(reason, from, to)
			settle()
			assert.Equal(t, 1, s.srv.Stats().Connections)
			// curl and health checks do not read events.
			res, body := s.refused("channel=broken", func(r *http.Request) { r.Header.Set("Accept", "*/*") })
			plain(t, res, body, http.StatusServiceUnavailable)
			assert.NotEmpty(t, res.Header.Get("Retry-After"))
		}
	})
}

// Of the clients over Limits.AcceptRate, a tenth gets the busy answer, and the others a plain one.
func TestBusyAnswersAreLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Limits: pushy.Limits{AcceptRate: 20}}, sse.Options{}, nil)
		count := map[int]int{}
		busy := 0
		for range 30 {
			res := s.get("channel=a")
			count[res.StatusCode]++
			if res.StatusCode == http.StatusOK {
				st := &stream{t: t, res: res, in: newReader(res)}
				if st.next().name == "pushy:busy" {
					busy++
				}
			}
			_ = res.Body.Close()
		}
		assert.Equal(t, map[int]int{http.StatusOK: 22, http.StatusServiceUnavailable: 8}, count)
		assert.Equal(t, 2, busy)
	})
}

// S6: origins. A page of an origin that is not allowed is told nothing and joins nothing.
func TestOrigins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		listed := start(t, pushy.Options{Origins: []string{"https://app.example"}}, sse.Options{}, nil)
		res, body := listed.refused("channel=a", header("Origin", "https://other.example"))
		plain(t, res, body, http.StatusForbidden, "https://other.example")
		assert.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
		assert.Zero(t, listed.srv.Stats().Connections)
		assert.Len(t, listed.lines.With("origin refused"), 1)

		st := listed.listen("channel=a", header("Origin", "https://app.example"))
		assert.Equal(t, "https://app.example", st.res.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "true", st.res.Header.Get("Access-Control-Allow-Credentials"))
		own := listed.listen("channel=a", header("Origin", "http://pushy.example"))
		assert.Equal(t, "http://pushy.example", own.res.Header.Get("Access-Control-Allow-Origin"))
		res, body = listed.refused("", header("Origin", "https://app.example"))
		plain(t, res, body, http.StatusBadRequest)
		assert.Equal(t, "https://app.example", res.Header.Get("Access-Control-Allow-Origin"), "the page can read the error")
		assert.Contains(t, res.Header.Get("Access-Control-Expose-Headers"), "HX-Reswap")

		star := start(t, pushy.Options{Origins: []string{"*", "https://app.example"}}, sse.Options{}, nil)
		st = star.listen("channel=a", header("Origin", "https://other.example"))
		assert.Equal(t, "*", st.res.Header.Get("Access-Control-Allow-Origin"))
		assert.Empty(t, st.res.Header.Get("Access-Control-Allow-Credentials"))
		st = star.listen("channel=a", header("Origin", "https://app.example"))
		assert.Equal(t, "true", st.res.Header.Get("Access-Control-Allow-Credentials"))

		// Preflights of htmx 4 and Datastar.
		for asked, allowed := range map[string]string{
			"last-event-id,hx-request,hx-current-url": "last-event-id, hx-request, hx-current-url",
			"Datastar-Request, Cache-Control":         "datastar-request, cache-control",
			"authorization,x-secret":                  "authorization",
			"x-secret, hx-, hx-1\u00e9":               "",
			"":                                        "",
		} {
			res := listed.get("channel=a", method(http.MethodOptions), header("Origin", "https://app.example"),
				header("Access-Control-Request-Method", "GET"), header("Access-Control-Request-Headers", asked))
			assert.Equal(t, http.StatusNoContent, res.StatusCode)
			assert.Equal(t, allowed, res.Header.Get("Access-Control-Allow-Headers"))
			assert.Equal(t, "GET", res.Header.Get("Access-Control-Allow-Methods"))
			assert.Equal(t, "3600", res.Header.Get("Access-Control-Max-Age"))
			assert.Equal(t, "https://app.example", res.Header.Get("Access-Control-Allow-Origin"))
		}
		res, _ = listed.refused("channel=a", method(http.MethodOptions), header("Origin", "https://other.example"))
		assert.Equal(t, http.StatusForbidden, res.StatusCode)
	})
}

// Middleware that prevents streams is named in the log, once.
func TestHiddenWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, func(h http.Handler) http.Handler {
			return http.TimeoutHandler(h, time.Minute, "slow")
		})
		for range 2 {
			res, body := s.refused("channel=a")
			plain(t, res, body, http.StatusInternalServerError, "middleware")
		}
		found := s.lines.With("hidden by middleware")
		require.Len(t, found, 1)
		assert.Contains(t, found[0], "http.timeoutWriter")
		assert.Contains(t, found[0], "Server-Sent Events will fail")
		assert.Zero(t, s.srv.Stats().Connections)
	})
}

// A deadline that the host sets for requests aborts the streams whose handlers write, and is logged. Others
// have left the handler.
func TestDeadlineOfTheHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(9)}, sse.Options{}, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
				defer cancel()
				h.ServeHTTP(w, r.WithContext(ctx))
			})
		})
		began := time.Now()
		s.listen("channel=kept").ends(true)
		assert.Equal(t, time.Minute, time.Since(began))
		s.listen("channel=kept").ends(true)
		assert.Len(t, s.lines.With("a deadline of the request's context"), 1)
		if strings.HasSuffix(t.Name(), handlerWrites) {
			return
		}
		st := s.listen("channel=a")
		for range 5 { // heartbeats: two minutes
			_, err := st.read()
			require.NoError(t, err)
		}
		publish(t, s.srv, "a", 1, 1)
		assert.Equal(t, "1", st.next().data)
	})
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: secret})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	for _, o := range []sse.Options{{MaxChannels: 41}, {MaxChannels: -1}, {MaxAge: -1}, {MaxAge: 25}} {
		assert.Panics(t, func() { sse.New(srv, o) }, "%+v", o)
	}
	assert.Panics(t, func() { sse.New(nil, sse.Options{}) })
	assert.NotPanics(t, func() { sse.New(srv, sse.Options{MaxChannels: 40, MaxAge: time.Second}) })
}
