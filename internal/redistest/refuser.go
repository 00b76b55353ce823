package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A Refuser is a proxy to a server. It answers some commands with an error, as a server in
// another state does. The server itself sends the error, so that all answers keep their
// order.
type Refuser struct {
	Addr string

	listener net.Listener
	to       string
	tasks    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	answers map[string]string // by command, in upper case
	counts  map[string]int    // number of refusals, by command
	conns   map[net.Conn]bool
}

// NewRefuser returns a Refuser for a server. At first it refuses no command.
func NewRefuser(to string) (*Refuser, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Refuser{
		Addr:     l.Addr().String(),
		listener: l,
		to:       to,
		answers:  map[string]string{},
		counts:   map[string]int{},
		conns:    map[net.Conn]bool{},
	}
	r.tasks.Go(r.accept)
	return r, nil
}

// Refuse sets the error with which a command is answered. If it is "", the command is
// carried out again.
func (r *Refuser) Refuse(command, answer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[command] = answer
}

// Refused returns the number of times that a command was refused.
func (r *Refuser) Refused(command string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[command]
}

// Close ends the Refuser.
func (r *Refuser) Close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.tasks.Wait()
}

func (r *Refuser) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.tasks.Go(func() { r.serve(c) })
	}
}

func (r *Refuser) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	r.mu.Lock()
	closed := r.closed
	r.conns[client] = true
	r.mu.Unlock()
	if closed {
		return
	}
	r.tasks.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	in := bufio.NewReader(client)
	for {
		args, err := readCommand(in)
		if err != nil {
			break
		}
		r.mu.Lock()
		name := strings.ToUpper(args[0])
		answer := r.answers[name]
		if answer != "" {
			r.counts[name]++
		}
		r.mu.Unlock()
		if answer != "" {
			args = []string{"EVAL", "return redis.error_reply(ARGV[1])", "0", answer}
		}
		if _, err := io.WriteString(server, command(args)); err != nil {
			break
		}
	}
	r.mu.Lock()
	delete(r.conns, client)
	r.mu.Unlock()
}

// command returns the encoding of a command.
func command(args []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// readCommand reads a command that command has encoded.
func readCommand(in *bufio.Reader) ([]string, error) {
	number := func(sign byte) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line[0] != sign {
			return 0, fmt.Errorf("%q is not a command", line)
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	if err != nil || n < 1 {
		return nil, fmt.Errorf("a command of %d parts: %w", n, err)
	}
	args := make([]string, n)
	for i := range args {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		args[i] = string(text[:size])
	}
	return args, nil
}
