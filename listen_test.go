package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// listen is Server.Listen for a Listener that ends with the test.
func listen(t testing.TB, srv *pushy.Server, o pushy.ListenOptions) *pushy.Listener {
	t.Helper()
	l, err := srv.Listen(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// short is what a Listener has received, in one line.
func short(r pushy.Received) string {
	s := r.Kind.String() + " " + r.Channel
	if r.Name != "" {
		s += " " + r.Name
	}
	if r.Data != nil {
		s += " " + string(r.Data)
	}
	if r.Position.Offset > 0 {
		s += fmt.Sprintf(" @%d", r.Position.Offset)
	}
	if r.Reason != "" {
		s += " " + r.Reason
	}
	if r.Count > 0 {
		s += fmt.Sprintf(" %d lost", r.Count)
	}
	return s
}

// reading runs the loop of a Listener in a goroutine.
type reading struct {
	t    testing.TB
	mu   sync.Mutex
	got  []string
	err  error
	over bool
}

func read(t testing.TB, l *pushy.Listener) *reading {
	r := &reading{t: t}
	go func() {
		for e, err := range l.Events() {
			r.mu.Lock()
			if err != nil {
				r.err = err
			} else {
				r.got = append(r.got, short(e))
			}
			r.mu.Unlock()
		}
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
	}()
	return r
}

// expect waits until nothing happens any more, and compares what was received since the last call.
func (r *reading) expect(want ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(r.t, want, r.got)
	r.got = nil
}

// ended expects the end of the loop with an error.
func (r *reading) ended(want error) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.True(r.t, r.over, "the loop goes on")
	require.ErrorIs(r.t, r.err, want)
}

func publish(t testing.TB, srv *pushy.Server, channel, event string, data any) {
	t.Helper()
	require.NoError(t, srv.Publish(t.Context(), channel, event, data))
}

// receivers returns whether an event finds a subscriber.
func receivers(t testing.TB, srv *pushy.Server, channel string) broker.Receivers {
	t.Helper()
	receipt, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: channel, Name: "asks"})
	require.NoError(t, err)
	return receipt.Receivers
}

// Reach S10: however a loop ends, its subscription ends with it, and the last pair says why.
func TestLoopsOverSubscribeEnd(t *testing.T) {
	cause := errors.New("enough")
	tests := []struct {
		name string
		end  func(srv *pushy.Server, cancel context.CancelCauseFunc) (stop bool)
		want error
	}{
		{"break", func(*pushy.Server, context.CancelCauseFunc) bool { return true }, nil},
		{"cancel", func(_ *pushy.Server, cancel context.CancelCauseFunc) bool { cancel(cause); return false }, cause},
		{"shutdown", func(srv *pushy.Server, _ context.CancelCauseFunc) bool {
			go func() { _ = srv.Shutdown(context.Background()) }()
			return false
		}, pushy.ErrClosed},
		{"close", func(srv *pushy.Server, _ context.CancelCauseFunc) bool {
			_ = srv.Close()
			return false
		}, pushy.ErrClosed},
		{"kick", func(srv *pushy.Server, _ context.CancelCauseFunc) bool {
			_, _ = srv.Kick(context.Background(), pushy.Kick{Target: "channel:orders"})
			return false
		}, pushy.ErrClosed},
		{"panic", func(*pushy.Server, context.CancelCauseFunc) bool { panic(cause) }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				srv := startServer(t, pushy.Options{})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				go func() {
					synctest.Wait()
					_ = srv.Publish(context.Background(), "Orders", "paid", 1)
				}()
				var got []string
				var last error
				func() {
					defer func() { _ = recover() }()
					for e, err := range srv.Subscribe(ctx, "orders", "Orders") {
						if err != nil {
							assert.Equal(t, pushy.Received{}, e)
							last = err
							continue // there is no next pair
						}
						got = append(got, short(e))
						if e.Kind == pushy.KindPublished && test.end(srv, cancel) {
							break
						}
					}
				}()
				want := []string{"published orders paid 1"}
				if test.name == "kick" {
					want = append(want, "ended orders Removed")
				}
				assert.Equal(t, want, got)
				assert.ErrorIs(t, last, test.want)
				synctest.Wait()
				_, subscribed := srv.Channels().Lookup("orders")
				assert.False(t, subscribed)
			})
		})
	}
}

