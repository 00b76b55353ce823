package load

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// reader reads all clients in one loop, and checks that each receives every event once and in
// order.
type reader struct {
	cfg     *Config
	epoll   int
	clients []*client // by file descriptor
	buf     []byte
	sent    [1 << 14]atomic.Int64 // when an event was published, by sequence number

	reconnects int

	total  atomic.Int64 // deliveries
	target atomic.Int64 // reached is notified when total is target
	reach  chan struct{}
	failed chan error

	pad       atomic.Int64
	measuring atomic.Bool
	latency   Histogram    // only this loop uses it during a measurement
	bytes     atomic.Int64 // that clients have read, over TLS without it
	stop      atomic.Bool
	stopped   chan struct{}
}

// start is the time from which durations are measured.
var start = time.Now()

func newReader(cfg *Config, clients []*client) (*reader, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	r := &reader{
		cfg: cfg, epoll: epoll, buf: make([]byte, room+(128<<10)),
		reach: make(chan struct{}, 1), failed: make(chan error, 1), stopped: make(chan struct{}),
	}
	for _, c := range clients {
		if err := r.watch(c); err != nil {
			return nil, err
		}
	}
	go r.loop()
	return r, nil
}

func (r *reader) watch(c *client) error {
	fd := c.sock.fd
	for fd >= len(r.clients) {
		r.clients = append(r.clients, make([]*client, len(r.clients)+1024)...)
	}
	r.clients[fd] = c
	if err := c.sock.setNonblock(); err != nil {
		return fmt.Errorf("non-blocking: %w", err)
	}
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// again requests the next stream, over a new connection if the server closes the old one.
func (r *reader) again(c *client) error {
	if !c.http.last {
		return r.cfg.poll(c)
	}
	_ = c.sock.Close() // which also removes it from epoll
	r.reconnects++
	s, err := connect(r.cfg.Addr, source(r.cfg.base, r.reconnects), 0)
	if err != nil {
		return err
	}
	c.sock = s
	if err := r.cfg.poll(c); err != nil {
		return err
	}
	return r.watch(c)
}

func (r *reader) loop() {
	defer close(r.stopped)
	var ready [256]unix.EpollEvent
	for !r.stop.Load() {
		n, err := unix.EpollWait(r.epoll, ready[:], 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			r.fail(fmt.Errorf("epoll: %w", err))
			return
		}
		var delivered int64
		for _, event := range ready[:max(n, 0)] {
			got, err := r.receive(r.clients[event.Fd])
			delivered += got
			if err != nil {
				r.fail(err)
				return
			}
		}
		if delivered > 0 && r.total.Add(delivered) >= r.target.Load() {
			select {
			case r.reach <- struct{}{}:
			default:
			}
		}
	}
}

// receive reads a client once, or over TLS until nothing is left in its
// buffers.
func (r *reader) receive(c *client) (delivered int64, err error) {
	for {
		n, err := c.Read(r.buf[room:])
		var again errAgain
		if errors.As(err, &again) {
			return delivered, nil
		}
		if err != nil {
			return delivered, fmt.Errorf("a client lost its connection: %w", err)
		}
		r.bytes.Add(int64(n))
		got, err := r.take(c, r.buf[:room+n])
		delivered += got
		if err != nil || c.tls == nil {
			return delivered, err
		}
	}
}

func (r *reader) take(c *client, buf []byte) (delivered int64, err error) {
	if c.http != nil {
		body, err := c.http.decode(buf[room:])
		if err != nil {
			return 0, err
		}
		buf = buf[:room+len(body)]
		if c.http.ended {
			c.http.ended = false
			if err := r.again(c); err != nil {
				return 0, fmt.Errorf("asking for the next stream: %w", err)
			}
		}
	}
	now := time.Since(start).Nanoseconds()
	measuring := r.measuring.Load()
	step := uint32(r.cfg.Channels)
	got := func(seq uint32) {
		if seq != c.next && err == nil {
			err = fmt.Errorf("a client got event %d where %d was to come", seq, c.next)
		}
		c.next = seq + step
		delivered++
		if measuring {
			r.latency.Add(time.Duration(now-r.sent[seq%uint32(len(r.sent))].Load()), 1)
		}
	}
	if c.zip == nil {
		c.scan(buf, int(r.pad.Load()), got)
		return delivered, err
	}
	zipErr := c.zip.read(buf[room:], func(message []byte) error {
		seq := c.next
		if message != nil {
			var found bool
			if seq, found = token(message); !found {
				return fmt.Errorf("a client got %.100q, which is no event", message)
			}
		}
		got(seq)
		return err
	})
	return delivered, zipErr
}

func (r *reader) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// wait blocks until total is target.
func (r *reader) wait(target int64, timeout time.Duration) error {
	r.target.Store(target)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for r.total.Load() < target {
		select {
		case <-r.reach:
		case err := <-r.failed:
			return err
		case <-deadline.C:
			return fmt.Errorf("%d of %d deliveries are missing after %v", target-r.total.Load(), target, timeout)
		}
	}
	if got := r.total.Load(); got > target {
		return fmt.Errorf("%d deliveries too many", got-target)
	}
	return nil
}

func (r *reader) close() {
	r.stop.Store(true)
	<-r.stopped
	_ = unix.Close(r.epoll)
}
