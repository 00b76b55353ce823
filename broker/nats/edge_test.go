package nats_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
)

func TestOpenIsChecked(t *testing.T) {
	t.Parallel()
	for _, o := range []broker.OpenOptions{{Lease: time.Second}, {Node: "a"}, {Node: "a", Lease: -1}, {Node: "a", Lease: 25 * time.Hour}} {
		assert.Error(t, nats.New(nats.Options{URL: shared.URL}).Open(t.Context(), o, &node{}))
	}
	b := nats.New(nats.Options{URL: shared.URL})
	assert.Error(t, b.Open(t.Context(), broker.OpenOptions{Node: "a", Lease: time.Second}, nil))
	_, err := b.Append(t.Context(), "news", event("1"))
	assert.ErrorIs(t, err, broker.ErrClosed, "before Open")
	assert.ErrorIs(t, b.Close(t.Context()), broker.ErrClosed, "before Open")
	n := open(t, nats.Options{URL: shared.URL})
	err = n.Open(t.Context(), broker.OpenOptions{Node: "b", Lease: time.Second}, n)
	assert.ErrorIs(t, err, broker.ErrClosed, "twice")
}

func TestPrefixesKeepApart(t *testing.T) {
	t.Parallel()
	a := open(t, nats.Options{URL: shared.URL, Prefix: "apart"})
	b := open(t, nats.Options{URL: shared.URL, Prefix: "apart-1"})
	for _, channel := range []string{"news", "c.news", ""} {
		a.follow(channel)
		assert.Equal(t, broker.None, b.append(channel, event("0")).Receivers)
		b.follow(channel)
		a.append(channel, event(`"a"`))
		b.append(channel, event(`"b"`))
		assert.Equal(t, `"a"`, string(a.nextEvent().Data))
		assert.Equal(t, `"b"`, string(b.nextEvent().Data))
	}
	a.append("room", join("1"))
	assert.Empty(t, b.members("room"))
	nodes, err := a.Nodes(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{a.id}, nodes)
}

// An event that is not kept costs one message to the server, and one from it for each
// node that follows the channel.
func TestOneMessageForAnEvent(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	o := nats.Options{URL: s.URL}
	a, b := open(t, o), open(t, o)
	a.follow("news")
	b.follow("other")
	count := func() (in, out int) {
		var v struct {
			In  int `json:"in_msgs"`
			Out int `json:"out_msgs"`
		}
		monitored(t, s, "/varz", &v)
		return v.In, v.Out
	}
	in, out := count()
	for range 100 {
		a.append("news", event("1"))
		a.nextEvent()
	}
	in2, out2 := count()
	// Signs of life are messages, too, one in 20 s for each node.
	assert.InDelta(t, 100, in2-in, 10, "messages in")
	assert.InDelta(t, 100, out2-out, 10, "messages out")
}

func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	s.Stop()
	_, err := try(t, nats.Options{URL: s.URL, RequireAtStart: true}, time.Minute, nil)
	require.ErrorContains(t, err, "nats: Options.URL: "+s.URL+": ")
	log, logger := newSaid(t)
	n := open(t, nats.Options{URL: s.URL, Logger: logger})
	require.ErrorContains(t, n.Away(), "Options.URL")
	_, err = n.Follow(t.Context(), "news")
	require.ErrorIs(t, err, broker.ErrAway)
	_, err = n.Append(t.Context(), "news", event("lost"))
	require.ErrorIs(t, err, broker.ErrAway)
	assert.Equal(t, 1, log.lines("NATS is away"))
	require.NoError(t, s.Restart())
	n.nextReset("news")
	eventually(t, "it is not away", func() bool { return n.Away() == nil })
	other := open(t, nats.Options{URL: s.URL})
	other.append("news", event("1"))
	assert.Equal(t, "1", string(n.nextEvent().Data))
	eventually(t, "it is logged", func() bool { return log.lines("NATS is back") == 1 })
}

// Nodes of another format are not joined, and both versions are named.
func TestFormats(t *testing.T) {
	t.Parallel()
	_, js := admin(t, shared.URL)
	p := prefix(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: p + "-7-members", Subjects: []string{p + ".7.m.>"}})
	require.NoError(t, err)
	open(t, nats.Options{URL: shared.URL}) // the stream of the other format is unused
	_, err = js.Publish(t.Context(), p+".7.m.n.other", []byte("?"))
	require.NoError(t, err)
	_, err = try(t, nats.Options{URL: shared.URL}, time.Minute, nil)
	require.ErrorIs(t, err, broker.ErrVersion)
	assert.ErrorContains(t, err, "they have version 7, this node has version 1")
}