// A Listener is a subscriber, but no member and no connection.
func TestListenersCountAsSubscribers(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		here := startOn(t, cluster.Broker(), pushy.Options{})
		other := startOn(t, cluster.Broker(), pushy.Options{})
		triggered := func() int {
			now := time.Now().Unix()
			key, err := pushy.SignTrigger(peerKey, "private-room", "said", now, []byte(`{}`))
			require.NoError(t, err)
			path := fmt.Sprintf("/pushy/channel/private-room/trigger?event=said&timestamp=%d&auth_key=%s", now, key)
			req := httptest.NewRequest("POST", path, strings.NewReader(`{}`))
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			other.ServeHTTP(w, req)
			return w.Code
		}
		assert.Equal(t, http.StatusOK, triggered())
		l := listen(t, here, pushy.ListenOptions{Channels: []string{"Private-Room"}})
		assert.Equal(t, http.StatusCreated, triggered())
		assert.Equal(t, broker.Some, receivers(t, here, "private-room"))
		list, err := other.ListChannels(t.Context(), pushy.ChannelQuery{Count: true})
		require.NoError(t, err)
		require.Len(t, list.Channels, 1)
		assert.Equal(t, 1, list.Channels[0].Subscribers)
		ch, ok := here.Channels().Lookup("private-room")
		require.True(t, ok)
		assert.Zero(t, ch.Len())
		assert.Zero(t, here.Stats().Connections)
		p := connectPeer(t, here)
		success := p.subscribe("private-room", `{"name":"Ann"}`)
		assert.NotContains(t, string(success.Data), "},{", "the Listener is in the list of members")
		l.Remove("PRIVATE-ROOM")
		p.send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
		p.next()
		time.Sleep(2 * time.Second) // the channel lingers
		assert.Equal(t, http.StatusOK, triggered())
	})
}

// Reach S10: what is published after Listen has returned is received, also if it is published before
// the loop begins and from inside of it; and an event that excludes connections is, too.
func TestListenThenRead(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		l := listen(t, srv, pushy.ListenOptions{Channels: []string{"news", "off"}})
		start := l.Position("News")
		assert.NotEmpty(t, start.Epoch)
		publish(t, srv, "news", "n", 1)
		publish(t, srv, "off", "n", "a")
		_, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "n", Data: 2, Except: []string{"x"}})
		require.NoError(t, err)
		var got []string
		for e, err := range l.Events() {
			require.NoError(t, err)
			got = append(got, short(e))
			assert.WithinDuration(t, time.Now(), e.Time, 0)
			if len(got) == 3 {
				publish(t, srv, "off", "from inside", nil)
			}
			if len(got) == 4 {
				break
			}
		}
		assert.Equal(t, []string{
			"published news n 1 @1", `published off n "a"`, "published news n 2 @2", "published off from inside null",
		}, got)
		assert.Equal(t, uint64(2), l.Position("news").Offset)
		assert.Zero(t, l.Position("off"))
		for e, err := range l.Events() {
			assert.Zero(t, e)
			assert.ErrorIs(t, err, pushy.ErrClosed)
		}
	})
}

