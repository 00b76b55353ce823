// Package load measures realtime servers from outside, all in the same way. It connects and
// subscribes clients, publishes, checks that each client receives every event once and in
// order, and measures the latency and the server's CPU time. It needs Linux, because it uses
// epoll and the CPU clocks of processes.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes the server and the clients.
type Config struct {
	Addr       netip.AddrPort
	PID        int // of the server's process
	Broker     int // the PID of the server's broker, or 0
	Dialect    Dialect
	TLS        bool
	Publishing Publishing
	// Other, if it is valid, is another node: every second client connects to it, and its CPU time is
	// part of the server's.
	Other    netip.AddrPort
	OtherPID int
	Clients  int
	Channel  string // its name, or the beginning of the names if Channels is not 1; "" is "bench"
	Channels int    // the clients are distributed over them, not necessarily evenly
	Stuck    int    // additional clients of the first channel that never read
	AtOnce   int    // clients that connect at a time; 0 is 32
	Idle     bool   // the clients connect and do not subscribe
	// Count, if not nil, is read before and after measuring.
	Count func() (int64, error)

	base int
}

// Load is one way to publish.
type Load struct {
	Size   int     // bytes of an event's data
	JSON   bool    // the data is a list of objects, as an application has it, and not one letter repeated
	Window int     // closed loop: events published one after another before waiting for all deliveries
	Rate   float64 // open loop: events a second; Window is 0
	Warm   time.Duration
	Time   time.Duration // how long it is measured
}

// Result is the result of one Load.
type Result struct {
	Events     int64
	Deliveries int64
	Bytes      int64 // that the clients have read
	Elapsed    time.Duration
	CPU        time.Duration // of the server, user and system time
	BrokerCPU  time.Duration
	LoadCPU    time.Duration // of the load generator
	Counted    int64
	Kept       bool // open loop: the events were published at the requested rate
	P50, P99   time.Duration
	Max        time.Duration
}

// Clients are connected and subscribed clients. The methods are not safe for concurrent use.
type Clients struct {
	cfg       Config
	all       []*client
	stuck     []*client
	counts    []int64 // clients of each channel
	reader    *reader
	publisher *publisher
	seq       uint32
	target    int64 // number of deliveries when all events are delivered
}

var bases atomic.Int64

func init() { bases.Store(time.Now().UnixMilli() / 100) }

// Connect connects and subscribes all clients.
func Connect(ctx context.Context, cfg Config) (*Clients, error) {
	cfg.base = int(bases.Add(3))
	cfg.Channel = cmp.Or(cfg.Channel, "bench")
	cs := &Clients{cfg: cfg, all: make([]*client, cfg.Clients), counts: make([]int64, cfg.Channels)}
	work := make(chan int)
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for range cmp.Or(cfg.AtOnce, 32) {
		wg.Go(func() {
			for i := range work {
				if first.Load() != nil || ctx.Err() != nil {
					continue
				}
				c, err := cfg.open(i, cs.channel(i%cfg.Channels), 0)
				if err != nil {
					err = fmt.Errorf("client %d: %w", i, err)
					first.CompareAndSwap(nil, &err)
					continue
				}
				c.next = uint32(i % cfg.Channels)
				cs.all[i] = c
			}
		})
	}
	for i := range cfg.Clients {
		work <- i
		cs.counts[i%cfg.Channels]++
	}
	close(work)
	wg.Wait()
	if err := first.Load(); err != nil {
		cs.Close()
		return nil, *err
	}
	if ctx.Err() != nil {
		cs.Close()
		return nil, ctx.Err()
	}
	for range cfg.Stuck {
		c, err := cfg.open(cfg.Clients+len(cs.stuck), cs.channel(0), 4096)
		if err != nil {
			cs.Close()
			return nil, fmt.Errorf("the client that does not read: %w", err)
		}
		cs.stuck = append(cs.stuck, c)
	}
	var err error
	if cs.publisher, err = newPublisher(&cs.cfg); err == nil {
		cs.reader, err = newReader(&cs.cfg, cs.all)
	}
	if err != nil {
		cs.Close()
		return nil, err
	}
	return cs, nil
}

func (cs *Clients) channel(i int) string {
	if cs.cfg.Channels == 1 {
		return cs.cfg.Channel
	}
	return ChannelName(cs.cfg.Channel, i)
}

// ChannelName returns the name of one of several channels.
func ChannelName(prefix string, i int) string { return fmt.Sprintf("%s-%04d", prefix, i) }

// Close closes all connections.
func (cs *Clients) Close() {
	if cs.reader != nil {
		cs.reader.close()
	}
	if cs.publisher != nil {
		cs.publisher.sock.abort()
	}
	for _, c := range append(cs.all, cs.stuck...) {
		if c != nil {
			c.sock.abort()
		}
	}
}

