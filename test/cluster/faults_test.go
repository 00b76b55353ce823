package cluster_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy/internal/testproc"
)

// strict is for long runs: crowds are larger, and time limits are checked. Runs beside other
// tests only log the times, because a busy machine can exceed any limit.
var strict = os.Getenv("PUSHY_SOAK") != ""

const (
	// expiryGrace is how long after the lease the members of a dead node may remain.
	expiryGrace = 2 * time.Second
	// recoveryLimit is how soon presence must be right after the store can be reached again.
	recoveryLimit = 5 * time.Second
)

// connectAll connects clients, which join the channels.
func connectAll(t testing.TB, j *judge, n int, prefix, url string, channels ...string) []*member {
	t.Helper()
	clients := make([]*member, n)
	var all sync.WaitGroup
	for i := range clients {
		clients[i] = newMember(j, prefix+strconv.Itoa(i), transports[i%len(transports)])
		all.Go(func() { clients[i].enter(url, channels) })
	}
	all.Wait()
	return clients
}

// enter connects and joins the channels.
func (c *member) enter(url string, channels []string) {
	if err := c.connect(url); err != nil {
		c.broke(c, "%v", err)
		return
	}
	for _, channel := range channels {
		if answer := c.join(channel); answer != "pushy:subscription-success" {
			c.broke(c, "subscribe %s: %s", channel, answer)
		}
	}
}