// Nodes that start together, or keep the first events of a kind together, all find that a
// stream is missing. Each makes it, and the server refuses all but one: as a name that is in
// use, or, when two requests meet inside it, as subjects that overlap.
func TestStreamsAreMadeByManyNodesAtOnce(t *testing.T) {
	t.Parallel()
	const nodes = 8
	for round := range 20 {
		var all sync.WaitGroup
		for range nodes {
			all.Go(func() {
				n, err := try(t, nats.Options{
					URL:     shared.URL,
					Prefix:  fmt.Sprint(prefix(t), "-", round),
					Timeout: 20 * time.Second,
				}, time.Minute, nil)
				if !assert.NoError(t, err) {
					return
				}
				kept := event("1")
				kept.Keep = broker.Keep{Size: 10, TTL: time.Minute}
				_, err = n.Append(t.Context(), "news", kept)
				assert.NoError(t, err)
				assert.NoError(t, n.Close(t.Context()))
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
	}
}

// A stream of another program that stores pushy's subjects is named as such.
func TestSubjectsOfAnotherStream(t *testing.T) {
	t.Parallel()
	_, js := admin(t, shared.URL)
	p := prefix(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: p + "-others", Subjects: []string{p + ".>"}})
	require.NoError(t, err)
	_, err = try(t, nats.Options{URL: shared.URL, RequireAtStart: true}, time.Minute, nil)
	var setting *nats.SettingError
	require.ErrorAs(t, err, &setting)
	assert.ErrorContains(t, err, "a stream of another program stores these subjects")
}

func TestSettingsThatDiffer(t *testing.T) {
	t.Parallel()
	log, logger := newSaid(t)
	for i := range 3 {
		grace := "15s"
		if i > 0 {
			grace = "30s"
		}
		o := nats.Options{URL: shared.URL, Timeout: 20 * time.Second}
		if i == 1 {
			o.Logger = logger
		}
		_, err := try(t, o, time.Minute, map[string]string{"Grace": grace, "Keys": "same"})
		require.NoError(t, err)
	}
	eventually(t, "it is logged", func() bool { return log.lines("option=Grace", "here=30s", "elsewhere=15s") == 1 })
	assert.Equal(t, 1, log.lines("different settings"))
}

// There are eight classes of Keep, and the ninth is an error.
func TestNinthClass(t *testing.T) {
	t.Parallel()
	a, b := open(t, nats.Options{URL: shared.URL}), open(t, nats.Options{URL: shared.URL})
	for i := range 8 {
		e := event("1")
		e.Keep = broker.Keep{Size: 16 << i, TTL: time.Minute}
		assert.Equal(t, uint64(1), a.append(fmt.Sprint("news-", i), e).At.Offset)
		e.Keep = broker.Keep{Size: 16<<i - 1, TTL: time.Hour}
		assert.Equal(t, uint64(2), b.append(fmt.Sprint("news-", i), e).At.Offset, "it is the same class")
	}
	e := event("1")
	e.Keep = broker.Keep{Size: 5000, TTL: time.Minute}
	_, err := a.Append(t.Context(), "news-9", e)
	require.ErrorContains(t, err, "8 classes of Keep")
	require.NotErrorIs(t, err, broker.ErrAway)
}

// When a channel's Keep changes the offset goes on, on all nodes, and back again; what
// was kept in the other class is not read.
func TestKeepChanges(t *testing.T) {
	t.Parallel()
	a, b := open(t, nats.Options{URL: shared.URL}), open(t, nats.Options{URL: shared.URL})
	b.follow("news")
	large := func(data string) broker.Entry {
		e := event(data)
		e.Keep = broker.Keep{Size: 1000, TTL: time.Hour}
		return e
	}
	var want []string
	last := broker.Position{}
	for i, e := range []broker.Entry{kept("1"), kept("2"), large("3"), large("4"), kept("5"), kept("6"), large("7")} {
		n := []*node{a, b}[i%2]
		at := n.append("news", e).At
		if i > 0 {
			assert.Equal(t, broker.Position{Epoch: last.Epoch, Offset: last.Offset + 1}, at)
		}
		last = at
		assert.Equal(t, at, b.nextEvent().At)
		want = append(want, string(e.Data))
	}
	p, err := a.Read(t.Context(), "news", broker.Range{Limit: 100})
	require.NoError(t, err)
	assert.Equal(t, last, p.Top)
	assert.Equal(t, uint64(7), p.First)
	assert.Len(t, p.Entries, 1)
	assert.Equal(t, want[6], string(p.Entries[0].Data))
}

// A kept event of this node is removed when its TTL is over, but for the last.
func TestEventsAreRemoved(t *testing.T) {
	t.Parallel()
	n, err := try(t, nats.Options{URL: shared.URL, Timeout: 20 * time.Second}, 4*time.Second, nil)
	require.NoError(t, err)
	var last broker.Position
	for range 10 {
		e := event("1")
		e.Keep = broker.Keep{Size: 20, TTL: time.Second}
		last = n.append("news", e).At
	}
	_, js := admin(t, shared.URL)
	eventually(t, "one is left", func() bool { return stored(t, js, prefix(t)+"-1-k32h48", prefix(t)+".1.k.*.news") == 1 })
	e := event("1")
	e.Keep = broker.Keep{Size: 20, TTL: time.Second}
	assert.Equal(t, broker.Position{Epoch: last.Epoch, Offset: last.Offset + 1}, n.append("news", e).At)
}

// An append that failed may be repeated with its ID, and an ID is of one channel.
func TestIDOfFailedAppend(t *testing.T) {
	t.Parallel()
	n := open(t, nats.Options{URL: shared.URL})
	e := leave("m1")
	e.ID = "request"
	_, err := n.Append(t.Context(), "room", e)
	require.ErrorIs(t, err, broker.ErrNotOwner)
	n.append("room", join("m1"))
	assert.False(t, n.append("room", e).Duplicate)
	assert.True(t, n.append("room", e).Duplicate)
}

// When no more ids can be remembered, an append with another one fails rather than that
// one is forgotten early. The nodes use the streams that are there.
func TestManyIDs(t *testing.T) {
	t.Parallel()
	_, js := admin(t, shared.URL)
	p := prefix(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:              p + "-1-ids",
		Subjects:          []string{p + ".1.i.*"},
		MaxMsgsPerSubject: 1,
		MaxMsgs:           3,
		Discard:           jetstream.DiscardNew,
	})
	require.NoError(t, err)
	n := open(t, nats.Options{URL: shared.URL})
	n.follow("news")
	for i := range 5 {
		e := event(`"said"`)
		e.ID = fmt.Sprint("request-", i)
		_, err := n.Append(t.Context(), "news", e)
		if i < 3 {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, broker.ErrBusy)
	}
	e := event(`"said"`)
	e.ID = "request-0"
	assert.True(t, n.append("news", e).Duplicate)
	_, err = n.Claim(t.Context(), "k", "d", time.Minute)
	require.ErrorIs(t, err, broker.ErrBusy)
	n.append("news", event(`"last"`))
	for range 3 {
		assert.Equal(t, `"said"`, string(n.nextEvent().Data))
	}
	assert.Equal(t, `"last"`, string(n.nextEvent().Data))
	require.NoError(t, n.Away())
}

// State.On is the same on a node that has followed the members from the start and on one
// that has just read what is stored, also after what was left was removed.
func TestOnIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	short := func() *node {
		n, err := try(t, nats.Options{URL: shared.URL, Timeout: 20 * time.Second}, shortLease, nil)
		require.NoError(t, err)
		return n
	}
	old := short()
	bare := func(id string) broker.Entry {
		e := join(id)
		e.Data = nil
		return e
	}
	want := map[string]bool{}
	script := func(channel string, on bool, entries ...broker.Entry) {
		for _, e := range entries {
			old.append(channel, e)
		}
		want[channel] = on
	}
	script("off", false, bare("1"), bare("2"), leave("1"))
	script("in", true, bare("1"), join("2"))
	script("chain", true, bare("1"), join("2"), bare("3"), leave("2"), leave("1"), bare("4"), leave("3"))
	script("anew", false, join("1"), leave("1"), bare("2"))
	script("again", true, bare("1"), join("2"), leave("2"), bare("2"))
	script("empty", false, join("1"), leave("1"))
	script("late", true, join("1"), bare("2"), leave("1"), bare("3"), leave("2"))
	check := func(when string) {
		fresh := short()
		for channel, on := range want {
			assert.Equal(t, on, old.follow(channel).On, "%s: %s", channel, when)
			assert.Equal(t, on, fresh.follow(channel).On, "%s: %s, fresh", channel, when)
		}
	}
	check("at once")
	_, js := admin(t, shared.URL)
	name := prefix(t) + "-1-members"
	subjects := prefix(t) + ".1.m.c.>"
	before := stored(t, js, name, subjects)
	eventually(t, "what is left is removed", func() bool { return stored(t, js, name, subjects) < before-8 })
	check("after the sweep")
}

