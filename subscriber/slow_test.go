package subscriber_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

// Reach C5: a loop that is too slow ends, or skips; in a channel that keeps events it goes on where it
// was. A second Subscription of the same Client receives everything.
func TestSlowLoops(t *testing.T) {
	for _, channel := range []string{"news", "off"} {
		event := func(i int) string {
			at := ""
			if channel == "news" {
				at = fmt.Sprintf(" @%d", i)
			}
			return fmt.Sprintf("published %s n %d%s", channel, i, at)
		}
		run := func(name string, onFull subscriber.OnFull, check func(t *testing.T, n *network, srv *pushy.Server,
			s *subscriber.Subscription)) {
			t.Run(channel+" "+name, func(t *testing.T) {
				onNetwork(t, keeping(1000), func(t *testing.T, n *network, srv *pushy.Server) {
					o := n.options()
					o.MaxEvents = 3
					o.OnFull = onFull
					c := connect(t, "a", o)
					s := subscribe(t, c, channel, nil)
					other := read(t, subscribe(t, c, "off-other", nil))
					var others []string
					for i := range 9 {
						others = append(others, fmt.Sprintf("published off-other n %d", i))
						publish(t, srv, channel, "n", i+1)
						publish(t, srv, "off-other", "n", i)
						synctest.Wait()
					}
					check(t, n, srv, s)
					synctest.Wait()
					other.mu.Lock()
					defer other.mu.Unlock()
					assert.Subset(t, other.got, others)
				})
			})
		}
		run("end", subscriber.EndWhenFull, func(t *testing.T, _ *network, srv *pushy.Server, s *subscriber.Subscription) {
			r := read(t, s)
			r.expect(event(1), event(2), event(3))
			require.ErrorIs(t, r.ended(), subscriber.ErrSlowConsumer)
			_, subscribed := srv.Channels().Lookup(channel)
			assert.False(t, subscribed)
		})
		run("skip", subscriber.SkipWhenFull, func(t *testing.T, n *network, srv *pushy.Server, s *subscriber.Subscription) {
			var got []string
			for e, err := range s.Events() {
				require.NoError(t, err)
				got = append(got, short(e))
				synctest.Wait()
				if len(got) == 1 {
					n.cut() // meanwhile
					time.Sleep(time.Minute)
				}
				if strings.Contains(short(e), "n 10") {
					break
				}
				if e.Kind == subscriber.KindGap && e.Reason == "off" || channel == "news" && len(got) == 9 {
					publish(t, srv, channel, "n", 10)
				}
			}
			want := []string{event(1), event(2), event(3)}
			if channel == "news" {
				for i := 4; i <= 10; i++ {
					want = append(want, event(i))
				}
			} else {
				want = append(want, "gap off off 6 lost", event(10)) // both gaps are one
			}
			assert.Equal(t, want, got)
		})
	}
}

// Skipped events that the server does not have any more are a Gap.
func TestSkippedTooMuch(t *testing.T) {
	onNetwork(t, keeping(5), func(t *testing.T, n *network, srv *pushy.Server) {
		o := n.options()
		o.MaxBytes = 1
		o.OnFull = subscriber.SkipWhenFull
		c := connect(t, "a", o)
		s := subscribe(t, c, "news", nil)
		for i := range 20 {
			publish(t, srv, "news", "n", i+1)
			synctest.Wait()
		}
		var got []string
		for e, err := range s.Events() {
			require.NoError(t, err)
			got = append(got, short(e))
			synctest.Wait()
			if e.Kind == subscriber.KindGap {
				publish(t, srv, "news", "n", 21)
			}
			if e.Position.Offset == 21 {
				break
			}
		}
		assert.Equal(t, []string{"published news n 1 @1", "gap news @20 trimmed", "published news n 21 @21"}, got)
	})
}

