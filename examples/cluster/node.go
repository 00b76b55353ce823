package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/examples/chat/app"
)

// nodeVariable is the environment variable with which this command starts a node: itself.
const nodeVariable = "PUSHY_CLUSTER_NODE"

// restartAfter is much shorter than pushy.Options.Grace, so nobody leaves the chat meanwhile.
const restartAfter = 3 * time.Second

// node is what the process of a node must know. NATS or Redis is empty.
type node struct {
	Name, Addr  string
	Secret      string
	NATS, Redis string
}

// keepRunning starts the node's process, and starts it again whenever it has ended, until ctx
// ends. It calls opened when the node listens for the first time. If the node does not start
// at all, it returns the error.
func (n node) keepRunning(ctx context.Context, out io.Writer, opened func()) error {
	var url string
	err := n.start(ctx, func(line string) {
		url = strings.TrimPrefix(line, "open ")
		fmt.Fprintln(out, line)
		opened()
	})
	if url == "" {
		return err
	}
	n.Addr = strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/") // the same port again, if it was a free one
	for ctx.Err() == nil {
		fmt.Fprintf(out, "%s has ended (%v) and starts again in %v\n", n.Name, err, restartAfter)
		select {
		case <-time.After(restartAfter):
			err = n.start(ctx, func(string) { fmt.Fprintf(out, "%s is back\n", n.Name) })
		case <-ctx.Done():
			return nil
		}
	}
	return err
}

// start runs the node's process until it ends, and passes the first line that it prints to
// opened. When ctx ends, it closes the standard input of the process, which then shuts down.
func (n node) start(ctx context.Context, opened func(line string)) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	process := exec.Command(program)
	process.Env = append(os.Environ(), nodeVariable+"="+string(text))
	process.Stderr = os.Stderr
	stdin, err := process.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = stdin.Close() })()
	if lines := bufio.NewScanner(stdout); lines.Scan() {
		opened(lines.Text())
	}
	_, _ = io.Copy(io.Discard, stdout) // until it ends
	return process.Wait()
}

// serveNode is the process of a node. It serves until stdin ends, which is when the process
// that has started it shuts down or has ended.
func serveNode(text string, stdin io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt) // of the terminal, which the other process handles
	var n node
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", n.Addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr, or port 0 for free ones", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop()
	}()
	return app.Serve(ctx, listener, out, app.Config{
		Secret: n.Secret,
		Broker: n.broker(),
		Node:   n.Name,
		Kill:   kill,
	})
}

func (n node) broker() broker.Broker {
	if n.Redis != "" {
		return redis.New(redis.Options{Addresses: []string{n.Redis}, RequireAtStart: true})
	}
	return nats.New(nats.Options{URL: n.NATS, RequireAtStart: true})
}

// kill ends this process as kill -9 does.
func kill() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
}
