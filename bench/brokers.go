package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// broker is a Redis or NATS server for the nodes of one sitting.
type broker struct {
	cmd   *exec.Cmd
	addr  string
	dir   string
	said  bytes.Buffer // its output; read it only after ended is closed
	ended chan struct{}
}

// brokerCommands has the command for each kind of broker. Its files are in dir.
var brokerCommands = map[string]func(port, dir string) *exec.Cmd{
	"redis": func(port, dir string) *exec.Cmd {
		return exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no")
	},
	"nats": func(port, dir string) *exec.Cmd { // pushy keeps presence in JetStream
		return exec.Command("nats-server", "--addr", "127.0.0.1", "--port", port, "--jetstream", "--store_dir", dir)
	},
}

// startBroker starts a server and waits until it listens.
func startBroker(name string) (*broker, error) {
	dir, err := os.MkdirTemp("", "pushy-bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	b := &broker{dir: dir, ended: make(chan struct{})}
	if err := b.start(name); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	for late := time.After(10 * time.Second); !b.listens(); {
		why := ""
		select {
		case <-b.ended:
			why = "it has ended"
		case <-late:
			why = "it does not listen"
		case <-time.After(10 * time.Millisecond):
			continue
		}
		b.stop()
		return nil, fmt.Errorf("start %s: %s: %s", name, why, b.said.String())
	}
	return b, nil
}

func (b *broker) start(name string) error {
	// Neither server reports a port that it has chosen itself in a simple way.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(b.addr)
	if err := l.Close(); err != nil {
		return err
	}
	b.cmd = brokerCommands[name](port, b.dir)
	b.cmd.Stdout, b.cmd.Stderr = &b.said, &b.said
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(b.ended)
		_ = b.cmd.Wait()
	}()
	return nil
}

func (b *broker) listens() bool {
	conn, err := net.Dial("tcp", b.addr)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// stop ends the server and removes its files.
func (b *broker) stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(5 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
	_ = os.RemoveAll(b.dir)
}
