package pushy_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// twoNodes runs a test with two Servers on an unreliable cluster without delays.
func twoNodes(t *testing.T, run func(t *testing.T, u *unreliable, servers []*pushy.Server)) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		u := newUnreliable(t, 1, 0)
		var servers []*pushy.Server
		for range 2 {
			servers = append(servers, startOn(t, u.node(), pushy.Options{}))
		}
		run(t, u, servers)
		synctest.Wait()
		assert.Empty(t, u.complaints())
	})
}

// A State takes the place of all that was: members get it as a sync, and follow from
// its revision on, be that lower.
func TestResetReplacesPresence(t *testing.T) {
	t.Parallel()
	f := newForeign()
	srv := startOn(t, f, pushy.Options{})
	ann := connectPeer(t, srv)
	ann.subscribe("private-room", `{"name":"Ann"}`)
	connectPeer(t, srv).subscribe("private-room", `{"name":"Bob"}`)
	require.Equal(t, "pushy:presence-add", ann.event())
	s, err := f.Broker.Follow(t.Context(), "private-room")
	require.NoError(t, err)
	require.Len(t, s.Members, 2)
	cyd := broker.Member{
		ID:     "c",
		Owner:  "elsewhere",
		Data:   json.RawMessage(`{"name":"Cyd"}`),
		Joined: time.UnixMilli(5),
	}
	s.Members = append([]broker.Member{cyd}, s.Members...)
	s.Revision = broker.Position{
		Epoch:  "another",
		Offset: 1,
	}
	f.sink.Reset("private-room", s, broker.ResetEpoch)
	sync := ann.next()
	assert.Equal(t, "pushy:presence-sync", sync.Event)
	assert.Equal(t, []string{"Cyd", "Ann", "Bob"}, sync.names(t))
	ann.expect("pushy:resync private-room {}")
	ch, _ := srv.Channels().Lookup("private-room")
	members, on := ch.Presence()
	assert.True(t, on)
	require.Len(t, members, 3)
	assert.Equal(t, pushy.Member{
		ID:      "c",
		HasData: true,
		JSON:    json.RawMessage(`{"name":"Cyd","subscribed":5,"memberId":"c","idle":false}`),
	}, members[0])

	f.sink.Deliver("private-room", broker.Entry{
		Kind:   broker.Leave,
		Member: "c",
		Owner:  "elsewhere",
		At:     broker.Position{Epoch: "another", Offset: 2},
	})
	ann.expect(`pushy:presence-quit private-room {"member":{"name":"Cyd","subscribed":5,"memberId":"c","idle":false}}`)
	ann.quiet()
}

// joinWhileDeaf makes Ann a member of private-room. Bob's join is in the log, and the node has
// not received it.
func joinWhileDeaf(t *testing.T, u *unreliable, srv *pushy.Server) (ann, bob *peer) {
	t.Helper()
	ann, bob = connectPeer(t, srv), connectPeer(t, srv)
	ann.subscribe("private-room", `{"name":"Ann"}`)
	u.nodes[0].setDeaf(true)
	bob.send(subscribeText(t, bob.id, "private-room", `{"name":"Bob"}`))
	time.Sleep(time.Second)
	return ann, bob
}

// A join whose entry was lost comes through with a Reset.
func TestResetBringsJoinThrough(t *testing.T) {
	twoNodes(t, func(t *testing.T, u *unreliable, servers []*pushy.Server) {
		ann, bob := joinWhileDeaf(t, u, servers[0])
		require.Len(t, u.members("private-room"), 2)
		u.nodes[0].setDeaf(false)
		u.nodes[0].reset("private-room")
		assert.Equal(t, "pushy:presence-sync", ann.next().Event)
		ann.expect("pushy:resync private-room {}")
		success := bob.next()
		assert.Equal(t, "pushy:subscription-success", success.Event)
		ids, _ := memberIDs(success.Data, "presence")
		assert.Equal(t, u.members("private-room"), ids)
		ann.quiet()
		bob.quiet()
	})
}

// A join that the log has accepted and lost, before the node has received it, is appended
// again. Its client does not wait until the join times out.
func TestJoinIsLostBeforeItIsDelivered(t *testing.T) {
	twoNodes(t, func(t *testing.T, u *unreliable, servers []*pushy.Server) {
		ann, bob := joinWhileDeaf(t, u, servers[0])
		members := u.state("private-room").Members
		require.Len(t, members, 2)
		_, err := u.watcher.Append(t.Context(), "private-room", broker.Entry{
			Kind:   broker.Leave,
			Member: members[1].ID,
			Owner:  members[1].Owner,
		})
		require.NoError(t, err)
		u.nodes[0].setDeaf(false)
		u.nodes[0].reset("private-room")
		began := time.Now()
		success := bob.next()
		require.Equal(t, "pushy:subscription-success", success.Event)
		assert.Less(t, time.Since(began), time.Second)
		ids, _ := memberIDs(success.Data, "presence")
		assert.Equal(t, u.members("private-room"), ids)
		assert.Equal(t, []string{"Ann"}, ann.next().names(t))
		ann.expect("pushy:resync private-room {}")
		assert.Equal(t, "pushy:presence-add", ann.event())
		assert.Equal(t, 3, u.count("Join"))
		ann.quiet()
		bob.quiet()
	})
}

// Without presence a Reset says only that events may have been lost.
func TestResetWithoutPresence(t *testing.T) {
	twoNodes(t, func(t *testing.T, u *unreliable, servers []*pushy.Server) {
		ann := connectPeer(t, servers[0])
		for _, channel := range []string{"private-room", "news"} {
			ann.subscribe(channel, "")
			u.nodes[0].reset(channel)
			synctest.Wait()
			ann.expect("pushy:resync " + channel + " {}")
			ann.quiet()
		}
		err := servers[0].Publish(t.Context(), "news", "pushy:resync", struct{}{})
		assert.ErrorContains(t, err, "event: ", "nobody else sends it")
	})
}

func TestStatsSayWhyANodeIsAlone(t *testing.T) {
	t.Parallel()
	away := errors.New("the cable is out")
	b := &altered{
		Broker: memory.New(),
		away:   func() error { return away },
	}
	srv := startOn(t, b, pushy.Options{})
	assert.ErrorIs(t, srv.Stats().Away, away)
	away = nil
	assert.NoError(t, srv.Stats().Away)
	assert.NoError(t, startServer(t, pushy.Options{}).Stats().Away)
	assert.NoError(t, startOn(t, struct{ broker.Broker }{memory.New()}, pushy.Options{}).Stats().Away, "one that cannot tell")
}