// Messages of other programs on pushy's subjects have no effect, and one line a minute is
// logged.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	log, logger := newSaid(t)
	a, b := open(t, nats.Options{URL: s.URL, Logger: logger, Prefix: "pushy"}), open(t, nats.Options{URL: s.URL, Logger: logger, Prefix: "pushy"})
	a.append("room", kept("0"))
	a.append("room", join("first"))
	b.follow("room")
	nc, js := admin(t, s.URL)
	write := func(subject, data string) {
		_, err := js.Publish(t.Context(), subject, []byte(data))
		require.NoError(t, err)
	}
	stolen := nats.EncodedKept(broker.Position{Epoch: "other", Offset: 7}, kept("7"))
	plain := string(broker.AppendEntry([]byte("e"), join("ghost")))
	for name, data := range map[string]string{
		"empty":   "",
		"text":    "hello",
		"json":    `{"id":"x"}`,
		"zeros":   strings.Repeat("\x00", 100),
		"ones":    strings.Repeat("\xff", 100),
		"plain":   "e\x01\x01",
		"member":  plain,
		"kept":    "k\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"stolen":  string(stolen),
		"record":  "m\x01\x01\x01\x01\x01\x01\x01\xff",
		"records": "m" + strings.Repeat("\x7f", 200),
		"sign":    "n\xff\xff\xff\xff\x7f\xff\x01",
		"claim":   "c\x05a",
		"large":   strings.Repeat("x", 900<<10),
	} {
		for _, subject := range []string{"pushy.1.c.room", "pushy.1.c.%zz", "pushy.1.c.other"} {
			for _, header := range []natsgo.Header{
				nil,
				{"Nats-Stream": {"pushy-1-k64h48"}, "Nats-Sequence": {"x"}},
				{"Nats-Stream": {"pushy-1-k64h48"}, "Nats-Sequence": {"18446744073709551615"}},
				{"Nats-Stream": {"pushy-1-k64h48"}, "Nats-Sequence": {"4503599627370496"}},
				{"Nats-Stream": {"other"}, "Nats-Sequence": {"1"}},
			} {
				require.NoError(t, nc.PublishMsg(&natsgo.Msg{Subject: subject, Header: header, Data: []byte(data)}))
			}
		}
		for _, subject := range []string{
			"pushy.1.m.c.room.first", "pushy.1.m.c.room." + name, "pushy.1.m.c.%zz.x", "pushy.1.m.c.a.b.c", "pushy.1.m.n." + name, "pushy.1.m.n.%zz",
			"pushy.1.m.k.k1h1", "pushy.1.m.k.k64h48", "pushy.1.m.k.large", "pushy.1.m.x", "pushy.1.i.x", "pushy.1.l.x", "pushy.1.k.k64h48.room", "pushy.1.k.k64h48.%zz",
		} {
			write(subject, data)
		}
		for i, n := range []*node{a, b} {
			id := fmt.Sprint(name, i)
			n.append("room", join(id))
			n.append("room", leave(id))
			n.append("room", event(`"`+id+`"`))
			eventually(t, "an event is kept", func() bool {
				_, err := n.Append(t.Context(), "room", kept(`"`+id+`"`))
				return err == nil
			})
		}
	}
	require.NoError(t, nc.Flush())
	a.append("room", join("last"))
	eventually(t, "both have the same members", func() bool {
		return fmt.Sprint(a.members("room")) == fmt.Sprint(b.members("room")) && strings.Contains(fmt.Sprint(a.members("room")), "last")
	})
	assert.Equal(t, []string{"last"}, open(t, nats.Options{URL: s.URL, Prefix: "pushy"}).members("room"), "who is broken is no member")
	p, err := b.Read(t.Context(), "room", broker.Range{Limit: 100})
	require.NoError(t, err)
	for _, e := range p.Entries {
		assert.True(t, json.Valid(e.Data))
	}
	list, err := a.List(t.Context(), "")
	require.NoError(t, err)
	assert.Empty(t, list)
	require.NoError(t, a.Away())
	require.NoError(t, b.Away())
	assert.LessOrEqual(t, log.lines("skipped a message"), 4, "one line a minute for each node")
	assert.Zero(t, log.lines("panic"))
}

