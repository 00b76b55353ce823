package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
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
)

// Keys of a subscription that no client of ours sends are refused or have no effect.
func TestAbsurdSubscriptions(t *testing.T) {
	onKeeping(t, 100, time.Hour, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 3)
		long := `"` + strings.Repeat("x", 300) + `"`
		eight := "[" + strings.TrimSuffix(strings.Repeat(long+",", 8), ",") + "]"
		p := connect2(t, srv)
		for keys, message := range map[string]string{
			`"was":` + eight: "was[0]: must have at most 64 bytes",
			`"was":["1","2","3","4","5","6","7","8","9"]`: "was: has 9 ids, at most 8 are allowed",
			`"was":"x"`:                     "was: must be an array, not a string",
			`"rewind":-1`:                   "rewind: must be from 0 to 500",
			`"rewind":1e99`:                 "rewind: must be",
			`"rewind":{"events":501}`:       "rewind.events: must be from 0 to 500",
			`"rewind":{"seconds":0}`:        "rewind.seconds: must be from 1 to",
			`"partial":1`:                   "partial: must be",
			`"hold":"yes"`:                  "hold: must be",
			`"member":{"id":` + long + `}`:  "member.id: must have at most 64 bytes",
			`"member":{"key":` + long + `}`: "member.key: must have at most 64 bytes",
			`"presence":"all"`:              `presence: must be "list"`,
			`"presence":{"mode":"diff","since":"x.18446744073709551615"}`: "presence.since: must be a revision of members",
			`"presence":{"mode":"diff","limit":501}`:                      "presence.limit: must be from 1 to 500",
			`"since":{"epoch":` + long + `,"offset":1}`:                   "since.epoch: must have at most 64 bytes",
			`"since":{"epoch":"x","offset":9007199254740993}`:             "since.offset: must be from 0 to 2^53-1",
		} {
			f := p.ask(`{"command":"subscribe","data":{"channel":"news",` + keys + `},"id":1}`)
			require.Equal(t, "pushy:error", f.Event, keys)
			assert.Equal(t, "400", f.field("code"), keys)
			assert.Contains(t, f.field("message"), message, keys)
		}
		time.Sleep(time.Minute)
		assert.Equal(t, "offset=3", p.enterWith("news", "").String(), "nothing has happened before")
		p.quiet()
	})
}

// A panic in Options.Channel refuses what is asked for, and nothing else; the Server goes on.
func TestOptionsChannelPanics(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var broken atomic.Bool
		o := keeping(10, time.Hour)
		good := o.Channel
		o.Channel = func(name string) pushy.ChannelOptions {
			if broken.Load() {
				panic("boom")
			}
			return good(name)
		}
		srv := startServer(t, o)
		open := connect2(t, srv)
		open.enterWith("open", "")
		broken.Store(true)
		p := connect2(t, srv)
		f := p.ask(`{"command":"subscribe","data":{"channel":"news","rewind":9}}`)
		assert.Equal(t, `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`, f.String())
		assert.Error(t, srv.Publish(t.Context(), "news", "n", 1))
		_, err := srv.Position(t.Context(), "news")
		assert.Error(t, err)
		_, err = srv.History(t.Context(), "news", pushy.HistoryOptions{})
		assert.Error(t, err)
		assert.Error(t, srv.Forget(t.Context(), "news"))
		publishNumbers(t, srv, "open", 1, 1)
		open.events("open", 1, 1)
		broken.Store(false)
		assert.Equal(t, "replay=0 offset=0", p.enterWith("news", `,"rewind":9`).String())
	})
}

