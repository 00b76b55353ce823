package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
)

const (
	simLarge = 10 // channels with a tenth of the connections each
	simSmall = 10 // members of each of the other channels
	simEvent = 200
	// simRounds is the number of events of which the fastest is reported.
	simRounds = 5
	// simPatience is the time for one event.
	simPatience = 5 * time.Minute
)

// simConn is a connection in memory whose client sends nothing, reads everything at once, and keeps
// nothing. Like a WebSocket, it has no goroutine while it waits.
type simConn struct {
	written *atomic.Int64 // calls of TryWrite of all connections
	mu      sync.Mutex
	reader  session.Reader // while it is parked
	reason  *session.CloseError
}

var (
	_ session.Session = (*simConn)(nil)
	_ session.Parker  = (*simConn)(nil)
	_ fanout.Socket   = (*simConn)(nil)
)

func (c *simConn) Form() fanout.Form                 { return fanout.Bare }
func (c *simConn) Protocol() string                  { return "rawwebsocket" }
func (c *simConn) ShutdownCode() int                 { return session.CloseRestart }
func (c *simConn) Start(*fanout.Outbox)              {}
func (c *simConn) Direct() fanout.Direct             { return c }
func (c *simConn) Broken()                           {}
func (c *simConn) Finish(int, string, time.Duration) {}
func (c *simConn) Linger()                           {}
func (c *simConn) Abort()                            { c.Stop() }

func (c *simConn) TryWrite(p []byte) (int, error) {
	c.written.Add(1)
	return len(p), nil
}

func (c *simConn) Write(p []byte, _ time.Duration) error {
	c.written.Add(1)
	return nil
}

func (c *simConn) Park(r session.Reader) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return false
	}
	c.reader = r
	return true
}

func (c *simConn) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return
	}
	c.reason = &session.CloseError{Cause: session.Stopped}
	if c.reader != nil {
		go c.reader.Resume()
	}
}

// Receive is only called when the connection ends: it parks at any other time.
func (c *simConn) Receive() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, c.reason
}

// simulation has the connections of one process.
type simulation struct {
	srv     *pushy.Server
	hub     *hub.Hub
	conns   []*pushy.Conn
	written atomic.Int64
	out     io.Writer
	events  []string // rows of the second table
}

// simulate connects n clients in memory, in one process with the default options, lets them join
// channels, publishes, and prints the figures. It measures the core and the write engine without
// sockets, whose cost is in the other sections.
func simulate(ctx context.Context, n int, out io.Writer) error {
	if n < simLarge*simSmall || n%(simLarge*simSmall) != 0 {
		return fmt.Errorf("-sim takes a multiple of %d connections", simLarge*simSmall)
	}
	srv, err := pushy.New(pushy.Options{
		SecretKey: strings.Repeat("s", 32),
		Limits:    pushy.Limits{Connections: -1, Memory: -1},
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { _ = srv.Close() }()
	s := &simulation{
		srv: srv,
		hub: seam.Of(srv).Hub,
		out: out,
	}
	fmt.Fprintf(out, "%d connections in memory, %s, %s/%s, GOMAXPROCS %d\n\n| step | time | CPU | live heap | resident |\n|---|---|---|---|---|\n",
		n, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	large := func(i int) string { return "large-" + strconv.Itoa(i%simLarge) }
	small := func(i int) string { return "small-" + strconv.Itoa(i%(n/simSmall)) }
	all := func(int) string { return "all" }
	steps := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"connect", func(context.Context) error { return s.connect(n) }},
		{fmt.Sprintf("join %d channels of %d", simLarge, n/simLarge), s.each(large, s.join)},
		{fmt.Sprintf("join %d channels of %d", n/simSmall, simSmall), s.each(small, s.join)},
		{"join one channel of all", s.each(all, s.join)},
		{fmt.Sprintf("publish to %d", n/simLarge), s.publish("large-0", n/simLarge)},
		{fmt.Sprintf("publish to %d", n), s.publish("all", n)},
		{"leave the channel of all", s.each(all, s.leave)},
		{"leave the small channels", s.each(small, s.leave)},
		{"leave the large channels", s.each(large, s.leave)},
	}
	for _, step := range steps {
		if err := s.measure(ctx, n, step.name, step.do); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	fmt.Fprintf(out, "\n| one event to | Publish returns after | all have it after | each |\n|---|---|---|---|\n%s\n", strings.Join(s.events, "\n"))
	return nil
}

// measure prints the time and the CPU time of a step, and the memory after it. All but those of
// publishing are for one connection.
func (s *simulation) measure(ctx context.Context, n int, name string, do func(context.Context) error) error {
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began := time.Now()
	err := do(ctx)
	took := time.Since(began)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	if err != nil {
		return err
	}
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	each := func(d time.Duration) string { return fmt.Sprintf("%.2f µs", float64(d.Nanoseconds())/1000/float64(n)) }
	if strings.HasPrefix(name, "publish") {
		return nil
	}
	fmt.Fprintf(s.out, "| %s | %s | %s | %d B | %d B |\n", name, each(took), each(used), int(m.HeapAlloc+m.StackInuse)/n, resident()/n)
	return nil
}

// resident returns the resident memory of this process.
func resident() int {
	status, _ := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(status)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(string(fields[1]))
	return pages * os.Getpagesize()
}

func (s *simulation) connect(n int) error {
	for range n {
		if reason := s.hub.Admission().Reserve(0); reason != "" {
			return fmt.Errorf("refused: %s", reason)
		}
		c := s.hub.Connect(&simConn{written: &s.written}, hub.Client{})
		if c == nil {
			return http.ErrServerClosed
		}
		s.conns = append(s.conns, c.Host().(*pushy.Conn))
	}
	return s.await(int64(n))
}

// each does something for each connection, with the channel that name returns.
func (s *simulation) each(name func(i int) string, do func(c *pushy.Conn, channel string) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for i, c := range s.conns {
			if err := do(c, name(i)); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	}
}

func (s *simulation) join(c *pushy.Conn, channel string) error {
	return s.srv.Channels().Join(c, channel, nil)
}

func (s *simulation) leave(c *pushy.Conn, channel string) error {
	return s.srv.Channels().Leave(c, channel)
}

// publish returns a step that publishes to a channel until all members have each event, and
// keeps the figures of the fastest one.
func (s *simulation) publish(channel string, members int) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.settle(); err != nil {
			return err
		}
		best := time.Duration(0)
		returned := time.Duration(0)
		for range simRounds {
			target := s.written.Load() + int64(members)
			began := time.Now()
			if err := s.srv.Publish(ctx, channel, "tick", strings.Repeat("x", simEvent)); err != nil {
				return err
			}
			call := time.Since(began)
			if err := s.await(target); err != nil {
				return err
			}
			if took := time.Since(began); best == 0 || took < best {
				best = took
				returned = call
			}
		}
		s.events = append(s.events, fmt.Sprintf("| %d | %v | %v | %d ns |", members,
			returned.Round(10*time.Microsecond), best.Round(10*time.Microsecond), best.Nanoseconds()/int64(members)))
		return nil
	}
}

// await waits until so many writes were made.
func (s *simulation) await(written int64) error {
	deadline := time.Now().Add(simPatience)
	for s.written.Load() < written {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d writes of %d", s.written.Load(), written)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

// settle waits until nothing is written any more.
func (s *simulation) settle() error {
	for before := int64(-1); before != s.written.Load(); {
		before = s.written.Load()
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}
