package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

func startForeign(t *testing.T) (*foreign, *pushy.Server, *testlog.Log) {
	f, log := newForeign(), &testlog.Log{}
	srv := startOn(t, f, pushy.Options{Logger: log.Logger()})
	return f, srv, log
}

// Issue 11, number 2. What a broker delivers is not trusted: what is broken reaches
// no client, all else does, and the log has one line.
func TestBrokenEventsAreSkipped(t *testing.T) {
	t.Parallel()
	f, srv, log := startForeign(t)
	p := connectPeer(t, srv)
	p.subscribe("news", "")
	f.says("news", "first", `{}`)
	p.expect("first news {}")
	for _, e := range []struct{ event, data string }{
		{"said", ""},
		{"said", " "},
		{"said", `{"a":`},
		{"said", `{} {}`},
		{"said", `{},"channel":"private-x"`},
		{"said", `}{`},
		{"said", `undefined`},
		{"said", "\"\n\""},
		{"said", "\"\xff\""},
		{"said", "\"\xed\xa0\x80\""},
		{"said", `"` + strings.Repeat("x", 16<<20) + `"`},
		{"said", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)},
		{"", `{}`},
		{"\xff", `{}`},
		{"a\x00b", `{}`},
		{strings.Repeat("x", 201), `{}`},
		{"pushy:connect", `{}`},
		{"pushy:subscription-end", `{}`},
		{"PUSHY:presence-sync", `{"presence":[]}`},
		{"pushy:resync", `{}`},
		{"Pushy:resync", `{}`},
	} {
		f.says("news", e.event, e.data)
	}
	for _, e := range []broker.Entry{
		{},
		{Kind: broker.Adopt + 1, Member: "m", Event: "said", Data: json.RawMessage(`{}`)},
		{Kind: broker.Event, Event: "said", Data: json.RawMessage(`{}`), At: broker.Position{Offset: 1 << 63}},
	} {
		f.sink.Deliver("news", e)
	}
	p.quiet()
	f.says("news", "said", ` {"a" : 1 } `) // blanks are harmless
	p.expect(`said news {"a":1}`)
	f.says("news", `App\Events\"Said"`, `{}`) // other protocols have such names
	p.expect(`App\Events\"Said" news {}`)
	f.says("other", "\xff", "") // nobody is in it
	f.says("\xff", "said", `{}`)
	p.quiet()
	assert.Len(t, log.With("skipped an invalid entry from the broker"), 1)
	assert.Len(t, log.With("level="), 1)
}

func foreignMember(id, data string) broker.Member {
	return broker.Member{
		ID:    id,
		Owner: "others",
		Data:  json.RawMessage(data),
	}
}

