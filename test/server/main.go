// Command server is a pushy.Server that the client's tests control: they make it publish,
// refuse tokens and connections, and close connections.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/deflate"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	grace := flag.Duration("grace", 15*time.Second, "Options.Grace")
	tokenLife := flag.Duration("token-life", time.Hour, "Options.TokenLife")
	var limits pushy.Limits
	flag.IntVar(&limits.AcceptRate, "accept-rate", 0, "Limits.AcceptRate")
	flag.IntVar(&limits.ConnectRate, "connect-rate", 0, "Limits.ConnectRate and ConnectBurst")
	compress := flag.Int("compress", 0, "bytes from which events are compressed; 0: they are not")
	flag.Parse()
	limits.ConnectBurst = limits.ConnectRate
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *grace, *tokenLife, limits, *compress); err != nil {
		log.Fatal(err)
	}
}

type server struct {
	*pushy.Server
	mu    sync.Mutex
	conns map[string]*pushy.Conn // by id
	nets  map[net.Conn]bool      // the connections that pushy has used
	auth  int                    // the status with which /auth refuses; 0: it does not refuse
	asked int                    // number of requests to /auth

	unsubscribed int // number of memberships that have ended

	accept   int // the status with which connections are refused; 0: they are not refused
	refusals int // number of refused connections
}

func run(ctx context.Context, addr string, grace, tokenLife time.Duration, limits pushy.Limits, compress int) error {
	s := &server{conns: map[string]*pushy.Conn{}, nets: map[net.Conn]bool{}}
	var err error
	s.Server, err = pushy.New(pushy.Options{
		SecretKey:      "only the client's tests know it",
		Logger:         slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		CommandTimeout: 300 * time.Millisecond,
		Grace:          grace,
		TokenLife:      tokenLife,
		Limits:         limits,
		Compress:       deflate.From(compress),
		Accept:         s.admit,
		Channel: func(name string) pushy.ChannelOptions {
			var o pushy.ChannelOptions
			if strings.Contains(name, "kept-") {
				o.Keep = broker.Keep{Size: 100}
			}
			if strings.Contains(name, "talk-") {
				o.ClientEvent = func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) { return data, nil }
			}
			return o
		},
		Hooks: pushy.Hooks{
			Connect: func(conn *pushy.Conn) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.conns[conn.ID()] = conn
			},
			Disconnect: func(conn *pushy.Conn, _ int, _ string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.conns, conn.ID())
			},
			Unsubscribe: func(*pushy.Conn, *pushy.Channel) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.unsubscribed++
			},
		},
	})
	if err != nil {
		return err
	}
	s.commands()
	s.typed()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintln(w, `<!doctype html><title>client</title><link rel="icon" href="data:,"><script src="/pushy/pushy.js"></script>`)
	})
	mux.HandleFunc("/pushy/", func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(netConn{}).(net.Conn); ok {
			s.mu.Lock()
			s.nets[c] = true
			s.mu.Unlock()
		}
		s.ServeHTTP(w, r)
	})
	mux.Handle("POST /auth", s.authorize())
	mux.HandleFunc("POST /control/{order}", s.control)

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, netConn{}, c)
		},
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	fmt.Printf("open http://%s/\n", listener.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(s.Shutdown(deadline), web.Shutdown(deadline))
}

type netConn struct{}

func (s *server) commands() {
	s.RegisterCommand("echo", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = conn.Reply("echoed", map[string]any{"said": data})
	})
	s.RegisterCommand("silent", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {})
	s.RegisterCommand("refuse", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		_ = conn.ReplyError(&pushy.Error{Code: "teapot", Message: "I am a teapot"})
	})
	s.RegisterCommand("enter", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, channels *pushy.Channels) {
		_ = channels.Join(conn, "hall", nil)
	})
	s.RegisterCommand("expel", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, channels *pushy.Channels) {
		var ask struct{ Channel string }
		if err := json.Unmarshal(data, &ask); err != nil {
			return
		}
		if ch, ok := channels.Lookup(ask.Channel); ok {
			ch.Remove(conn, "expelled")
		}
	})
}

// typed adds a command with pushy.Handle that ends in the way which the client requests.
func (s *server) typed() {
	type request struct {
		Squares []struct {
			X int8 `json:"x"`
		} `json:"squares"`
		How string `json:"how"`
	}
	type answer struct {
		Sum int `json:"sum"`
	}
	type item struct {
		Item int `json:"item"`
	}
	type total struct {
		Total int `json:"total"`
	}
	pushy.Handle(s.Server, "add", func(_ context.Context, _ *pushy.Conn, r item) (total, error) {
		return total{r.Item + 1}, nil
	})
	pushy.Handle(s.Server, "typed", func(ctx context.Context, _ *pushy.Conn, r request) (answer, error) {
		sum := 0
		for _, square := range r.Squares {
			sum += int(square.X)
		}
		switch r.How {
		case "refuse":
			return answer{}, &pushy.Error{Code: "teapot", Message: "I am a teapot"}
		case "fail":
			return answer{}, errors.New("nothing that a client should read")
		case "panic":
			panic("as it was told")
		case "hang":
			<-ctx.Done()
			return answer{}, ctx.Err()
		}
		return answer{sum}, nil
	})
}

// authorize returns the auth endpoint. Presence data comes from ?name=. Tests can make the
// endpoint refuse.
func (s *server) authorize() http.Handler {
	right := s.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		if strings.Contains(channel, "denied-") {
			return nil, pushy.ErrDenied
		}
		if name := r.URL.Query().Get("name"); name != "" {
			return map[string]string{"name": name}, nil
		}
		return nil, nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		status := s.auth
		s.asked++
		s.mu.Unlock()
		switch status {
		case 0:
			right.ServeHTTP(w, r)
		case http.StatusOK:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"auth":"wrong"}`)
		default:
			http.Error(w, "refused by the test", status)
		}
	})
}

// admit refuses connections if a test has requested that.
func (s *server) admit(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accept == 0 {
		return nil, nil
	}
	s.refusals++
	if s.accept == http.StatusUnauthorized {
		return nil, pushy.ErrNeedAuth
	}
	return nil, pushy.ErrDenied
}

// control carries out an order of a test: POST /control/{order}?….
func (s *server) control(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(query.Get(name)); err == nil {
			return n
		}
		return otherwise
	}
	switch r.PathValue("order") {
	case "publish": // count events {"n":from}, {"n":from+1}, …
		from := number("from", 0)
		for n := from; n < from+number("count", 1); n++ {
			if err := s.Publish(r.Context(), query.Get("channel"), query.Get("event"), map[string]int{"n": n}); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
	case "cut": // interrupts connections, as a network failure does
		s.mu.Lock()
		for c := range s.nets {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
			delete(s.nets, c)
		}
		s.mu.Unlock()
	case "close":
		for _, conn := range s.all() {
			_ = conn.Close(number("code", 3001), "told to")
		}
	case "accept":
		s.mu.Lock()
		s.accept = number("status", 0)
		s.mu.Unlock()
	case "auth":
		s.mu.Lock()
		s.auth = number("status", 0)
		s.mu.Unlock()
	}
	stats := s.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := map[string]int{
		"connections": stats.Connections,
		"channels":    stats.Channels,
		"asked":       s.asked,
		"compressed":  int(stats.Compressed.Events),

		"unsubscribed": s.unsubscribed,
	}
	if r.PathValue("order") == "accept" {
		answer["refusals"] = s.refusals
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) all() (conns []*pushy.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}