// Reach C5: everything can be called in a loop and in OnState.
func TestCallsFromEverywhere(t *testing.T) {
	onNetwork(t, keeping(100), func(t *testing.T, n *network, srv *pushy.Server) {
		pushy.Handle(srv, "ping", func(context.Context, *pushy.Conn, struct{}) (struct{}, error) { return struct{}{}, nil })
		var c *subscriber.Client
		ready := make(chan struct{})
		called := make(chan struct{}) // the hook has made its calls
		var states []subscriber.State
		var mu sync.Mutex
		o := n.options()
		o.OnState = func(s subscriber.State) {
			<-ready
			mu.Lock()
			states = append(states, s)
			mu.Unlock()
			switch s {
			case subscriber.Connected:
				assert.NoError(t, c.Exec(t.Context(), "ping", nil, nil))
				s, err := c.Subscribe(t.Context(), "off-state", nil)
				if assert.NoError(t, err) {
					assert.NoError(t, s.Unsubscribe(t.Context()))
				}
				close(called)
			case subscriber.Waiting:
				c.Close()
			}
			assert.NotEmpty(t, c.State().String())
		}
		c = connect(t, "a", o)
		close(ready)
		s := subscribe(t, c, "news", nil)
		publish(t, srv, "news", "n", 1)
		<-called
		for e, err := range s.Events() {
			if err != nil {
				require.ErrorIs(t, err, subscriber.ErrClosed)
				break
			}
			require.NoError(t, c.Exec(t.Context(), "ping", nil, nil))
			inner := subscribe(t, c, "inner", nil)
			publish(t, srv, "inner", "n", 2)
			for range inner.Events() {
				break
			}
			require.NoError(t, s.Unsubscribe(t.Context()))
			require.NoError(t, s.Unsubscribe(t.Context()))
			assert.Equal(t, "published news n 1 @1", short(e))
		}
		for _, err := range s.Events() {
			require.ErrorIs(t, err, subscriber.ErrClosed)
		}
		again := subscribe(t, c, "news", nil)
		publish(t, srv, "news", "n", 3)
		n.cut()
		last := error(nil)
		for _, err := range again.Events() {
			last = err
			if err == nil {
				c.Close()
			}
		}
		require.ErrorIs(t, last, subscriber.ErrClosed)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, subscriber.Closed, states[len(states)-1])
	})
}

// The members of a private channel, as those of a browser client see them.
func TestMembers(t *testing.T) {
	onNetwork(t, pushy.Options{Channel: func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Presence: pushy.PresenceOptions{ClientState: true}}
	}}, func(t *testing.T, n *network, srv *pushy.Server) {
		join := func(name string) (*subscriber.Client, *subscriber.Subscription) {
			c := connect(t, "a", n.options())
			return c, subscribe(t, c, "private-room", &subscriber.SubscribeOptions{
				Data:     map[string]string{"name": name},
				Presence: true,
			})
		}
		names := func(s *subscriber.Subscription) (names []string) {
			synctest.Wait()
			for _, m := range s.Members() {
				var member struct {
					Name  string
					State json.RawMessage
				}
				require.NoError(t, json.Unmarshal(m, &member))
				names = append(names, member.Name+string(member.State))
			}
			return names
		}
		_, ann := join("Ann")
		r := read(t, ann)
		kinds := func() (kinds []string) {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.got {
				kinds = append(kinds, strings.Fields(e)[0])
			}
			r.got = nil
			return kinds
		}
		assert.Equal(t, []string{"Ann"}, names(ann))
		assert.Equal(t, []string{"members"}, kinds())
		c, bob := join("Bob")
		assert.Equal(t, []string{"Ann", "Bob"}, names(ann))
		assert.Equal(t, []string{"Ann", "Bob"}, names(bob))
		assert.Equal(t, []string{"joined"}, kinds())
		require.NoError(t, bob.Update(t.Context(), map[string]bool{"typing": true}))
		assert.Equal(t, []string{"Ann", `Bob{"typing":true}`}, names(ann))
		require.NoError(t, bob.Update(t.Context(), nil))
		assert.Equal(t, []string{"Ann", "Bob"}, names(ann))
		assert.Equal(t, []string{"updated", "updated"}, kinds())
		n.cut() // both return as the same members
		time.Sleep(time.Minute)
		assert.ElementsMatch(t, []string{"Ann", "Bob"}, names(ann))
		assert.Equal(t, []string{"members", "gap"}, kinds())
		c.Close()
		assert.Equal(t, []string{"Ann"}, names(ann))
		assert.Equal(t, []string{"left"}, kinds())
		_, err := srv.Kick(t.Context(), pushy.Kick{Target: "channel:private-room", Reason: "Over"})
		require.NoError(t, err)
		r.expect("ended private-room Over")
		require.ErrorIs(t, r.ended(), subscriber.ErrClosed)
	})
}

