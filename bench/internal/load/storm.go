package load

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Storm has clients that lose their server at once and connect to another one, each at the time
// that a rule says. They use pushy's protocol over bare WebSockets. The methods are not safe for
// concurrent use. The clients read only while a method runs.
type Storm struct {
	rule    ReturnRule
	base    int
	to      netip.AddrPort // the server to which clients connect
	epoll   int
	all     []*returner
	byFD    []*returner
	due     dueTimes // of the clients that wait
	buf     []byte
	here    int // clients that are connected
	returns *Returns
	began   time.Time // of the return
}

// Returns is what the clients of a Storm have done.
type Returns struct {
	Attempts []time.Duration // when each attempt to connect began, since the beginning of the end
	Failed   int             // attempts that did not succeed
	Told     int             // clients that received pushy:drain
	Codes    map[int]int     // how the connections ended
	Last     time.Duration   // when the last client was connected
}

// returner is one client of a Storm.
type returner struct {
	index    int
	sock     *socket // nil while it waits
	state    attendance
	greeted  bool   // pushy:connect has just arrived
	rest     []byte // the beginning of a frame
	at       time.Time
	failures int
	within   *float64
	in       *float64
}

// NewStorm returns a Storm whose clients are not connected.
func NewStorm(rule ReturnRule, clients int) (*Storm, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	s := &Storm{
		rule:  rule,
		epoll: epoll,
		all:   make([]*returner, clients),
		buf:   make([]byte, 64<<10),
	}
	for i := range s.all {
		s.all[i] = &returner{index: i}
	}
	return s, nil
}

// Close ends all connections.
func (s *Storm) Close() {
	for _, r := range s.all {
		s.disconnect(r)
	}
	_ = unix.Close(s.epoll)
}

