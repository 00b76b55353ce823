// Command sse is a server for tests of Server-Sent Events in test/browser. The tests publish, break
// connections and deploy over HTTP, at a second address. Events are kept by a broker that outlives a deploy.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/sse"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	files := flag.String("files", "", "the directory of the scripts of the pages")
	origin := flag.String("origin", "", "another origin whose pages may use the streams")
	heartbeat := flag.Duration("heartbeat", 5*time.Second, "time between heartbeats")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n := &node{
		cluster:   memory.NewCluster(memory.Options{}),
		heartbeat: *heartbeat,
	}
	if *origin != "" {
		n.origins = []string{*origin}
	}
	if err := n.run(ctx, *addr, *files); err != nil {
		log.Fatal(err)
	}
}

// request is one request for a stream.
type request struct {
	At     int64  `json:"at"` // milliseconds since 1970
	LastID string `json:"lastId"`
	Query  string `json:"query"`
	Status int    `json:"status"`
	Ended  int64  `json:"ended"` // when the answer has ended, or 0
}

// node is a server that can be replaced by another one while pages are open.
type node struct {
	cluster   *memory.Cluster
	listener  *listener
	heartbeat time.Duration
	origins   []string

	mu       sync.Mutex
	srv      *pushy.Server
	events   http.Handler
	refuse   bool // requests for streams get 403
	requests []*request
}

// start replaces the Server.
func (n *node) start() error {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a secret of the browser tests",
		Broker:    n.cluster.Broker(),
		Heartbeat: n.heartbeat,
		Origins:   n.origins,
		Accept: func(r *http.Request) (any, error) {
			if cookie, err := r.Cookie("user"); err == nil {
				return cookie.Value, nil
			}
			return "", nil
		},
		Authorizer: own{},
		Channel: func(name string) pushy.ChannelOptions {
			switch name {
			case "kept":
				return pushy.ChannelOptions{Keep: broker.Keep{Size: 500, TTL: time.Hour}}
			case "few":
				return pushy.ChannelOptions{Keep: broker.Keep{Size: 5, TTL: time.Hour}}
			}
			return pushy.ChannelOptions{}
		},
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.srv = srv
	n.events = sse.New(srv, sse.Options{})
	n.mu.Unlock()
	return nil
}

func (n *node) server() *pushy.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.srv
}

// own lets users into the private channels of their names.
type own struct{}

func (own) Authorize(_ context.Context, r pushy.AuthRequest) error {
	user, _ := r.Conn.User().(string)
	switch {
	case !r.Private:
		return nil
	case user == "":
		return pushy.ErrNeedAuth
	case r.Channel != "private-"+user:
		return pushy.ErrDenied
	}
	return nil
}

// login gives the browser a session.
func login(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name:  "user",
		Value: r.FormValue("user"),
		Path:  "/",
	})
}

// seen notes the status of an answer.
type seen struct {
	http.ResponseWriter
	note func(status int)
}

func (s *seen) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *seen) WriteHeader(status int) {
	s.note(status)
	s.ResponseWriter.WriteHeader(status)
}

func (s *seen) Write(p []byte) (int, error) {
	s.note(http.StatusOK)
	return s.ResponseWriter.Write(p)
}

func (n *node) serveEvents(w http.ResponseWriter, r *http.Request) {
	of := &request{
		At:     time.Now().UnixMilli(),
		LastID: r.Header.Get("Last-Event-ID"),
		Query:  r.URL.RawQuery,
	}
	n.mu.Lock()
	events, refuse := n.events, n.refuse
	n.requests = append(n.requests, of)
	n.mu.Unlock()
	if refuse {
		r.Header.Set("Origin", "https://refused.example")
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		of.Ended = time.Now().UnixMilli()
	}()
	events.ServeHTTP(&seen{w, func(status int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if of.Status == 0 {
			of.Status = status
		}
	}}, r)
}

// command is what a test wants.
type command struct {
	Do      string          `json:"do"`
	Channel string          `json:"channel"`
	Event   string          `json:"event"`
	Data    json.RawMessage `json:"data"`
	From    int             `json:"from"` // of many: the data is a number from here to To
	To      int             `json:"to"`
	Pause   int             `json:"pause"` // milliseconds: between the events of many, or of a deploy
	On      bool            `json:"on"`
}

