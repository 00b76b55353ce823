package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// The values of the Records of recovery.
const (
	clientCPU  = "CPU µs a client"
	overCPU    = "CPU µs a client over connecting and subscribing"
	collected  = "garbage collections"
	allocated  = "bytes allocated a client"
	askBytes   = "bytes allocated a subscription"
	askCPU     = "CPU µs a subscription"
	overAsk    = "CPU µs a subscription over a plain one"
	dropCPU    = "CPU µs a client that is lost"
	lastMillis = "ms until the last client has everything"
	peakMiB    = "peak MiB"
	replyBytes = "bytes a client"
	cutOff     = "clients disconnected"
	lacking    = "clients without everything"
	replayed   = "events replayed"
	disturbing = "messages to others"
	heapBytes  = "heap bytes a kept event"
	heapFramed = "heap bytes a kept event, after a replay"
	publishes  = "publishes a second"
	pubCPU     = "CPU µs a publish"
	pubBroker  = "broker's CPU µs a publish"
	pubAllocs  = "allocations a publish"
	pubBytes   = "bytes allocated a publish"
)

const (
	// keepSize is the number of events that a channel keeps whose kind keeps events.
	keepSize = 200
	// missedSize is the size of the data of the events that clients miss.
	missedSize = 100
)

// storm is one loss of all connections, and the return of the clients.
type storm struct {
	what   string
	entry  load.Entry
	missed int  // the number of events meanwhile
	alone  bool // nobody stays in the channel, so that the node forgets it meanwhile
}

var storms = []storm{
	{what: "missed 0", entry: load.Resume},
	{what: "missed 20", entry: load.Resume, missed: 20},
	{what: "missed 100", entry: load.Resume, missed: 100},
	{what: "missed 100, alone", entry: load.Resume, missed: 100, alone: true},
}

// plain is the storm with which the others are compared.
var plain = storm{
	what:  "plain",
	entry: load.Enter,
}

// returnAll measures clients that return to a channel that keeps events. Each storm is compared
// with a plain one before or after it.
func returnAll(ctx context.Context, s *sitter) error {
	crowd, err := load.NewCrowd(load.CrowdConfig{
		Addr:     s.server.addr,
		Channel:  s.channel,
		Channels: 1,
		Clients:  s.clients + 1,
	})
	if err != nil {
		return err
	}
	defer crowd.Close()
	r := &returns{
		sitter: s,
		crowd:  crowd,
	}
	if _, err := crowd.Arrive(ctx, load.Enter); err != nil {
		return err
	}
	if err := r.publish(ctx, keepSize); err != nil {
		return err
	}
	// The first storm makes the server's memory as large as it becomes.
	if _, err := r.storm(ctx, plain); err != nil {
		return err
	}
	for i, st := range storms {
		before, after := plain, st
		if (s.round+i)%2 == 1 {
			before, after = st, plain
		}
		first, err := r.storm(ctx, before)
		if err != nil {
			return fmt.Errorf("%s: %w", before.what, err)
		}
		second, err := r.storm(ctx, after)
		if err != nil {
			return fmt.Errorf("%s: %w", after.what, err)
		}
		if before.what != plain.what {
			first, second = second, first
		}
		second[overCPU] = second[clientCPU] - first[clientCPU]
		second[overAsk] = second[askCPU] - first[askCPU]
		s.record(st.what, missedSize, second)
		s.record(plain.what+" beside "+st.what, missedSize, first)
	}
	only, err := r.storm(ctx, storm{what: "connect only"})
	if err != nil {
		return err
	}
	s.record("connect only", missedSize, only)
	return nil
}

// returns is the state of one sitting of returnAll or holdAll.
type returns struct {
	*sitter
	crowd *load.Crowd
	top   int // the offset of the last event
}

// publish publishes events and waits until all clients have them.
func (r *returns) publish(ctx context.Context, count int) error {
	if count == 0 {
		return nil
	}
	_, err := r.sitter.publish(publishing{
		channels: 1,
		first:    r.top + 1,
		count:    count,
		size:     missedSize,
		workers:  1,
	})
	if err != nil {
		return err
	}
	r.top += count
	return r.crowd.Expect(ctx, uint64(r.top))
}

// storm disconnects the clients, and measures their return. Then it does so again, and all
// clients connect before the first subscribes, so that the CPU time of the subscriptions alone
// is known: it is a small part of the whole.
func (r *returns) storm(ctx context.Context, st storm) (map[string]float64, error) {
	value, err := r.storms(ctx, st, false)
	if err != nil || st.entry == load.ConnectOnly {
		return value, err
	}
	apart, err := r.storms(ctx, st, true)
	if err != nil {
		return nil, fmt.Errorf("connecting first: %w", err)
	}
	value[askCPU] = apart[clientCPU]
	value[askBytes] = apart[allocated]
	value[collected] += apart[collected]
	for _, sum := range []string{cutOff, lacking} {
		if _, ok := value[sum]; ok {
			value[sum] += apart[sum]
		}
	}
	return value, nil
}

