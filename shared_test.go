package pushy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// foreign is a Broker and PresenceStore whose engine anybody writes to: the test
// delivers what it likes. Each call can be made to panic.
type foreign struct {
	mu      sync.Mutex
	deliver func(string, pushy.Message)
	apply   func(pushy.Change)
	start   pushy.Snapshot
	panics  string // the call that panics
	fail    func() // instead of a panic, if it is not nil
	closes  int
}

func (f *foreign) enter(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics != call {
		return
	}
	if f.fail != nil {
		f.fail()
	}
	panic("the engine of " + call)
}

func (f *foreign) Open(_ context.Context, deliver func(string, pushy.Message)) error {
	f.enter("Open")
	f.deliver = deliver
	return nil
}

func (f *foreign) Publish(_ context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	f.enter("Publish")
	f.deliver(channel, m)
	return pushy.Unknown, nil
}

func (f *foreign) Subscribe(context.Context, string) error {
	f.enter("Subscribe")
	return nil
}

func (f *foreign) Unsubscribe(context.Context, string) error {
	f.enter("Unsubscribe")
	return nil
}

func (f *foreign) Join(_ context.Context, _ string, m pushy.Member) error {
	f.enter("Join")
	f.mu.Lock()
	f.start.Revision++
	c := pushy.Change{Revision: f.start.Revision, Member: m}
	f.mu.Unlock()
	f.apply(c)
	return nil
}

func (f *foreign) Leave(context.Context, string, string) error {
	f.enter("Leave")
	return nil
}

func (f *foreign) Watch(_ context.Context, _ string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	f.enter("Watch")
	f.apply = apply
	return f.start, nil
}

func (f *foreign) Close() error {
	f.mu.Lock()
	f.closes++
	f.mu.Unlock()
	f.enter("Close")
	return nil
}

func (f *foreign) Away() error {
	f.enter("Away")
	return nil
}

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) with(part string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

func startForeign(t *testing.T) (*foreign, *pushy.Server, *lines) {
	f, log := &foreign{}, &lines{}
	srv := startServer(t, pushy.Options{Broker: f, Logger: slog.New(slog.NewTextHandler(log, nil))})
	return f, srv, log
}

// Issue 11, number 2. What a Broker delivers is not trusted: what is broken reaches
// no client, all else does, and the log has one line.
func TestBrokenMessagesAreSkipped(t *testing.T) {
	t.Parallel()
	f, srv, log := startForeign(t)
	p := connectPeer(t, srv)
	p.subscribe("news", "")
	f.deliver("news", pushy.Message{Event: "first", Data: json.RawMessage(`{}`)})
	p.expect("first news {}")
	for _, m := range []pushy.Message{
		{Event: "said"},
		{Event: "said", Data: json.RawMessage(" ")},
		{Event: "said", Data: json.RawMessage(`{"a":`)},
		{Event: "said", Data: json.RawMessage(`{} {}`)},
		{Event: "said", Data: json.RawMessage(`{},"channel":"private-x"`)},
		{Event: "said", Data: json.RawMessage(`}{`)},
		{Event: "said", Data: json.RawMessage(`undefined`)},
		{Event: "said", Data: json.RawMessage("\"\n\"")},
		{Event: "said", Data: json.RawMessage("\"\xff\"")},
		{Event: "said", Data: json.RawMessage("\"\xed\xa0\x80\"")},
		{Event: "said", Data: json.RawMessage(`"` + strings.Repeat("x", 16<<20) + `"`)},
		{Event: "said", Data: json.RawMessage(strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000))},
		{Event: "", Data: json.RawMessage(`{}`)},
		{Event: "\xff", Data: json.RawMessage(`{}`)},
		{Event: "a\x00b", Data: json.RawMessage(`{}`)},
		{Event: `a"b`, Data: json.RawMessage(`{}`)},
		{Event: strings.Repeat("x", 201), Data: json.RawMessage(`{}`)},
		{Event: "pushy:connect", Data: json.RawMessage(`{}`)},
		{Event: "pushy:subscription-end", Data: json.RawMessage(`{}`)},
		{Event: "PUSHY:presence-sync", Data: json.RawMessage(`{"presence":[]}`)},
		{Event: "pushy:resync2", Data: json.RawMessage(`{}`)},
		{Event: "Pushy:resync", Data: json.RawMessage(`{}`)},
	} {
		f.deliver("news", m)
	}
	p.quiet()
	// Blanks are harmless, and a resync says the same whatever its data is.
	f.deliver("news", pushy.Message{Event: "said", Data: json.RawMessage(` {"a" : 1 } `)})
	p.expect(`said news {"a":1}`)
	f.deliver("news", pushy.Message{Event: pushy.EventResync, Data: json.RawMessage(`{"broken`)})
	p.expect("pushy:resync news {}")
	f.deliver("other", pushy.Message{Event: "\xff"}) // nobody is in it
	f.deliver("\xff", pushy.Message{Event: "said", Data: json.RawMessage(`{}`)})
	p.quiet()
	assert.Len(t, log.with("skipped a broken message from the broker"), 1)
	assert.Len(t, log.with("level="), 1)
}

