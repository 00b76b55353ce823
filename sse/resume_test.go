package sse_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/sse"
)

func after(id string) edit { return header("Last-Event-ID", id) }

// A client that reconnects with the id of any event receives what follows it.
func TestResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(100)}, sse.Options{}, nil)
		st := s.listen("channel=kept&channel=chat&channel=kept2")
		ids := []string{st.open.id} // that of a client which has received no event
		require.Regexp(t, `^[\w-]+\.0,-,[\w-]+\.0$`, st.open.id)
		publish(t, s.srv, "kept", 1, 1)
		publish(t, s.srv, "kept2", 2, 2)
		publish(t, s.srv, "chat", 3, 3)
		publish(t, s.srv, "kept", 4, 4)
		for range 4 {
			ids = append(ids, st.next().id)
		}
		assert.Equal(t, ids[2], ids[3], "an event that is not kept moves no position")
		st.close()
		for i, want := range [][]string{{"1", "4", "2"}, {"4", "2"}, {"4"}, {"4"}, {}} {
			for _, how := range []string{"header", "since"} {
				query, edits := "channel=kept&channel=chat&channel=kept2", []edit{after(ids[i])}
				if how == "since" {
					query, edits = query+"&since="+ids[i], nil
				}
				st := s.listen(query, edits...)
				assert.Equal(t, ids[i], st.open.id, "the position at which the replay begins")
				o := st.opened()
				assert.True(t, o.Channels["kept"].Recovered)
				assert.True(t, o.Channels["kept2"].Recovered)
				assert.Equal(t, len(want), o.Channels["kept"].Replay+o.Channels["kept2"].Replay)
				assert.Equal(t, "off", o.Channels["chat"].Reason)
				assert.Equal(t, event{"pushy:gap", `{"channel":"chat","reason":"off"}`, ids[i], -1}, st.next())
				got := map[string]bool{}
				for range want {
					got[st.next().data] = true
				}
				for _, w := range want {
					assert.True(t, got[w], "%d %s: %s is missing of %v", i, how, w, got)
				}
				publish(t, s.srv, "chat", 9, 9)
				e := st.next()
				assert.Equal(t, "9", e.data)
				assert.Equal(t, ids[4], e.id)
				st.close()
			}
		}
		// The header has precedence.
		st = s.listen("channel=kept&since=x.1", after(strings.Split(ids[4], ",")[0]))
		assert.True(t, st.opened().Channels["kept"].Recovered)
	})
}

// A position that cannot be used is a gap, and never an error, after which clients would stop.
func TestUselessPositions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(2)}, sse.Options{}, nil)
		first := s.listen("channel=kept")
		epoch, _, _ := strings.Cut(first.open.id, ".")
		publish(t, s.srv, "kept", 1, 5)
		for range 5 {
			first.next()
		}
		now := epoch + ".5"
		for id, reason := range map[string]string{
			epoch + ".2":                     "trimmed",
			epoch + ".6":                     "ahead",
			"other.1":                        "epoch",
			"x":                              "epoch",
			"-":                              "off",
			now + "," + now:                  "epoch",
			now + ",":                        "epoch",
			",":                              "epoch",
			epoch + ".05":                    "epoch",
			epoch + ".9007199254740992":      "epoch",
			"\u00e9.1":                       "epoch",
			strings.Repeat("a", 4<<10) + "b": "epoch",
		} {
			st := s.listen("channel=kept", after(id))
			o := st.opened()
			assert.False(t, o.Channels["kept"].Recovered, id)
			assert.Equal(t, reason, o.Channels["kept"].Reason, id)
			assert.Equal(t, now, st.open.id, id)
			assert.Equal(t, event{"pushy:gap", `{"channel":"kept","reason":"` + reason + `"}`, now, -1}, st.next(), id)
			st.close()
		}
	})
}

// An Authorizer can refuse past events.
func TestPastIsDenied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(9), Authorizer: noPast{}}, sse.Options{}, nil)
		st := s.listen("channel=kept")
		publish(t, s.srv, "kept", 1, 1)
		st.next()
		id := st.open.id
		st.close()
		st = s.listen("channel=kept", after(id))
		assert.Equal(t, `{"channel":"kept","reason":"denied"}`, st.next().data)
	})
}

type noPast struct{}

func (noPast) Authorize(context.Context, pushy.AuthRequest) error { return pushy.ErrNoHistory }

// tapped lets a test deliver what a broker's store could.
type tapped struct {
	*memory.Broker
	sink broker.Sink
}

func (b *tapped) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	b.sink = sink
	return b.Broker.Open(ctx, o, sink)
}