// A position is that of the last event whose loop body has finished: a process that stops within
// the body handles the event again.
func TestListenerPositions(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 5)
		start, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		since := broker.Position{Epoch: start.Epoch, Offset: 2}
		var handled []string
		for range 3 { // each process handles one event, and is stopped while it handles the next
			l := listen(t, srv, pushy.ListenOptions{
				Channels: []string{"news"},
				Since:    map[string]broker.Position{"News": since},
			})
			assert.Equal(t, since, l.Position("news"))
			begun := 0
			for e, err := range l.Events() {
				require.NoError(t, err)
				if begun == 1 {
					break
				}
				begun++
				handled = append(handled, short(e))
				assert.Equal(t, since, l.Position("news"))
			}
			since = l.Position("news")
			publish(t, srv, "news", "n", "live")
		}
		assert.Equal(t, []string{"published news n 3 @3", "published news n 4 @4", "published news n 5 @5"}, handled)
	})
}

// What a Listener receives first, by its position and Rewind. The answers are those that clients
// get (section 14 of PROTOCOL.md).
func TestListenSince(t *testing.T) {
	events := func(channel string, from, to int) (all []string) {
		for i := from; i <= to; i++ {
			all = append(all, fmt.Sprintf("published %s n %d @%d", channel, i, i))
		}
		return all
	}
	tests := []struct {
		name, channel string
		offset        uint64
		epoch         string // instead of the present one
		rewind        int
		want          []string
	}{
		{"nothing is missing", "news", 15, "", 0, nil},
		{"recovered", "news", 12, "", 0, events("news", 13, 15)},
		{"recovered, rewind does not count", "news", 14, "", 5, events("news", 15, 15)},
		{"trimmed", "news", 2, "", 0, []string{"gap news @15 trimmed"}},
		{"trimmed, with rewind", "news", 2, "", 2, append([]string{"gap news @13 trimmed"}, events("news", 14, 15)...)},
		{"rewind", "news", 0, "none", 3, events("news", 13, 15)},
		{"rewind, more than is kept", "news", 0, "none", 500, events("news", 6, 15)},
		{"ahead", "news", 99, "", 0, []string{"gap news @15 ahead"}},
		{"another epoch", "news", 3, "foreign", 0, []string{"gap news @15 epoch"}},
		{"not kept", "off", 3, "foreign", 0, []string{"gap off off"}},
		{"not kept, rewind", "off", 0, "none", 3, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onKeeping(t, 10, time.Hour, func(t *testing.T, srv *pushy.Server) {
				publishNumbers(t, srv, "news", 1, 15)
				top, err := srv.Position(t.Context(), "news")
				require.NoError(t, err)
				o := pushy.ListenOptions{Channels: []string{test.channel}, Rewind: test.rewind}
				if test.epoch != "none" {
					since := broker.Position{Epoch: top.Epoch, Offset: test.offset}
					if test.epoch != "" {
						since.Epoch = test.epoch
					}
					o.Since = map[string]broker.Position{test.channel: since}
				}
				l := listen(t, srv, o)
				r := read(t, l)
				r.expect(test.want...)
				publish(t, srv, test.channel, "live", 0)
				live := "published " + test.channel + " live 0"
				if test.channel == "news" {
					live += " @16"
				}
				r.expect(live)
			})
		})
	}
}

// Past events are limited as for clients, and do not count towards the queue.
func TestListenReplayIsBounded(t *testing.T) {
	onKeeping(t, 1000, time.Hour, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 700)
		top, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		o := pushy.ListenOptions{
			Channels:  []string{"news"},
			Since:     map[string]broker.Position{"news": {Epoch: top.Epoch, Offset: 200}},
			MaxEvents: 3,
		}
		l := listen(t, srv, o)
		r := read(t, l)
		synctest.Wait()
		assert.Len(t, r.got, 500)
		o.Since["news"] = broker.Position{Epoch: top.Epoch, Offset: 199}
		l = listen(t, srv, o)
		read(t, l).expect("gap news @700 large")
	})
}

