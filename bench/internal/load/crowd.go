package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CrowdConfig describes the clients of a Crowd and their channels.
type CrowdConfig struct {
	Addr     netip.AddrPort
	Channel  string // its name, or the beginning of the names if Channels is not 1
	Channels int    // client i is in channel i modulo Channels
	Clients  int
	// Hold makes the clients members of a private channel with presence, and return as the
	// same members. The first client receives the changes of the members from the beginning.
	Hold bool
}

// Entry is how the clients of a Crowd connect.
type Entry uint8

// The entries.
const (
	ConnectOnly Entry = iota // do not subscribe
	Enter                    // subscribe as a new client
	Resume                   // subscribe with the position, or as the member, that the client had
)

// Arrival is what happened while the clients connected.
type Arrival struct {
	Time    time.Duration // until the last client has what it has missed
	Clients int
	Closed  int    // clients that the server has disconnected
	Why     string // the reason of the first of these
	// Recovered is the number of clients that have everything since their positions, and
	// Resumed of those that are the same members as before.
	Recovered int
	Resumed   int
	Replayed  int64 // events
	Bytes     int64 // after the handshakes
	Changes   int   // members in the diffs that the clients received
}

// Crowd has clients that lose their connections at once and return. They use pushy's protocol
// over bare WebSockets. Every kept event is checked: a client receives each once and in order.
// The methods are not safe for concurrent use. The clients read only while a method runs.
type Crowd struct {
	cfg   CrowdConfig
	base  int
	epoll int
	all   []*attendant
	byFD  []*attendant
	buf   []byte

	entry   Entry
	waiting int // clients that have begun to connect and have not arrived
	arrival Arrival
}

// inFlight is the number of clients that connect at a time. It is less than the backlog of a
// listening socket, because the kernel delays those that exceed it by a second.
const inFlight = 1000

// crowdTimeout limits the time in which all clients connect, or receive an event.
const crowdTimeout = 60 * time.Second

// NewCrowd returns a Crowd whose clients are not connected.
func NewCrowd(cfg CrowdConfig) (*Crowd, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	c := &Crowd{
		cfg:   cfg,
		epoll: epoll,
		all:   make([]*attendant, cfg.Clients),
		buf:   make([]byte, 256<<10),
	}
	for i := range c.all {
		c.all[i] = &attendant{
			index:   i,
			channel: c.channel(i),
		}
	}
	return c, nil
}

func (c *Crowd) channel(i int) string {
	if c.cfg.Channels == 1 {
		return c.cfg.Channel
	}
	return ChannelName(c.cfg.Channel, i%c.cfg.Channels)
}

// Close ends all connections.
func (c *Crowd) Close() {
	for _, a := range c.all {
		c.disconnect(a)
	}
	_ = unix.Close(c.epoll)
}

// Drop disconnects all clients but the first ones, which stay, with a reset of the TCP
// connection, as if the network had failed.
func (c *Crowd) Drop(stay int) {
	for _, a := range c.all[stay:] {
		c.disconnect(a)
	}
}

func (c *Crowd) disconnect(a *attendant) {
	if a.sock == nil {
		return
	}
	c.byFD[a.sock.fd] = nil
	a.sock.abort() // which also removes it from epoll
	a.sock = nil
}

// Arrive connects the clients that are not connected, and subscribes those that are not
// subscribed. It returns when each has received the success of its subscription and the events
// that it has missed.
func (c *Crowd) Arrive(ctx context.Context, entry Entry) (Arrival, error) {
	// Ports in TIME_WAIT are not used again.
	c.base = int(bases.Add(3))
	c.entry = entry
	c.arrival = Arrival{}
	c.waiting = 0
	began := time.Now()
	left := c.all
	err := c.loop(ctx, func() (bool, error) {
		for len(left) > 0 && c.waiting < inFlight {
			a := left[0]
			left = left[1:]
			var err error
			switch {
			case a.sock == nil:
				err = c.start(a)
			case a.state == connected && entry != ConnectOnly:
				err = c.ask(a)
			}
			if err != nil {
				return false, fmt.Errorf("client %d: %w", a.index, err)
			}
		}
		return len(left) == 0 && c.waiting == 0, nil
	})
	c.arrival.Time = time.Since(began)
	return c.arrival, err
}

// Closed returns the number of clients that the server has disconnected since the beginning of
// the last Arrive, and why the first of them.
func (c *Crowd) Closed() (n int, why string) { return c.arrival.Closed, c.arrival.Why }

