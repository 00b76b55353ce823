package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

var insecure = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}

// sitting is one start of a server: clients connect, idle memory is measured, and then the
// loads run one after another. It takes less than 20 s, because centrifuge disconnects clients
// that do not answer its pings, and the load generator does not answer them.
type sitting struct {
	section  string // planOf sets it
	kind     string
	clients  int
	channels int // 0 is 1
	stuck    int // clients that never read
	prefill  bool
	loads    []load.Load
	triggers bool // measures requests to an empty channel instead
	// acceptRate is Limits.AcceptRate of the server, or 0.
	acceptRate int
	unlimited  bool // the limits of commands and subscriptions are off
	both       bool // there are two nodes, each with half of the clients; both are measured
	keep       int  // events that the channels of a kind keep whose name ends with keptSuffix; 0 is keepSize
	// program, if not nil, measures something else.
	program func(ctx context.Context, s *sitter) error
}

// sitter is what a program measures, and where it leaves its results.
type sitter struct {
	sitting
	round   int
	server  *process
	broker  int    // the PID of the broker, or 0
	channel string // the name of the channel, or the beginning of the names
	record  func(what string, size int, value map[string]float64, bins ...int)
}

// Record is the result of one load, or of idle memory.
type Record struct {
	Section  string
	Kind     string
	Round    int
	Clients  int
	Channels int
	Stuck    int
	What     string // "idle", "triggers", "w8", "r50", or begun: then Run is set
	Size     int
	Value    map[string]float64
	Bins     []int `json:",omitempty"` // the histogram of a storm
	Run      *Run  `json:",omitempty"`
}

// The values of a Record.
const (
	cpu       = "CPU µs a delivery"
	rate      = "deliveries a second"
	p50       = "p50 ms"
	p99       = "p99 ms"
	worst     = "max ms"
	idleKiB   = "KiB a connection"
	allocs    = "allocations a delivery"
	loadCPU   = "load generator's CPU µs a delivery"
	readBytes = "bytes a delivery"
	brokerCPU = "broker's CPU µs a delivery"
	wholeCPU  = "CPU µs a delivery with the broker's"
	kept      = "kept the rate"
	requests  = "requests a second"
	reqCPU    = "CPU µs a request"
)

// settle is how long connections do nothing before their idle memory is measured.
var settle = time.Second

func what(l load.Load) string {
	if l.Rate > 0 {
		return fmt.Sprintf("r%g", l.Rate)
	}
	return fmt.Sprintf("w%d", l.Window)
}

