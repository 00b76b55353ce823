// Command console serves the console of a cluster of nodes in this process, with clients in memory,
// for the tests of the console in a browser.
package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/console"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	nodes := flag.Int("nodes", 3, "number of nodes")
	conns := flag.Int("conns", 1000, "number of connections on all nodes")
	hostile := flag.Bool("hostile", false, "clients choose values that attack the page")
	silent := flag.Bool("silent", false, "the last node does not answer")
	readOnly := flag.Bool("readonly", false, "console.Options.ReadOnly")
	hosts := flag.String("hosts", "", "console.Options.Hosts, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &world{hostile: *hostile}
	o := console.Options{
		Authorize: operator,
		ReadOnly:  *readOnly,
	}
	if *hosts != "" {
		o.Hosts = strings.Split(*hosts, ",")
	}
	if err := w.run(ctx, *addr, *nodes, *conns, *silent, o); err != nil {
		log.Fatal(err)
	}
}

// operator lets in whoever has the cookie, which browsers send with every request for this host, or
// asks for the password.
func operator(r *http.Request) (string, error) {
	if _, err := r.Cookie("operator"); err == nil {
		return "cookie", nil
	}
	name, password, ok := r.BasicAuth()
	if !ok || subtle.ConstantTimeCompare([]byte(password), []byte("secret")) != 1 {
		return "", pushy.ErrNeedAuth
	}
	return name, nil
}

type world struct {
	hostile bool
	nodes   []*pushy.Server
	mu      sync.Mutex
	clients []*client
}

func (w *world) run(ctx context.Context, addr string, nodes, conns int, silent bool, o console.Options) error {
	cluster := memory.NewCluster(memory.Options{})
	var handler http.Handler
	for i := range nodes {
		broker := cluster.Broker()
		srv, err := pushy.New(pushy.Options{
			SecretKey:    "only the tests of the console know it",
			Broker:       broker,
			WriteTimeout: time.Hour, // clients that do not read stay
			Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			Accept:       func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
			Address:      func(r *http.Request) string { return r.Header.Get("X-Address") },
			Limits:       pushy.Limits{ConnectRate: -1},
		})
		if err != nil {
			return err
		}
		w.nodes = append(w.nodes, srv)
		page, err := console.New(srv, o)
		if err != nil {
			return err
		}
		if i == 0 {
			handler = page
		}
		if silent && i == nodes-1 && nodes > 1 {
			defer broker.Cut()()
		}
	}
	for i := range conns {
		w.connect(i)
	}
	if w.hostile {
		w.attack()
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/console/", handler)
	mux.HandleFunc("GET /logs", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(w.nodes[0].Stats().Connections)
	})
	mux.HandleFunc("GET /login", func(rw http.ResponseWriter, _ *http.Request) {
		http.SetCookie(rw, &http.Cookie{Name: "operator", Value: "yes", Path: "/"})
	})
	mux.HandleFunc("GET /elsewhere", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = rw.Write([]byte("<!doctype html><title>elsewhere</title><p>A page of another origin."))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	fmt.Printf("open http://%s/\n", listener.Addr())
	if !w.hostile {
		w.live(ctx)
	}
	<-ctx.Done()
	_ = server.Close()
	for _, srv := range w.nodes {
		_ = srv.Close()
	}
	return nil
}

// client is a client in memory, and its connection.
type client struct {
	*inmem.Sink
	conn *pushy.Conn
}

// join connects a client to a node, as an HTTP request does.
func (w *world) join(node int, user, agent, address string, stalled bool) *client {
	r := httptest.NewRequest(http.MethodGet, "/pushy/socket/websocket", nil)
	r.Header["X-User"] = []string{user}
	r.Header["User-Agent"] = []string{agent}
	r.Header.Set("X-Address", address)
	srv := w.nodes[node]
	ticket, ok := seam.Of(srv).Admit(httptest.NewRecorder(), r)
	if !ok {
		log.Fatal("a client was refused")
	}
	c := &client{Sink: inmem.NewSink()}
	before := map[string]bool{}
	if user != "" {
		for _, conn := range seam.Of(srv).Hub.ConnsOf(user) {
			before[conn.ID()] = true
		}
	}
	ticket.Start(c.Sink)
	for c.conn == nil {
		for _, conn := range seam.Of(srv).Hub.ConnsOf(user) {
			if !before[conn.ID()] {
				c.conn, _ = srv.Conn(conn.ID())
			}
		}
		time.Sleep(10 * time.Microsecond)
	}
	if stalled {
		c.Stall()
	}
	w.mu.Lock()
	w.clients = append(w.clients, c)
	w.mu.Unlock()
	return c
}

var names = strings.Fields("ann bob carol dave erin frank grace heidi ivan judy mallory niaj olivia peggy rupert sybil trent")

var agents = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}

