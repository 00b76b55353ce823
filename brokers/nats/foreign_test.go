package nats_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

func field(text string) string {
	return string(binary.AppendUvarint(nil, uint64(len(text)))) + text
}

// joined is an entry as another node would write it, after prev.
func joined(prev uint64, id, text string) string {
	return "\x01\x00" + string(binary.AppendUvarint(nil, prev)) + field("0123456789abcdef") + "\x01\x02" + field(id) + field(text)
}

// foreignMessages are what others may write to pushy's subjects.
func foreignMessages() map[string]string {
	return map[string]string{
		"empty":          "",
		"plain":          "hello",
		"json":           `{"id":"x"}`,
		"onlyVersion":    "\x01",
		"otherVersion":   "\x02\x00\x00\x00",
		"zeros":          strings.Repeat("\x00", 100),
		"ones":           strings.Repeat("\xff", 100),
		"longLength":     "\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
		"manyChanges":    "\x01\x00\x00" + field("n") + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"manyLive":       "\x01\x02\x00" + field("n") + "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"baseOfNothing":  "\x01\x02\x00" + field("n") + "\x01\x01\x01\x01",
		"root":           "\x01\x01\x00" + field("n") + "\x00",
		"chain":          joined(1<<40, "ghost", `{"memberId":"ghost"}`),
		"brokenNode":     "\x01\x01\x00" + field("a b\xff") + "\x00",
		"brokenJSON":     "\x01\x01\x00" + field("n") + "\x01\x02" + field("ghost") + field(`{"a":`),
		"invalidUTF8":    "\x01\x01\x00" + field("n") + "\x01\x02" + field("ghost") + field("{\"a\":\"\xff\"}"),
		"brokenID":       "\x01\x01\x00" + field("n") + "\x01\x02" + field("a\xff b") + field(`{}`),
		"large":          strings.Repeat("x", 900<<10),
		"event":          "\x01\x01" + field("n") + field("") + field("said") + `{"a":`,
		"eventUTF8":      "\x01\x01" + field("n") + field("") + field("said") + "\"\xff\"",
		"eventNameUTF8":  "\x01\x01" + field("n") + field("") + field("\xff") + `{}`,
		"eventNoName":    "\x01\x01" + field("n") + field("") + field("") + `{}`,
		"eventReserved":  "\x01\x01" + field("n") + field("") + field("pushy:error") + `{}`,
		"eventReserved2": "\x01\x01" + field("n") + field("") + field("PUSHY:subscription-success") + `{}`,
		"eventLongName":  "\x01\x01" + field("n") + field("") + field(strings.Repeat("x", 300)) + `{}`,
		"eventNoData":    "\x01\x01" + field("n") + field("") + field("said"),
		"eventTwoData":   "\x01\x01" + field("n") + field("") + field("said") + `{}{}`,
		"eventLongNode":  "\x01\x01" + field(strings.Repeat("n", 1000)) + field("") + field("said") + `{}`,
	}
}