// memberIDs returns the ids of the clients in a channel, sorted.
func memberIDs(clients []*member, channel string) (ids []string) {
	for _, c := range clients {
		if id, in := c.in()[channel]; in {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// agree waits until the lists of all clients of a channel are equal and contain exactly these
// clients.
func agree(t testing.TB, d time.Duration, clients []*member, channel string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the members of %s are %v", channel, memberIDs(clients, channel))
			for _, c := range clients {
				t.Logf("%s over %s has %v", c.name, c.transport, c.list(channel))
			}
			clients[0].verdict() // such as a connection that has ended
		}
	}()
	soon(t, d, "all lists of "+channel+" are right", func() bool {
		want := memberIDs(clients, channel)
		first := clients[0].list(channel)
		for _, c := range clients {
			list := c.list(channel)
			if !slices.Equal(list, first) || !slices.Equal(slices.Sorted(slices.Values(list)), want) {
				return false
			}
		}
		return true
	})
}

// killed kills a node with 100 members, and starts another in its place.
func killed(t *testing.T, st *store) {
	const room, news = "private-room", "news"
	nodes := st.start(t, 2)
	j := newJudge(t)
	var watching []*member
	for i, n := range nodes {
		watching = append(watching, connectAll(t, j, 4, "watcher"+strconv.Itoa(i)+"-", n.url, room, news)...)
	}
	node := st.child(t)
	dying := connectAll(t, j, 100, "dying", node.url, room, news)
	agree(t, patience, append(slices.Clone(watching), dying...), room)
	dead := memberIDs(dying, room)

	for _, c := range dying {
		c.mu.Lock()
		c.ending = true
		c.mu.Unlock()
	}
	began := time.Now()
	node.kill()
	for _, c := range dying {
		c.leave()
	}
	agree(t, patience, watching, room)
	took := time.Since(began)
	t.Logf("100 members gone %v after kill -9, with a lease of %v", took.Round(10*time.Millisecond), st.Lease)
	if strict && took > st.Lease+expiryGrace {
		t.Errorf("the dead node's members left after %v", took)
	}
	once := func(when string) {
		t.Helper()
		for _, c := range watching {
			c.mu.Lock()
			quits := c.subscriptions[room].quits
			for _, id := range dead {
				if quits[id] != 1 {
					t.Errorf("%s: %s has %d quits for %s %s", c.name, c.transport, quits[id], id, when)
				}
			}
			if len(quits) != len(dead) {
				t.Errorf("%s: quits of %d members, %d were killed", c.name, len(quits), len(dead))
			}
			c.mu.Unlock()
		}
		for i, n := range nodes {
			if ids := slices.Sorted(slices.Values(n.ids(room))); !slices.Equal(ids, memberIDs(watching, room)) {
				t.Errorf("node %d: the list is %v %s", i, ids, when)
			}
		}
		soon(t, patience, "the dead node is not listed "+when, func() bool { return st.alive(t) == len(nodes) })
	}
	once("immediately")
	<-time.After(st.Lease + expiryGrace)
	once("a lease later")

	node = st.child(t)
	var back sync.WaitGroup
	for _, c := range dying {
		back.Go(func() { c.enter(node.url, []string{room, news}) })
	}
	back.Wait()
	all := append(slices.Clone(watching), dying...)
	agree(t, patience, all, room)
	settleNews(t, j, nodes, all, news)
	for _, c := range watching {
		c.mu.Lock()
		for _, id := range memberIDs(dying, room) {
			if n := c.subscriptions[room].adds[id]; n != 1 {
				t.Errorf("%s: %d adds of a client that reconnected", c.name, n)
			}
		}
		c.mu.Unlock()
	}
	j.verdict()
}

// settleNews checks that events of all nodes reach all clients again.
func settleNews(t testing.TB, j *judge, nodes []node, clients []*member, channel string) {
	t.Helper()
	for i, n := range nodes {
		p := publisher{j, fmt.Sprintf("again%d-%d", i, time.Now().UnixNano()), n.srv, map[string]int{}}
		if err := p.say(channel); err != nil {
			t.Errorf("%s: %v", p.name, err)
			return // no client will receive it
		}
		for _, c := range clients {
			if !c.has(channel, p.name, 1) {
				j.broke(c, "the event of %s in %s did not arrive", p.name, channel)
				return // each further client would take a minute
			}
		}
	}
}

// stopped stops a node with members for longer than its lease, and continues it. Afterwards
// the list has no member without a client, and all clients receive events.
func stopped(t *testing.T, st *store) {
	const room, news = "private-room", "news"
	nodes := st.start(t, 2)
	j := newJudge(t)
	j.lossy = true
	var watching []*member
	for i, n := range nodes {
		watching = append(watching, connectAll(t, j, 4, "watcher"+strconv.Itoa(i)+"-", n.url, room, news)...)
	}
	node := st.child(t)
	sleeping := connectAll(t, j, 14, "sleeper", node.url, room, news)
	all := append(slices.Clone(watching), sleeping...)
	agree(t, patience, all, room)
	absent := memberIDs(sleeping, room)

	if err := testproc.Pause(node.cmd.Process); err != nil {
		t.Fatal(err)
	}
	agree(t, patience, watching, room)
	settleNews(t, j, nodes, watching, news)
	<-time.After(expiryGrace)
	if err := testproc.Resume(node.cmd.Process); err != nil {
		t.Fatal(err)
	}
	agree(t, patience, all, room)
	settleNews(t, j, nodes, all, news)
	if ids := memberIDs(sleeping, room); !slices.Equal(ids, absent) {
		t.Errorf("the members are %v and were %v before", ids, absent)
	}
	for _, c := range all {
		c.mu.Lock()
		for _, channel := range []string{room, news} {
			switch s := c.subscriptions[channel]; {
			case s.gaps > 0:
				t.Errorf("%s missed %d events of %s and was not notified", c.name, s.gaps, channel)
			case slices.Contains(sleeping, c) && s.resyncs != 1:
				t.Errorf("%s got %d pushy:resync for %s", c.name, s.resyncs, channel)
			case slices.Contains(watching, c) && s.resyncs != 0:
				t.Errorf("%s got %d pushy:resync for %s, on a node that was connected", c.name, s.resyncs, channel)
			}
		}
		c.mu.Unlock()
	}
	<-time.After(st.Lease + expiryGrace)
	agree(t, patience, all, room)
	j.verdict()
}

// An outage disconnects some nodes from the store, or changes the store for all of them.
type outage struct {
	lasts time.Duration
	cuts  func(node int) bool             // whether it disconnects the node; nil: it may disconnect none
	begin func(t testing.TB) (end func()) // begins the outage; end ends it
}

// outlived checks clients on three nodes during an outage: none hangs, no event arrives twice,
// missed events are reported with pushy:resync, presence is right within 5 s afterwards, and
// then events are delivered as fast as before.
func outlived(t *testing.T, st *store, o outage) {
	const room, news = "private-room", "news"
	nodes := st.start(t, 3)
	j := newJudge(t)
	j.lossy = true
	var all []*member
	home := map[*member]int{}
	enter := func(n int, prefix string) {
		for i := range nodes {
			for _, c := range connectAll(t, j, n, prefix+strconv.Itoa(i)+"-", nodes[i].url, room, news) {
				all = append(all, c)
				home[c] = i
			}
		}
	}
	enter(7, "early")
	agree(t, patience, all, room)
	before := throughput(t, j, nodes, all, news, "before")

	var publishing sync.WaitGroup
	stop := make(chan struct{})
	refused := make([]int, len(nodes))
	for i, n := range nodes {
		publishing.Go(func() {
			p := publisher{j, "steady" + strconv.Itoa(i), n.srv, map[string]int{}}
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					if p.say(news) != nil {
						refused[i]++
					}
				}
			}
		})
	}
	end := o.begin(t)
	ends := time.After(o.lasts)
	if o.cuts == nil {
		o.cuts = func(int) bool { return false }
	}
	soon(t, patience, "the nodes report that the store is away", func() bool {
		for i, n := range nodes {
			if o.cuts(i) && n.srv.Stats().Away == nil {
				return false
			}
		}
		return true
	})
	enter(2, "late") // clients can still join
	for i, n := range nodes {
		if !o.cuts(i) {
			continue
		}
		p := publisher{j, "alone" + strconv.Itoa(i), n.srv, map[string]int{}}
		if err := p.say(news); err != nil {
			t.Errorf("node %d does not serve its own clients while alone: %v", i, err)
		}
		for _, c := range all {
			if home[c] == i && !c.has(news, p.name, 1) {
				j.broke(c, "an event of its own node did not arrive while the node was alone")
				break // each further client would take a minute
			}
		}
	}
	gone := all[0]
	gone.leave()
	all = all[1:]
	<-ends
	end()
	returned := time.Now()
	agree(t, patience, all, room)
	took := time.Since(returned)
	soon(t, patience, "no node is alone", func() bool {
		return !slices.ContainsFunc(nodes, func(n node) bool { return n.srv.Stats().Away != nil })
	})
	close(stop)
	publishing.Wait()
	settleNews(t, j, nodes, all, news)
	t.Logf("presence was right %v after the end of the outage; %v publishes of the nodes were refused", took.Round(time.Millisecond), refused)
	if strict && took > recoveryLimit {
		t.Errorf("presence was right after %v only", took)
	}
	for _, c := range all {
		c.mu.Lock()
		for _, channel := range []string{room, news} {
			s := c.subscriptions[channel]
			switch {
			case s.gaps > 0:
				t.Errorf("%s missed %d events of %s and was not notified", c.name, s.gaps, channel)
			case o.cuts(home[c]) && s.resyncs == 0:
				t.Errorf("%s got no pushy:resync for %s", c.name, channel)
			case o.cuts(home[c]) && channel == room && s.syncs == 0:
				t.Errorf("%s got no pushy:presence-sync", c.name)
			}
		}
		c.mu.Unlock()
	}
	for i, n := range nodes {
		if ids := slices.Sorted(slices.Values(n.ids(room))); !slices.Equal(ids, memberIDs(all, room)) {
			t.Errorf("node %d: the list is %v", i, ids)
		}
	}
	after := throughput(t, j, nodes, all, news, "after")
	t.Logf("%.0f deliveries a second before, %.0f after", before, after)
	if strict && after < before/2 {
		t.Errorf("%.0f deliveries a second before, %.0f after", before, after)
	}
	j.verdict()
}

// throughput returns the number of deliveries a second.
func throughput(t testing.TB, j *judge, nodes []node, clients []*member, channel, when string) float64 {
	t.Helper()
	const each = 300
	began := time.Now()
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			p := publisher{j, when + strconv.Itoa(i), n.srv, map[string]int{}}
			for range each {
				if err := p.say(channel); err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
			}
		})
	}
	all.Wait()
	for _, c := range clients {
		for i := range nodes {
			if !c.has(channel, when+strconv.Itoa(i), each) {
				j.broke(c, "events of %s%d did not arrive", when, i)
				return 0 // each further client would take a minute
			}
		}
	}
	return float64(each*len(nodes)*len(clients)) / time.Since(began).Seconds()
}
