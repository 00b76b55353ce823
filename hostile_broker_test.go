package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
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

// publishBytes publishes events whose data has a size.
func publishBytes(t testing.TB, srv *pushy.Server, channel string, events, size int) {
	t.Helper()
	for range events {
		require.NoError(t, srv.Publish(t.Context(), channel, "n", strings.Repeat("x", size)))
	}
}

// untilRefused sends a command again and again until the answer is an error 429, and returns
// the bytes that the client has received.
func (p *peer) untilRefused(command func()) (bytes int) {
	p.t.Helper()
	for range 1000 {
		command()
		for {
			text, err := p.Receive(p.t.Context())
			require.NoError(p.t, err)
			bytes += len(text)
			f, err := parseFrame(text)
			require.NoError(p.t, err)
			if f.Event == "pushy:error" {
				require.Equal(p.t, "429", f.field("code"), text)
				return bytes
			}
			if strings.Contains(text, `"id":"last"`) {
				break
			}
		}
	}
	require.Fail(p.t, "the client was never refused")
	return 0
}

// What a client receives is charged to its rate: neither the history, nor replays of a channel
// that it joins again and again, nor pages can make the server send without a limit.
func TestLargeAnswersCountAsMessages(t *testing.T) {
	const history = `{"command":"pushy:history","data":{"channel":"news","limit":500},"id":"last"}`
	const rejoin = `{"command":"unsubscribe","data":{"channel":"news"}}`
	for name, commands := range map[string][]string{
		"history": {history},
		"rewind":  {rejoin, `{"command":"subscribe","data":{"channel":"news","rewind":500}}`},
		"since":   {rejoin, `{"command":"subscribe","data":{"channel":"news","since":{"epoch":"EPOCH","offset":0}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			onKeeping(t, 100, time.Hour, func(t *testing.T, srv *pushy.Server) {
				publishBytes(t, srv, "news", 100, 2000)
				top, err := srv.Position(t.Context(), "news")
				require.NoError(t, err)
				p := connectPeer(t, srv)
				p.enterWith("news", "")
				bytes := p.untilRefused(func() {
					for _, command := range commands {
						p.send(strings.ReplaceAll(command, "EPOCH", top.Epoch))
					}
					if len(commands) > 1 {
						p.send(`{"command":"pushy:history","data":{"channel":"news","limit":1},"id":"last"}`)
					}
				})
				assert.Less(t, bytes, 7<<20, "a burst of 200 messages of 32 KiB")
				assert.Greater(t, bytes, 500<<10, "a few are allowed")
			})
		})
	}
}

// The same question for the members of a user counts once, and one answer has at most 500
// members, however many connections a user has.
func TestUsersOfManyMembers(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		for i := range 700 {
			g.join(fmt.Sprint("a", i), `{"user":"ann"}`)
		}
		g.join("b", `{"user":"bob"}`)
		p := connectPeer(t, nodes[0].Server)
		p.send(withKey(subscribeText(t, p.id, "private-room", ""), "presence", `"none"`))
		p.next()
		counts := func(users string) (got map[string]int, bytes int) {
			f := p.ask(command("pushy:members", `"users":[%s]`, users))
			require.Equal(t, "pushy:reply", f.Event, "%s", f)
			var reply struct {
				Data struct {
					Users map[string][]struct{ MemberID string }
				}
			}
			require.NoError(t, json.Unmarshal(f.Data, &reply))
			got = map[string]int{}
			for user, members := range reply.Data.Users {
				got[user] = len(members)
			}
			return got, len(f.Data)
		}
		same := strings.TrimSuffix(strings.Repeat(`"ann",`, 99), ",")
		got, bytes := counts(same + `,"bob"`)
		assert.Equal(t, map[string]int{"ann": 250, "bob": 1}, got)
		assert.Less(t, bytes, 50_000)
		got, _ = counts(`"ann"`)
		assert.Equal(t, map[string]int{"ann": 500}, got)
	})
}

// While the log is read, events wait. However many they are, a client that reads is not
// disconnected when they are sent at once.
func TestStallOfLargeEvents(t *testing.T) {
	o := keeping(5000, time.Hour)
	o.Channel = func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Keep: broker.Keep{Size: 5000, TTL: time.Hour, Bytes: 64 << 20}}
	}
	onLossy(t, o, func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		for _, size := range []int{900, 50_000, 200_000} {
			l.mu.Lock()
			l.read = func(context.Context) error { time.Sleep(500 * time.Millisecond); return nil }
			l.mu.Unlock()
			top, err := srv.Position(t.Context(), "news")
			require.NoError(t, err)
			l.loses(top.Offset + 1)
			publishBytes(t, srv, "news", 900, size)
			l.set(nil)
			last := top.Offset
			for last < top.Offset+900 {
				text, err := p.Receive(t.Context())
				require.NoError(t, err, "the client was disconnected at %d bytes an event", size)
				var f struct {
					Event  string
					Offset uint64
					Data   json.RawMessage
				}
				require.NoError(t, json.Unmarshal([]byte(text), &f))
				if f.Event == "pushy:resync" {
					require.NoError(t, json.Unmarshal(f.Data, &f))
					require.Greater(t, f.Offset, last)
				} else {
					require.Equal(t, last+1, f.Offset)
				}
				last = f.Offset
			}
			time.Sleep(2 * time.Minute)
		}
		p.quiet()
	})
}

// What a broker delivers again while the log is read does not move the place back.
func TestRepeatsWhileTheLogCannotBeRead(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		var first broker.Entry
		l.set(func(e broker.Entry) fate {
			if e.At.Offset == 1 {
				first = e
			}
			if e.At.Offset == 3 {
				return isLost
			}
			return arrives
		})
		publishNumbers(t, srv, "news", 1, 3)
		p.events("news", 1, 2)
		l.mu.Lock()
		l.read = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l.mu.Unlock()
		time.Sleep(9500 * time.Millisecond) // the places were compared, and the log is being read
		synctest.Wait()
		l.sink.Deliver("news", first)
		publishNumbers(t, srv, "news", 4, 4)
		p.expect(`pushy:resync news {"reason":"unavailable","epoch":"` + place.Epoch + `","offset":3}`)
		p.events("news", 4, 4)
		p.quiet()
	})
}

// A late event of a log that has ended is not sent, and does not bring the log back.
func TestLateEventOfAnEndedLog(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, place broker.Position) {
		var old broker.Entry
		l.set(func(e broker.Entry) fate { old = e; return arrives })
		publishNumbers(t, srv, "news", 1, 2)
		p.events("news", 1, 2)
		l.set(nil)
		require.NoError(t, srv.Forget(t.Context(), "news"))
		now, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		p.expect(`pushy:resync news {"reason":"epoch","epoch":"` + now.Epoch + `","offset":0}`)
		for i := range uint64(6) {
			l.sink.Deliver("news", old)
			publishNumbers(t, srv, "news", i+1, i+1)
			p.events("news", i+1, i+1)
		}
		p.quiet()
		assert.Zero(t, l.reads)
	})
}

// liar is a broker whose log can be made up.
type liar struct {
	*lossy
	page func(p broker.Page) (broker.Page, error)
	top  func(p broker.Position) broker.Position
}

func (l *liar) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	p, err := l.lossy.Read(ctx, channel, r)
	if err == nil && l.page != nil {
		p, err = l.page(p)
	}
	return p, err
}

func (l *liar) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	tops, err := l.lossy.Tops(ctx, channels)
	for i := range tops {
		if l.top != nil {
			tops[i] = l.top(tops[i])
		}
	}
	return tops, err
}

// A log that is wrong, such as one that another program has written to, causes breaks with a
// reason, but never events that are not in order, an invalid epoch, or an end of the channel.
func TestLogThatLies(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(l *liar){
		"otherEpoch": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				for i := range p.Entries {
					p.Entries[i].At.Epoch = "other"
				}
				return p, nil
			}
		},
		"reversed": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				for i, j := 0, len(p.Entries)-1; i < j; i, j = i+1, j-1 {
					p.Entries[i], p.Entries[j] = p.Entries[j], p.Entries[i]
				}
				return p, nil
			}
		},
		"repeated": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				p.Entries = append(p.Entries, p.Entries...)
				return p, nil
			}
		},
		"farAhead": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				for i := range p.Entries {
					p.Entries[i].At.Offset += 1 << 60
				}
				return p, nil
			}
		},
		"topFarAhead": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				p.Top.Offset = 1 << 61
				return p, nil
			}
		},
		"empty": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) { return broker.Page{}, nil }
		},
		"noEpoch": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				p.Top.Epoch = ""
				return p, broker.ErrEpoch
			}
			l.top = func(broker.Position) broker.Position { return broker.Position{} }
		},
		"longEpoch": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				p.Top.Epoch = strings.Repeat("x", 1<<20)
				return p, broker.ErrEpoch
			}
			l.top = func(broker.Position) broker.Position {
				return broker.Position{Epoch: strings.Repeat("x", 1<<20), Offset: 9}
			}
		},
		"huge": func(l *liar) {
			l.page = func(p broker.Page) (broker.Page, error) {
				for i := range p.Entries {
					p.Entries[i].Data = json.RawMessage(`"` + strings.Repeat("x", 20<<20) + `"`)
				}
				return p, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				l := &liar{lossy: &lossy{Broker: newCluster().Broker()}}
				srv := startOn(t, l, keeping(100, time.Hour))
				var log ordercheck.Log
				f := &follower{
					Follower: log.Follower(),
					t:        t,
					r:        rand.New(rand.NewPCG(1, 1)),
					servers:  []*pushy.Server{srv},
				}
				f.reconnect()
				place := *f.At
				publishNumbers(t, srv, "news", 1, 5)
				f.read(time.Millisecond)
				lie(l)
				l.loses(7, 8, 9)
				for i := uint64(6); i <= 20; i++ {
					publishNumbers(t, srv, "news", i, i)
					f.read(time.Second)
					require.True(t, broker.ValidEpoch(f.At.Epoch), "%.100q", f.At.Epoch)
				}
				for _, keys := range []string{`,"rewind":500`, `,"since":{"epoch":"` + place.Epoch + `","offset":3}`} {
					q := connect2(t, srv)
					got := q.enterWith("news", keys)
					require.True(t, broker.ValidEpoch(got.Epoch))
					first := got.Offset - uint64(*got.Replay) + 1
					q.events("news", first, got.Offset)
					q.quiet()
					q.Abort()
				}
				l.page = nil
				l.top = nil
				l.set(nil)
				f.read(time.Minute)
				if f.At.Offset > 20 {
					return // the members were told that the log is far ahead
				}
				require.Equal(t, broker.Position{Epoch: place.Epoch, Offset: 20}, *f.At)
				publishNumbers(t, srv, "news", 21, 21)
				f.read(time.Second)
				require.Equal(t, uint64(21), f.At.Offset)
			})
		})
	}
}

// An event that is over the Bytes of its own channel is delivered and not kept.
func TestEventOverKeepBytes(t *testing.T) {
	t.Parallel()
	o := pushy.Options{Channel: func(string) pushy.ChannelOptions {
		return pushy.ChannelOptions{Keep: broker.Keep{Size: 10, TTL: time.Hour, Bytes: 1000}}
	}}
	for name, start := range map[string]func(t *testing.T) *pushy.Server{
		"alone": func(t *testing.T) *pushy.Server { return startServer(t, o) },
		"node":  func(t *testing.T) *pushy.Server { return startOn(t, newCluster().Broker(), o) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				srv := start(t)
				stays := connect2(t, srv)
				place := stays.enterWith("news", "").position()
				publishBytes(t, srv, "news", 1, 2000)
				assert.Len(t, stays.next().Data, 2002)
				assert.Equal(t, "recovered=false trimmed replay=0 first=2 offset=1", connect2(t, srv).resume("news", place, "").String())
				publishBytes(t, srv, "news", 1, 100)
				assert.Len(t, stays.next().Data, 102)
				assert.Equal(t, "recovered=false trimmed replay=0 first=2 offset=2", connect2(t, srv).resume("news", place, "").String())
				p := connect2(t, srv)
				assert.Equal(t, "replay=1 offset=2", p.enterWith("news", `,"rewind":9`).String())
				assert.Len(t, p.next().Data, 102)
			})
		})
	}
}

// A broker whose log hangs delays the events of a channel for a few seconds, however many
// channels wait for it.
func TestManyChannelsWaitForALogThatHangs(t *testing.T) {
	onLossy(t, keeping(100, time.Hour), func(t *testing.T, l *lossy, srv *pushy.Server, p *peer, _ broker.Position) {
		const channels = 190
		for i := range channels {
			p.enterWith(fmt.Sprint("c", i), "")
		}
		for i := channels; i < 3*channels; i++ {
			if i%channels == 0 {
				p = connect2(t, srv)
			}
			p.enterWith(fmt.Sprint("c", i), "")
		}
		l.mu.Lock()
		l.read = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l.mu.Unlock()
		l.loses(1)
		for i := range 3 * channels {
			publishNumbers(t, srv, fmt.Sprint("c", i), 1, 2)
		}
		began := time.Now()
		got := map[string][]string{} // by channel, because channels have no common order
		for range 2 * channels {
			f := p.next()
			got[f.Channel] = append(got[f.Channel], f.Event)
		}
		assert.Len(t, got, channels)
		for channel, events := range got {
			assert.Equal(t, []string{"pushy:resync", "n"}, events, channel)
		}
		assert.LessOrEqual(t, time.Since(began), 4*time.Second)
	})
}