// Issue 11, number 2: foreign events are skipped, with one line, and the others
// arrive.
func TestForeignEvents(t *testing.T) {
	t.Parallel()
	log, logger := newSaid(t)
	b, err := nats.New(t.Context(), nats.Options{
		URL:            shared.url,
		Prefix:         prefix(t),
		EventsOnly:     true,
		RequireAtStart: true,
		Timeout:        20 * time.Second,
		Logger:         logger,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	heardB := heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	nc, err := natsgo.Connect(shared.url)
	require.NoError(t, err)
	defer nc.Close()
	for _, data := range foreignMessages() {
		require.NoError(t, nc.Publish(prefix(t)+".e.news", []byte(data)))
	}
	require.NoError(t, nc.Flush())
	_, err = b.Publish(t.Context(), "news", event("said"))
	require.NoError(t, err)
	for {
		m := next(t, heardB)
		assert.NotContains(t, strings.ToLower(m.Event), "pushy:")
		assert.True(t, json.Valid(m.Data), "%s: %q", m.Event, m.Data)
		if m.Event == "said" && m.Node == "n" && m.Seq == 1 && string(m.Data) == "{}" {
			break
		}
	}
	assert.Equal(t, 1, log.lines("skipped an event"))
	require.NoError(t, b.Away())
}

// Issue 11, number 2: whatever others write to the presence subjects, or as if it came
// from the stream, members join and leave, and dead nodes' members are cleared away,
// in the channels that were written to and in the others. One line a minute says so.
func TestForeignPresence(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	log, logger := newSaid(t)
	newNode := func() *nats.Broker {
		b, err := nats.New(t.Context(), nats.Options{
			URL:            s.url,
			RequireAtStart: true,
			Lease:          8 * time.Second,
			Timeout:        10 * time.Second,
			Logger:         logger,
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	a, b, dies := newNode(), newNode(), newNode()
	nc, err := natsgo.Connect(s.url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	write := func(subject, data string) {
		_, err := js.Publish(t.Context(), subject, []byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, dies.Join(t.Context(), "private-quiet", member("dies")))
	_, changes := watched(t, b, "private-room")
	in := map[string]bool{}
	settle := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		for {
			var have []string
			for id := range in {
				have = append(have, id)
			}
			slices.Sort(have)
			if slices.Equal(have, want) {
				return
			}
			change := next(t, changes)
			switch {
			case change.State != nil:
				in = map[string]bool{}
				for _, m := range change.State.Members {
					in[m.ID] = true
				}
			case change.Left:
				delete(in, change.Member.ID)
			default:
				assert.True(t, json.Valid(change.Member.JSON))
				in[change.Member.ID] = true
			}
		}
	}
	require.NoError(t, a.Join(t.Context(), "private-room", member("first")))
	for name, data := range foreignMessages() {
		write("pushy.p.c.private-room", data)
		write("pushy.p.c.private-unknown-"+strings.ToLower(name), data)
		write("pushy.p.c.Not%Pushy's", data)
		write("pushy.p.n."+strings.ToLower(name), data)
		write("pushy.p.n.not$a$node", data)
		write("pushy.p.other."+name, data)
		for _, told := range []string{"pushy.o.c.private-room", "pushy.o.n." + name, "pushy.o.n.a b\xff"} {
			for _, header := range []natsgo.Header{
				nil,
				{"Nats-Stream": {"pushy-presence"}},
				{"Nats-Stream": {"pushy-presence"}, "Nats-Subject": {"pushy.p.c.private-room"}, "Nats-Sequence": {"x"}, "Nats-Last-Sequence": {"1"}},
				{"Nats-Stream": {"pushy-presence"}, "Nats-Subject": {"pushy.p.c.private-room"}, "Nats-Sequence": {"18446744073709551615"}, "Nats-Last-Sequence": {"1"}},
				{"Nats-Stream": {"pushy-presence"}, "Nats-Subject": {"pushy.p.c.private-room"}, "Nats-Sequence": {"4503599627370496"}, "Nats-Last-Sequence": {"0"}},
				{"Nats-Stream": {"other"}, "Nats-Subject": {"pushy.p.c.private-room"}, "Nats-Sequence": {"7"}, "Nats-Last-Sequence": {"6"}},
			} {
				require.NoError(t, nc.PublishMsg(&natsgo.Msg{Subject: strings.ReplaceAll(told, " ", ""), Header: header, Data: []byte(data)}))
			}
		}
		id := "m-" + name
		require.NoError(t, a.Join(t.Context(), "private-room", member(id)))
		require.NoError(t, b.Join(t.Context(), "private-room", member(id+"-b")))
		require.NoError(t, a.Leave(t.Context(), "private-room", id))
		require.NoError(t, b.Leave(t.Context(), "private-room", id+"-b"))
	}
	settle("first")
	dies.Kill()
	require.NoError(t, a.Join(t.Context(), "private-room", member("last")))
	settle("first", "last")
	eventually(t, "a dead node's members are removed from channels that nobody follows", func() bool {
		n, err := a.Entries(t.Context(), "private-quiet")
		return err == nil && n == 0
	})
	snap, _ := watched(t, a, "private-room")
	var ids []string
	for _, m := range snap.Members {
		ids = append(ids, m.ID)
	}
	assert.ElementsMatch(t, []string{"first", "last"}, ids)
	require.NoError(t, a.Leave(t.Context(), "private-room", "first"))
	require.NoError(t, a.Leave(t.Context(), "private-room", "last"))
	settle()
	eventually(t, "nobody is away", func() bool { return a.Away() == nil && b.Away() == nil })
	assert.LessOrEqual(t, log.lines("skipped a presence message"), 6, "one line a minute for each node")
	assert.Zero(t, log.lines("panic"))
}

// Issue 11, number 2: a log whose entries others have deleted is read as far as it
// goes, and its members log themselves again.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	a := open(t, nats.Options{URL: shared.url, Timeout: 20 * time.Second, Lease: time.Minute})
	for _, id := range []string{"1", "2", "3"} {
		require.NoError(t, a.Join(t.Context(), "private-room", member(id)))
	}
	nc, err := natsgo.Connect(shared.url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), prefix(t)+"-presence")
	require.NoError(t, err)
	first, err := stream.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(prefix(t)+".p.c.private-room"))
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), first.Sequence))
	b := open(t, nats.Options{URL: shared.url, Timeout: 20 * time.Second, Lease: time.Minute})
	snap, _ := watched(t, b, "private-room")
	assert.Equal(t, []pushy.Member{member("2"), member("3")}, snap.Members)
	require.NoError(t, b.Join(t.Context(), "private-room", member("4")))
	require.NoError(t, b.Away())
}

