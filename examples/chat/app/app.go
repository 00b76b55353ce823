// Package app is the chat, for one process or for several that act as one.
package app

import (
	"bytes"
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
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/trigger"
)

const (
	lobby  = "lobby"          // a public channel
	lounge = "private-lounge" // needs a token from /auth; its members see each other
)

//go:embed page
var page embed.FS

// Config configures one process. Processes that act as one have the same Secret and
// LoginKey. The zero value is for a process that is alone.
type Config struct {
	Secret   string // signs tokens and triggers
	LoginKey string // signs cookies
	Broker   broker.Broker
	Node     string // the name that the page shows
}

// Serve serves the chat until ctx ends, and prints its URL to out.
func Serve(ctx context.Context, listener net.Listener, out io.Writer, c Config) error {
	defer listener.Close()
	if c.Secret == "" {
		c.Secret, c.LoginKey = rand.Text(), rand.Text()
	}
	people := people{key: []byte(c.LoginKey)}
	srv, err := pushy.New(pushy.Options{
		SecretKey: c.Secret,
		Accept:    func(r *http.Request) (any, error) { return people.of(r) },
		Broker:    c.Broker,
	})
	if err != nil {
		return err
	}
	srv.RegisterCommand("say", say)
	srv.RegisterCommand("roll", roll)

	url := "http://" + listener.Addr().String()
	publisher, err := trigger.New(trigger.Options{URL: url + "/pushy", SecretKey: c.Secret, Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer publisher.CloseIdleConnections()

	files, err := fs.Sub(page, "page")
	if err != nil {
		return err
	}
	index, err := indexPage(files, c.Node)
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
func indexPage(files fs.FS, node string) ([]byte, error) {
	t, err := template.ParseFS(files, "index.html")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, node)
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