// Connect connects all clients. No attempt may fail.
func (s *Storm) Connect(ctx context.Context, to netip.AddrPort) error {
	s.to = to
	s.base = int(bases.Add(3))
	left := s.all
	err := s.loop(ctx, func() (bool, error) {
		for len(left) > 0 && len(s.all)-len(left)-s.here < inFlight {
			if err := s.start(left[0]); err != nil {
				return false, err
			}
			left = left[1:]
		}
		return s.here == len(s.all), nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d clients are connected: %w", s.here, len(s.all), err)
	}
	return nil
}

// Listen reads for a time. The clients must stay connected.
func (s *Storm) Listen(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return s.loop(ctx, func() (bool, error) { return time.Now().After(end), nil })
}

// Return calls end, which ends the server, and returns when all clients are connected to another
// one.
func (s *Storm) Return(ctx context.Context, to netip.AddrPort, end func() error) (Returns, error) {
	s.to = to
	s.base = int(bases.Add(3))
	s.returns = &Returns{Codes: map[int]int{}}
	s.began = time.Now()
	if err := end(); err != nil {
		return *s.returns, err
	}
	back := func() bool { return s.here == len(s.all) && len(s.returns.Attempts) >= len(s.all) }
	err := s.loop(ctx, func() (bool, error) {
		for len(s.due) > 0 && !s.due[0].at.After(time.Now()) {
			r := heap.Pop(&s.due).(*returner)
			s.returns.Attempts = append(s.returns.Attempts, time.Since(s.began))
			if err := s.start(r); err != nil {
				return false, err
			}
		}
		return back(), nil
	})
	return *s.returns, err
}

// start begins to connect a client. It does not wait for the server.
func (s *Storm) start(r *returner) error {
	sock, err := startConnect(s.to, source(s.base, r.index))
	if err != nil {
		return fmt.Errorf("client %d: %w", r.index, err)
	}
	r.sock = sock
	r.state = dialing
	for sock.fd >= len(s.byFD) {
		s.byFD = append(s.byFD, make([]*returner, len(s.byFD)+1024)...)
	}
	s.byFD[sock.fd] = r
	return s.watch(r, unix.EPOLL_CTL_ADD, unix.EPOLLOUT)
}

func (s *Storm) watch(r *returner, op int, events uint32) error {
	event := unix.EpollEvent{
		Events: events,
		Fd:     int32(r.sock.fd),
	}
	if err := unix.EpollCtl(s.epoll, op, r.sock.fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (s *Storm) disconnect(r *returner) {
	if r.sock == nil {
		return
	}
	s.byFD[r.sock.fd] = nil
	r.sock.abort() // which also removes it from epoll
	r.sock = nil
	r.rest = nil
}

// ended lets a client wait as its rule says.
func (s *Storm) ended(r *returner, code int, why error) error {
	if s.returns == nil {
		return fmt.Errorf("client %d: the connection ended with %d before the storm: %w", r.index, code, why)
	}
	e := End{Code: code}
	if r.state == connected {
		s.here--
		s.returns.Codes[code]++
		if r.in != nil {
			s.returns.Told++
		}
		r.failures = 0
		e.ReturnWithin, e.ReturnIn = r.within, r.in
	} else {
		s.returns.Failed++
		r.failures++
	}
	e.Failures = r.failures
	r.within, r.in = nil, nil
	s.disconnect(r)
	r.at = time.Now().Add(s.rule.wait(e))
	heap.Push(&s.due, r)
	return nil
}

// loop reads until done returns true.
func (s *Storm) loop(ctx context.Context, done func() (bool, error)) error {
	var ready [256]unix.EpollEvent
	deadline := time.Now().Add(2 * crowdTimeout)
	for {
		end, err := done()
		if end || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it is not complete after %v: %d clients are connected", 2*crowdTimeout, s.here)
		}
		n, err := unix.EpollWait(s.epoll, ready[:], s.pause())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, event := range ready[:max(n, 0)] {
			if r := s.byFD[event.Fd]; r != nil {
				if err := s.ready(r); err != nil {
					return err
				}
			}
		}
	}
}

// pause returns the number of milliseconds until the next client is due.
func (s *Storm) pause() int {
	if len(s.due) == 0 {
		return 20
	}
	return int(min(20, max(0, time.Until(s.due[0].at).Milliseconds()+1)))
}

// ready handles what has happened to a client's socket.
func (s *Storm) ready(r *returner) error {
	if r.state == dialing {
		if err := r.sock.connected(); err != nil {
			return s.ended(r, lost, err)
		}
		if _, err := fmt.Fprintf(r.sock, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", s.rule.Path, s.to); err != nil {
			return s.ended(r, lost, err)
		}
		r.state = shaking
		return s.watch(r, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
	}
	n, err := r.sock.Read(s.buf)
	var again errAgain
	switch {
	case errors.As(err, &again):
		return nil
	case err != nil:
		return s.ended(r, lost, err)
	}
	in := append(r.rest, s.buf[:n]...)
	rest, code, err := r.consume(in)
	s.greet(r)
	if code != 0 || err != nil {
		return s.ended(r, code, err)
	}
	r.rest = append([]byte(nil), rest...)
	return nil
}

// greet counts a client that has just received pushy:connect.
func (s *Storm) greet(r *returner) {
	if !r.greeted {
		return
	}
	r.greeted = false
	s.here++
	if s.returns != nil {
		s.returns.Last = time.Since(s.began)
	}
}

// consume handles what a client has received. code is not 0 if the server has ended the
// connection.
func (r *returner) consume(in []byte) (rest []byte, code int, err error) {
	const (
		text   = 1
		closed = 8
		ping   = 9
	)
	if r.state == shaking {
		head, body, whole := bytes.Cut(in, []byte("\r\n\r\n"))
		if !whole {
			return in, 0, nil
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			return nil, lost, fmt.Errorf("handshake: got %.200q", head) // as in a browser
		}
		r.state = greeting
		in = body
	}
	for {
		opcode, payload, size := frame(in)
		if size == 0 {
			return in, 0, nil
		}
		in = in[size:]
		switch opcode {
		case ping:
			_, err = r.sock.Write([]byte{0x8a, 0x80, 0, 0, 0, 0})
		case closed:
			if len(payload) < 2 {
				return nil, 1005, nil
			}
			answer := append([]byte{0x88, 0x82, 0, 0, 0, 0}, payload[:2]...)
			_, _ = r.sock.Write(answer)
			return nil, int(binary.BigEndian.Uint16(payload)), nil
		case text:
			err = r.message(payload)
		}
		if err != nil {
			return nil, lost, err
		}
	}
}

func (r *returner) message(payload []byte) error {
	var m struct {
		Event string
		Data  struct{ ReturnWithin, ReturnIn *float64 }
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("message %.200q: %w", payload, err)
	}
	switch m.Event {
	case "pushy:connect":
		r.within = m.Data.ReturnWithin
		r.state = connected
		r.greeted = true
	case "pushy:return":
		r.within = m.Data.ReturnWithin
	case "pushy:drain":
		r.in = m.Data.ReturnIn
	default:
		return fmt.Errorf("got %.200q", payload)
	}
	return nil
}

// dueTimes is a heap of the clients that wait, by time.
type dueTimes []*returner

func (d dueTimes) Len() int           { return len(d) }
func (d dueTimes) Less(i, k int) bool { return d[i].at.Before(d[k].at) }
func (d dueTimes) Swap(i, k int)      { d[i], d[k] = d[k], d[i] }
func (d *dueTimes) Push(r any)        { *d = append(*d, r.(*returner)) }
func (d *dueTimes) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