// Reach S10: a loop that is too slow ends with what was queued, or receives a Gap with a count. The
// publisher does not wait, and other Listeners miss nothing.
func TestSlowListeners(t *testing.T) {
	for _, channel := range []string{"news", "off"} {
		at := func(i int) string {
			if channel == "off" {
				return ""
			}
			return fmt.Sprintf(" @%d", i)
		}
		event := func(i int) string { return fmt.Sprintf("published %s n %d%s", channel, i, at(i)) }
		fill := func(t *testing.T, srv *pushy.Server, from, to int) {
			began := time.Now()
			for i := from; i <= to; i++ {
				publish(t, srv, channel, "n", i)
			}
			require.Equal(t, began, time.Now(), "a publish has waited")
		}
		t.Run(channel+" end", func(t *testing.T) {
			onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
				slow := listen(t, srv, pushy.ListenOptions{Channels: []string{channel}, MaxEvents: 3})
				other := read(t, listen(t, srv, pushy.ListenOptions{Channels: []string{channel}}))
				fill(t, srv, 1, 5)
				r := read(t, slow)
				r.expect(event(1), event(2), event(3))
				r.ended(pushy.ErrSlowConsumer)
				other.expect(event(1), event(2), event(3), event(4), event(5))
			})
		})
		t.Run(channel+" bytes", func(t *testing.T) {
			onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
				slow := listen(t, srv, pushy.ListenOptions{Channels: []string{channel}, MaxBytes: 1000})
				publish(t, srv, channel, "large", strings.Repeat("x", 5000)) // fits into an empty queue
				publish(t, srv, channel, "small", 1)
				r := read(t, slow)
				synctest.Wait()
				assert.Len(t, r.got, 1)
				r.ended(pushy.ErrSlowConsumer)
			})
		})
		t.Run(channel+" skip", func(t *testing.T) {
			onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
				slow := listen(t, srv, pushy.ListenOptions{
					Channels:  []string{channel, "off-other"},
					MaxEvents: 3,
					OnFull:    pushy.SkipWhenFull,
				})
				fill(t, srv, 1, 5)
				publish(t, srv, "off-other", "n", 0)
				var got []string
				for e, err := range slow.Events() {
					require.NoError(t, err)
					got = append(got, short(e))
					switch len(got) {
					case 1: // there are two events and two gaps in the queue, so it is still full
						fill(t, srv, 6, 6)
					case 2: // and after the next event, there is one place
						fill(t, srv, 7, 7)
					case 4:
						fill(t, srv, 8, 8)
					}
					if strings.Contains(short(e), " n 8") {
						break
					}
				}
				assert.Equal(t, []string{
					event(1), event(2), event(3),
					"gap " + channel + at(7) + " skipped 4 lost", "gap off-other skipped 1 lost", event(8),
				}, got)
			})
		})
	}
}

// A Listener that skips changes of the members receives the list again.
func TestListenerReceivesMembers(t *testing.T) {
	onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		o := pushy.ListenOptions{Channels: []string{"private-room", "public"}, Presence: true}
		r := read(t, listen(t, nodes[0].Server, o))
		without := read(t, listen(t, nodes[0].Server, pushy.ListenOptions{Channels: []string{"private-room"}}))
		r.expect("members private-room []")
		member := func(name string, p *peer) string {
			id := p.subscribe("private-room", `{"name":"`+name+`"}`).field("memberId")
			return fmt.Sprintf(`{"name":%q,"subscribed":%d,"memberId":%q,"idle":false}`, name, time.Now().UnixMilli(), id)
		}
		ann, bob := connectPeer(t, nodes[0].Server), connectPeer(t, nodes[1].Server)
		first := member("Ann", ann)
		r.expect("joined private-room " + first)
		second := member("Bob", bob)
		r.expect("joined private-room " + second)
		read(t, listen(t, nodes[1].Server, o)).expect("members private-room [" + first + "," + second + "]")
		bob.send(`{"command":"pushy:idle","data":{"idle":true}}`)
		r.expect("updated private-room " + strings.Replace(second, "false", "true", 1))
		slow := o
		slow.MaxEvents = 1
		slow.OnFull = pushy.SkipWhenFull
		late := listen(t, nodes[0].Server, slow)
		ann.send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
		r.expect("left private-room " + first)
		second = strings.Replace(second, "false", "true", 1)
		read(t, late).expect("members private-room ["+first+","+second+"]", "gap private-room skipped",
			"members private-room ["+second+"]")
		bob.send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
		r.expect("left private-room " + second)
		without.expect()
		third := member("Cid", connectPeer(t, nodes[1].Server))
		r.expect("joined private-room " + third)
	})
}