// publish sends the next event. Its latency counts from at.
func (cs *Clients) publish(at time.Duration, l Load) error {
	channel := int(cs.seq) % cs.cfg.Channels
	cs.reader.sent[cs.seq%uint32(len(cs.reader.sent))].Store(at.Nanoseconds())
	if err := cs.publisher.publish(cs.channel(channel), cs.seq, l); err != nil {
		return err
	}
	cs.seq++
	cs.target += cs.counts[channel]
	return nil
}

// deliveryTimeout is the time limit of the last deliveries.
const deliveryTimeout = 20 * time.Second

// Run applies a load, first for its warm-up and then for the measurement.
func (cs *Clients) Run(l Load) (Result, error) {
	if l.Size < minPayload {
		return Result{}, fmt.Errorf("load: an event has at least %d bytes", minPayload)
	}
	// The publisher waits in system calls, so it has its own thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := cs.reader
	r.pad.Store(int64(l.Size - minPayload))
	if _, _, err := cs.drive(l, l.Warm); err != nil {
		return Result{}, fmt.Errorf("warming up: %w", err)
	}
	r.latency = Histogram{}
	r.measuring.Store(true)
	defer r.measuring.Store(false)
	counted, err := cs.count()
	if err != nil {
		return Result{}, err
	}
	read := r.bytes.Load()
	before, cpu, broker, own, began := cs.target, cs.cfg.cpu(), cs.brokerCPU(), CPU(0), time.Now()
	events, kept, err := cs.drive(l, l.Time)
	if err != nil {
		return Result{}, err
	}
	result := Result{
		Events: events, Deliveries: cs.target - before, Bytes: r.bytes.Load() - read, Elapsed: time.Since(began), Kept: kept,
		CPU: cs.cfg.cpu() - cpu, BrokerCPU: cs.brokerCPU() - broker, LoadCPU: CPU(0) - own,
		P50: r.latency.Quantile(.5), P99: r.latency.Quantile(.99), Max: r.latency.Max(),
	}
	after, err := cs.count()
	result.Counted = after - counted
	return result, err
}

// cpu returns the CPU time of the server, with that of the other node.
func (cfg *Config) cpu() time.Duration {
	used := CPU(cfg.PID)
	if cfg.OtherPID != 0 {
		used += CPU(cfg.OtherPID)
	}
	return used
}

func (cs *Clients) brokerCPU() time.Duration {
	if cs.cfg.Broker == 0 {
		return 0
	}
	return CPU(cs.cfg.Broker)
}

func (cs *Clients) count() (int64, error) {
	if cs.cfg.Count == nil {
		return 0, nil
	}
	return cs.cfg.Count()
}

// drive publishes for a time and waits for the last delivery.
func (cs *Clients) drive(l Load, d time.Duration) (events int64, kept bool, err error) {
	if d <= 0 {
		return 0, true, nil
	}
	if l.Rate > 0 {
		return cs.open(l, d)
	}
	for began := time.Now(); events == 0 || time.Since(began) < d; {
		for range l.Window {
			if err := cs.publish(time.Since(start), l); err != nil {
				return events, false, cs.why(err)
			}
			events++
		}
		if err := cs.reader.wait(cs.target, deliveryTimeout); err != nil {
			return events, false, err
		}
	}
	return events, true, nil
}

// open publishes at a rate. If an event is late, because the server has not answered the one
// before, its latency counts from the time when it was due.
func (cs *Clients) open(l Load, d time.Duration) (events int64, kept bool, err error) {
	gap := time.Duration(float64(time.Second) / l.Rate)
	began := time.Since(start)
	for due := began; due < began+d; due += gap {
		at := due
		if wait := due - time.Since(start); wait > 0 {
			sleep(wait)
			at = time.Since(start)
		}
		if err := cs.publish(at, l); err != nil {
			return events, false, cs.why(err)
		}
		events++
	}
	kept = time.Since(start)-began < d+d/50+2*gap
	return events, kept, cs.reader.wait(cs.target, deliveryTimeout)
}

// why adds the error of the reader, which is probably the cause of err.
func (cs *Clients) why(err error) error {
	select {
	case found := <-cs.reader.failed:
		return errors.Join(found, err)
	default:
		return err
	}
}

// sleep is exact to a few microseconds; time.Sleep can be a millisecond late.
func sleep(d time.Duration) {
	left := unix.NsecToTimespec(d.Nanoseconds())
	for unix.Nanosleep(&left, &left) == unix.EINTR {
	}
}
