package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

const webhookLog = ":webhook:"

// store is a store that loses the log of webhooks, as FLUSHALL does. From then on it keeps the log
// itself, and takes some time for each entry.
type store struct {
	mu      sync.Mutex
	epoch   int // 0 until it has lost the log
	n       uint64
	members map[string]broker.Entry
	nodes   []*forgetful
	takes   time.Duration
}

// forgetful is the broker of one node.
type forgetful struct {
	*memory.Broker
	store *store
	sink  broker.Sink
}

func (f *forgetful) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	f.sink = sink
	f.store.nodes = append(f.store.nodes, f)
	return f.Broker.Open(ctx, o, sink)
}

func (f *forgetful) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	s := f.store
	s.mu.Lock()
	lost := s.epoch > 0 && channel == webhookLog
	s.mu.Unlock()
	if !lost {
		return f.Broker.Append(ctx, channel, e)
	}
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.members[e.Member]
	switch {
	case e.Kind == broker.Join && known:
		return broker.Appended{Duplicate: true}, nil
	case e.Kind == broker.Join:
		s.members[e.Member] = e
	case !known || old.Owner != e.Owner:
		return broker.Appended{}, broker.ErrNotOwner
	case e.Kind == broker.Leave:
		delete(s.members, e.Member)
	}
	s.n++
	e.At = s.place()
	e.Time = time.Now()
	for _, node := range s.nodes {
		node.sink.Deliver(channel, e)
	}
	return broker.Appended{At: e.At}, nil
}

func (s *store) place() broker.Position {
	return broker.Position{
		Epoch:  fmt.Sprint("e", s.epoch),
		Offset: s.n,
	}
}

// lose empties the log.
func (s *store) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.n = 0
	s.members = map[string]broker.Entry{}
	for _, node := range s.nodes {
		node.sink.Reset(webhookLog, broker.State{Revision: s.place()}, broker.ResetEpoch)
	}
}

// The store is emptied. The nodes write the log again, which takes longer than Options.Delay, and
// nothing is reported, because nothing has happened. What happens then is reported once, also if
// another node continues to send.
func TestStoreIsEmptied(t *testing.T) {
	all := []string{
		webhook.ChannelOccupied, webhook.ChannelVacated, webhook.MemberJoined, webhook.MemberLeft,
		webhook.ConnectionOpened, webhook.ConnectionClosed, webhook.ClientEvent,
	}
	onStore(t, webhook.Options{Events: all}, func(t *testing.T, s *store, a, b *member, rc *receiver) {
		s.takes = 2 * time.Second
		var clients []*pushytest.Client
		for i := range 30 {
			kit := a.kit
			if i%2 == 1 {
				kit = b.kit
			}
			ann := kit.Connect(as(fmt.Sprint(i)))
			ann.Subscribe("private-talk", pushytest.Member(nil))
			clients = append(clients, ann)
		}
		talk(clients[1], "private-talk", 0, 1)
		time.Sleep(time.Second)
		assert.Len(t, rc.take(), 62)
		for range 2 {
			s.lose()
			time.Sleep(time.Minute)
			assert.Empty(t, rc.take())
			rc.once()
		}

		// One client has gone while the log was empty.
		s.lose()
		clients[1].Close(1000)
		time.Sleep(time.Minute)
		assert.ElementsMatch(t, []string{
			"member.left private-talk user=1 closed",
			"connection.closed user=1",
		}, rc.take())

		rc.reply(http.StatusServiceUnavailable, "")
		b.kit.Connect(as("99"))
		time.Sleep(10 * time.Second)
		a.stop()
		rc.reply(http.StatusNoContent, "")
		time.Sleep(time.Minute)
		assert.Contains(t, rc.take(), "connection.opened user=99")
		rc.once()
	})
}

// The events of what has gone while the log was empty have the number 0. A node that stops after
// it has sent some of them leaves the others to the next one.
func TestEmptyLogIsHandedOver(t *testing.T) {
	onStore(t, webhook.Options{Events: []string{webhook.MemberLeft}}, func(t *testing.T, s *store, a, b *member, rc *receiver) {
		const n = 150
		var want []string
		var clients []*pushytest.Client
		for i := range n {
			ann := a.kit.Connect(as(fmt.Sprint(i)))
			ann.Subscribe("private-room", pushytest.Member(nil))
			clients = append(clients, ann)
			want = append(want, fmt.Sprintf("member.left private-room user=%d", i))
		}
		time.Sleep(time.Second)
		s.takes = time.Second // so that most of them are not written again
		s.lose()
		for _, ann := range clients {
			require.NoError(t, ann.Unsubscribe("private-room"))
		}
		rc.mu.Lock()
		rc.status = func() int {
			if len(rc.known) < 50 {
				return http.StatusNoContent
			}
			return http.StatusServiceUnavailable
		}
		rc.mu.Unlock()
		time.Sleep(40 * time.Second)
		sent := rc.take()
		assert.GreaterOrEqual(t, len(sent), 100)
		assert.Less(t, len(sent), n)
		a.stop()
		rc.reply(http.StatusNoContent, "")
		time.Sleep(time.Minute)
		var got []string
		for _, e := range append(sent, rc.take()...) {
			e, _ = strings.CutSuffix(e, " left")
			e, _ = strings.CutSuffix(e, " closed") // nobody has said why
			got = append(got, e)
		}
		assert.ElementsMatch(t, want, got)
	})
}

// onStore runs a test in its own time, on two nodes of a store.
func onStore(t *testing.T, o webhook.Options, run func(t *testing.T, s *store, a, b *member, rc *receiver)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nodes := memory.NewCluster(memory.Options{})
		s := &store{}
		rc := newReceiver(t)
		start := func() *member {
			srv := newServer(t, pushy.Options{Broker: &forgetful{
				Broker: nodes.Broker(),
				store:  s,
			}})
			m := &member{
				Server: srv,
				sender: newSender(t, srv, rc, o),
				kit:    pushytest.New(t, srv),
			}
			m.kit.Allow("webhook.")
			t.Cleanup(m.stop)
			return m
		}
		run(t, s, start(), start(), rc)
	})
}