// The events of clients have their sender.
func TestListenerReceivesClientEvents(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{
				ClientEvent: func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) {
					return data, nil
				},
			}
		}})
		l := listen(t, srv, pushy.ListenOptions{Channels: []string{"private-room"}})
		p := connectPeer(t, srv)
		id := p.subscribe("private-room", "").field("memberId")
		p.send(`{"event":"client-typing","channel":"private-room","data":{"a":1}}`)
		for e, err := range l.Events() {
			require.NoError(t, err)
			assert.Equal(t, `published private-room client-typing {"a":1}`, short(e))
			assert.Equal(t, id, e.From)
			break
		}
	})
}

// Decision 32: a kick of the channel, from any node, ends the subscription, and a ban bars another one.
func TestKickEndsListeners(t *testing.T) {
	for _, channel := range []string{"news", "private-room"} {
		t.Run(channel, func(t *testing.T) {
			onCluster(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				l := listen(t, nodes[0].Server, pushy.ListenOptions{Channels: []string{channel, "other"}})
				r := read(t, l)
				publish(t, nodes[0].Server, channel, "n", 1)
				kicked, err := nodes[1].Kick(t.Context(), pushy.Kick{
					Target: "channel:" + channel,
					Reason: "Closed for today",
					Until:  time.Now().Add(time.Hour),
				})
				require.NoError(t, err)
				assert.Equal(t, 1, kicked.Closed)
				publish(t, nodes[0].Server, channel, "n", 2)
				publish(t, nodes[1].Server, "other", "n", 3)
				r.expect("published "+channel+" n 1", "ended "+channel+" Closed for today", "published other n 3")
				for _, subscribe := range []func() error{
					func() error { return l.Add(t.Context(), channel, broker.Position{}) },
					func() error {
						_, err := nodes[1].Listen(t.Context(), pushy.ListenOptions{Channels: []string{channel}})
						return err
					},
				} {
					var refused *pushy.JoinError
					require.ErrorAs(t, subscribe(), &refused)
					assert.Equal(t, pushy.JoinError{Channel: channel, Reason: "Closed for today", Code: "403"}, *refused)
				}
				time.Sleep(time.Hour)
				require.NoError(t, l.Add(t.Context(), channel, broker.Position{}))
				publish(t, nodes[1].Server, channel, "n", 4)
				r.expect("published " + channel + " n 4")
			})
		})
	}
}

