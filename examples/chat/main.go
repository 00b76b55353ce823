// Command chat is a chat on pushy: a public room, a private one that shows who
// is here, a command of its own, and a publish through the signed trigger.
//
//	go run ./examples/chat
package main

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/trigger"
)

const (
	lobby  = "lobby"          // open to everyone who has a name
	lounge = "private-lounge" // takes a token from /auth; its members see each other
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on; port 0 picks a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves the chat until ctx ends.
func run(ctx context.Context, addr string, out io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr, or port 0 for a free one", err)
	}
	defer listener.Close()
	url := "http://" + listener.Addr().String()

	secret := rand.Text()
	people := people{key: []byte(rand.Text())}
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Accept:    func(r *http.Request) (any, error) { return people.of(r) },
	})
	if err != nil {
		return err
	}
	srv.RegisterCommand("say", say)
	srv.RegisterCommand("roll", roll)

	publisher, err := trigger.New(trigger.Options{URL: url + "/pushy", SecretKey: secret, Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer publisher.CloseIdleConnections()

	files, err := fs.Sub(page, "page")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/auth", srv.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		if channel != lounge {
			return nil, pushy.ErrDenied
		}
		return people.of(r) // what the room's members see of each other
	}))
	mux.HandleFunc("POST /login", people.login)
	mux.Handle("POST /announce", announcer{people, publisher})
	mux.Handle("/", http.FileServerFS(files))

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
	// pushy first: http.Server.Shutdown does not know of WebSockets.
	return errors.Join(err, srv.Shutdown(deadline), web.Shutdown(deadline))
}

// safely lets the page load nothing but what this server serves.
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