func (r *returns) storms(ctx context.Context, st storm, connectFirst bool) (map[string]float64, error) {
	stay := 1
	if st.alone {
		stay = 0
	}
	lost, err := r.drop(stay)
	if err != nil {
		return nil, err
	}
	if err := r.publish(ctx, st.missed); err != nil {
		return nil, err
	}
	if connectFirst {
		if _, err := r.crowd.Arrive(ctx, load.ConnectOnly); err != nil {
			return nil, err
		}
		r.rest()
		// A garbage collection costs several µs a client. Nothing must depend on whether one
		// happens to fall into the time that is measured.
		if _, err := r.heap(); err != nil {
			return nil, err
		}
	}
	value, arrival, err := r.arrive(ctx, st.entry)
	if err != nil {
		return nil, err
	}
	value[dropCPU] = lost
	if st.entry == load.Resume {
		value[lacking] = float64(arrival.Clients - arrival.Recovered)
		value[replayed] = float64(arrival.Replayed)
		if want := int64(st.missed) * int64(arrival.Clients); arrival.Replayed != want {
			return nil, fmt.Errorf("%d events were replayed, not %d", arrival.Replayed, want)
		}
	}
	if st.entry == load.ConnectOnly {
		_, err := r.crowd.Arrive(ctx, load.Enter)
		return value, err
	}
	// Whoever has returned receives what follows, once and in order.
	err = r.publish(ctx, 3)
	value[cutOff] = float64(r.closed())
	return value, err
}

// closed returns the number of clients that the server has disconnected since the last return,
// and reports why.
func (r *returns) closed() int {
	n, why := r.crowd.Closed()
	if n > 0 {
		fmt.Printf("%d clients were disconnected: %s\n", n, why)
	}
	return n
}

// drop disconnects all clients but some, and waits until the server has noticed. It returns the
// server's CPU time for each in µs.
func (r *returns) drop(stay int) (lost float64, err error) {
	clients := r.clients + 1 - stay
	before := load.CPU(r.server.cmd.Process.Pid)
	r.crowd.Drop(stay)
	deadline := time.Now().Add(20 * time.Second)
	for {
		n, err := r.server.counter("connections")
		if err != nil {
			return 0, err
		}
		if n == int64(stay) {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%d connections are left, not %d", n, stay)
		}
		time.Sleep(20 * time.Millisecond)
	}
	lost = micros(r.rest()-before, int64(clients))
	_, err = r.heap()
	return lost, err
}

// rest waits until the server has nothing to do, at most 2 s, and returns its CPU time.
func (s *sitter) rest() time.Duration {
	pid := s.server.cmd.Process.Pid
	last := load.CPU(pid)
	for range 40 {
		time.Sleep(50 * time.Millisecond)
		now := load.CPU(pid)
		if now-last < time.Millisecond {
			return now
		}
		last = now
	}
	return last
}

// arrive connects the clients and measures that.
func (r *returns) arrive(ctx context.Context, entry load.Entry) (map[string]float64, load.Arrival, error) {
	pid := r.server.cmd.Process.Pid
	if err := load.ResetPeak(pid); err != nil {
		return nil, load.Arrival{}, err
	}
	counters, err := r.server.ask(http.MethodGet, "/bench/counters", counterTimeout)
	if err != nil {
		return nil, load.Arrival{}, err
	}
	before := load.CPU(pid)
	arrival, err := r.crowd.Arrive(ctx, entry)
	if err != nil {
		return nil, arrival, err
	}
	used := r.rest() - before
	after, err := r.server.ask(http.MethodGet, "/bench/counters", counterTimeout)
	if err != nil {
		return nil, arrival, err
	}
	peak, err := load.PeakRSS(pid)
	return map[string]float64{
		clientCPU:  micros(used, int64(arrival.Clients)),
		lastMillis: millis(arrival.Time),
		peakMiB:    float64(peak) / (1 << 20),
		replyBytes: float64(arrival.Bytes) / float64(arrival.Clients),
		cutOff:     float64(arrival.Closed),
		collected:  float64(after["gcs"] - counters["gcs"]),
		allocated:  float64(after["bytes"]-counters["bytes"]) / float64(arrival.Clients),
	}, arrival, err
}

