package app

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gopushy/pushy"
)

// person is the user of a request or connection, and what other users see of them. Two
// persons can have the same name, but not the same id.
type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// UserID identifies the user of a connection, so that only the same person returns as the
// same member.
func (p person) UserID() string { return p.ID }

// people is a simple login in place of an app's own: everybody can choose a name, and a
// signed cookie identifies them later. The name of the cookie contains the person's id, so
// that two tabs of one browser can be two persons; requests select one of them with ?id=.
type people struct{ key []byte }

// of returns the person from whom a request comes, or pushy.ErrNeedAuth.
func (p people) of(r *http.Request) (person, error) {
	id := r.URL.Query().Get("id")
	cookie, err := r.Cookie("chat-" + id)
	if err != nil {
		return person{}, pushy.ErrNeedAuth
	}
	text, mac, _ := strings.Cut(cookie.Value, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || !hmac.Equal([]byte(mac), []byte(p.mac(text))) {
		return person{}, pushy.ErrNeedAuth
	}
	var who person
	if err := json.Unmarshal(raw, &who); err != nil || who.ID != id {
		return person{}, pushy.ErrNeedAuth
	}
	return who, nil
}

// login reads the form field name, and answers with the person.
func (p people) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	name := strings.TrimSpace(r.PostFormValue("name"))
	n := utf8.RuneCountInString(name)
	if n < 1 || n > 24 || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable) {
		http.Error(w, "Use 1 to 24 printable characters", http.StatusBadRequest)
		return
	}
	who, err := p.of(r)
	if err != nil || who.Name != name {
		who = person{ID: rand.Text()[:12], Name: name}
	}
	raw, err := json.Marshal(who)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	http.SetCookie(w, &http.Cookie{
		Name: "chat-" + who.ID, Value: text + "." + p.mac(text), Path: "/",
		MaxAge: 24 * 60 * 60, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func (p people) mac(text string) string {
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