func TestListenerAddAndRemove(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		l := listen(t, srv, pushy.ListenOptions{})
		require.NoError(t, l.Add(t.Context(), "News", broker.Position{}))
		require.ErrorContains(t, l.Add(t.Context(), "news", broker.Position{}), "subscribed to news")
		publishNumbers(t, srv, "news", 1, 2)
		l.Remove("news") // what is queued is not received
		l.Remove("news")
		place := l.Position("news")
		publishNumbers(t, srv, "news", 3, 3)
		r := read(t, l)
		r.expect()
		require.NoError(t, l.Add(t.Context(), "news", place))
		r.expect("published news n 1 @1", "published news n 2 @2", "published news n 3 @3")
		publishNumbers(t, srv, "news", 4, 4)
		r.expect("published news n 4 @4")
		l.Close()
		r.ended(pushy.ErrClosed)
		assert.Equal(t, uint64(4), l.Position("news").Offset)
		require.ErrorIs(t, l.Add(t.Context(), "news", broker.Position{}), pushy.ErrClosed)
	})
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	tests := []struct {
		o    pushy.ListenOptions
		want string
	}{
		{pushy.ListenOptions{Channels: []string{"a", "b:c"}}, "pushy: listen: option Channels[1]: must not contain :"},
		{
			pushy.ListenOptions{Channels: []string{"a"}, Since: map[string]broker.Position{"b": {}}},
			`pushy: listen: option Since: "b" is not among Channels`,
		},
		{pushy.ListenOptions{Rewind: 501}, "pushy: listen: option Rewind is 501, at most 500 is allowed"},
		{pushy.ListenOptions{Rewind: -1}, "pushy: listen: option Rewind is -1, at most 500 is allowed"},
		{pushy.ListenOptions{MaxEvents: -1}, "pushy: listen: option MaxEvents is -1, it must be positive"},
		{pushy.ListenOptions{MaxBytes: -1}, "pushy: listen: option MaxBytes is -1, it must be positive"},
		{pushy.ListenOptions{OnFull: 2}, "pushy: listen: option OnFull is 2, it must be EndWhenFull or SkipWhenFull"},
	}
	for _, test := range tests {
		_, err := srv.Listen(t.Context(), test.o)
		assert.EqualError(t, err, test.want)
	}
	for e, err := range srv.Subscribe(t.Context(), "b:c") {
		assert.Zero(t, e)
		assert.EqualError(t, err, "pushy: listen: option Channels[0]: must not contain :")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := srv.Listen(ended, pushy.ListenOptions{Channels: []string{"a"}})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, srv.Close())
	_, err = srv.Listen(t.Context(), pushy.ListenOptions{})
	require.ErrorIs(t, err, pushy.ErrClosed)
}

// The Broker fails, or does not answer, while a Listener subscribes.
func TestListenWhileTheBrokerFails(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := &altered{Broker: memory.New()}
		b.follow = func(ctx context.Context, channel string) (broker.State, error) {
			if channel == "slow" {
				<-ctx.Done()
				return broker.State{}, ctx.Err()
			}
			if channel == "good" {
				return b.Broker.Follow(ctx, channel)
			}
			return broker.State{}, errBroker
		}
		srv := startOn(t, b, pushy.Options{})
		_, err := srv.Listen(t.Context(), pushy.ListenOptions{Channels: []string{"good", "bad"}})
		var refused *pushy.JoinError
		require.ErrorAs(t, err, &refused)
		require.ErrorIs(t, err, errBroker)
		assert.Equal(t, "Temporarily unavailable", refused.Reason)
		time.Sleep(time.Minute)
		_, subscribed := srv.Channels().Lookup("good")
		assert.False(t, subscribed)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no time"))
		defer cancel()
		_, err = srv.Listen(ctx, pushy.ListenOptions{Channels: []string{"slow"}})
		require.EqualError(t, err, "no time")
	})
}

// A node that was cut off names the gap in channels that keep no events, and fills it in the others.
func TestListenerAfterAnOutage(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := cluster.Broker()
		srv := startOn(t, b, keeping(100, time.Hour))
		other := startOn(t, cluster.Broker(), keeping(100, time.Hour))
		r := read(t, listen(t, srv, pushy.ListenOptions{Channels: []string{"news", "off"}}))
		publishNumbers(t, other, "news", 1, 2)
		r.expect("published news n 1 @1", "published news n 2 @2")
		reconnect := b.Cut()
		publishNumbers(t, other, "news", 3, 4)
		publish(t, other, "off", "lost", 1)
		publish(t, srv, "off", "here", 2)
		r.expect("published off here 2")
		opened := listen(t, srv, pushy.ListenOptions{
			Channels: []string{"late"},
			Since:    map[string]broker.Position{"late": {Epoch: "any", Offset: 1}},
		})
		late := read(t, opened)
		late.expect("gap late unavailable")
		reconnect()
		time.Sleep(time.Minute)
		r.expect("gap off", "published news n 3 @3", "published news n 4 @4")
		late.expect("gap late unavailable")
		require.NoError(t, srv.Forget(t.Context(), "news"))
		publish(t, other, "news", "anew", 1)
		r.expect("gap news epoch", "published news anew 1 @1")
	})
}