// Whoever is too slow for a channel's events is reset, and hears what comes after.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	a, b := open(t, nats.Options{URL: shared.URL}), open(t, nats.Options{URL: shared.URL})
	a.follow("news")
	nc, _ := admin(t, shared.URL)
	for range 2 {
		hold := make(chan struct{})
		a.hold.Store(&hold)
		b.append("news", event("1"))
		for range nats.QueueSize + 1000 {
			require.NoError(t, nc.Publish(prefix(t)+".1.c.news", []byte("x")))
		}
		require.NoError(t, nc.Flush())
		b.append("news", kept("2"))
		a.append("other", event("1")) // whose confirmation comes after all that
		a.hold.Store(nil)
		close(hold)
		a.nextReset("news")
		at := b.append("news", kept("3")).At
		assert.Equal(t, at, a.nextEvent().At)
	}
}

// If a node has missed kept events, it reads them from the log when it receives a later one,
// and delivers them in order. A message that contradicts the log has no effect.
func TestGapIsFilled(t *testing.T) {
	t.Parallel()
	nc, js := admin(t, shared.URL)
	p := prefix(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:              p + "-1-k64h48",
		Subjects:          []string{p + ".1.k.k64h48.*"},
		Storage:           jetstream.MemoryStorage,
		MaxMsgsPerSubject: 64,
		RePublish:         &jetstream.RePublish{Source: p + ".1.k.k64h48.*", Destination: p + ".elsewhere.{{wildcard(1)}}"},
	})
	require.NoError(t, err)
	n := open(t, nats.Options{URL: shared.URL})
	n.follow("news")
	tell := func(seq uint64, data []byte) {
		require.NoError(t, nc.PublishMsg(&natsgo.Msg{
			Subject: p + ".1.c.news",
			Header:  natsgo.Header{"Nats-Stream": {p + "-1-k64h48"}, "Nats-Sequence": {fmt.Sprint(seq)}},
			Data:    data,
		}))
	}
	var at broker.Position
	for i := range 40 {
		at = n.append("news", kept(fmt.Sprint(i))).At
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), p+".1.k.k64h48.news")
	require.NoError(t, err)
	tell(msg.Sequence, msg.Data)
	for i := range 40 {
		e := n.nextEvent()
		assert.Equal(t, fmt.Sprint(i), string(e.Data))
		assert.Equal(t, uint64(i), e.Prev)
		assert.Equal(t, broker.Position{Epoch: at.Epoch, Offset: uint64(i + 1)}, e.At)
	}
	tell(9000, nats.EncodedKept(broker.Position{Epoch: at.Epoch, Offset: 90}, kept("90")))
	tell(msg.Sequence, msg.Data)
	n.append("news", kept("40"))
	msg, err = stream.GetLastMsgForSubject(t.Context(), p+".1.k.k64h48.news")
	require.NoError(t, err)
	tell(msg.Sequence, msg.Data)
	assert.Equal(t, "40", string(n.nextEvent().Data))

	// What the log does not have any more is a gap.
	for i := range 70 {
		n.append("news", kept(fmt.Sprint(i)))
	}
	msg, err = stream.GetLastMsgForSubject(t.Context(), p+".1.k.k64h48.news")
	require.NoError(t, err)
	tell(msg.Sequence, msg.Data)
	got := n.nextReset("news")
	assert.Equal(t, broker.ResetGap, got.reason)
	assert.Equal(t, uint64(111), got.state.At.Offset)
}