func (w *world) connect(i int) {
	user := fmt.Sprintf("%s-%d", names[i%len(names)], i)
	c := w.join(i%len(w.nodes), user, agents[i%len(agents)], fmt.Sprintf("198.51.100.%d", i%250+1), i%271 == 7)
	channels := c.channels(i)
	for _, name := range channels {
		data := json.RawMessage(fmt.Sprintf(`{"name":%q}`, user))
		if err := w.nodes[i%len(w.nodes)].Channels().Join(c.conn, name, data); err != nil {
			log.Print(err)
		}
	}
}

func (c *client) channels(i int) []string {
	all := []string{fmt.Sprintf("prices-%s", []string{"eur", "usd", "gbp", "jpy", "chf"}[i%5]), fmt.Sprintf("order-%d", i%83)}
	if i%3 == 0 {
		all = append(all, "news")
	}
	if i%40 == 0 {
		all = append(all, fmt.Sprintf("private-room-%d", i%7))
	}
	return all
}

// live lets clients come and go, and publishes events.
func (w *world) live(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	next := len(w.clients)
	data := strings.Repeat("x", 180)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for k := range 4 {
			srv := w.nodes[rand.IntN(len(w.nodes))]
			_ = srv.Publish(ctx, fmt.Sprintf("order-%d", rand.IntN(83)), "changed", data)
			if n%25 == 0 && k == 0 {
				_ = srv.Publish(ctx, "prices-eur", "tick", data)
				_ = srv.Publish(ctx, "news", "headline", data)
			}
		}
		if n%20 != 0 || len(w.clients) == 0 {
			continue
		}
		w.mu.Lock()
		i := rand.IntN(len(w.clients))
		c := w.clients[i]
		w.clients[i] = w.clients[len(w.clients)-1]
		w.clients = w.clients[:len(w.clients)-1]
		w.mu.Unlock()
		switch n / 20 % 5 {
		case 0:
			c.End(&session.CloseError{Cause: session.Closed, Code: 1001})
		case 1:
			c.End(session.LostError(net.ErrClosed))
		case 2:
			_ = c.conn.Close(pushy.CloseRemoved, "Logged out in another tab")
		case 3:
			_ = c.conn.Close(pushy.CloseSlowConsumer, "slow consumer")
		default:
			c.End(&session.CloseError{Cause: session.Closed, Code: 1000})
		}
		w.connect(next)
		next++
	}
}

// Values that a client can choose, and that attack a page which shows them as anything but text.
var attacks = []string{
	`<img src=x onerror="window.attacked=1">`,
	`</script><script>window.attacked=1</script>`,
	"user\u202Egnp.exe",
	`javascript:window.attacked=1`,
	`"><svg onload=window.attacked=1>`,
	"\u0000\u0007\u001b[31m\u2066\u200b\ufeff",
}

func (w *world) attack() {
	srv := w.nodes[0]
	for i, value := range attacks {
		user := value
		c := w.join(0, user, value+strings.Repeat("A", 10<<10), "192.0.2.1", true)
		channel := fmt.Sprintf("presence-<img src=x onerror=window.attacked=%d>", i)
		data, _ := json.Marshal(map[string]string{"name": value, "long": strings.Repeat(value, 10<<10/len(value))})
		if len(data) > 3000 {
			data, _ = json.Marshal(map[string]string{"name": value, "long": strings.Repeat("L", 3000)})
		}
		lone := append([]byte(`{"lone":"\ud800 and \udc00",`), data[1:]...)
		if err := srv.Channels().Join(c.conn, channel, lone); err != nil {
			log.Fatal(err)
		}
		_ = srv.Publish(context.Background(), channel, "<img src=x onerror=window.attacked=1>", value+strings.Repeat("B", 10<<10))
		gone := w.join(0, user, value, "192.0.2.2", false)
		reason := value
		for len(reason) > 123 || strings.ContainsRune(reason, 0) {
			reason = strings.ReplaceAll(reason[:min(len(reason), 123)], "\x00", "")
		}
		gone.End(&session.CloseError{Cause: session.Closed, Code: 4000 + i, Reason: reason})
	}
}
