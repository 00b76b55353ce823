package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// site is the app with what its tests need.
type site struct {
	t       *testing.T
	handler http.Handler
	rt      *pushy.Server
	kit     *pushytest.Kit
}

// visit runs a test of the app in its own time.
func visit(t *testing.T, test func(t *testing.T, s site)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newApp()
		rt, err := app.addRealtime("a secret for the tests of the app")
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, rt.Close()) })
		test(t, site{t, app.handler(), rt, pushytest.New(t, rt)})
	})
}

// browser is somebody's cookies, "" for none.
type browser string

func (b browser) sign(r *http.Request) {
	if b != "" {
		r.Header.Set("Cookie", string(b))
	}
}

func (s site) do(b browser, method, path string, form url.Values) *http.Response {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	b.sign(r)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

func (s site) login(name, password string) browser {
	s.t.Helper()
	resp := s.do("", http.MethodPost, "/login", url.Values{"name": {name}, "password": {password}})
	require.Equal(s.t, http.StatusSeeOther, resp.StatusCode)
	require.Len(s.t, resp.Cookies(), 1)
	cookie := resp.Cookies()[0]
	assert.True(s.t, cookie.HttpOnly)
	return browser(cookie.Name + "=" + cookie.Value)
}

// open opens a page: it connects, and subscribes with a token from the app's own
// endpoint.
func (s site) open(b browser, channel string) *pushytest.Client {
	s.t.Helper()
	c := s.kit.Connect(b.sign)
	c.Subscribe(channel, pushytest.Endpoint(s.handler, "/rt/auth"))
	return c
}

const garden = "private-team-garden"

func TestTheTeamSeesChanges(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		ann := s.login("ann", "spade")
		bobs := s.open(s.login("Bob ", "rake"), garden)
		eves := s.open(s.login("eve", "spoon"), "private-team-kitchen")

		resp := s.do(ann, http.MethodPost, "/chores", url.Values{"text": {" Rake the leaves "}})
		assert.Equal(t, http.StatusSeeOther, resp.StatusCode)
		var got chore
		bobs.ExpectEvent(garden, "chore", &got)
		assert.Equal(t, chore{3, "Rake the leaves", false, "Ann"}, got)

		s.do(ann, http.MethodPost, "/chores/3", url.Values{"done": {"true"}})
		bobs.ExpectEvent(garden, "chore", &got)
		assert.Equal(t, chore{3, "Rake the leaves", true, "Ann"}, got)
		bobs.ExpectNone(garden, "chore")
		eves.ExpectNone("private-team-kitchen", "chore")

		// A page can fetch all of them.
		var all []chore
		resp = s.do(ann, http.MethodGet, "/chores", nil)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&all))
		require.Len(t, all, 3)
		assert.Equal(t, got, all[2])
	})
}

// A change that is made after a page was rendered, and before it has subscribed, is replayed.
func TestChangesSinceThePageWasRendered(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		ann, bob := s.login("ann", "spade"), s.login("bob", "rake")
		s.do(bob, http.MethodPost, "/chores", url.Values{"text": {"Before"}})
		page, err := io.ReadAll(s.do(ann, http.MethodGet, "/", nil).Body)
		require.NoError(t, err)
		assert.Contains(t, string(page), "Before")
		_, since, _ := strings.Cut(string(page), `data-since="`)
		since, _, _ = strings.Cut(since, `"`)
		epoch, offset, found := strings.Cut(since, ".")
		require.True(t, found, "a position: %q", since)
		s.do(bob, http.MethodPost, "/chores", url.Values{"text": {"After"}})

		anns := s.kit.Connect(ann.sign)
		token, err := pushytest.Endpoint(s.handler, "/rt/auth")(anns, garden)
		require.NoError(t, err)
		data := map[string]any{}
		require.NoError(t, json.Unmarshal(token.(json.RawMessage), &data))
		data["channel"] = garden
		data["since"] = map[string]any{"epoch": epoch, "offset": json.Number(offset)}
		var in struct {
			Recovered bool
			Replay    int
		}
		require.NoError(t, anns.Exec("subscribe", data, &in))
		assert.True(t, in.Recovered)
		assert.Equal(t, 1, in.Replay)
		var got chore
		anns.ExpectEvent(garden, "chore", &got)
		assert.Equal(t, "After", got.Text)
	})
}

// The page's token works on each connection of its user, without the auth endpoint, and on no other.
func TestThePageHasAToken(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		ann, bob := s.login("ann", "spade"), s.login("bob", "rake")
		resp := s.do(ann, http.MethodGet, "/", nil)
		assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		page, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_, token, _ := strings.Cut(string(page), `data-token="`)
		token, _, _ = strings.Cut(token, `"`)
		auth := pushytest.Token(token, nil)

		bobs := s.open(bob, garden)
		_, err = s.kit.Connect(bob.sign).TrySubscribe(garden, auth)
		require.ErrorContains(t, err, "Invalid credentials", "it is Ann's")
		for range 2 { // she reconnects
			anns := s.kit.Connect(ann.sign)
			anns.Subscribe(garden, auth)
			var change struct{ Member struct{ Name string } }
			bobs.ExpectEvent(garden, "pushy:presence-add", &change)
			assert.Equal(t, "Ann", change.Member.Name)
			anns.Drop()
			bobs.ExpectEvent(garden, "pushy:presence-quit", nil)
		}
		_, err = s.kit.Connect(ann.sign).TrySubscribe("private-team-kitchen", auth)
		require.ErrorContains(t, err, "Invalid credentials", "it is for the garden")

		s.do(ann, http.MethodPost, "/logout", nil)
		assert.Equal(t, http.StatusUnauthorized, s.kit.Refused(ann.sign), "after a logout it is of no use")
		again := s.login("ann", "spade")
		time.Sleep(tokenLifetime + time.Second)
		_, err = s.kit.Connect(again.sign).TrySubscribe(garden, auth)
		require.Error(t, err, "it has expired")
		s.open(again, garden)
	})
}