// Reach C7: a server that breaks the protocol, or sends what the client does not know.
func TestHostileServers(t *testing.T) {
	huge := ws.Header{Fin: true, OpCode: ws.OpText, Length: 64 << 20}
	tests := []struct {
		name string
		send func(conn net.Conn)
		want string // the error that ends the client; "" if it goes on
	}{
		{"64 MiB frame", func(conn net.Conn) {
			_ = ws.WriteHeader(conn, huge)
			_, _ = conn.Write(make([]byte, 1<<10))
		}, "a message has over 16777216 bytes"},
		{"64 MiB in fragments", func(conn net.Conn) {
			chunk := make([]byte, 1<<20)
			op := ws.OpText
			for range 64 {
				if ws.WriteFrame(conn, ws.NewFrame(op, false, chunk)) != nil {
					return
				}
				op = ws.OpContinuation
			}
		}, "a message has over 16777216 bytes"},
		{"invalid UTF-8", func(conn net.Conn) { say(conn, "{\"event\":\"\xff\"}") }, "a message is not UTF-8"},
		{"not JSON", func(conn net.Conn) { say(conn, "hello") }, `it sends "hello"`},
		{"no event", func(conn net.Conn) { say(conn, "{}") }, `it sends "{}"`},
		{"masked frame", func(conn net.Conn) {
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte("{}"))))
		}, "frames from server to client must be not masked"},
		{"continuation of nothing", func(conn net.Conn) {
			_ = ws.WriteFrame(conn, ws.NewFrame(ws.OpContinuation, true, nil))
		}, "unexpected continuation"},
		{"unknown events", func(conn net.Conn) {
			say(conn, `{"event":"pushy:later","data":{"x":1}}`)
			say(conn, `{"event":"pushy:later","channel":"news","data":7}`)
			say(conn, `{"event":"direct","data":[1]}`)
			say(conn, `{"event":"n","channel":"other","data":1}`)
		}, ""},
		{"replies to unknown ids", func(conn net.Conn) {
			say(conn, `{"event":"pushy:reply","data":{"id":"~99","data":1}}`)
			say(conn, `{"event":"pushy:reply","data":{"id":{},"data":1}}`)
			say(conn, `{"event":"pushy:subscription-success","data":{"channel":"news","memberId":"m","id":"~99"}}`)
			say(conn, `{"event":"pushy:subscription-end","data":{"channel":"other"}}`)
		}, ""},
		{"fields of other types", func(conn net.Conn) {
			say(conn, `{"event":"pushy:return","data":{"returnWithin":"soon"}}`)
			say(conn, `{"event":"pushy:drain","data":{"returnIn":-1}}`)
			say(conn, `{"event":"pushy:presence-update","channel":"news","data":{"member":7}}`)
			say(conn, `{"event":"pushy:presence-quit","channel":"news","data":null}`)
		}, ""},
		{"offsets that go back", func(conn net.Conn) {
			for _, offset := range []int{8, 7, 8, 3, 0} {
				say(conn, fmt.Sprintf(`{"event":"n","channel":"news","data":%d,"offset":%d}`, offset, offset))
			}
		}, ""},
		{"pings without end", func(conn net.Conn) {
			for range 10_000 {
				_ = ws.WriteFrame(conn, ws.NewPingFrame([]byte("x")))
			}
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				n := newNetwork(t)
				n.raw("a", func(conn net.Conn) {
					say(conn, hello)
					text, err := wsutil.ReadClientText(conn)
					if !assert.NoError(t, err) {
						return
					}
					var m struct{ ID string }
					assert.NoError(t, json.Unmarshal(text, &m))
					say(conn, fmt.Sprintf(`{"event":"pushy:subscription-success","data":{"channel":"news",`+
						`"memberId":"m","epoch":"e","offset":7,"id":%q}}`, m.ID))
					test.send(conn)
					say(conn, `{"event":"n","channel":"news","data":"last","offset":9}`)
					for {
						if _, err := ws.ReadFrame(conn); err != nil {
							return
						}
					}
				})
				c := connect(t, "a", n.options())
				s := subscribe(t, c, "news", &subscriber.SubscribeOptions{Presence: true})
				var got []string
				for e, err := range s.Events() {
					if err != nil {
						require.NotEmpty(t, test.want)
						require.ErrorIs(t, err, subscriber.ErrProtocol)
						require.ErrorContains(t, err, test.want)
						break
					}
					got = append(got, short(e))
					if string(e.Data) == `"last"` {
						require.Empty(t, test.want)
						break
					}
				}
				want := []string{"members news []"}
				if test.name == "offsets that go back" {
					want = append(want, "published news n 8 @8", "published news n 0")
				}
				if test.want == "" {
					want = append(want, `published news n "last" @9`)
				}
				assert.Equal(t, want, got)
			})
		})
	}
}
