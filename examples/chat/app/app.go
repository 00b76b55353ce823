// Package app is the chat, for one process or for several that act as one.
package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
)

const (
	lobby  = "lobby"          // a public channel
	lounge = "private-lounge" // needs a token from /auth; its members see each other
)

//go:embed page
var page embed.FS

// Config configures one process. Processes that act as one have the same Secret. The zero
// value is for a process that is alone.
type Config struct {
	Secret string // signs tokens, requests and cookies; random if empty
	Broker broker.Broker
	Node   string // the name that the page shows
	Kill   func() // ends the process, if the page has a button for that
	// Password is that of the operators' console at /console/. There is none if it is empty.
	Password string
}

// keep is how many lines of a room are kept. A page shows the last 50 of them when it opens,
// and gets those that it missed when it was disconnected.
var keep = broker.Keep{
	Size: 200,
	TTL:  24 * time.Hour,
}

// room returns the properties of the two rooms.
func room(channel string) pushy.ChannelOptions {
	switch channel {
	case lobby:
		return pushy.ChannelOptions{Keep: keep}
	case lounge:
		return pushy.ChannelOptions{
			Keep:     keep,
			Presence: pushy.PresenceOptions{PerUser: true}, // a person with several tabs is one member
		}
	}
	return pushy.ChannelOptions{}
}

// Serve serves the chat until ctx ends, and prints its URL to out.
func Serve(ctx context.Context, listener net.Listener, out io.Writer, c Config) error {
	defer listener.Close()
	c.Secret = cmp.Or(c.Secret, rand.Text())
	people := people{key: []byte("cookies, signed with " + c.Secret)}
	srv, err := pushy.New(pushy.Options{
		SecretKey: c.Secret,
		Accept:    func(r *http.Request) (any, error) { return people.of(r) },
		Broker:    c.Broker,
		Channel:   room,
	})
	if err != nil {
		return err
	}
	srv.RegisterCommand("say", say)
	srv.RegisterCommand("roll", roll)

	url := "http://" + listener.Addr().String()
	publisher, err := backend.New(backend.Options{
		URL:       url + "/pushy",
		SecretKey: c.Secret,
		Timeout:   5 * time.Second,
	})
	if err != nil {
		return err
	}
	defer publisher.CloseIdleConnections()

	files, err := fs.Sub(page, "page")
	if err != nil {
		return err
	}
	index, err := indexPage(files, c)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/auth", srv.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		if channel != lounge {
			return nil, pushy.ErrDenied
		}
		return people.of(r) // the presence data, which the other members see
	}))
	mux.HandleFunc("POST /login", people.login)
	mux.Handle("POST /announce", announcer{people, publisher})
	if c.Kill != nil {
		mux.HandleFunc("POST /kill", func(w http.ResponseWriter, r *http.Request) {
			if _, err := people.of(r); err != nil {
				http.Error(w, "Log in first", http.StatusUnauthorized)
				return
			}
			c.Kill()
		})
	}
	if c.Password != "" {
		pages, err := operators(srv, c.Password)
		if err != nil {
			return errors.Join(err, srv.Close())
		}
		mux.Handle("/console/", pages)
	}
	mux.Handle("/", http.FileServerFS(files))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "index.html", time.Time{}, bytes.NewReader(index))
	})

	web := &http.Server{
		Handler:           http.NewCrossOriginProtection().Handler(safely(mux)),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	fmt.Fprintf(out, "open %s/\n", url)

	select {
	case err = <-served:
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// pushy first, because http.Server.Shutdown does not close WebSockets.
	return errors.Join(err, srv.Shutdown(deadline), web.Shutdown(deadline))
}

// indexPage returns the page with the node's name.
func indexPage(files fs.FS, c Config) ([]byte, error) {
	t, err := template.ParseFS(files, "index.html")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Node    string
		CanKill bool
	}{c.Node, c.Kill != nil})
	return b.Bytes(), err
}

// safely allows the page to load only files from this server.
func safely(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}
