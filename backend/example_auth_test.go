package backend_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/gopushy/pushy/backend"
)

// authEndpoint is the auth endpoint of a Go app that has no pushy.Server (PROTOCOL.md, section 11).
type authEndpoint struct {
	secretKey string
	rooms     map[string][]string // by session
}

func (a authEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	session, err := r.Cookie("session")
	if err != nil {
		http.Error(w, "authentication needed", http.StatusUnauthorized)
		return
	}
	channel := r.PostFormValue("channel")
	if !slices.Contains(a.rooms[session.Value], channel) {
		http.Error(w, "not authorized", http.StatusForbidden)
		return
	}
	data := map[string]string{"name": session.Value}
	// SignToken refuses a connection id or a channel that is none.
	token, err := backend.SignToken(a.secretKey, backend.Token{
		Channels: []string{channel},
		Conn:     r.PostFormValue("connection_id"),
		Data:     data,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"auth": token, "data": data})
}

// An auth endpoint in a process without a pushy.Server.
func ExampleSignToken() {
	auth := authEndpoint{
		secretKey: "a long secret, from the environment",
		rooms:     map[string][]string{"ann": {"private-lobby"}},
	}
	for _, channel := range []string{"private-lobby", "private-staff"} {
		// The browser client sends this form.
		form := "channel=" + channel + "&connection_id=0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"
		r := httptest.NewRequest(http.MethodPost, "/auth", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: "session", Value: "ann"})
		w := httptest.NewRecorder()
		auth.ServeHTTP(w, r)
		fmt.Println(channel, w.Code)
	}
	// Output:
	// private-lobby 200
	// private-staff 403
}