// An entry of a member that has another owner follows one that was removed before it could
// be read: it is not delivered as if it were the next.
func TestEntryBeforeItIsMissing(t *testing.T) {
	t.Parallel()
	a, b := open(t, nats.Options{URL: shared.URL}), open(t, nats.Options{URL: shared.URL})
	_, js := admin(t, shared.URL)
	stream, err := js.Stream(t.Context(), prefix(t)+"-1-members")
	require.NoError(t, err)
	for i, e := range []broker.Entry{
		{Kind: broker.Leave, Owner: "new"},
		{Kind: broker.Update, Owner: "new", Data: json.RawMessage(`{}`)},
		{Kind: broker.Adopt, OldOwner: "new", Owner: "newer"},
	} {
		channel := fmt.Sprint("missing-", i)
		subject := prefix(t) + ".1.m.c." + channel + ".m1"
		b.follow(channel)
		a.append(channel, join("m1"))
		require.Equal(t, broker.Join, b.nextMember().Kind)
		m, err := stream.GetLastMsgForSubject(t.Context(), subject)
		require.NoError(t, err)
		entry := bytes.LastIndex(m.Data, []byte{broker.FormatVersion, 1, 1, byte(broker.Join)})
		require.Positive(t, entry)
		e.Member = "m1"
		// The record says when the member joined, after a byte each for its form and its flag.
		next := binary.AppendUvarint(bytes.Clone(m.Data[:2]), m.Sequence)
		next = broker.AppendEntry(append(next, m.Data[3:entry]...), e)
		_, err = js.Publish(t.Context(), subject, next)
		require.NoError(t, err)
		got := b.next(func(n news) bool { return n.channel == channel })
		require.NotNil(t, got.state, "%+v", got.entry)
	}
}