// Reach S10: 1,000 loops over many channels end when the Server shuts down, and leave no goroutine.
func TestThousandListeners(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, keeping(100, time.Minute))
		var events atomic.Int64
		var ended, began sync.WaitGroup
		for i := range 1000 {
			began.Add(1)
			ended.Go(func() {
				l, err := srv.Listen(t.Context(), pushy.ListenOptions{
					Channels: []string{"news", fmt.Sprintf("off-%d", i%10)},
				})
				began.Done()
				require.NoError(t, err)
				for _, err := range l.Events() {
					if err != nil {
						assert.ErrorIs(t, err, pushy.ErrClosed)
						return
					}
					events.Add(1)
				}
			})
		}
		began.Wait()
		publishNumbers(t, srv, "news", 1, 10)
		for i := range 10 {
			publish(t, srv, fmt.Sprintf("off-%d", i), "n", 1)
		}
		require.NoError(t, srv.Shutdown(t.Context())) // what is queued is still received
		ended.Wait()
		assert.Equal(t, int64(11_000), events.Load())
	})
}

// Reach S10: what Listeners receive has one order, without a gap or a repeat, while they end and
// begin again at random on three nodes, of which one is cut off again and again.
func TestListenersKeepTheOrder(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		var servers []*pushy.Server
		first := cluster.Broker()
		servers = append(servers, startOn(t, first, keeping(2000, time.Hour)))
		for range 2 {
			servers = append(servers, startOn(t, cluster.Broker(), keeping(2000, time.Hour)))
		}
		var log ordercheck.Log
		end := time.Now().Add(time.Minute)
		var running sync.WaitGroup
		for i := range 4 {
			running.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					data := fmt.Sprintf(`"%d-%d"`, i, n)
					receipt, err := servers[1+i%2].PublishEvent(t.Context(), pushy.Event{
						Channel: "news",
						Name:    "n",
						Data:    strings.Trim(data, `"`),
					})
					if assert.NoError(t, err) {
						assert.NoError(t, log.Published(receipt.Position, data))
					}
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		running.Go(func() {
			for time.Now().Before(end.Add(-10 * time.Second)) {
				time.Sleep(3 * time.Second)
				reconnect := first.Cut()
				time.Sleep(300 * time.Millisecond)
				reconnect()
			}
		})
		var followers []*ordercheck.Follower
		for i := range 30 {
			f := log.Follower()
			followers = append(followers, f)
			random := rand.New(rand.NewPCG(uint64(i), 10))
			running.Go(func() {
				for time.Now().Before(end) {
					follow(t, f, servers[random.IntN(3)], time.Duration(random.IntN(2000))*time.Millisecond)
				}
				follow(t, f, servers[1], time.Second)
			})
		}
		running.Wait()
		top, err := servers[1].Position(t.Context(), "news")
		require.NoError(t, err)
		for _, f := range followers {
			assert.Equal(t, top, *f.At)
			for _, reason := range f.Breaks {
				assert.Equal(t, "unavailable", reason) // the log could not be read just then
			}
		}
	})
}

