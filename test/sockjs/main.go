// Command sockjs is a server for tests in test/browser. It serves all SockJS transports,
// sockjs-client, and a page that loads it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	script := flag.String("script", "", "the file of sockjs-client")
	origins := flag.String("origins", "", "origins of other pages that can connect, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *script, strings.FieldsFunc(*origins, func(r rune) bool { return r == ',' })); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr, script string, origins []string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	var opened, got atomic.Int64
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a secret of the browser tests",
		Origins:   origins,
		// The limit is low, so that clients must request the next response within a burst.
		SockJS: pushy.SockJS{Legacy: true, ScriptURL: "/sockjs.js", ResponseLimit: 16 << 10},
		// A page cannot cancel a script that it has requested, so such a client is disconnected
		// only after a heartbeat and the disconnect delay.
		Heartbeat: 5 * time.Second,
		Hooks:     pushy.Hooks{Connect: func(*pushy.Conn) { opened.Add(1) }},
	})
	if err != nil {
		return err
	}
	srv.RegisterCommand("mark", func(_ *pushy.Server, _ *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) { got.Add(1) })
	srv.RegisterCommand("echo", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("echoed", data)
	})
	srv.RegisterCommand("burst", burst)
	srv.RegisterCommand("leave", leave)

	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/auth", srv.AuthHandler(func(r *http.Request, _, _ string) (any, error) {
		return map[string]string{"name": r.URL.Query().Get("name")}, nil
	}))
	mux.HandleFunc("GET /sockjs.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, script) })
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><title>SockJS</title><link rel="icon" href="data:,"><script src="/sockjs.js"></script>`)
	})
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"opened": opened.Load(), "marks": got.Load(), "refused": srv.Stats().Refused["origin"],
		})
	})

	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	fmt.Printf("open http://%s/\n", listener.Addr())
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(deadline), web.Shutdown(deadline))
}

// burst publishes many numbered events at once.
func burst(srv *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
	var asked struct {
		Channel string `json:"channel"`
		Events  int    `json:"events"`
	}
	_ = json.Unmarshal(data, &asked)
	for i := range asked.Events {
		if err := srv.Publish(conn.Context(), asked.Channel, "number", i); err != nil {
			_ = conn.ReplyError(&pushy.Error{Code: "400", Message: err.Error()})
			return
		}
	}
}

// leave closes the connection with the code and reason that the client has sent.
func leave(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
	var asked struct {
		Code   int    `json:"code"`
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(data, &asked)
	_ = conn.Send("last words", nil)
	_ = conn.Close(asked.Code, asked.Reason)
}