// The Keep of a channel changes while it is closed, and while it is open: nothing is lost for
// the members, and what is kept follows the new Keep.
func TestKeepChanges(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var size atomic.Int64
		size.Store(100)
		srv := startOn(t, newCluster().Broker(), pushy.Options{Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: int(size.Load()), TTL: time.Hour}}
		}})
		p := connect2(t, srv)
		place := p.enterWith("news", "").position()
		publishNumbers(t, srv, "news", 1, 20)
		p.events("news", 1, 20)
		size.Store(5)
		publishNumbers(t, srv, "news", 21, 22) // the channel is open with the old Keep
		p.events("news", 21, 22)
		assert.Equal(t, "recovered=true replay=22 offset=22", connect2(t, srv).resume("news", place, "").String())
		for c := range srv.Channels().All() {
			for conn := range c.Conns() {
				require.NoError(t, c.Remove(conn, ""))
			}
		}
		p.next()
		time.Sleep(time.Minute)
		publishNumbers(t, srv, "news", 23, 23)
		q := connect2(t, srv)
		assert.Equal(t, "recovered=false trimmed replay=5 first=19 offset=23", q.resume("news", place, `,"partial":true`).String())
		q.events("news", 19, 23)
		q.send(`{"command":"unsubscribe","data":{"channel":"news"}}`)
		q.next()
		time.Sleep(time.Minute)
		size.Store(0)
		assert.Equal(t, "recovered=false off replay=0 offset=0", q.resume("news", place, "").String())
		require.NoError(t, srv.Publish(t.Context(), "news", "n", 24))
		text, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `{"event":"n","channel":"news","data":24}`, text)
	})
}

// Events are published while the history is forgotten again and again. Subscribers receive
// each event of each log once, or are notified.
func TestPublishWhileForgetting(t *testing.T) {
	onKeeping(t, 100, time.Hour, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		at := p.enterWith("news", "").position()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 100 {
					if err := srv.Publish(t.Context(), "news", "n", 0); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		all.Go(func() {
			for range 30 {
				if err := srv.Forget(t.Context(), "news"); err != nil {
					t.Error(err)
				}
				time.Sleep(3 * time.Millisecond)
			}
		})
		all.Wait()
		want, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		breaks := 0
		for at != want {
			f := p.next()
			if f.Event == "pushy:resync" {
				breaks++
				at = broker.Position{}
				require.NoError(t, json.Unmarshal(f.Data, &at))
				continue
			}
			at.Offset++
		}
		assert.GreaterOrEqual(t, breaks, 1)
		p.quiet()
	})
}

// A Shutdown while the log is being read ends, and the members are closed as always.
func TestShutdownWhileTheLogIsRead(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"heeds the context": false, "does not": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				hang := make(chan struct{})
				defer close(hang)
				l := &lossy{Broker: newCluster().Broker()}
				l.read = func(ctx context.Context) error {
					if !deaf {
						<-ctx.Done()
						return ctx.Err()
					}
					<-hang
					return errBroker
				}
				o := keeping(100, time.Hour)
				o.SecretKey = peerKey
				o.Broker = l
				o.Logger = testLogger(t)
				srv, err := pushy.New(o)
				require.NoError(t, err)
				p := connect2(t, srv)
				p.enterWith("news", "")
				l.loses(1)
				publishNumbers(t, srv, "news", 1, 3)
				q := connect2(t, srv)
				q.send(`{"command":"subscribe","data":{"channel":"other","rewind":9}}`)
				q.send(`{"command":"pushy:history","data":{"channel":"other"},"id":1}`)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				began := time.Now()
				_ = srv.Shutdown(ctx)
				assert.LessOrEqual(t, time.Since(began), 23*time.Second)
				p.ended()
				q.ended()
				assert.Zero(t, srv.Stats().Connections)
			})
		})
	}
}

