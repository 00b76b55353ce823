// Command testserver serves the endpoints that the test suite of the SockJS protocol
// expects on port 8081: /echo, /disabled_websocket_echo and /cookie_needed_echo, which echo
// every message, and /close, which closes with 3000 "Go away!".
package main

import (
	"flag"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/origin"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/sockjs"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "address to listen on")
	flag.Parse()
	engine := fanout.New(fanout.Config{
		MaxBytes:     1 << 20,
		MaxTotal:     256 << 20,
		WriteTimeout: 10 * time.Second,
	})
	mux := http.NewServeMux()
	for path, cfg := range map[string]sockjs.Config{
		"/echo":                    {},
		"/disabled_websocket_echo": {DisableWebSocket: true},
		"/cookie_needed_echo":      {JSessionID: true},
		"/close":                   {},
	} {
		cfg.Config = transport.Config{
			MaxMessage:   64 << 10,
			Heartbeat:    25 * time.Second,
			WriteTimeout: 10 * time.Second,
			CloseTimeout: 5 * time.Second,
		}
		cfg.ResponseLimit = 4096
		cfg.Legacy = true
		cfg.ScriptURL = "/sockjs.js"
		cfg.DisconnectDelay = 5 * time.Second
		cfg.BodyTimeout = 10 * time.Second
		cfg.Log = slog.Default()
		serve := echo
		if path == "/close" {
			serve = goAway
		}
		cfg.Admit = func(http.ResponseWriter, *http.Request, bool) (*transport.Ticket, bool) {
			return &transport.Ticket{
				Start:    func(s session.Session) { go serve(engine, s) },
				GiveBack: func() {},
			}, true
		}
		h := sockjs.NewHandler(cfg)
		handler := func(w http.ResponseWriter, r *http.Request) {
			origin.AllowCORS(w.Header(), r)
			h.ServeSockJS(w, r, strings.TrimPrefix(r.URL.EscapedPath(), path))
		}
		mux.HandleFunc(path, handler)
		mux.HandleFunc(path+"/", handler)
	}
	log.Fatal(http.ListenAndServe(*addr, raw{mux}))
}

// raw prevents the mux from redirecting the unusual paths that the suite requests.
type raw struct{ mux *http.ServeMux }

func (h raw) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	clean := r.Clone(r.Context())
	clean.URL.Path, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	clean.URL.Path = "/" + clean.URL.Path
	handler, _ := h.mux.Handler(clean)
	handler.ServeHTTP(w, r)
}

func echo(engine *fanout.Engine, s session.Session) {
	out := engine.NewOutbox(s, func(int, string) { s.Stop() })
	s.Start(out)
	for {
		message, err := s.Receive()
		if err != nil {
			end(s, out, err)
			return
		}
		out.Send(fanout.NewFrame(append([]byte(nil), message...)))
	}
}

func goAway(engine *fanout.Engine, s session.Session) {
	out := engine.NewOutbox(s, func(int, string) { s.Stop() })
	s.Start(out)
	out.Close(3000, "Go away!")
	s.Stop()
	_, err := s.Receive()
	end(s, out, err)
}

func end(s session.Session, out *fanout.Outbox, err error) {
	if e, ok := err.(*session.CloseError); ok && e.Cause != session.Lost && e.Cause != session.Stopped {
		out.Close(e.Code, e.Reason)
	} else if ok && e.Cause == session.Lost {
		out.Discard()
	}
	s.Linger()
}