func TestWhoIsHere(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		anns := s.open(s.login("ann", "spade"), garden)
		bobs := s.open(s.login("bob", "rake"), garden)
		var change struct{ Member struct{ Name string } }
		anns.ExpectEvent(garden, "pushy:presence-add", &change)
		assert.Equal(t, "Bob", change.Member.Name)
		bobs.Drop()
		anns.ExpectEvent(garden, "pushy:presence-quit", &change)
		assert.Equal(t, "Bob", change.Member.Name)
	})
}

func TestLoginDecides(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		assert.Equal(t, http.StatusUnauthorized, s.kit.Refused())
		assert.Equal(t, http.StatusUnauthorized, s.kit.Refused(browser(sessionCookie+"=made-up").sign))
		for _, bad := range [][2]string{{"ann", "rake"}, {"nobody", ""}, {"", ""}} {
			resp := s.do("", http.MethodPost, "/login", url.Values{"name": {bad[0]}, "password": {bad[1]}})
			assert.Equal(t, http.StatusForbidden, resp.StatusCode)
			assert.Empty(t, resp.Cookies())
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Contains(t, string(body), `value="`+bad[0]+`"`, "the name is kept (issue 11, number 37)")
		}
		eve := s.login("eve", "spoon")
		eves := s.kit.Connect(eve.sign)
		_, err := eves.TrySubscribe(garden, pushytest.Endpoint(s.handler, "/rt/auth"))
		require.ErrorContains(t, err, "403", "the garden is not Eve's")
		_, err = eves.TrySubscribe(garden, pushytest.Token("made up", nil))
		require.ErrorContains(t, err, "Invalid credentials")

		assert.Equal(t, http.StatusOK, s.do(eve, http.MethodGet, "/", nil).StatusCode)
		time.Sleep(sessionLifetime + time.Second)
		assert.Equal(t, http.StatusUnauthorized, s.kit.Refused(eve.sign))
		assert.Equal(t, "/login", s.do(eve, http.MethodGet, "/", nil).Header.Get("Location"))
	})
}

func TestLogoutClosesThePages(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		ann := s.login("ann", "spade")
		elsewhere := s.open(s.login("ann", "spade"), garden) // another browser of hers
		pages := []*pushytest.Client{s.open(ann, garden), s.open(ann, garden)}
		s.do(ann, http.MethodPost, "/logout", nil)
		for _, page := range pages {
			code, reason := page.ExpectClose()
			assert.Equal(t, pushy.CloseRemoved, code)
			assert.Equal(t, "logged out", reason)
		}
		assert.Equal(t, http.StatusUnauthorized, s.kit.Refused(ann.sign))
		for range pages {
			elsewhere.ExpectEvent(garden, "pushy:presence-quit", nil)
		}
		require.NoError(t, elsewhere.Unsubscribe(garden), "it goes on")
	})
}

func TestFormsAreChecked(t *testing.T) {
	visit(t, func(t *testing.T, s site) {
		ann := s.login("ann", "spade")
		anns := s.open(ann, garden)
		for _, c := range []struct {
			path   string
			form   url.Values
			status int
		}{
			{"/chores", url.Values{}, http.StatusBadRequest},
			{"/chores", url.Values{"text": {"  "}}, http.StatusBadRequest},
			{"/chores", url.Values{"text": {strings.Repeat("x", 81)}}, http.StatusBadRequest},
			{"/chores", url.Values{"text": {"a\xff"}}, http.StatusBadRequest},
			{"/chores/0", url.Values{"done": {"true"}}, http.StatusNotFound},
			{"/chores/3", url.Values{"done": {"true"}}, http.StatusNotFound},
			{"/chores/x", url.Values{"done": {"true"}}, http.StatusNotFound},
		} {
			assert.Equal(t, c.status, s.do(ann, http.MethodPost, c.path, c.form).StatusCode, c.path)
		}
		anns.ExpectNone(garden, "chore")
		assert.Equal(t, "/login", s.do("", http.MethodPost, "/chores", url.Values{"text": {"x"}}).Header.Get("Location"))

		r := httptest.NewRequest(http.MethodPost, "/chores", strings.NewReader("text=x"))
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		ann.sign(r)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		assert.Equal(t, http.StatusForbidden, w.Code, "from a page of another origin")
	})
}

// The program itself, once.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", in) }()
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	base := strings.TrimSuffix(strings.TrimPrefix(said, "open "), "/\n")
	for path, kind := range map[string]string{
		"/": "text/html", "/page/live.js": "text/javascript", "/page/style.css": "text/css", "/rt/pushy.js": "text/javascript",
	} {
		resp, err := http.Get(base + path)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		assert.Contains(t, resp.Header.Get("Content-Type"), kind, path)
		assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "script-src 'self'", path)
		require.NoError(t, resp.Body.Close())
	}
	assert.ErrorContains(t, run(ctx, strings.TrimPrefix(base, "http://"), io.Discard), "-addr")
	cancel()
	assert.NoError(t, <-ended)
}