// Two tabs with one key take the member from each other as fast as they can. At the end there
// is one member, and the others have seen neither a join nor a leave.
func TestTabsFightForAMember(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				cluster := newCluster()
				var servers []*pushy.Server
				for range nodes {
					servers = append(servers, startOn(t, cluster.Broker(), pushy.Options{}))
				}
				bob := newRoamer(t, "Bob")
				bob.enter(servers[0])
				ann := newRoamer(t, "Ann")
				ann.enter(servers[0])
				require.Equal(t, "pushy:presence-add", bob.event())
				in := ann.in
				ann.drop()
				var all sync.WaitGroup
				end := time.Now().Add(5 * time.Second)
				var refused atomic.Int64
				for i := range 2 {
					tab := newRoamer(t, "Ann")
					tab.in = in
					tab.connect(servers[i%nodes])
					all.Go(func() {
						defer tab.Abort()
						command := tab.command()
						tab.send(command)
						for time.Now().Before(end) {
							ctx, cancel := context.WithDeadline(context.Background(), end)
							text, err := tab.Receive(ctx)
							cancel()
							if err != nil {
								return
							}
							switch {
							case strings.Contains(text, "pushy:subscription-end"):
								tab.send(command)
							case strings.Contains(text, `"429"`):
								refused.Add(1)
								time.Sleep(10 * time.Millisecond)
								tab.send(command)
							}
						}
					})
				}
				all.Wait()
				assert.Positive(t, refused.Load(), "the rate limits them")
				synctest.Wait()
				assert.Contains(t, membersOf(t, servers[0], room), "Ann")
				assert.Empty(t, bob.settle())
				time.Sleep(time.Minute)
				assert.Equal(t, []string{"Bob"}, membersOf(t, servers[0], room))
			})
		})
	}
}

// States, cursors and idle as no client of ours sends them.
func TestAbsurdMemberCommands(t *testing.T) {
	onNodes(t, 1, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		at := g.join("m1", `{}`)
		for i := range 2000 {
			g.join(fmt.Sprint("x", i), `{}`)
		}
		p := connectPeer(t, nodes[0].Server)
		p.send(withKey(subscribeText(t, p.id, "private-room", `{}`), "presence", `"none"`))
		p.next()
		for _, c := range []struct{ command, want string }{
			{command("pushy:update", `"state":{"x":%q}`, strings.Repeat("x", 10_000)), `"400"`},
			{command("pushy:update", `"state":%s`, strings.Repeat("[", 500)+strings.Repeat("]", 500)), `"400"`},
			{command("pushy:members", `"after":"%s.18446744073709551615"`, at.Epoch), `"400"`},
			{command("pushy:members", `"after":"%s.-1"`, at.Epoch), `"400"`},
			{command("pushy:members", `"after":""`), `"400"`},
			{command("pushy:members", `"after":"%s.9007199254740991"`, at.Epoch), `"list":[],"next":null`},
			{command("pushy:members", `"after":"other.3","limit":1`), `"memberId":"m1"`},
			{command("pushy:members", `"users":[]`), `"400"`},
			{command("pushy:members", `"users":["nobody"]`), `"users":{}`},
			{`{"command":"pushy:idle","data":{"idle":true},"id":1}`, `"data":{}`},
			{`{"command":"pushy:idle","data":{"idle":false},"id":1}`, `"429"`},
			{`{"command":"pushy:idle","data":{"idle":"x"},"id":1}`, `"400"`},
		} {
			p.send(c.command)
			text, err := p.Receive(t.Context())
			require.NoError(t, err)
			assert.Contains(t, text, c.want, "%.200s", c.command)
		}
		accepted := 0
		for i := range 20 {
			f := p.ask(command("pushy:update", `"state":{"n":%d}`, i))
			if f.Event == "pushy:reply" {
				accepted++
			}
		}
		assert.Equal(t, 4, accepted, "of one second")
	})
}

// A Shutdown waits for a publish. A client that names an unknown position meanwhile is answered as
// before: the broker knows that its epoch is another one.
func TestUnknownPositionDuringAShutdown(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := &altered{Broker: newCluster().Broker()}
		release := make(chan struct{})
		b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			if e.Event == "slow" {
				<-release
			}
			return b.Broker.Append(ctx, channel, e)
		}
		srv := startOn(t, b, keeping(100, time.Hour))
		p := connect2(t, srv)
		go func() { _ = srv.Publish(context.Background(), "a", "slow", 1) }()
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- srv.Shutdown(context.Background()) }() // it waits for the publish
		synctest.Wait()
		past := p.resume("news", broker.Position{Epoch: "k3Xa9Q", Offset: 7}, "")
		assert.Equal(t, "recovered=false epoch replay=0 first=1 offset=0", past.String())
		close(release)
		assert.Equal(t, pushy.CloseShutdown, p.ended().Code)
		require.NoError(t, <-ended)
	})
}