// start connects a client and sends its handshake.
func (c *Crowd) start(a *attendant) error {
	s, err := connect(c.cfg.Addr, source(c.base, a.index), 0)
	if err != nil {
		return err
	}
	a.sock = s
	a.rest = nil
	a.replay = 0
	for s.fd >= len(c.byFD) {
		c.byFD = append(c.byFD, make([]*attendant, len(c.byFD)+1024)...)
	}
	c.byFD[s.fd] = a
	c.begins(a, shaking)
	if _, err := fmt.Fprintf(s, "GET /pushy/socket/websocket?v=2 HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
		c.cfg.Addr); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if err := s.setNonblock(); err != nil {
		return fmt.Errorf("non-blocking: %w", err)
	}
	event := unix.EpollEvent{
		Events: unix.EPOLLIN,
		Fd:     int32(s.fd),
	}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// begins counts a client that has begun to connect or to subscribe.
func (c *Crowd) begins(a *attendant, state attendance) {
	a.state = state
	c.waiting++
	c.arrival.Clients++
}

// arrived counts a client that has everything.
func (c *Crowd) arrived(a *attendant, state attendance) {
	a.state = state
	c.waiting--
}

// ask subscribes a client that is connected.
func (c *Crowd) ask(a *attendant) error {
	c.begins(a, asking)
	return a.subscribe(c)
}

// Expect reads until every client has the event with this offset, in each channel.
func (c *Crowd) Expect(ctx context.Context, offset uint64) error {
	return c.loop(ctx, func() (bool, error) {
		for _, a := range c.all {
			if a.sock != nil && a.at < offset {
				return false, nil
			}
		}
		return true, nil
	})
}

// Settle reads until every client knows that the channel has this number of members, and all
// know the same revision. Then they take over the revision of the first client, which has the
// digest, as if they had received the list.
func (c *Crowd) Settle(ctx context.Context, members int) error {
	first := c.all[0]
	err := c.loop(ctx, func() (bool, error) {
		for _, a := range c.all {
			if a.sock != nil && (a.members != members || numberOf(a.revision) != numberOf(first.revision)) {
				return false, nil
			}
		}
		return true, nil
	})
	for _, a := range c.all {
		a.revision = first.revision
	}
	return err
}

// numberOf returns a revision, epoch.number.digest, without the digest.
func numberOf(revision string) string {
	epoch, rest, _ := strings.Cut(revision, ".")
	n, _, _ := strings.Cut(rest, ".")
	return epoch + "." + n
}

// Listen reads for a time.
func (c *Crowd) Listen(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return c.loop(ctx, func() (bool, error) { return time.Now().After(end), nil })
}

// Messages returns the number of messages that all clients have received so far, apart from
// the answers to their commands and the replays.
func (c *Crowd) Messages() int64 {
	var n int64
	for _, a := range c.all {
		n += a.told
	}
	return n
}

// loop reads until done returns true.
func (c *Crowd) loop(ctx context.Context, done func() (bool, error)) error {
	var ready [256]unix.EpollEvent
	deadline := time.Now().Add(crowdTimeout)
	for {
		end, err := done()
		if end || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it is not complete after %v: %d clients are connecting", crowdTimeout, c.waiting)
		}
		n, err := unix.EpollWait(c.epoll, ready[:], 20)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, event := range ready[:max(n, 0)] {
			a := c.byFD[event.Fd]
			if a == nil {
				continue
			}
			err := c.read(a)
			var closed *closedError
			switch {
			case errors.As(err, &closed):
				c.closed(a, closed)
			case err != nil:
				return fmt.Errorf("client %d: %w", a.index, err)
			}
		}
	}
}

// closedError means that the server has closed a connection.
type closedError struct{ why string }

func (e *closedError) Error() string { return "the server closed the connection: " + e.why }

// closed counts a client that the server has disconnected.
func (c *Crowd) closed(a *attendant, e *closedError) {
	if a.state.connects() {
		c.waiting--
	}
	c.arrival.Closed++
	if c.arrival.Why == "" {
		c.arrival.Why = e.why
	}
	c.disconnect(a)
}

// read reads a client once.
func (c *Crowd) read(a *attendant) error {
	n, err := a.sock.Read(c.buf)
	var again errAgain
	switch {
	case errors.As(err, &again):
		return nil
	case err != nil:
		return &closedError{err.Error()}
	}
	in := c.buf[:n]
	if len(a.rest) > 0 {
		in = append(a.rest, in...)
	}
	rest, err := a.consume(c, in)
	// Most clients have no rest, so they need no buffer.
	a.rest = append([]byte(nil), rest...)
	return err
}