// run runs a sitting. If a load fails, run ends and returns its error, and the records of the
// loads before it.
func (s sitting) run(ctx context.Context, round int, profiles string) (records []Record, err error) {
	k, ok := find(s.kind)
	if !ok {
		return nil, fmt.Errorf("there is no kind %q", s.kind)
	}
	s.channels = max(s.channels, 1)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %d clients: %w", s.kind, s.clients, err)
		}
	}()
	var flags []string
	if s.triggers {
		// The server has one core, the load generator the others.
		cores, err := load.Cores()
		if err != nil {
			return nil, err
		}
		if len(cores) > 1 {
			if err := load.Pin(cores[1:]...); err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, load.Pin(cores...)) }()
		}
		flags = append(flags, "-core", strconv.Itoa(cores[0]))
	}
	channel := ""
	if keeps(s.kind) {
		channel = "kept"
		flags = append(flags, "-keep", strconv.Itoa(cmp.Or(s.keep, keepSize)))
	}
	if s.acceptRate > 0 {
		flags = append(flags, "-accept-rate", strconv.Itoa(s.acceptRate))
	}
	if s.unlimited && k.server != "go" {
		flags = append(flags, "-unlimited")
	}
	shared := slices.Clone(flags)
	if profiles != "" && k.server != "node" {
		kind := strings.NewReplacer("/", "-", ":", "-").Replace(s.kind)
		name := fmt.Sprintf("%s-%s-%d-%d.pprof", s.section, kind, s.clients, round)
		flags = append(flags, "-cpuprofile", filepath.Join(profiles, name))
	}
	brokerPID := 0
	if k.broker != "" {
		b, err := startBroker(k.broker)
		if err != nil {
			return nil, err
		}
		defer b.stop()
		brokerPID = b.cmd.Process.Pid
		flags = append(flags, "-"+k.broker, b.addr)
		shared = append(shared, "-"+k.broker, b.addr)
	}
	p, err := startServer(k, flags...)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	cfg := load.Config{
		Addr: p.addr, PID: p.cmd.Process.Pid, Broker: brokerPID, Dialect: k.dialect, TLS: k.tls, Publishing: k.publishing,
		Clients: s.clients, Channel: channel, Channels: s.channels, Stuck: s.stuck,
		Count: func() (int64, error) { return p.counter("mallocs") },
	}
	if s.both {
		other, err := startServer(k, shared...)
		if err != nil {
			return nil, err
		}
		defer other.stop()
		cfg.Other = other.addr
		cfg.OtherPID = other.cmd.Process.Pid
	}
	record := func(what string, size int, value map[string]float64, bins ...int) {
		records = append(records, Record{
			Section:  s.section,
			Kind:     s.kind,
			Round:    round,
			Clients:  s.clients,
			Channels: s.channels,
			Stuck:    s.stuck,
			What:     what,
			Size:     size,
			Value:    value,
			Bins:     bins,
		})
	}
	if s.program != nil {
		err := s.program(ctx, &sitter{
			sitting: s,
			round:   round,
			server:  p,
			broker:  brokerPID,
			channel: cmp.Or(channel, "bench"),
			record:  record,
		})
		return records, err
	}
	if s.triggers {
		l := s.loads[0]
		r, err := load.Triggers(cfg, s.clients, l.Size, l.Warm, l.Time)
		if err != nil {
			return nil, err
		}
		record("triggers", l.Size, map[string]float64{
			requests: float64(r.Count) / r.Elapsed.Seconds(), reqCPU: micros(r.CPU, r.Count),
		})
		return records, nil
	}

	clients, err := load.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer clients.Close()
	time.Sleep(settle)
	rss, err := load.RSS(cfg.PID)
	if err != nil {
		return nil, err
	}
	if !s.both {
		record("idle", 0, map[string]float64{idleKiB: float64(rss-p.rss) / 1024 / float64(s.clients)})
	}
	if s.prefill {
		if err := s.fill(p, clients); err != nil {
			return records, err
		}
	}
	if k.arg == scraped {
		defer p.scrape(time.Second)()
	}
	for _, l := range s.loads {
		if ctx.Err() != nil {
			return records, ctx.Err()
		}
		r, err := clients.Run(l)
		if err != nil {
			return records, fmt.Errorf("%s: %w", what(l), err)
		}
		record(what(l), l.Size, values(r))
	}
	if s.stuck > 0 {
		return records, s.stillStuck(p)
	}
	return records, nil
}

func values(r load.Result) map[string]float64 {
	v := map[string]float64{
		cpu: micros(r.CPU, r.Deliveries), rate: float64(r.Deliveries) / r.Elapsed.Seconds(),
		readBytes: float64(r.Bytes) / float64(r.Deliveries),
		p50:       millis(r.P50), p99: millis(r.P99), worst: millis(r.Max),
		loadCPU: micros(r.LoadCPU, r.Deliveries), kept: 0,
	}
	if r.BrokerCPU > 0 {
		v[brokerCPU] = micros(r.BrokerCPU, r.Deliveries)
		v[wholeCPU] = v[cpu] + v[brokerCPU]
	}
	if r.Counted > 0 {
		v[allocs] = float64(r.Counted) / float64(r.Deliveries)
	}
	if r.Kept {
		v[kept] = 1
	}
	return v
}

// fill publishes large events, a few MB, until the kernel accepts no more for the client that
// does not read, so that later events are queued in the server. Without such a client it
// publishes the same amount.
func (s sitting) fill(p *process, clients *load.Clients) error {
	l := load.Load{Size: 16 << 10, Window: 4, Time: time.Nanosecond} // one window
	for i := range 400 {
		if _, err := clients.Run(l); err != nil {
			return fmt.Errorf("filling up: %w", err)
		}
		if s.stuck == 0 {
			if i < 40 {
				continue
			}
			return nil
		}
		if waiting, err := p.counter("buffered"); err != nil || waiting > 64<<10 {
			return err
		}
	}
	return errors.New("nothing waits for the client that does not read")
}

// stillStuck checks that the client which does not read is still connected.
func (s sitting) stillStuck(p *process) error {
	waiting, err := p.counter("buffered")
	if err == nil && waiting < 64<<10 {
		err = fmt.Errorf("the client that does not read was cut while measuring: %d bytes wait", waiting)
	}
	return err
}

func micros(d time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1e3 / float64(n)
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