// Issue 11, number 2: what panics over one message or change ends neither the process
// nor the delivery of the next.
func TestPanics(t *testing.T) {
	t.Parallel()
	log, logger := newSaid(t)
	b, err := nats.New(t.Context(), nats.Options{
		URL:            shared.url,
		Prefix:         prefix(t),
		RequireAtStart: true,
		Timeout:        20 * time.Second,
		Lease:          time.Minute,
		Logger:         logger,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	got := make(chan string, 10)
	require.NoError(t, b.Open(t.Context(), func(_ string, m pushy.Message) {
		if m.Event == "panics" {
			panic("of the test")
		}
		got <- m.Event
	}))
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	for _, name := range []string{"panics", "said", "panics", "again"} {
		_, err = b.Publish(t.Context(), "news", event(name))
		require.NoError(t, err)
	}
	assert.Equal(t, "said", next(t, got))
	assert.Equal(t, "again", next(t, got))
	_, err = b.Watch(t.Context(), "private-room", func(c pushy.Change) {
		if c.Member.ID == "panics" {
			panic("of the test")
		}
		got <- c.Member.ID
	})
	require.NoError(t, err)
	require.NoError(t, b.Join(t.Context(), "private-room", member("panics")))
	require.NoError(t, b.Join(t.Context(), "private-room", member("1")))
	assert.Equal(t, "1", next(t, got))
	assert.Equal(t, 2, log.lines("panic over a message"), "one for events, one for presence")
}

// Issue 11, number 9: nodes that are gone are forgotten, so that many that come and go
// need no memory.
func TestDeadNodesAreForgotten(t *testing.T) {
	t.Parallel()
	o := nats.Options{URL: shared.url, Lease: 500 * time.Millisecond, Timeout: 20 * time.Second}
	a := open(t, o)
	for range 5 {
		open(t, o).Kill()
	}
	eventually(t, "their signs of life are known", func() bool { return a.Known() > 0 })
	eventually(t, "none is known any more", func() bool {
		ids, err := a.Nodes(context.Background())
		return err == nil && len(ids) == 1 && a.Known() == 0
	})
}