func (n *node) do(ctx context.Context, c command) error {
	srv := n.server()
	pause := time.Duration(c.Pause) * time.Millisecond
	switch c.Do {
	case "publish":
		return srv.Publish(ctx, c.Channel, c.Event, c.Data)
	case "many":
		for i := c.From; i <= c.To; i++ {
			if err := srv.Publish(ctx, c.Channel, c.Event, strconv.Itoa(i)); err != nil {
				return err
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	case "cut":
		n.listener.cut()
	case "deploy": // for the time Pause, the server that is shut down refuses requests
		if err := srv.Shutdown(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		return n.start()
	case "remove":
		for conn := range allConns(srv, c.Channel) {
			conn.Close(pushy.CloseRemoved, "Removed")
		}
	case "refuse":
		n.mu.Lock()
		n.refuse = c.On
		n.mu.Unlock()
	default:
		return fmt.Errorf("unknown command %q", c.Do)
	}
	return nil
}

func allConns(srv *pushy.Server, channel string) func(func(*pushy.Conn) bool) {
	ch, ok := srv.Channels().Lookup(channel)
	if !ok {
		return func(func(*pushy.Conn) bool) {}
	}
	return ch.Conns()
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run serves until ctx ends.
func (n *node) run(ctx context.Context, addr, files string) error {
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer inner.Close()
	n.listener = &listener{
		Listener: inner,
		open:     map[net.Conn]bool{},
	}
	// The events of the cluster end with its last node, so there is another one during a deploy.
	keeper, err := pushy.New(pushy.Options{SecretKey: "a secret of the browser tests", Broker: n.cluster.Broker()})
	if err != nil {
		return err
	}
	defer keeper.Close()
	if err := n.start(); err != nil {
		return err
	}
	var pages sync.Map // by name
	mux := http.NewServeMux()
	mux.HandleFunc("/pushy/events", n.serveEvents)
	mux.HandleFunc("POST /login", login)
	mux.Handle("GET /files/", http.StripPrefix("/files/", http.FileServer(http.Dir(files))))
	control := http.NewServeMux() // has connections of its own, which cut does not break
	control.HandleFunc("POST /page/{name}", func(w http.ResponseWriter, r *http.Request) {
		html, _ := io.ReadAll(r.Body)
		pages.Store(r.PathValue("name"), html)
	})
	mux.HandleFunc("GET /page/{name}", func(w http.ResponseWriter, r *http.Request) {
		html, ok := pages.Load(r.PathValue("name"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(html.([]byte))
	})
	control.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		_ = json.NewEncoder(w).Encode(n.requests)
	})
	control.HandleFunc("GET /members", func(w http.ResponseWriter, r *http.Request) {
		members := 0
		if ch, ok := n.server().Channels().Lookup(r.FormValue("channel")); ok {
			members = ch.Len()
		}
		_ = json.NewEncoder(w).Encode(members)
	})
	control.HandleFunc("POST /do", func(w http.ResponseWriter, r *http.Request) {
		var c command
		err := json.NewDecoder(r.Body).Decode(&c)
		if err == nil {
			err = n.do(context.WithoutCancel(r.Context()), c)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second}
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer own.Close()
	controls := &http.Server{Handler: control, ReadHeaderTimeout: 10 * time.Second}
	secure := httptest.NewUnstartedServer(mux) // HTTP/2, with a certificate of its own
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	control.HandleFunc("GET /tls", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, secure.URL) })
	served := make(chan error, 2)
	go func() { served <- web.Serve(n.listener) }()
	go func() { served <- controls.Serve(own) }()
	fmt.Printf("open http://%s/\nopen http://%s/\n", inner.Addr(), own.Addr())
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(err, n.server().Shutdown(deadline))
	secure.CloseClientConnections()
	return errors.Join(err, web.Shutdown(deadline), controls.Shutdown(deadline))
}

// listener can break all connections.
type listener struct {
	net.Listener

	mu   sync.Mutex
	open map[net.Conn]bool
}

type conn struct {
	net.Conn
	of *listener
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{inner, l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = true
	return c, nil
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// cut breaks all connections, as a network does.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.(*conn).Conn.Close()
	}
}
