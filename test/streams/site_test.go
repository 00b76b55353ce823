package streams_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/sse"
)

// patience is how long something may take on a busy machine.
const patience = time.Minute

// site is a server of streams at /pushy/events, whose connections can be broken, and which can be
// deployed: another Server then has the kept events.
type site struct {
	t        *testing.T
	url      string
	cluster  *memory.Cluster
	listener net.Listener

	mu       sync.Mutex
	srv      *pushy.Server
	events   http.Handler
	open     map[net.Conn]bool
	requests []request
}

// request is one that a client has sent.
type request struct {
	at     time.Time
	lastID string
}

// start starts a site until the test ends. Channels keep the newest events, up to a number.
func start(t *testing.T, keep int) *site {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &site{
		t:        t,
		url:      "http://" + listener.Addr().String() + "/pushy/events",
		cluster:  memory.NewCluster(memory.Options{}),
		listener: listener,
		open:     map[net.Conn]bool{},
	}
	keeper := s.server(keep) // the events of a cluster end with its last node
	s.deploy(keep)
	web := &http.Server{
		Handler:   http.HandlerFunc(s.serve),
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState: s.connState,
	}
	go func() { _ = web.Serve(listener) }()
	t.Cleanup(func() {
		_ = s.node().Close()
		_ = keeper.Close()
		_ = web.Close()
	})
	return s
}

func (s *site) server(keep int) *pushy.Server {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a secret key for tests",
		Broker:    s.cluster.Broker(),
		Logger:    slog.New(slog.DiscardHandler),
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: keep, TTL: time.Hour, Bytes: 16 << 20}}
		},
	})
	require.NoError(s.t, err)
	return srv
}

// deploy replaces the Server, after it has shut down.
func (s *site) deploy(keep int) {
	if old := s.node(); old != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(s.t, old.Shutdown(ctx))
	}
	srv := s.server(keep)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv = srv
	s.events = sse.New(srv, sse.Options{})
}

func (s *site) node() *pushy.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	events := s.events
	s.requests = append(s.requests, request{time.Now(), r.Header.Get("Last-Event-ID")})
	s.mu.Unlock()
	events.ServeHTTP(w, r)
}

func (s *site) asked() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

func (s *site) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.open[c] = true
	case http.StateClosed:
		delete(s.open, c)
	}
}

// cut breaks all connections, as a network does.
func (s *site) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close()
	}
}

func (s *site) publish(channel, event string, data any) {
	s.t.Helper()
	require.NoError(s.t, s.node().Publish(s.t.Context(), channel, event, data))
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, patience, 20*time.Millisecond, what)
}

// wait lets time pass in the run of a client that uses real time.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// event is what a client has received.
type event struct {
	name string
	data string
}

// inbox has what a client has received.
type inbox struct {
	mu  sync.Mutex
	all []event
}

func (in *inbox) add(name, data string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = append(in.all, event{name, data})
}

// named returns the data of all events of a name.
func (in *inbox) named(name string) (data []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, e := range in.all {
		if e.name == name {
			data = append(data, e.data)
		}
	}
	return data
}

// lines reads the events of a response that is complete, by the rules of the HTML Standard.
func lines(text string) (all []event) {
	for block := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		var e event
		var data []string
		for line := range strings.SplitSeq(block, "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "event":
				e.name = value
			case "data":
				data = append(data, value)
			}
		}
		e.data = strings.Join(data, "\n")
		all = append(all, e)
	}
	return all
}
