// Command cluster is the chat of examples/chat on three nodes that act as one. They are
// connected by a NATS server that the command starts in its own process.
//
//	go run ./examples/cluster
package main

import (
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

	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/examples/chat/app"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "address of the first node; the others have the next ports, or free ones with port 0")
	nodes := flag.Int("nodes", 3, "number of nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process immediately
	if err := run(ctx, *addr, *nodes, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run serves the chat from all nodes until ctx ends.
func run(ctx context.Context, addr string, nodes int, out io.Writer) error {
	listeners, err := listen(addr, nodes)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
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

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Nodes that act as one have the same keys.
	common := app.Config{Secret: rand.Text(), LoginKey: rand.Text()}
	var serving sync.WaitGroup
	ended := make([]error, nodes)
	for i, l := range listeners {
		c := common
		c.Node = "node " + strconv.Itoa(i+1)
		c.Broker = nats.New(nats.Options{URL: engine.ClientURL(), RequireAtStart: true})
		open := make(chan struct{})
		serving.Go(func() {
			defer stop() // when one node ends, all end
			ended[i] = app.Serve(ctx, l, &announced{Writer: out, open: open}, c)
		})
		select { // wait, so that the nodes print their addresses in order
		case <-open:
		case <-ctx.Done():
		}
	}
	serving.Wait()
	return errors.Join(ended...)
}

// announced is a Writer that reports the first Write.
type announced struct {
	io.Writer
	once sync.Once
	open chan struct{}
}

func (a *announced) Write(p []byte) (int, error) {
	defer a.once.Do(func() { close(a.open) })
	return a.Writer.Write(p)
}

// startNATS starts a NATS server in this process, on a free port of 127.0.0.1.
func startNATS(dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
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

// listen listens on n ports, beginning with the port of addr.
func listen(addr string, n int) (all []net.Listener, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("-addr %s and -nodes %d: a port and a number are needed", addr, n)
	}
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(port, 10)))
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("%w; choose another address with -addr, or port 0 for free ones", err)
		}
		all = append(all, l)
		if port > 0 {
			port++
		}
	}
	return all, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}
