// Command cluster is the chat of examples/chat on three nodes that act as one. Each node is a
// process, and they are connected by a NATS server that the command starts, or by your Redis.
//
//	go run ./examples/cluster
//	go run ./examples/cluster -redis 127.0.0.1:6379
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if text := os.Getenv(nodeVariable); text != "" {
		fail(serveNode(text, os.Stdin, os.Stdout))
		return
	}
	addr := flag.String("addr", "127.0.0.1:8081",
		"address of the first node; the others have the next ports, or free ones with port 0")
	nodes := flag.Int("nodes", 3, "number of nodes")
	redis := flag.String("redis", "", "address of a Redis server to use in place of NATS, such as 127.0.0.1:6379")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process immediately
	fail(run(ctx, *addr, *nodes, *redis, os.Stdout))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run runs all nodes until ctx ends.
func run(ctx context.Context, addr string, nodes int, redis string, out io.Writer) error {
	addrs, err := addresses(addr, nodes)
	if err != nil {
		return err
	}
	// Nodes that act as one have the same key. With a key that stays the same, users are also
	// recognized after a restart of this command.
	common := node{Secret: cmp.Or(os.Getenv("PUSHY_SECRET_KEY"), rand.Text()), Redis: redis}
	if redis == "" {
		dir, err := os.MkdirTemp("", "pushy-cluster")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		engine, err := startNATS(dir)
		if err != nil {
			return err
		}
		defer engine.WaitForShutdown()
		defer engine.Shutdown()
		common.NATS = engine.ClientURL()
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out = &lockedWriter{to: out}
	var running sync.WaitGroup
	ended := make([]error, nodes)
	for i, addr := range addrs {
		n := common
		n.Addr, n.Name = addr, "node "+strconv.Itoa(i+1)
		open := make(chan struct{})
		running.Go(func() {
			defer stop() // if one node does not start, all end
			ended[i] = n.keepRunning(ctx, out, sync.OnceFunc(func() { close(open) }))
		})
		select { // wait, so that the nodes print their addresses in order
		case <-open:
		case <-ctx.Done():
		}
	}
	running.Wait()
	return errors.Join(ended...)
}

// lockedWriter is an io.Writer for several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// startNATS starts a NATS server in this process, on a free port of 127.0.0.1.
func startNATS(dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host:      "127.0.0.1",
		Port:      server.RANDOM_PORT,
		JetStream: true,
		StoreDir:  dir,
		NoSigs:    true,
		NoLog:     true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("the NATS server does not start")
	}
	return s, nil
}

// addresses returns n addresses, beginning with addr.
func addresses(addr string, n int) (all []string, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("-addr %s and -nodes %d: a port and a number are needed", addr, n)
	}
	for range n {
		all = append(all, net.JoinHostPort(host, strconv.FormatUint(port, 10)))
		if port > 0 {
			port++
		}
	}
	return all, nil
}