// The cost of reading a few events does not depend on the number of events that are kept, nor
// does that of reading any part of a long log.
func TestReadOfALongLog(t *testing.T) {
	t.Parallel()
	const events = 3000
	s := ownNATS(t)
	a := open(t, nats.Options{URL: s.URL, Timeout: 20 * time.Second})
	e := kept("x")
	e.Keep = broker.Keep{Size: events, TTL: time.Hour, Bytes: 1 << 20}
	other := kept("other")
	other.Keep = e.Keep
	var top broker.Position
	for i := range events + 10 {
		top = a.append("long", e).At
		if i%100 == 0 {
			a.append("other", other)
		}
	}
	requests := func(do func()) int {
		var before, after struct {
			InMsgs int `json:"in_msgs"`
		}
		require.NoError(t, s.Monitored("/varz", &before))
		do()
		require.NoError(t, s.Monitored("/varz", &after))
		return after.InMsgs - before.InMsgs
	}
	for name, c := range map[string]struct {
		r           broker.Range
		first, last uint64
		more        bool
	}{
		"end":       {broker.Range{Epoch: top.Epoch, After: top.Offset - 5, Limit: 500}, top.Offset - 4, top.Offset, false},
		"newest":    {broker.Range{Before: top.Offset + 1, Limit: 20}, top.Offset - 19, top.Offset, true},
		"beginning": {broker.Range{Limit: 20}, 11, 30, true},
		"oldest":    {broker.Range{Before: 25, Limit: 20}, 11, 24, false},
		"middle":    {broker.Range{After: 1500, Limit: 20}, 1501, 1520, true},
		"before":    {broker.Range{Before: 1500, Limit: 20}, 1480, 1499, true},
	} {
		var page broker.Page
		n := requests(func() {
			var err error
			page, err = a.Read(t.Context(), "long", c.r)
			require.NoError(t, err, name)
		})
		assert.Less(t, n, 150, "requests, %s", name) // some are of the node's lease
		assert.Equal(t, uint64(11), page.First, name)
		assert.Equal(t, top, page.Top, name)
		assert.Equal(t, c.more, page.More, name)
		require.Len(t, page.Entries, int(c.last-c.first+1), name)
		for i, e := range page.Entries {
			require.Equal(t, broker.Position{Epoch: top.Epoch, Offset: c.first + uint64(i)}, e.At, name)
		}
	}

	// The bytes that are kept are those of the newest events.
	e.Keep.Bytes = 700
	top = a.append("long", e).At
	page, err := a.Read(t.Context(), "long", broker.Range{Limit: 10})
	require.NoError(t, err)
	assert.Equal(t, top.Offset-699, page.First)
	require.Len(t, page.Entries, 10)
	assert.Equal(t, page.First, page.Entries[0].At.Offset)
}