// follow listens for a time, from the position of f on.
func follow(t *testing.T, f *ordercheck.Follower, srv *pushy.Server, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	o := pushy.ListenOptions{Channels: []string{"news"}}
	if f.At != nil {
		o.Since = map[string]broker.Position{"news": *f.At}
	}
	l, err := srv.Listen(ctx, o)
	if err != nil {
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		return
	}
	place := l.Position("news")
	recovered := ""
	if f.At != nil {
		recovered = `,"recovered":true`
	}
	success := fmt.Sprintf(`{"epoch":%q,"offset":%d%s}`, place.Epoch, place.Offset, recovered)
	assert.NoError(t, f.Success([]byte(success)))
	for e, err := range l.Events() {
		switch {
		case err != nil:
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		case e.Kind == pushy.KindGap:
			gap := fmt.Sprintf(`{"reason":%q,"epoch":%q,"offset":%d}`, e.Reason, e.Position.Epoch, e.Position.Offset)
			assert.NoError(t, f.Resync([]byte(gap)))
		default:
			assert.NoError(t, f.Event(e.Position.Offset, string(e.Data)))
		}
	}
}

// Everything that can be called at the same time, is.
func TestListenersConcurrently(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startOn(t, newCluster().Broker(), keeping(10, time.Minute))
		var running sync.WaitGroup
		for i := range 20 {
			running.Go(func() {
				for range 20 {
					l, err := srv.Listen(t.Context(), pushy.ListenOptions{
						Channels:  []string{"news", "private-room"},
						Presence:  true,
						Rewind:    i % 3,
						MaxEvents: 2,
						OnFull:    pushy.OnFull(i % 2),
					})
					if err != nil {
						assert.ErrorIs(t, err, pushy.ErrClosed)
						return
					}
					running.Go(func() {
						for range 5 {
							l.Remove("news")
							_ = l.Add(t.Context(), "news", l.Position("news"))
							_ = l.Add(t.Context(), "off", broker.Position{})
						}
						l.Close()
					})
					for range l.Events() {
						_ = srv.Publish(t.Context(), "news", "n", 1)
					}
				}
			})
		}
		for range 5 {
			_, _ = srv.Kick(t.Context(), pushy.Kick{Target: "channel:news"})
			p := connectPeer(t, srv)
			p.subscribe("private-room", `{"name":"Ann"}`)
			time.Sleep(time.Millisecond)
		}
		_ = srv.Shutdown(t.Context())
		running.Wait()
	})
}

func TestReceivedAsSSE(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		r    pushy.Received
		want string
	}{
		{
			"string",
			pushy.Received{Kind: pushy.KindPublished, Name: "status", Data: []byte(`"<tr>\r\n<td>é\rx\n\ny\n"`)},
			"event: status\ndata: <tr>\ndata: <td>é\ndata: x\ndata: \ndata: y\ndata: \n\n",
		},
		{
			"kept",
			pushy.Received{
				Kind:     pushy.KindPublished,
				Name:     "message",
				Data:     []byte(`{"a":"b\nc"}`),
				Position: broker.Position{Epoch: "k3X", Offset: 7},
			},
			"data: {\"a\":\"b\\nc\"}\nid: k3X.7\n\n",
		},
		{"empty", pushy.Received{Kind: pushy.KindPublished, Name: "n", Data: []byte(`""`)}, "event: n\ndata: \n\n"},
		{
			"gap",
			pushy.Received{Kind: pushy.KindGap, Channel: "news", Reason: "trimmed"},
			"event: pushy:gap\ndata: {\"channel\":\"news\",\"reason\":\"trimmed\"}\n\n",
		},
		{
			"ended",
			pushy.Received{Kind: pushy.KindEnded, Channel: "news", Reason: "Removed"},
			"event: pushy:end\ndata: {\"channel\":\"news\",\"reason\":\"Removed\"}\n\n",
		},
		{
			"members",
			pushy.Received{Kind: pushy.KindMembers, Data: []byte(`[{}]`)},
			"event: pushy:presence-sync\ndata: {\"presence\":[{}]}\n\n",
		},
		{
			"left",
			pushy.Received{Kind: pushy.KindLeft, Data: []byte(`{}`)},
			"event: pushy:presence-quit\ndata: {\"member\":{}}\n\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, "x"+test.want, string(test.r.AppendSSE([]byte("x"))))
		})
	}
	assert.Equal(t, "Kind(99)", pushy.Kind(99).String())
}
