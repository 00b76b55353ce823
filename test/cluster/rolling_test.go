package cluster_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// load has the numbers of a test with restarts.
type load struct {
	clients  int
	rooms    int
	channels int
	restarts int           // of each node
	every    time.Duration // the time between two restarts
	pace     time.Duration // the time between two events of one publisher
	stay     time.Duration // the longest time for which a client stays connected
}

const publishers = 8

var (
	lightLoad = load{
		clients:  60,
		rooms:    4,
		channels: 3,
		restarts: 1,
		every:    500 * time.Millisecond,
		pace:     30 * time.Millisecond,
		stay:     4 * time.Second,
	}
	fullLoad = load{
		clients:  1000,
		rooms:    40,
		channels: 4,
		restarts: 3,
		every:    6 * time.Second,
		pace:     200 * time.Millisecond,
		stay:     30 * time.Second,
	}
)

// fleet is the nodes to which clients and publishers connect. Those that are down are in it,
// too.
type fleet struct {
	mu   sync.Mutex
	urls []string
}

func (f *fleet) set(i int, url string) {
	f.mu.Lock()
	f.urls[i] = url
	f.mu.Unlock()
}

func (f *fleet) pick(r *rand.Rand) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.urls[r.IntN(len(f.urls))]
}

// roam connects the client to nodes, again and again: when the connection ends, and when the
// client has been connected for a random time. It returns after stop, when the client is
// connected.
func (c *resumer) roam(r *rand.Rand, f *fleet, stay time.Duration, stop <-chan struct{}) (reconnects int) {
	for stopped := false; !stopped; reconnects++ {
		timer := time.NewTimer(time.Duration(r.Int64N(int64(stay))))
		for connected := true; connected && !stopped; {
			c.mu.Lock()
			ended, more := c.ended, c.more
			c.mu.Unlock()
			if ended != "" {
				break
			}
			select {
			case <-more:
			case <-timer.C:
				connected = false
			case <-stop:
				stopped = true
			}
		}
		timer.Stop()
		c.drop()
		<-time.After(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
		c.reconnect(r, f)
	}
	return reconnects
}

func (c *resumer) reconnect(r *rand.Rand, f *fleet) {
	for begun := time.Now(); ; {
		err := c.connect(f.pick(r))
		if err == nil {
			return
		}
		c.drop()
		if time.Since(begun) > patience {
			c.mu.Lock()
			c.brokeLocked("cannot connect: %v", err)
			c.mu.Unlock()
			return
		}
		<-time.After(time.Duration(r.Int64N(int64(100 * time.Millisecond))))
	}
}

// trigger publishes an event over HTTP. The event may have been published although it is not
// accepted.
func trigger(base, channel, body string) (at broker.Position, accepted bool, err error) {
	now := time.Now().Unix()
	sign, err := pushy.SignTrigger(secretKey, channel, "n", now, []byte(body))
	if err != nil {
		return at, false, err
	}
	answer, err := httpClient.Post(base+"/pushy/channel/"+channel+"/trigger?event=n&timestamp="+
		strconv.FormatInt(now, 10)+"&auth_key="+sign, "application/json", strings.NewReader(body))
	if err != nil {
		return at, false, nil // the node is down
	}
	defer answer.Body.Close()
	var content struct{ Position string }
	if err := json.NewDecoder(answer.Body).Decode(&content); err != nil || answer.StatusCode >= 500 {
		return at, false, nil
	}
	if answer.StatusCode >= 300 || content.Position == "" {
		return at, false, fmt.Errorf("the trigger is answered with %s", answer.Status)
	}
	at, err = broker.ParsePosition(content.Position)
	return at, true, err
}

// Three nodes are restarted one after the other, each with its own process, while eight
// publishers publish over HTTP, and clients lose their connection and return at random. Every
// client gets all events of its channel in the order of the log, once, without a break, keeps
// its membership of a private channel, and hears nothing of the others.
// (Acceptance tests 6 and 23)
func TestRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		size := lightLoad
		s.Lease = 30 * time.Second // longer than a node may need to restart on a busy machine
		if strict {
			size = fullLoad
			s.Lease = 15 * time.Second
		}
		rollingRestart(t, s, size)
	})
}