// brokenMembers are not shown to clients, each for a reason of its own.
var brokenMembers = map[string]broker.Member{
	"blank":     foreignMember("a", ` `),
	"half":      foreignMember("a", `{"name":"a"`),
	"two":       foreignMember("a", `{"name":"a"},{"name":"b"}`),
	"array":     foreignMember("a", `["name","a"]`),
	"text":      foreignMember("a", `"a"`),
	"null":      foreignMember("a", `null`),
	"utf8":      foreignMember("a", `{"name":"`+"\xff"+`"}`),
	"emptyID":   foreignMember("", `{}`),
	"quotedID":  foreignMember(`a"b`, `{}`),
	"binaryID":  foreignMember("\xff", `{}`),
	"longID":    foreignMember(strings.Repeat("a", 65), `{}`),
	"longOwner": {ID: "a", Owner: strings.Repeat("o", 129), Data: json.RawMessage(`{}`)},
	"longUser":  {ID: "a", Owner: "o", User: strings.Repeat("u", 129), Data: json.RawMessage(`{}`)},
	"large":     foreignMember("a", `{"name":"`+strings.Repeat("x", 300<<10)+`"}`),
	"deep":      foreignMember("a", `{"a":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`}`),
}

// others is a revision that this node has not appended.
func others(n uint64) broker.Position {
	return broker.Position{
		Epoch:  "others",
		Offset: n,
	}
}

func joins(m broker.Member, revision uint64) broker.Entry {
	return broker.Entry{
		Kind:   broker.Join,
		Member: m.ID,
		Owner:  m.Owner,
		User:   m.User,
		Data:   m.Data,
		At:     others(revision),
	}
}

func leaves(id string, revision uint64) broker.Entry {
	return broker.Entry{
		Kind:   broker.Leave,
		Member: id,
		Owner:  "others",
		At:     others(revision),
	}
}

// Issue 11, number 2. Members that others wrote into the store are checked one by one,
// in the State that a node begins with, in every entry and in every Reset.
func TestBrokenMembersAreSkipped(t *testing.T) {
	t.Parallel()
	for name, broken := range brokenMembers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, srv, log := startForeign(t)
			bob, cyd := foreignMember("bob", `{}`), foreignMember("cyd", ` { "n" : 1 } `)
			f.start = &broker.State{
				Revision: others(5),
				On:       true,
				Members:  []broker.Member{broken, bob, broken, bob},
			}
			p := connectPeer(t, srv)
			success := p.subscribe("private-room", `{"name":"Ann"}`)
			ids, _ := memberIDs(success.Data, "presence")
			self := success.field("memberId")
			assert.Equal(t, []string{"bob", self}, ids)

			f.sink.Deliver("private-room", joins(broken, 7))
			f.sink.Deliver("private-room", leaves(broken.ID, 8))
			f.sink.Deliver("private-room", joins(cyd, 9))
			p.expect(`pushy:presence-add private-room {"member":{"n":1,"subscribed":0,"memberId":"cyd","idle":false}}`)
			f.sink.Deliver("private-room", joins(foreignMember("dan", `{}`), 1<<64-1))
			f.sink.Deliver("private-room", leaves("cyd", 10))
			p.expect(`pushy:presence-quit private-room {"member":{"n":1,"subscribed":0,"memberId":"cyd","idle":false}}`)

			f.sink.Reset("private-room", broker.State{
				Revision: others(1),
				On:       true,
				Members:  []broker.Member{cyd, broken, bob},
			}, broker.ResetEpoch)
			sync := p.next()
			assert.Equal(t, "pushy:presence-sync", sync.Event)
			ids, _ = memberIDs(sync.Data, "presence")
			assert.Equal(t, []string{"cyd", "bob", self}, ids)
			p.expect("pushy:resync private-room {}")
			f.sink.Reset("private-room", broker.State{
				Revision: others(1<<64 - 1),
				On:       true,
			}, broker.ResetEpoch)
			p.quiet()
			assert.Len(t, log.With("skipped an invalid member from the broker"), 1)
			assert.Len(t, log.With("skipped an invalid entry from the broker"), 1)
			assert.Len(t, log.With("skipped an invalid state from the broker"), 1)
			assert.Len(t, log.With("level="), 3)
		})
	}
}

// A Leave, Update or Adopt that names another owner than the member has changes nothing,
// even if a broker delivers it: it is late, and the member has come back elsewhere.
func TestEntriesOfAnotherOwnerChangeNothing(t *testing.T) {
	t.Parallel()
	f, srv, _ := startForeign(t)
	ann := connectPeer(t, srv)
	self := ann.subscribe("private-room", `{"name":"Ann"}`).field("memberId")
	bob := foreignMember("bob", `{"name":"Bob"}`)
	f.sink.Deliver("private-room", joins(bob, 1))
	ann.expect(`pushy:presence-add private-room {"member":{"name":"Bob","subscribed":0,"memberId":"bob","idle":false}}`)
	revision := uint64(1)
	deliver := func(kind broker.Kind, member, owner, old string) {
		revision++
		f.sink.Deliver("private-room", broker.Entry{
			Kind:     kind,
			Member:   member,
			Owner:    owner,
			OldOwner: old,
			Data:     json.RawMessage(`{"name":"Wrong"}`),
			At:       others(revision),
		})
	}
	for _, id := range []string{"bob", self} {
		deliver(broker.Leave, id, "somebody", "")
		deliver(broker.Update, id, "somebody", "")
		deliver(broker.Adopt, id, "thief", "somebody")
		deliver(broker.Join, id, "somebody", "")
		deliver(broker.Leave, id, "somebody", "")
	}
	ann.quiet()
	assert.Equal(t, []string{"Ann", "Bob"}, membersOf(t, srv, "private-room"))
	assert.Equal(t, []string{"private-room"}, ann.conn(srv).Channels())

	deliver(broker.Adopt, "bob", "new", "others")
	deliver(broker.Leave, "bob", "others", "")
	ann.quiet()
	deliver(broker.Leave, "bob", "new", "")
	ann.expect(`pushy:presence-quit private-room {"member":{"name":"Bob","subscribed":0,"memberId":"bob","idle":false}}`)
}

// The fields that the server gives a member are its own, whatever the data says.
func TestMembersFromElsewhereHaveTheirOwnID(t *testing.T) {
	t.Parallel()
	f, srv, _ := startForeign(t)
	p := connectPeer(t, srv)
	p.subscribe("private-room", `{"name":"Ann"}`)
	for i, data := range []string{
		`{"memberId":"ann","idle":true,"subscribed":"never"}`,
		`{"memberId":"ann","memberId":"ben"}`,
		`{"memberId":"ann","memberI\u0064":"ben"}`,
	} {
		f.sink.Deliver("private-room", joins(foreignMember("bob", data), uint64(2*i+1)))
		var add struct{ Member map[string]any }
		require.NoError(t, json.Unmarshal(p.next().Data, &add))
		assert.Equal(t, map[string]any{"memberId": "bob", "idle": false, "subscribed": 0.0}, add.Member, data)
		f.sink.Deliver("private-room", leaves("bob", uint64(2*i+2)))
		assert.Equal(t, "pushy:presence-quit", p.event())
	}
	p.quiet()
}

// A State that is out of all proportion is no list: the node keeps what it has.
func TestOversizedStateIsSkipped(t *testing.T) {
	t.Parallel()
	f, srv, log := startForeign(t)
	p := connectPeer(t, srv)
	p.subscribe("private-room", `{"name":"Ann"}`)
	f.sink.Reset("private-room", broker.State{
		Revision: others(9),
		On:       true,
		Members:  make([]broker.Member, 1_000_001),
	}, broker.ResetGap)
	p.quiet()
	assert.Len(t, log.With("skipped an invalid state from the broker"), 1)
}

// Issue 11, number 2. A panic of a broker is an error of that one call: it ends no
// process, and is logged with its stack once a minute.
func TestPanicOfABrokerIsAnError(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Event", "Follow", "Unfollow", "Join", "Leave", "Close"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			f, srv, log := startForeign(t)
			p := connectPeer(t, srv)
			p.subscribe("private-before", "")
			f.panicIn(call)
			refused := call == "Follow" || call == "Join"
			for range 3 {
				p.send(subscribeText(t, p.id, "private-room", ""))
				if refused {
					answer := p.next()
					assert.Equal(t, "pushy:subscription-failed", answer.Event)
					assert.Equal(t, "Temporarily unavailable", answer.field("reason"))
					continue
				}
				assert.Equal(t, "pushy:subscription-success", p.next().Event)
				err := srv.Publish(t.Context(), "private-before", "said", 1)
				if call == "Event" {
					assert.ErrorContains(t, err, "Broker.Append: panic: the store of Event")
				} else {
					assert.NoError(t, err)
					p.expect("said private-before 1")
				}
				p.send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
				assert.Equal(t, "pushy:subscription-end", p.next().Event)
			}
			p.quiet()
			go p.ended()
			err := srv.Shutdown(t.Context())
			if call == "Close" {
				assert.ErrorContains(t, err, "the store of Close")
			}
			panicked := log.With("a call of the broker panicked")
			require.Len(t, panicked, 1)
			assert.Contains(t, panicked[0], "stack=")
		})
	}
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		f := newForeign()
		f.panics = "Open"
		_, err := pushy.New(pushy.Options{
			SecretKey: peerKey,
			Broker:    f,
			Logger:    slog.New(slog.DiscardHandler),
		})
		assert.ErrorContains(t, err, "pushy: open broker: Broker.Open: panic: the store of Open")
	})
}

// What the other nodes would skip is an error where it is published.
func TestTooLargeForABroker(t *testing.T) {
	t.Parallel()
	_, srv, _ := startForeign(t)
	err := srv.Publish(t.Context(), "news", "said", strings.Repeat("x", 16<<20))
	assert.ErrorContains(t, err, "over the limit of 16777216")
	assert.ErrorIs(t, err, broker.ErrTooLarge)
	assert.NoError(t, startServer(t, pushy.Options{}).Publish(t.Context(), "news", "said", strings.Repeat("x", 16<<20)))
}

// Nodes that do not fit together are found by what each tells its broker, which has
// nothing of a key that could be guessed from.
func TestSettingsOfNodes(t *testing.T) {
	t.Parallel()
	settings := func(o pushy.Options) (got map[string]string) {
		b := &altered{Broker: memory.New()}
		b.open = func(ctx context.Context, options broker.OpenOptions, sink broker.Sink) error {
			got = options.Settings
			assert.Equal(t, memberLease, options.Lease)
			assert.NotEmpty(t, options.Node)
			return b.Broker.Open(ctx, options, sink)
		}
		startOn(t, b, o)
		return got
	}
	const keys = "SecretKey and OldSecretKeys"
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	first := settings(pushy.Options{SecretKey: one})
	require.Len(t, first, 7)
	assert.Equal(t, "not set", first["Channel"])
	set := func(string) pushy.ChannelOptions { return pushy.ChannelOptions{} }
	assert.Equal(t, "set", settings(pushy.Options{Channel: set})["Channel"])
	assert.Equal(t, "262144", first["Limits.KeepBytes"])
	assert.Equal(t, "-1", settings(pushy.Options{Limits: pushy.Limits{KeepBytes: -3}})["Limits.KeepBytes"])
	assert.Equal(t, "15s", first["Grace"])
	assert.Equal(t, "1000", first["Limits.Members"])
	assert.Equal(t, "100000", first["Limits.PagedMembers"])
	assert.Equal(t, "-1", settings(pushy.Options{Limits: pushy.Limits{Members: -7}})["Limits.Members"])
	assert.Equal(t, first, settings(pushy.Options{SecretKey: one}))
	assert.Len(t, first[keys], 4, "a longer one would confirm a guess")
	assert.NotEqual(t, first[keys], settings(pushy.Options{SecretKey: two})[keys])
	both := settings(pushy.Options{SecretKey: one, OldSecretKeys: []string{two}})
	assert.NotEqual(t, first[keys], both[keys])
	assert.Equal(t, both, settings(pushy.Options{SecretKey: two, OldSecretKeys: []string{one, two}}), "each takes what the other signs")
	assert.Equal(t, "none", settings(pushy.Options{DisableTrigger: true, Authorizer: allowAll{}})[keys])

	// broker/memory compares them, as the others do.
	log := &testlog.Log{}
	cluster := memory.NewCluster(memory.Options{Logger: log.Logger()})
	for _, key := range []string{one, two, two} {
		startOn(t, cluster.Broker(), pushy.Options{SecretKey: key})
	}
	require.Len(t, log.With("level=WARN"), 1)
	assert.Contains(t, log.With("level=WARN")[0], fmt.Sprintf("option=%q", keys))
}

// FuzzArrivals: whatever a broker delivers, each frame that a client gets is one JSON
// value of valid UTF-8, and no event of the protocol's own is forged.
func FuzzArrivals(f *testing.F) {
	f.Add("said", []byte(`{"a":1}`), "bob", []byte(`{"name":"bob"}`), uint64(7), true)
	f.Add("pushy:connect", []byte(`{}`), "", []byte(`{"memberId":""}`), uint64(1<<64-1), false)
	f.Add("\xff", []byte("\"\xff\""), "a\"b", []byte(`{"memberId":"a\"b"}`), uint64(0), true)
	f.Fuzz(func(t *testing.T, event string, data []byte, id string, member []byte, revision uint64, left bool) {
		m := foreignMember(id, string(member))
		s := broker.State{
			Revision: others(1),
			On:       true,
			Members:  []broker.Member{m, m},
		}
		b := newForeign()
		b.start = &s
		srv := startOn(t, b, pushy.Options{})
		p := connectPeer(t, srv)
		p.subscribe("private-room", `{"name":"Ann"}`)
		b.sink.Deliver("private-room", broker.Entry{
			Kind:   broker.Event,
			Event:  event,
			Data:   data,
			Except: []string{id},
		})
		b.sink.Deliver("private-room", joins(m, revision))
		if left {
			b.sink.Deliver("private-room", leaves(id, revision+1))
		}
		update := joins(m, revision+2)
		update.Kind = broker.Update
		b.sink.Deliver("private-room", update)
		b.sink.Reset("private-room", broker.State{
			Revision: others(revision),
			On:       left,
			Members:  []broker.Member{m},
		}, event)
		b.says("private-room", "last", "0")
		for {
			frame := p.next() // which fails for what is no JSON
			if frame.Event == "last" {
				break
			}
			require.True(t, utf8.Valid(frame.Data))
			if strings.HasPrefix(strings.ToLower(frame.Event), "pushy:") {
				require.Contains(t, []string{"pushy:presence-sync", "pushy:presence-add", "pushy:presence-quit", "pushy:resync"}, frame.Event)
			} else {
				require.Equal(t, event, frame.Event)
			}
		}
		require.NoError(t, srv.Close())
	})
}
