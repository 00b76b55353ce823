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

// A Dropper is a proxy to a server. It can discard the messages of Pub/Sub while everything
// else is forwarded, so that both sides believe that their connection is sound.
type Dropper struct {
	Addr string

	listener net.Listener
	to       string
	tasks    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	drops   bool
	dropped int
	conns   map[net.Conn]bool
}

// NewDropper returns a Dropper for a server. At first it discards nothing.
func NewDropper(to string) (*Dropper, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &Dropper{
		Addr:     l.Addr().String(),
		listener: l,
		to:       to,
		conns:    map[net.Conn]bool{},
	}
	d.tasks.Go(d.accept)
	return d, nil
}

// Drop sets whether messages are discarded.
func (d *Dropper) Drop(on bool) {
	d.mu.Lock()
	d.drops = on
	d.mu.Unlock()
}

// Dropped returns the number of messages that were discarded.
func (d *Dropper) Dropped() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dropped
}

// Close ends the Dropper.
func (d *Dropper) Close() {
	_ = d.listener.Close()
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.tasks.Wait()
}

func (d *Dropper) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.tasks.Go(func() { d.serve(c) })
	}
}

func (d *Dropper) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer server.Close()
	d.mu.Lock()
	closed := d.closed
	d.conns[client] = true
	d.mu.Unlock()
	if closed {
		return
	}
	d.tasks.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	in := bufio.NewReader(server)
	for {
		text, err := readReply(in, nil)
		if err != nil {
			break
		}
		if d.discards(text) {
			continue
		}
		if _, err := client.Write(text); err != nil {
			break
		}
	}
	d.mu.Lock()
	delete(d.conns, client)
	d.mu.Unlock()
}

func (d *Dropper) discards(text []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := string(text[:min(len(text), 20)])
	if !d.drops || text[0] != '>' || !strings.Contains(begin, "\r\nmessage\r\n") {
		return false
	}
	d.dropped++
	return true
}

// readReply appends one reply of RESP3 to text.
func readReply(in *bufio.Reader, text []byte) ([]byte, error) {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return text, err
	}
	text = append(text, line...)
	number := func() (int, error) { return strconv.Atoi(strings.TrimSpace(string(line[1:]))) }
	switch line[0] {
	case '+', '-', ':', '_', '#', ',', '(':
		return text, nil
	case '$', '!', '=':
		n, err := number()
		if err != nil || n < 0 {
			return text, err
		}
		bulk := make([]byte, n+2)
		_, err = io.ReadFull(in, bulk)
		return append(text, bulk...), err
	case '*', '~', '>', '%', '|':
		n, err := number()
		if line[0] == '%' || line[0] == '|' {
			n *= 2
		}
		for i := 0; i < n && err == nil; i++ {
			text, err = readReply(in, text)
		}
		return text, err
	}
	return text, fmt.Errorf("%q is not a reply", line)
}