// holdAll measures members of one channel that return as the same members, while one member
// stays and must receive nothing.
func holdAll(ctx context.Context, s *sitter) error {
	crowd, err := load.NewCrowd(load.CrowdConfig{
		Addr:     s.server.addr,
		Channel:  "private-hold",
		Channels: 1,
		Clients:  s.clients + 1,
		Hold:     true,
	})
	if err != nil {
		return err
	}
	defer crowd.Close()
	r := &returns{
		sitter: s,
		crowd:  crowd,
	}
	if _, err := crowd.Arrive(ctx, load.Enter); err != nil {
		return err
	}
	if err := crowd.Settle(ctx, s.clients+1); err != nil {
		return fmt.Errorf("waiting for the members: %w", err)
	}
	before := crowd.Messages()
	lost, err := r.drop(1)
	if err != nil {
		return err
	}
	value, arrival, err := r.arrive(ctx, load.Resume)
	if err != nil {
		return err
	}
	// Batches of changes come at most a second later.
	if err := crowd.Listen(ctx, 2500*time.Millisecond); err != nil {
		return err
	}
	value[dropCPU] = lost
	value[cutOff] = float64(r.closed())
	value[lacking] = float64(arrival.Clients - arrival.Resumed + arrival.Changes)
	value[disturbing] = float64(crowd.Messages() - before)
	s.record("held", 0, value)
	return nil
}

// memoryOf measures the memory for kept events: first in the ring, and in the log if there is no
// broker, and then with what replays add for a time.
func memoryOf(ctx context.Context, s *sitter) error {
	crowd, err := load.NewCrowd(load.CrowdConfig{
		Addr:     s.server.addr,
		Channel:  s.channel,
		Channels: s.channels,
		Clients:  2 * s.channels,
	})
	if err != nil {
		return err
	}
	defer crowd.Close()
	s.clients = 2*s.channels - 1 // drop counts one more
	r := &returns{
		sitter: s,
		crowd:  crowd,
	}
	if _, err := crowd.Arrive(ctx, load.Enter); err != nil {
		return err
	}
	// The memory of a first return is not that of the events.
	if _, err := r.drop(s.channels); err != nil {
		return err
	}
	if _, err := crowd.Arrive(ctx, load.Resume); err != nil {
		return err
	}
	if _, err := r.drop(s.channels); err != nil {
		return err
	}
	before, err := s.heap()
	if err != nil {
		return err
	}
	const count = keepSize
	if _, err := s.publish(publishing{
		channels: s.channels,
		first:    1,
		count:    count,
		size:     eventSize,
		workers:  64,
	}); err != nil {
		return err
	}
	if err := crowd.Expect(ctx, count); err != nil {
		return err
	}
	after, err := s.heap()
	if err != nil {
		return err
	}
	if _, err := crowd.Arrive(ctx, load.Resume); err != nil {
		return err
	}
	if _, err := r.drop(s.channels); err != nil {
		return err
	}
	framed, err := s.heap()
	if err != nil {
		return err
	}
	events := float64(count * s.channels)
	s.record("kept", eventSize, map[string]float64{
		heapBytes:  float64(after-before) / events,
		heapFramed: float64(framed-before) / events,
	})
	return nil
}

// heap returns the bytes of the server's heap after a garbage collection.
func (s *sitter) heap() (int64, error) {
	values, err := s.server.ask(http.MethodPost, "/bench/heap", counterTimeout)
	return values["heap"], err
}

// ways are the ways in which publishRates publishes.
var ways = []struct {
	what              string
	workers, channels int
}{
	{"one after another", 1, 1},
	{"64 at once", 64, 1},
	{"64 at once, 100 channels", 64, 100},
}

// publishRates measures Server.Publish in channels without subscribers.
func publishRates(_ context.Context, s *sitter) error {
	pid := s.server.cmd.Process.Pid
	for _, way := range ways {
		request := publishing{
			channels: way.channels,
			first:    1,
			size:     eventSize,
			workers:  way.workers,
			time:     s.loads[0].Warm,
		}
		if _, err := s.publish(request); err != nil {
			return err
		}
		request.time = s.loads[0].Time
		before, broker := load.CPU(pid), s.brokerCPU()
		got, err := s.publish(request)
		if err != nil {
			return err
		}
		n := got["published"]
		value := map[string]float64{
			publishes: float64(n) / time.Duration(got["ns"]).Seconds(),
			pubCPU:    micros(load.CPU(pid)-before, n),
			pubAllocs: float64(got["mallocs"]) / float64(n),
			pubBytes:  float64(got["bytes"]) / float64(n),
		}
		if s.broker != 0 {
			value[pubBroker] = micros(s.brokerCPU()-broker, n)
		}
		s.record(way.what, eventSize, value)
	}
	return nil
}

func (s *sitter) brokerCPU() time.Duration {
	if s.broker == 0 {
		return 0
	}
	return load.CPU(s.broker)
}

// publishing is a request to /bench/publish of ./server.
type publishing struct {
	channels int
	first    int
	count    int
	size     int
	workers  int
	time     time.Duration
}

func (s *sitter) publish(p publishing) (map[string]int64, error) {
	query := url.Values{"channel": {s.channel}}
	for name, n := range map[string]int{
		"channels": p.channels,
		"first":    p.first,
		"count":    p.count,
		"size":     p.size,
		"workers":  p.workers,
		"ns":       int(p.time),
	} {
		query.Set(name, strconv.Itoa(n))
	}
	return s.server.ask(http.MethodPost, "/bench/publish?"+query.Encode(), time.Minute)
}
