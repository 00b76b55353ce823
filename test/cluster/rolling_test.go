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
		s.Lease = 10 * time.Second
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
	all := logs{}
	channel := func(i int) string { return fmt.Sprint("kept-", i%size.channels) }
	room := func(i int) string { return fmt.Sprint("private-room-", i%size.rooms) }
	var clients []*resumer
	for i := range size.clients {
		c := newResumer(t, fmt.Sprint("client", i)).follow(all, channel(i), room(i))
		clients = append(clients, c)
	}
	var connecting sync.WaitGroup
	for k := range 10 {
		connecting.Go(func() {
			for i := k; i < len(clients); i += 10 {
				assert.NoError(t, clients[i].connect(nodes[i%len(nodes)].url))
			}
		})
	}
	connecting.Wait()
	members := map[string][]string{}
	for i, c := range clients {
		id, _ := c.member(room(i))
		members[room(i)] = append(members[room(i)], id)
	}
	for i, c := range clients {
		c.sees(room(i), members[room(i)])
		c.heard(room(i))
	}
	if t.Failed() {
		return
	}

	stop := make(chan struct{})
	var running sync.WaitGroup
	var reconnects, accepted, refused atomic.Int64
	for i, c := range clients {
		running.Go(func() {
			reconnects.Add(int64(c.roam(rand.New(rand.NewPCG(6, uint64(i))), f, size.stay, stop)))
		})
	}
	for i := range publishers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(23, uint64(i)))
			pace := time.NewTicker(size.pace)
			defer pace.Stop()
			for n := i * 1_000_000; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				name := channel(r.IntN(size.channels))
				data := fmt.Sprintf(`{"n":%d}`, n)
				at, ok, err := trigger(f.pick(r), name, data)
				switch {
				case err != nil:
					t.Error(err)
				case !ok:
					refused.Add(1)
				default:
					accepted.Add(1)
					assert.NoError(t, all[name].Published(at, data))
				}
			}
		})
	}
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
	top := map[string]broker.Position{}
	for i := range size.channels {
		const last = `{"last":true}`
		at, ok, err := trigger(nodes[0].url, channel(i), last)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, all[channel(i)].Published(at, last))
		top[channel(i)] = at
	}
	events, replayed := 0, 0
	for i, c := range clients {
		arrives(t, channel(i), top[channel(i)], c)
		assert.Empty(t, c.breaks(channel(i)), c.name)
		assert.Empty(t, c.heard(room(i)), c.name)
		id, resumed := c.member(room(i))
		assert.True(t, resumed, c.name)
		assert.Contains(t, members[room(i)], id, c.name)
		c.mu.Lock()
		events += c.channels[channel(i)].kept.Events
		replayed += c.channels[channel(i)].kept.Replayed
		c.mu.Unlock()
		if t.Failed() {
			return // each further client can take a minute
		}
	}
	t.Logf("%d events delivered, %d of them in replays", events, replayed)
	assert.NotZero(t, replayed)
}
