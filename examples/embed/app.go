package main

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed page/*.js page/*.css page/*.svg
var static embed.FS

//go:embed page/*.html
var templates embed.FS

var pages = template.Must(template.ParseFS(templates, "page/*.html"))

// chore is one entry of a team's list.
type chore struct {
	ID   int    `json:"id"`
	Text string `json:"text"`
	Done bool   `json:"done"`
	By   string `json:"by"` // who added it or changed it last
}

// app is the app as it was before pushy was added: pages, forms and a login. The funcs
// changed, position and token are its only calls of the code that was added.
type app struct {
	mux      *http.ServeMux
	sessions sessions
	changed  func(ctx context.Context, team string, c chore)
	position func(ctx context.Context, team string) string // of the team's last event, or ""
	token    func(s *session) string                       // for the team's channel, or ""

	mu     sync.Mutex
	chores map[string][]chore // by team
}

func newApp() *app {
	a := &app{
		mux:      http.NewServeMux(),
		sessions: sessions{all: map[string]*session{}},
		changed:  func(context.Context, string, chore) {},
		position: func(context.Context, string) string { return "" },
		token:    func(*session) string { return "" },
		chores: map[string][]chore{
			"garden":  {{1, "Water the tomatoes", false, "Ann"}, {2, "Mow the lawn", true, "Bob"}},
			"kitchen": {{1, "Sharpen the knives", false, "Eve"}},
		},
	}
	a.mux.HandleFunc("GET /login", func(w http.ResponseWriter, _ *http.Request) {
		render(w, http.StatusOK, "login.html", loginPage{})
	})
	a.mux.HandleFunc("POST /login", a.login)
	a.mux.HandleFunc("GET /{$}", a.withLogin(a.home))
	a.mux.HandleFunc("POST /logout", a.withLogin(a.logout))
	a.mux.HandleFunc("GET /chores", a.withLogin(a.list))
	a.mux.HandleFunc("POST /chores", a.withLogin(a.add))
	a.mux.HandleFunc("POST /chores/{id}", a.withLogin(a.tick))
	a.mux.Handle("GET /page/", http.FileServerFS(static))
	return a
}

// handler returns the app with the headers that every response has.
func (a *app) handler() http.Handler {
	protected := http.NewCrossOriginProtection().Handler(a.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		protected.ServeHTTP(w, r)
	})
}

// withLogin redirects users who are not logged in to the login; scripts receive 401.
func (a *app) withLogin(next func(http.ResponseWriter, *http.Request, *session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := a.sessions.of(r)
		switch {
		case s != nil:
			next(w, r, s)
		case wantsJSON(r):
			http.Error(w, "log in first", http.StatusUnauthorized)
		default:
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		}
	}
}

func wantsJSON(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "application/json")
}

// loginPage is the data of the login form. After a wrong password it still shows the name.
type loginPage struct {
	Name    string
	Problem string
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	name := strings.TrimSpace(r.PostFormValue("name"))
	if !a.sessions.login(w, strings.ToLower(name), r.PostFormValue("password")) {
		render(w, http.StatusForbidden, "login.html", loginPage{
			Name:    name,
			Problem: "The name or the password is wrong.",
		})
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) logout(w http.ResponseWriter, r *http.Request, s *session) {
	a.sessions.logout(w, s)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (a *app) of(team string) []chore {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]chore{}, a.chores[team]...)
}

func (a *app) home(w http.ResponseWriter, r *http.Request, s *session) {
	// First the position, then the data: a change in between is in both, and never in neither.
	since := a.position(r.Context(), s.user.Team)
	w.Header().Set("Cache-Control", "no-store") // the token is a secret of this user
	render(w, http.StatusOK, "chores.html", struct {
		User    user
		Channel string
		Since   string
		Token   string
		Chores  []chore
	}{
		User:    s.user,
		Channel: channelOf(s.user.Team),
		Since:   since,
		Token:   a.token(s),
		Chores:  a.of(s.user.Team),
	})
}

func (a *app) list(w http.ResponseWriter, _ *http.Request, s *session) {
	answer(w, http.StatusOK, a.of(s.user.Team))
}

func (a *app) add(w http.ResponseWriter, r *http.Request, s *session) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	text := strings.TrimSpace(r.PostFormValue("text"))
	if n := utf8.RuneCountInString(text); n < 1 || n > 80 || !utf8.ValidString(text) {
		http.Error(w, "A chore has 1 to 80 characters", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	c := chore{ID: len(a.chores[s.user.Team]) + 1, Text: text, By: s.user.Name}
	a.chores[s.user.Team] = append(a.chores[s.user.Team], c)
	// The lock is held, so that events have the order of the changes. Publish does not wait
	// for clients.
	a.changed(r.Context(), s.user.Team, c)
	a.mu.Unlock()
	a.done(w, r, http.StatusCreated, c)
}

func (a *app) tick(w http.ResponseWriter, r *http.Request, s *session) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	id, err := strconv.Atoi(r.PathValue("id"))
	a.mu.Lock()
	all := a.chores[s.user.Team]
	if err != nil || id < 1 || id > len(all) {
		a.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	c := &all[id-1]
	c.Done, c.By = r.PostFormValue("done") == "true", s.user.Name
	changed := *c
	a.changed(r.Context(), s.user.Team, changed)
	a.mu.Unlock()
	a.done(w, r, http.StatusOK, changed)
}

// done answers a form: a script receives the chore, and a browser without one is redirected
// to the page.
func (a *app) done(w http.ResponseWriter, r *http.Request, status int, c chore) {
	if wantsJSON(r) {
		answer(w, status, c)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func render(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		slog.Error("cannot render", "page", name, "error", err)
	}
}