func foreignMember(id, more string) pushy.Member {
	return pushy.Member{ID: id, HasData: true, JSON: json.RawMessage(fmt.Sprintf(`{"memberId":%q,"subscribed":5,"idle":false%s}`, id, more))}
}

// brokenMembers are not shown to clients, each for a reason of its own.
var brokenMembers = map[string]pushy.Member{
	"noJSON":        {ID: "a", HasData: true},
	"half":          {ID: "a", HasData: true, JSON: json.RawMessage(`{"memberId":"a"`)},
	"two":           {ID: "a", HasData: true, JSON: json.RawMessage(`{"memberId":"a"},{"memberId":"b"}`)},
	"array":         {ID: "a", HasData: true, JSON: json.RawMessage(`["memberId","a"]`)},
	"null":          {ID: "a", HasData: true, JSON: json.RawMessage(`null`)},
	"utf8":          foreignMember("a", `,"name":"`+"\xff"+`"`),
	"noMemberID":    {ID: "a", HasData: true, JSON: json.RawMessage(`{"name":"Ann"}`)},
	"otherMemberID": {ID: "a", HasData: true, JSON: json.RawMessage(`{"memberId":"b"}`)},
	"numericID":     {ID: "1", HasData: true, JSON: json.RawMessage(`{"memberId":1}`)},
	"memberIDTwice": {ID: "a", HasData: true, JSON: json.RawMessage(`{"memberId":"b","memberId":"a"}`)},
	"escapedTwice":  {ID: "a", HasData: true, JSON: json.RawMessage(`{"memberId":"a","memberI\u0064":"b"}`)},
	"emptyID":       foreignMember("", ""),
	"quotedID":      {ID: `a"b`, HasData: true, JSON: json.RawMessage(`{"memberId":"a\"b"}`)},
	"binaryID":      {ID: "\xff", HasData: true, JSON: json.RawMessage(`{"memberId":"` + "\xff" + `"}`)},
	"longID":        foreignMember(strings.Repeat("a", 65), ""),
	"large":         foreignMember("a", `,"name":"`+strings.Repeat("x", 300<<10)+`"`),
	"deep":          foreignMember("a", `,"a":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)),
}

// Issue 11, number 2. Members that others wrote into the store are checked one by one,
// in the list that a node begins with, in every entry and in every State.
func TestBrokenMembersAreSkipped(t *testing.T) {
	t.Parallel()
	for name, broken := range brokenMembers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, srv, log := startForeign(t)
			bob, cyd := foreignMember("bob", ""), foreignMember("cyd", ` , "n" : 1`)
			f.start = pushy.Snapshot{Revision: 5, On: true, Members: []pushy.Member{broken, bob, broken, bob}}
			p := connectPeer(t, srv)
			success := p.subscribe("private-room", `{"name":"Ann"}`)
			ids, _ := memberIDs(success.Data, "presence")
			self := success.field("memberId")
			assert.Equal(t, []string{"bob", self}, ids)

			f.apply(pushy.Change{Revision: 7, Member: broken})
			f.apply(pushy.Change{Revision: 8, Left: true, Member: pushy.Member{ID: broken.ID}})
			f.apply(pushy.Change{Revision: 9, Member: cyd})
			p.expect(`pushy:presence-add private-room {"member":{"memberId":"cyd","subscribed":5,"idle":false,"n":1}}`)
			f.apply(pushy.Change{Revision: 1<<64 - 1, Member: foreignMember("dan", "")})
			f.apply(pushy.Change{Revision: 10, Left: true, Member: pushy.Member{ID: "cyd"}})
			p.expect(`pushy:presence-quit private-room {"member":{"memberId":"cyd","subscribed":5,"idle":false,"n":1}}`)

			f.apply(pushy.Change{State: &pushy.Snapshot{Revision: 1, On: true, Members: []pushy.Member{cyd, broken, bob}}})
			sync := p.next()
			assert.Equal(t, "pushy:presence-sync", sync.Event)
			ids, _ = memberIDs(sync.Data, "presence")
			assert.Equal(t, []string{"cyd", "bob", self}, ids)
			f.apply(pushy.Change{State: &pushy.Snapshot{Revision: 1<<64 - 1, On: true}})
			p.quiet()
			assert.Len(t, log.with("skipped a broken member from the presence store"), 1)
			assert.LessOrEqual(t, len(log.with("level=")), 2)
		})
	}
}

// A State that is out of all proportion is no list: the node keeps what it has.
func TestOversizedStateIsSkipped(t *testing.T) {
	t.Parallel()
	f, srv, log := startForeign(t)
	p := connectPeer(t, srv)
	p.subscribe("private-room", `{"name":"Ann"}`)
	f.apply(pushy.Change{State: &pushy.Snapshot{Revision: 9, On: true, Members: make([]pushy.Member, 1_000_001)}})
	p.quiet()
	assert.Len(t, log.with("skipped a broken entry from the presence store"), 1)
}

// Issue 11, number 2. A panic of a Broker or PresenceStore is an error of that one
// call: it ends no process, and is logged with its stack once a minute.
func TestPanicOfABrokerIsAnError(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Publish", "Subscribe", "Unsubscribe", "Join", "Leave", "Watch", "Close"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			f, srv, log := startForeign(t)
			p := connectPeer(t, srv)
			p.subscribe("private-before", "")
			f.mu.Lock()
			f.panics = call
			f.mu.Unlock()
			refused := call == "Subscribe" || call == "Join" || call == "Watch"
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
				if call == "Publish" {
					assert.ErrorContains(t, err, "the engine of Publish")
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
				assert.ErrorContains(t, err, "the engine of Close")
			}
			panicked := log.with("a call to the broker or presence store panicked")
			require.Len(t, panicked, 1)
			assert.Contains(t, panicked[0], "stack=")
		})
	}
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		_, err := pushy.New(pushy.Options{SecretKey: peerKey, Broker: &foreign{panics: "Open"}, Logger: slog.New(slog.DiscardHandler)})
		assert.ErrorContains(t, err, "pushy: open broker: Broker.Open: panic: the engine of Open")
	})
}

// What the other nodes would skip is an error where it is published.
func TestTooLargeForABroker(t *testing.T) {
	t.Parallel()
	_, srv, _ := startForeign(t)
	err := srv.Publish(t.Context(), "news", "said", strings.Repeat("x", 16<<20))
	assert.ErrorContains(t, err, "over the limit of 16777216")
	assert.NoError(t, startServer(t, pushy.Options{}).Publish(t.Context(), "news", "said", strings.Repeat("x", 16<<20)))
}

// brokerOnly and storeOnly hide what else a foreign can do.
type (
	brokerOnly struct{ pushy.Broker }
	storeOnly  struct{ pushy.PresenceStore }
)

// Issue 11, number 11. A Broker that is a PresenceStore serves as both; one that is
// not must not leave each Server with members of its own.
func TestBrokerWithoutPresence(t *testing.T) {
	t.Parallel()
	_, err := pushy.New(pushy.Options{SecretKey: peerKey, Broker: brokerOnly{&foreign{}}})
	require.ErrorContains(t, err, "pushy: Options.Broker is set, but Options.Presence is not, and pushy_test.brokerOnly is no PresenceStore")
	assert.ErrorContains(t, err, "set Options.Presence")

	for name, o := range map[string]func(*foreign) pushy.Options{
		"broker":   func(f *foreign) pushy.Options { return pushy.Options{Broker: f} },
		"presence": func(f *foreign) pushy.Options { return pushy.Options{Presence: f} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &foreign{start: pushy.Snapshot{Revision: 5, On: true, Members: []pushy.Member{foreignMember("bob", "")}}}
			srv := startServer(t, o(f))
			p := connectPeer(t, srv)
			ids, _ := memberIDs(p.subscribe("private-room", `{"name":"Ann"}`).Data, "presence")
			assert.Len(t, ids, 2)
			f.deliver("private-room", pushy.Message{Event: "said", Data: json.RawMessage("1")})
			p.expect("said private-room 1")
			require.NoError(t, srv.Close())
			assert.Equal(t, 1, f.closes)
		})
	}
	t.Run("storeOnly", func(t *testing.T) {
		t.Parallel()
		f := &foreign{}
		srv := startServer(t, pushy.Options{Presence: storeOnly{f}})
		connectPeer(t, srv).subscribe("private-room", "")
		require.NoError(t, srv.Close())
		assert.Equal(t, 1, f.closes)
	})
	t.Run("two", func(t *testing.T) {
		t.Parallel()
		f, other := &foreign{}, &foreign{}
		srv := startServer(t, pushy.Options{Broker: f, Presence: other})
		require.NoError(t, srv.Close())
		assert.Equal(t, []int{1, 1}, []int{f.closes, other.closes})
	})
}

// FuzzArrivals: whatever a Broker and a PresenceStore give, each frame that a client gets
// is one JSON value of valid UTF-8, and no event of the protocol's own is forged.
func FuzzArrivals(f *testing.F) {
	f.Add("said", []byte(`{"a":1}`), "bob", []byte(`{"memberId":"bob"}`), uint64(7), true)
	f.Add("pushy:connect", []byte(`{}`), "", []byte(`{"memberId":""}`), uint64(1<<64-1), false)
	f.Add("\xff", []byte("\"\xff\""), "a\"b", []byte(`{"memberId":"a\"b"}`), uint64(0), true)
	f.Fuzz(func(t *testing.T, event string, data []byte, id string, member []byte, revision uint64, left bool) {
		broker := &foreign{start: pushy.Snapshot{Revision: 1, On: true, Members: []pushy.Member{
			{ID: id, HasData: true, JSON: member},
			{ID: id, HasData: true, JSON: member},
		}}}
		srv := startServer(t, pushy.Options{Broker: broker})
		p := connectPeer(t, srv)
		p.subscribe("private-room", `{"name":"Ann"}`)
		broker.deliver("private-room", pushy.Message{Event: event, Data: data, Except: id})
		broker.apply(pushy.Change{Revision: revision, Left: left, Member: pushy.Member{ID: id, JSON: member}})
		broker.apply(pushy.Change{State: &pushy.Snapshot{Revision: revision, On: left, Members: []pushy.Member{{ID: id, JSON: member}}}})
		broker.deliver("private-room", pushy.Message{Event: "last", Data: json.RawMessage("0")})
		for {
			frame := p.next() // which fails for what is no JSON
			if frame.Event == "last" {
				break
			}
			require.True(t, utf8.Valid(frame.Data))
			if strings.HasPrefix(strings.ToLower(frame.Event), "pushy:") {
				require.Contains(t, []string{"pushy:presence-sync", "pushy:presence-add", "pushy:presence-quit", pushy.EventResync}, frame.Event)
			} else {
				require.Equal(t, event, frame.Event)
			}
		}
		require.NoError(t, srv.Close())
	})
}
