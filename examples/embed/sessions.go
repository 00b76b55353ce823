package main

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"sync"
	"time"

	"github.com/gopushy/pushy"
)

type user struct {
	Name, Team string
	password   string
}

// users is in place of a database table, and its passwords in place of hashes.
var users = map[string]user{
	"ann": {"Ann", "garden", "spade"},
	"bob": {"Bob", "garden", "rake"},
	"eve": {"Eve", "kitchen", "spoon"},
}

const (
	sessionCookie   = "chores"
	sessionLifetime = 12 * time.Hour
)

// session is a login. When it ends, the connections of its pages are closed.
type session struct {
	id    string
	user  user
	until time.Time
	conns map[string]*pushy.Conn // by id; nil once the session has ended
}

// UserID identifies the user of a connection, so that only the same user returns as the same
// member after a lost connection.
func (s *session) UserID() string { return s.user.Name }

// sessions has all sessions, by the value of their cookie.
type sessions struct {
	disconnect func(*pushy.Conn)

	mu  sync.Mutex
	all map[string]*session
}

// of returns the session of a request, or nil.
func (ss *sessions) of(r *http.Request) *session {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.all[cookie.Value]
	if s == nil || time.Now().After(s.until) {
		return nil
	}
	return s
}

// login begins a session. It reports whether the name and the password are right.
func (ss *sessions) login(w http.ResponseWriter, name, password string) bool {
	u, known := users[name]
	right := subtle.ConstantTimeCompare([]byte(u.password), []byte(password)) == 1
	if !known || !right {
		return false
	}
	s := &session{
		id:    rand.Text(),
		user:  u,
		until: time.Now().Add(sessionLifetime),
		conns: map[string]*pushy.Conn{},
	}
	ss.mu.Lock()
	for id, old := range ss.all {
		if time.Now().After(old.until) {
			delete(ss.all, id)
		}
	}
	ss.all[s.id] = s
	ss.mu.Unlock()
	http.SetCookie(w, &http.Cookie{
		Name:     sessionCookie,
		Value:    s.id,
		Path:     "/",
		MaxAge:   int(sessionLifetime / time.Second),
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	})
	return true
}

// logout ends a session and closes the connections of its pages.
func (ss *sessions) logout(w http.ResponseWriter, s *session) {
	ss.mu.Lock()
	delete(ss.all, s.id)
	conns := s.conns
	s.conns = nil
	ss.mu.Unlock()
	for _, conn := range conns {
		ss.disconnect(conn)
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
}

func (ss *sessions) connected(s *session, conn *pushy.Conn) {
	ss.mu.Lock()
	ended := s.conns == nil
	if !ended {
		s.conns[conn.ID()] = conn
	}
	ss.mu.Unlock()
	if ended { // the user has logged out since Accept
		ss.disconnect(conn)
	}
}

func (ss *sessions) disconnected(s *session, conn *pushy.Conn) {
	ss.mu.Lock()
	delete(s.conns, conn.ID())
	ss.mu.Unlock()
}
