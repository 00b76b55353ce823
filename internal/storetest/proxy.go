// Package storetest has helpers for the tests of brokers.
package storetest

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// A Proxy forwards connections to a server. It can delay, interrupt and refuse them. It
// listens until Close.
type Proxy struct {
	Addr string

	listener net.Listener
	tasks    sync.WaitGroup

	mu     sync.Mutex
	to     string
	delay  time.Duration // in each direction
	rate   int           // bytes a second in each direction; 0 is unlimited
	cut    chan struct{} // not nil after Cut; Mend closes it
	shut   bool          // new connections are closed immediately
	closed bool
	conns  map[net.Conn]bool
	old    []byte // what Replace replaces, or nil
	new    []byte
}

// NewProxy returns a Proxy to a server.
func NewProxy(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), listener: l, to: to, conns: map[net.Conn]bool{}}
	p.tasks.Go(p.accept)
	return p, nil
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer p.drop(c)
	if !p.keep(c) {
		return
	}
	p.mu.Lock()
	address := p.to
	p.mu.Unlock()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer p.drop(to)
	if !p.keep(to) {
		return
	}
	var both sync.WaitGroup
	pipe := func(from, to net.Conn, answers bool) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			data := buf[:n]
			p.mu.Lock()
			if answers && len(p.old) > 0 {
				data = bytes.ReplaceAll(data, p.old, p.new)
			}
			cut, delay := p.cut, p.delay
			if p.rate > 0 {
				delay += time.Duration(n) * time.Second / time.Duration(p.rate)
			}
			p.mu.Unlock()
			if delay > 0 {
				<-time.After(delay)
			}
			if cut != nil {
				<-cut // buffered bytes are lost with the connection
				return
			}
			if _, err := to.Write(data); err != nil {
				return
			}
		}
	}
	both.Go(func() { pipe(c, to, false) })
	both.Go(func() { pipe(to, c, true) })
	both.Wait()
}

func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.shut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// Point forwards new connections to another server. Open connections are not affected.
func (p *Proxy) Point(to string) {
	p.mu.Lock()
	p.to = to
	p.mu.Unlock()
}

// Replace replaces a string in what the server sends. It finds the string only if the server
// sends it with one write.
func (p *Proxy) Replace(old, new string) {
	p.mu.Lock()
	p.old = []byte(old)
	p.new = []byte(new)
	p.mu.Unlock()
}

// Delay sets the delay in each direction.
func (p *Proxy) Delay(delay time.Duration) {
	p.mu.Lock()
	p.delay = delay
	p.mu.Unlock()
}

// Limit sets the number of bytes a second in each direction; 0 is no limit.
func (p *Proxy) Limit(rate int) {
	p.mu.Lock()
	p.rate = rate
	p.mu.Unlock()
}

// Cut forwards nothing any more, in either direction, and notifies neither side, as a switch
// does that has lost power.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil && !p.closed {
		p.cut = make(chan struct{})
	}
}

// Refuse closes all connections, and every new one.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Mend ends Cut and Refuse. Connections that were interrupted are closed.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = false
	if p.cut == nil {
		return
	}
	for c := range p.conns {
		_ = c.Close()
	}
	close(p.cut)
	p.cut = nil
}

// Close ends the Proxy.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	if p.cut != nil {
		close(p.cut)
		p.cut = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
}
