package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Commands is a load of commands, each of which is answered with its own data.
type Commands struct {
	Name     string // of the command
	Size     int    // bytes of its data
	UnderWay int    // commands of each client that have no answer yet, at most maxUnderWay
	Warm     time.Duration
	Time     time.Duration
}

const maxUnderWay = 64

// Answers is the result of Commands.
type Answers struct {
	Count    int64
	Elapsed  time.Duration
	CPU      time.Duration // of the server
	LoadCPU  time.Duration // of the load generator
	Counted  int64         // see Config.Count
	P50, P99 time.Duration // from before the command is written until the answer is read
}

// caller is one client that sends commands.
type caller struct {
	client
	sends uint32 // the number of the next command
	sent  [maxUnderWay]time.Duration
}

// callers are all clients, and one epoll loop that reads their answers and sends the next commands.
type callers struct {
	cfg     Config
	load    Commands
	epoll   int
	byFD    map[int32]*caller
	data    []byte // of a command
	wire    []byte
	buf     []byte
	answers int64
	latency Histogram
}

// Run connects the clients of cfg, and keeps commands under way for each of them. It fails if an
// answer is missing, is sent twice, or is not in the order of the commands.
func (l Commands) Run(ctx context.Context, cfg Config) (Answers, error) {
	if l.Size < minPayload || l.UnderWay < 1 || l.UnderWay > maxUnderWay {
		return Answers{}, fmt.Errorf("load: a command has at least %d bytes, and 1 to %d are under way", minPayload, maxUnderWay)
	}
	cs := &callers{
		cfg:  cfg,
		load: l,
		byFD: map[int32]*caller{},
		buf:  make([]byte, room+(64<<10)),
	}
	cs.cfg.base = int(bases.Add(3))
	var err error
	if cs.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return Answers{}, fmt.Errorf("epoll: %w", err)
	}
	defer cs.close()
	for i := range cfg.Clients {
		if err := cs.connect(i); err != nil {
			return Answers{}, fmt.Errorf("client %d: %w", i, err)
		}
	}
	for _, c := range cs.byFD {
		if err := cs.send(c, l.UnderWay); err != nil {
			return Answers{}, err
		}
	}
	if err := cs.loop(ctx, l.Warm); err != nil {
		return Answers{}, fmt.Errorf("warming up: %w", err)
	}
	return cs.measure(ctx)
}

func (cs *callers) measure(ctx context.Context) (a Answers, err error) {
	count := func() (n int64) {
		if cs.cfg.Count != nil && err == nil {
			n, err = cs.cfg.Count()
		}
		return n
	}
	cs.answers = 0
	cs.latency = Histogram{}
	counted, server, own, began := count(), CPU(cs.cfg.PID), CPU(0), time.Now()
	if err == nil {
		err = cs.loop(ctx, cs.load.Time)
	}
	return Answers{
		Count:   cs.answers,
		Elapsed: time.Since(began),
		CPU:     CPU(cs.cfg.PID) - server,
		LoadCPU: CPU(0) - own,
		Counted: count() - counted,
		P50:     cs.latency.Quantile(.5),
		P99:     cs.latency.Quantile(.99),
	}, err
}

func (cs *callers) connect(i int) error {
	c, err := cs.cfg.open(i, "bench", 0)
	if err != nil {
		return err
	}
	fd := int32(c.sock.fd)
	cs.byFD[fd] = &caller{client: *c}
	if err := c.sock.setNonblock(); err != nil {
		return fmt.Errorf("non-blocking: %w", err)
	}
	if err := unix.EpollCtl(cs.epoll, unix.EPOLL_CTL_ADD, c.sock.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (cs *callers) close() {
	for _, c := range cs.byFD {
		c.sock.abort()
	}
	_ = unix.Close(cs.epoll)
}

// loop reads answers for some time.
func (cs *callers) loop(ctx context.Context, d time.Duration) error {
	var ready [256]unix.EpollEvent
	last := time.Since(start) // when the last answer has arrived
	for end := last + d; ; {
		n, err := unix.EpollWait(cs.epoll, ready[:], 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, event := range ready[:max(n, 0)] {
			if err := cs.receive(cs.byFD[event.Fd]); err != nil {
				return err
			}
		}
		now := time.Since(start)
		if n > 0 {
			last = now
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case now >= end:
			return nil
		case now-last > deliveryTimeout:
			return fmt.Errorf("no answer within %v", deliveryTimeout)
		}
	}
}

// receive reads a client once, and sends as many commands as it has read answers.
func (cs *callers) receive(c *caller) error {
	n, err := c.sock.Read(cs.buf[room:])
	if err != nil {
		return fmt.Errorf("a client lost its connection: %w", err)
	}
	now := time.Since(start)
	answers := 0
	c.scan(cs.buf[:room+n], cs.load.Size-minPayload, func(seq uint32) {
		if seq != c.next && err == nil {
			err = fmt.Errorf("a client got the answer to command %d where that to %d was to come", seq, c.next)
		}
		cs.latency.Add(now-c.sent[c.next%maxUnderWay], 1)
		c.next++
		answers++
	})
	cs.answers += int64(answers)
	if err != nil || answers == 0 {
		return err
	}
	return cs.send(c, answers)
}

// send sends the next n commands of a client in one write.
func (cs *callers) send(c *caller, n int) error {
	cs.wire = cs.wire[:0]
	now := time.Since(start)
	for range n {
		c.sent[c.sends%maxUnderWay] = now
		cs.data = payload(cs.data[:0], c.sends, cs.load.Size)
		cs.wire = append(cs.wire, maskedText(cs.command(c.sends))...)
		c.sends++
	}
	if _, err := c.sock.Write(cs.wire); err != nil {
		return fmt.Errorf("sending commands: %w", err)
	}
	return nil
}

// command returns the message of command number seq, whose data is cs.data.
func (cs *callers) command(seq uint32) string {
	id := strconv.Itoa(int(seq) + 10) // the ids below that are those of connecting
	if cs.cfg.Dialect == Centrifuge {
		return `{"id":` + id + `,"rpc":{"method":"` + cs.load.Name + `","data":` + string(cs.data) + `}}`
	}
	command := `{"command":"` + cs.load.Name + `","id":` + id + `,"data":` + string(cs.data) + `}`
	if cs.cfg.Dialect == Framed {
		return "[" + strconv.Quote(command) + "]" // as JSON, because the command is ASCII
	}
	return command
}
