package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy"
)

// crowdSize has the numbers of a crowd test.
type crowdSize struct {
	clients, channels, events, acts int
	publishers                      int
}

// small is for ordinary runs of the tests, and full for strict ones.
var (
	small = crowdSize{
		clients:    70,
		channels:   8,
		events:     3000,
		acts:       8,
		publishers: 6,
	}
	full = crowdSize{
		clients:    300,
		channels:   20,
		events:     50_000,
		acts:       20,
		publishers: 9,
	}
)

// channelName returns the name of the n-th channel. Every second channel is private.
func channelName(n int) string {
	if n%2 == 1 {
		return "private-room" + strconv.Itoa(n)
	}
	return "room" + strconv.Itoa(n)
}

// crowd lets clients over all transports join, leave and reconnect on three nodes, while
// events are published on all nodes. It checks that each client receives every event of its
// channels once and in the order of each publisher, and that all clients receive adds and
// quits in the same order. In the end all lists must agree.
func crowd(t *testing.T, s *store, seed uint64) {
	size := small
	if strict {
		size = full
	}
	nodes := s.start(t, 3)
	j := newJudge(t)
	var clients []*member
	for i := range size.clients {
		c := newMember(j, "client"+strconv.Itoa(i), transports[i%len(transports)])
		clients = append(clients, c)
	}
	began := time.Now()
	var acting, publishing sync.WaitGroup
	for i, c := range clients {
		acting.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			if err := c.act(r, nodes[i%3].url, size); err != nil {
				j.broke(c, "%v", err)
			}
		})
	}
	each := size.events / size.publishers
	for i := range size.publishers {
		publishing.Go(func() {
			p := publisher{j, "publisher" + strconv.Itoa(i), nodes[i%3].srv, map[string]int{}}
			r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
			for k := range each {
				if err := p.say(channelName(r.IntN(size.channels))); err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
				if k%10 == 9 {
					<-time.After(time.Duration(1+r.IntN(20)) * time.Millisecond)
				}
			}
		})
	}
	acting.Wait()
	publishing.Wait()
	elapsed := time.Since(began)
	if j.verdict(); t.Failed() {
		return // a client that has failed would make settle wait in vain
	}
	settle(t, j, nodes, clients, size)
	j.mu.Lock()
	t.Logf("%d clients, %d channels, %d events published, %d delivered in %v", size.clients, size.channels, each*size.publishers, j.events, elapsed)
	j.mu.Unlock()
	j.verdict()
	for _, c := range clients {
		c.mu.Lock()
		c.ending = true
		c.mu.Unlock()
	}
	// The members of a node leave when it is closed.
	for _, n := range nodes[1:] {
		if err := n.srv.Close(); err != nil {
			t.Error(err)
		}
	}
	for k := range size.channels {
		var left []string
		for i, c := range clients {
			if id, in := c.in()[channelName(k)]; in && i%3 == 0 {
				left = append(left, id)
			}
		}
		slices.Sort(left)
		soon(t, patience, "only the last node's members are left in "+channelName(k), func() bool {
			return k%2 == 0 || slices.Equal(slices.Sorted(slices.Values(nodes[0].ids(channelName(k)))), left)
		})
	}
	for _, c := range clients {
		c.leave()
	}
}

// act joins, leaves and reconnects at random. In the end the client is connected.
func (c *member) act(r *rand.Rand, url string, size crowdSize) error {
	if err := c.connect(url); err != nil {
		return err
	}
	for range size.acts {
		<-time.After(time.Duration(1+r.IntN(200)) * time.Millisecond)
		channel := channelName(r.IntN(size.channels))
		in := c.in()
		_, member := in[channel]
		switch n := r.IntN(12); {
		case n == 0:
			c.leave()
			if err := c.connect(url); err != nil {
				return err
			}
		case member && (n < 6 || len(in) > 4):
			if answer := c.ask("unsubscribe", channel, ""); answer != "pushy:subscription-end" {
				return fmt.Errorf("unsubscribe %s: %s", channel, answer)
			}
		case !member:
			if answer := c.join(channel); answer != "pushy:subscription-success" {
				return fmt.Errorf("subscribe %s: %s", channel, answer)
			}
		}
	}
	return nil
}

// publisher publishes events that are numbered in each channel.
type publisher struct {
	*judge
	name string
	srv  *pushy.Server
	said map[string]int
}

// say publishes the next event.
func (p *publisher) say(channel string) error {
	p.said[channel]++
	n := p.said[channel]
	p.judge.mu.Lock()
	p.begun[channel+" "+p.name] = n
	p.judge.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := p.srv.Publish(ctx, channel, "said", map[string]any{"by": p.name, "n": n})
	if err != nil {
		p.judge.mu.Lock()
		p.failed[channel+" "+p.name+" "+strconv.Itoa(n)] = true
		p.judge.mu.Unlock()
	}
	return err
}

// settle checks that all subscribers have received all events, and that all lists agree.
func settle(t testing.TB, j *judge, nodes []node, clients []*member, size crowdSize) {
	t.Helper()
	for i, n := range nodes {
		last := publisher{j, "last" + strconv.Itoa(i), n.srv, map[string]int{}}
		for k := range size.channels {
			if err := last.say(channelName(k)); err != nil {
				t.Errorf("%s: %v", last.name, err)
			}
		}
	}
	for _, c := range clients {
		for channel := range c.in() {
			for i := range nodes {
				if by := "last" + strconv.Itoa(i); !c.has(channel, by, 1) {
					j.broke(c, "the last event of %s in %s did not arrive", by, channel)
				}
			}
		}
	}
	j.mu.Lock()
	begun := map[string]int{}
	for key, n := range j.begun {
		begun[key] = n
	}
	j.mu.Unlock()
	truth := map[string][]string{}
	for _, c := range clients {
		for channel, id := range c.in() {
			truth[channel] = append(truth[channel], id)
			c.mu.Lock()
			s := c.subscriptions[channel]
			gaps := s.gaps
			for key, n := range begun {
				by, ok := trimChannel(key, channel)
				if ok && n > s.begun[by] && s.last[by] < n {
					c.missing(channel, by, max(s.last[by], s.begun[by])+1, n+1, s)
					if s.gaps > gaps && s.resyncs == 0 {
						defer j.broke(c, "missed the end of %s in %s: %d of %d", by, channel, s.last[by], n)
					}
				}
			}
			c.mu.Unlock()
		}
	}
	for k := range size.channels {
		channel := channelName(k)
		if k%2 == 0 {
			continue
		}
		want := slices.Sorted(slices.Values(truth[channel]))
		var order []string
		agree := func(ids []string) bool {
			if order == nil {
				order = ids
			}
			return slices.Equal(order, ids) && slices.Equal(want, slices.Sorted(slices.Values(ids)))
		}
		for _, c := range clients {
			if _, in := c.in()[channel]; !in {
				continue
			}
			if !c.await(func() bool { s := c.subscriptions[channel]; return s != nil && len(s.list) == len(want) }) || !agree(c.list(channel)) {
				j.broke(c, "in the end the list of %s is %v and the members are %v", channel, c.list(channel), want)
			}
		}
		for i, n := range nodes {
			if n.srv == nil {
				continue
			}
			if ids := n.ids(channel); len(ids) > 0 && !agree(ids) {
				t.Errorf("node %d: in the end the list of %s is %v and the members are %v", i, channel, ids, want)
			}
		}
	}
}

func trimChannel(key, channel string) (by string, ok bool) {
	if len(key) > len(channel) && key[:len(channel)] == channel && key[len(channel)] == ' ' {
		return key[len(channel)+1:], true
	}
	return "", false
}