func rollingRestart(t *testing.T, s *store, size load) {
	nodes := make([]*child, 3)
	f := &fleet{urls: make([]string, len(nodes))}
	for i := range nodes {
		nodes[i] = s.child(t)
		f.set(i, nodes[i].url)
	}
	everybody := newCrew(t, size, nodes)
	if t.Failed() {
		return
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	var reconnects, accepted, refused atomic.Int64
	for i, c := range everybody.clients {
		running.Go(func() {
			reconnects.Add(int64(c.roam(rand.New(rand.NewPCG(6, uint64(i))), f, size.stay, stop)))
		})
	}
	everybody.publish(t, &running, stop, func(r *rand.Rand, post func(url string) bool) {
		if post(f.pick(r)) {
			accepted.Add(1)
		} else {
			refused.Add(1)
		}
	})
	began := time.Now()
	for range size.restarts {
		for i := range nodes {
			<-time.After(size.every)
			require.NoError(t, nodes[i].stop())
			nodes[i] = s.child(t)
			f.set(i, nodes[i].url)
		}
	}
	<-time.After(size.every)
	close(stop)
	running.Wait()
	t.Logf("%v: %d events accepted and %d refused, %d reconnects", time.Since(began).Round(time.Millisecond), accepted.Load(),
		refused.Load(), reconnects.Load())
	everybody.check(t, nodes[0].url)
}

// crew is the clients of a test with restarts. Each follows a channel that keeps events, and is
// a member of a private channel.
type crew struct {
	size    load
	logs    logs
	clients []*resumer
	members map[string][]string // the ids of each private channel
}

func (c *crew) channel(i int) string { return fmt.Sprint("kept-", i%c.size.channels) }
func (c *crew) room(i int) string    { return fmt.Sprint("private-room-", i%c.size.rooms) }

// newCrew connects the clients, the same number to each node. They have all heard of each other
// when it returns.
func newCrew(t *testing.T, size load, nodes []*child) *crew {
	t.Helper()
	all := &crew{
		size:    size,
		logs:    logs{},
		members: map[string][]string{},
	}
	for i := range size.clients {
		c := newResumer(t, fmt.Sprint("client", i)).follow(all.logs, all.channel(i), all.room(i))
		all.clients = append(all.clients, c)
	}
	var connecting sync.WaitGroup
	for k := range 10 {
		connecting.Go(func() {
			for i := k; i < len(all.clients); i += 10 {
				assert.NoError(t, all.clients[i].connect(nodes[i%len(nodes)].url))
			}
		})
	}
	connecting.Wait()
	for i, c := range all.clients {
		id, _ := c.member(all.room(i))
		all.members[all.room(i)] = append(all.members[all.room(i)], id)
	}
	for i, c := range all.clients {
		c.sees(all.room(i), all.members[all.room(i)])
		c.heard(all.room(i))
	}
	return all
}

// publish starts the publishers, which end after stop. They call to with a func that publishes
// an event on a node, and reports whether the node has accepted it.
func (c *crew) publish(t *testing.T, running *sync.WaitGroup, stop <-chan struct{},
	to func(r *rand.Rand, post func(url string) bool),
) {
	for i := range publishers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(23, uint64(i)))
			pace := time.NewTicker(c.size.pace)
			defer pace.Stop()
			for n := i * 1_000_000; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				name := c.channel(r.IntN(c.size.channels))
				data := fmt.Sprintf(`{"n":%d}`, n)
				to(r, func(url string) bool {
					at, ok, err := trigger(url, name, data)
					assert.NoError(t, err)
					if ok {
						assert.NoError(t, c.logs[name].Published(at, data))
					}
					return ok
				})
			}
		})
	}
}

// check publishes the last events on a node. Then every client has all events of its channel, in
// the order of the log, once and without a break, is the member that it was, and has not heard
// of any other.
func (c *crew) check(t *testing.T, url string) {
	t.Helper()
	top := map[string]broker.Position{}
	for i := range c.size.channels {
		const last = `{"last":true}`
		at, ok, err := trigger(url, c.channel(i), last)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, c.logs[c.channel(i)].Published(at, last))
		top[c.channel(i)] = at
	}
	events, replayed := 0, 0
	for i, client := range c.clients {
		channel, room := c.channel(i), c.room(i)
		arrives(t, channel, top[channel], client)
		assert.Empty(t, client.breaks(channel), client.name)
		assert.Empty(t, client.heard(room), client.name)
		id, resumed := client.member(room)
		assert.True(t, resumed, client.name)
		assert.Contains(t, c.members[room], id, client.name)
		client.mu.Lock()
		events += client.channels[channel].kept.Events
		replayed += client.channels[channel].kept.Replayed
		client.mu.Unlock()
		if t.Failed() {
			return // each further client can take a minute
		}
	}
	t.Logf("%d events delivered, %d of them in replays", events, replayed)
	assert.NotZero(t, replayed)
}