// While the stream is open, a gap is at its place among the events, with the new position.
func TestGapWhileOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := &tapped{Broker: memory.NewCluster(memory.Options{}).Broker()}
		s := start(t, pushy.Options{Channel: keeping(9), Broker: b}, sse.Options{}, nil)
		st := s.listen("channel=kept&channel=open")
		publish(t, s.srv, "kept", 1, 1)
		assert.Equal(t, st.next().id, strings.Replace(st.open.id, ".0,", ".1,", 1))
		place := broker.Position{Epoch: "new-2", Offset: 7}
		b.sink.Reset("kept", broker.State{At: place}, broker.ResetRestarted)
		assert.Equal(t, event{"pushy:gap", `{"channel":"kept","reason":"restarted"}`, "new-2.7,-", -1}, st.next())
		place.Offset++
		b.sink.Deliver("kept", broker.Entry{
			Kind:  broker.Event,
			Event: "n",
			Data:  []byte("2"),
			At:    place,
			Prev:  7,
			Time:  time.Now(),
			Keep:  broker.Keep{Size: 9, TTL: time.Hour, Bytes: 256 << 10},
		})
		assert.Equal(t, event{"n", "2", "new-2.8,-", -1}, st.next())
		b.sink.Reset("open", broker.State{}, broker.ResetRestarted)
		assert.Equal(t, event{"pushy:gap", `{"channel":"open"}`, "new-2.8,-", -1}, st.next())
	})
}

// S1: 10,000 events over 20 breaks of the connection, also during the replay and before the first
// event: in order, none lost, none twice. Some clients have several channels.
func TestEventsOverBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the channels keep events, so handlers write
		const events = 10_000
		cluster := memory.NewCluster(memory.Options{})
		options := func() pushy.Options {
			return pushy.Options{
				Channel: func(string) pushy.ChannelOptions {
					return pushy.ChannelOptions{Keep: broker.Keep{
						Size:  500,
						TTL:   time.Hour,
						Bytes: 1 << 20,
					}}
				},
				Broker: cluster.Broker(),
			}
		}
		nodes := []*site{start(t, options(), sse.Options{}, nil), start(t, options(), sse.Options{}, nil)}
		done := make(chan error, 3)
		for reader := range 3 {
			queries := []string{"channel=a", "channel=a&channel=b", "channel=b&channel=a&names=none"}
			go func() { done <- follow(t, nodes, queries[reader], events) }()
		}
		settle()
		for i := 1; i <= events; i++ {
			for _, channel := range []string{"a", "b"} {
				require.NoError(t, nodes[i%2].srv.Publish(t.Context(), channel, "n", fmt.Sprintf("%s %d", channel, i)))
			}
			if i%10 == 0 {
				// A node that is behind a client asks the log once a second: a replay has at most 500 events.
				pause(30 * time.Millisecond)
			}
		}
		for range 3 {
			require.NoError(t, <-done)
		}
	})
}

// follow reads all events, and breaks its connection 20 times or more.
func follow(t *testing.T, nodes []*site, query string, events int) error {
	random := rand.New(rand.NewPCG(1, uint64(len(query))))
	next := map[string]int{"a": 1, "b": 1}
	last := ""
	for breaks := 0; ; breaks++ {
		var edits []edit
		if last != "" {
			edits = append(edits, after(last))
		}
		ctx, cancel := context.WithCancel(t.Context())
		res, err := nodes[breaks%2].try(ctx, query, edits...)
		if err != nil || res.StatusCode != http.StatusOK {
			cancel()
			return fmt.Errorf("break %d: %v %w", breaks, res, err)
		}
		st := &stream{
			t:    t,
			res:  res,
			in:   newReader(res),
			last: last,
		}
		few := random.IntN(3) == 0 // during the replay, or before the first event
		most := random.IntN(1000)
		if few {
			most = random.IntN(3)
		}
		for read := 0; read <= most || breaks > 30; read++ {
			e, err := st.read()
			if err != nil {
				cancel()
				return err
			}
			last = e.id
			if strings.HasPrefix(e.name, "pushy:gap") {
				cancel()
				return fmt.Errorf("break %d: %+v", breaks, e)
			}
			channel, number, is := strings.Cut(e.data, " ")
			if !is || e.name == "pushy:open" {
				continue
			}
			n, err := strconv.Atoi(number)
			if err != nil || n != next[channel] {
				cancel()
				return fmt.Errorf("break %d: %+v instead of %d", breaks, e, next[channel])
			}
			next[channel]++
			if next["a"] > events && (next["b"] > events || query == "channel=a") {
				cancel()
				_ = res.Body.Close()
				if breaks < 20 {
					return fmt.Errorf("only %d breaks", breaks)
				}
				return nil
			}
		}
		cancel()
		_ = res.Body.Close()
	}
}
