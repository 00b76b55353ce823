package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// fakeTime runs a test in a synctest bubble, and lets what is late come to its
// end before it looks for what is left.
func fakeTime(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(10_000 * time.Hour) })
		run(t)
	})
}

// bubble runs a test in its own time, with one Server on an unreliable cluster that has
// no delays yet.
func bubble(t *testing.T, run func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server)) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		u := newUnreliable(t, 1, 0)
		run(t, u, func(o pushy.Options) *pushy.Server { return startOn(t, u.node(), o) })
		synctest.Wait()
		assert.Empty(t, u.complaints())
	})
}

// events records hooks as words.
type events struct {
	mu    sync.Mutex
	words []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.words = append(e.words, fmt.Sprintf(format, args...))
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.words...)
}

func (e *events) hooks() pushy.Hooks {
	return pushy.Hooks{
		Connect:         func(*pushy.Conn) { e.add("connect") },
		Disconnect:      func(_ *pushy.Conn, code int, reason string) { e.add("disconnect %d %s", code, reason) },
		Subscribe:       func(_ *pushy.Conn, ch *pushy.Channel) { e.add("subscribe %s", ch.Name()) },
		Unsubscribe:     func(_ *pushy.Conn, ch *pushy.Channel) { e.add("unsubscribe %s", ch.Name()) },
		ChannelOccupied: func(ch *pushy.Channel) { e.add("occupied %s", ch.Name()) },
		ChannelVacated:  func(ch *pushy.Channel) { e.add("vacated %s", ch.Name()) },
	}
}

const unsubscribeRoom = `{"command":"unsubscribe","data":{"channel":"private-room"}}`

func TestChannelLingersForASecond(t *testing.T) {
	bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
		var seen events
		srv := start(pushy.Options{Hooks: seen.hooks()})
		p := connectPeer(t, srv)
		p.subscribe("private-room", "")
		require.Equal(t, "pushy:subscription-end", p.ask(unsubscribeRoom).Event)
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 0, u.count("Unfollow"), "before the second is over")
		p.subscribe("private-room", "")
		time.Sleep(time.Minute)
		assert.Equal(t, 1, u.count("Follow"), "the channel was still open")
		require.Equal(t, "pushy:subscription-end", p.ask(unsubscribeRoom).Event)
		assert.Equal(t, 1, srv.Entries())
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 1, u.count("Unfollow"))
		assert.Zero(t, srv.Entries())
		p.subscribe("private-room", "")
		assert.Equal(t, 2, u.count("Follow"))
		require.NoError(t, srv.Shutdown(t.Context()))
		assert.Equal(t, []string{"connect", "occupied private-room", "subscribe private-room", "unsubscribe private-room",
			"subscribe private-room", "unsubscribe private-room", "vacated private-room",
			"occupied private-room", "subscribe private-room", "unsubscribe private-room",
			"disconnect 3001 server shutting down", "vacated private-room"}, seen.list())
	})
}

func TestJoinDuringUnsubscribingWaits(t *testing.T) {
	bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
		u.most = 4 * time.Second
		srv := start(pushy.Options{})
		p := connectPeer(t, srv)
		for range 20 {
			p.subscribe("private-room", `{"a":1}`)
			require.Equal(t, "pushy:subscription-end", p.ask(unsubscribeRoom).Event)
			for begun := u.count("Unfollow"); u.count("Unfollow") == begun; {
				time.Sleep(time.Millisecond)
			}
		}
		p.subscribe("private-room", "")
		time.Sleep(time.Minute)
		assert.Len(t, u.members("private-room"), 1)
		assert.Equal(t, 20, u.count("Unfollow"))
		assert.Equal(t, 21, u.count("Follow"))
	})
}

// A client that the host removes may be back before the log has taken its
// leaving: it must not meet its old self in the list, nor hear it quit.
func TestJoinWaitsForTheLastLeaving(t *testing.T) {
	bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
		u.most = 4 * time.Second
		srv := start(pushy.Options{})
		p := connectPeer(t, srv)
		for range 20 {
			p.send(subscribeText(t, p.id, "private-room", `{"a":1}`))
			success := p.next()
			require.Equal(t, "pushy:subscription-success", success.Event)
			ids, _ := memberIDs(success.Data, "presence")
			require.Equal(t, []string{success.field("memberId")}, ids)
			ch, ok := srv.Channels().Lookup("private-room")
			require.True(t, ok)
			go func() { assert.NoError(t, ch.Remove(p.conn(srv), "")) }()
			require.Equal(t, "pushy:subscription-end", p.next().Event)
		}
		p.subscribe("private-room", `{"a":1}`)
		time.Sleep(time.Minute)
		p.quiet()
	})
}

// A join that the broker fails leaves nothing behind.
func TestFailedJoinLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call string
		done bool
	}{{"Follow", false}, {"Join", false}, {"Join", true}} {
		t.Run(fmt.Sprintf("%s/done=%v", c.call, c.done), func(t *testing.T) {
			bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
				var seen events
				failing := true
				u.fail = func(call string) (error, bool) {
					if failing && call == c.call {
						return errBroker, c.done
					}
					return nil, false
				}
				srv := start(pushy.Options{Hooks: seen.hooks()})
				p := connectPeer(t, srv)
				p.send(subscribeText(t, p.id, "private-room", `{"a":1}`))
				answer := p.next()
				if answer.Event == "pushy:subscription-success" {
					// The entry came back before the error did: it counts.
					require.True(t, c.done)
					require.Equal(t, "pushy:subscription-end", p.ask(unsubscribeRoom).Event)
				} else {
					require.Equal(t, `pushy:subscription-failed {"channel":"private-room","reason":"Temporarily unavailable"}`, answer.String())
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				assert.Zero(t, srv.Entries())
				assert.Empty(t, u.members("private-room"))
				assert.Empty(t, p.conn(srv).Channels())
				if c.call == "Join" {
					assert.Equal(t, 1, u.count("Leave"), "Leave follows a Join that failed")
				}
				assert.Equal(t, u.nodes[0].following["private-room"], false)
				u.mu.Lock()
				failing = false
				u.mu.Unlock()
				p.subscribe("private-room", `{"a":1}`)
				time.Sleep(time.Second)
				assert.Len(t, u.members("private-room"), 1)
			})
		})
	}
}

// The three ways in which a join is overtaken while a slow store holds it up.
func TestOvertakenJoin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		overtake func(t *testing.T, srv *pushy.Server, p *peer, conn *pushy.Conn)
	}{
		{"clientCloses", func(_ *testing.T, _ *pushy.Server, p *peer, _ *pushy.Conn) { p.Close(1000, "bye") }},
		{"clientIsLost", func(_ *testing.T, _ *pushy.Server, p *peer, _ *pushy.Conn) { p.Abort() }},
		{"hostCloses", func(t *testing.T, _ *pushy.Server, _ *peer, conn *pushy.Conn) {
			assert.NoError(t, conn.Close(pushy.CloseRemoved, "out"))
		}},
		{"hostLeaves", func(t *testing.T, srv *pushy.Server, p *peer, conn *pushy.Conn) {
			// Not a member yet, or one already: nothing else.
			if err := srv.Channels().Leave(conn, "private-room"); err != nil {
				assert.ErrorIs(t, err, pushy.ErrNotMember)
			}
			_ = conn.Close(pushy.CloseRemoved, "out")
		}},
		{"shutdown", func(t *testing.T, srv *pushy.Server, _ *peer, _ *pushy.Conn) {
			assert.NoError(t, srv.Shutdown(context.Background()))
		}},
	} {
		for _, after := range []time.Duration{0, time.Second, 3 * time.Second, 5 * time.Second} {
			t.Run(c.name+after.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
					var seen events
					u.most = 4 * time.Second
					srv := start(pushy.Options{Hooks: seen.hooks()})
					p := connectPeer(t, srv)
					conn := p.conn(srv)
					p.send(subscribeText(t, p.id, "private-room", `{"a":1}`))
					time.Sleep(after)
					c.overtake(t, srv, p, conn)
					time.Sleep(time.Minute)
					synctest.Wait()
					assert.Empty(t, u.members("private-room"))
					assert.Zero(t, srv.Entries())
					assert.Zero(t, srv.Stats().Connections)
					assert.ErrorIs(t, srv.Channels().Join(conn, "news", nil), pushy.ErrClosed)
				})
			})
		}
	}
}

func TestRemoveWhileJoining(t *testing.T) {
	bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
		u.most = 4 * time.Second
		srv := start(pushy.Options{})
		first, second := connectPeer(t, srv), connectPeer(t, srv)
		first.subscribe("private-room", `{"a":1}`)
		second.send(subscribeText(t, second.id, "private-room", `{"b":1}`))
		synctest.Wait()
		ch, ok := srv.Channels().Lookup("private-room")
		require.True(t, ok)
		require.NoError(t, ch.Remove(second.conn(srv), "not you"))
		assert.ErrorIs(t, ch.Remove(second.conn(srv), "again"), pushy.ErrNotMember)
		require.Equal(t, "pushy:subscription-success", second.next().Event)
		second.expect(`pushy:subscription-end {"channel":"private-room","reason":"not you"}`)
		second.quiet()
		time.Sleep(time.Minute)
		assert.Equal(t, "pushy:presence-add", first.next().Event)
		assert.Equal(t, "pushy:presence-quit", first.next().Event)
		first.quiet()
		assert.Len(t, u.members("private-room"), 1)
	})
}

// Leave and Join of one connection from two goroutines.
func TestLeaveWhileJoining(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	p := connectPeer(t, srv)
	conn := p.conn(srv)
	go func() {
		for {
			if _, err := p.Receive(context.Background()); err != nil {
				return
			}
		}
	}()
	var done sync.WaitGroup
	for _, act := range []func() error{
		func() error { return srv.Channels().Join(conn, "news", nil) },
		func() error { return srv.Channels().Leave(conn, "news") },
	} {
		done.Go(func() {
			for range 2000 {
				var refused *pushy.JoinError
				if err := act(); err != nil && !errors.Is(err, pushy.ErrNotMember) && !errors.As(err, &refused) {
					t.Errorf("unexpected: %v", err)
				}
			}
		})
	}
	wait(t, peerPatience, "joins and leaves", done.Wait)
}

func TestShutdownDeadlineWithHangingBroker(t *testing.T) {
	t.Parallel()
	for _, close := range []bool{false, true} {
		t.Run(fmt.Sprintf("close=%v", close), func(t *testing.T) {
			bubble(t, func(t *testing.T, u *unreliable, start func(pushy.Options) *pushy.Server) {
				srv := start(pushy.Options{})
				p := connectPeer(t, srv)
				for i := range 10 {
					p.subscribe(fmt.Sprintf("room%d", i), "")
				}
				u.mu.Lock()
				u.most = 1000 * time.Hour
				u.mu.Unlock()
				go p.ended()
				began := time.Now()
				if close {
					assert.NoError(t, srv.Close())
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					assert.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
				}
				assert.Less(t, time.Since(began), 5*time.Second)
			})
		})
	}
}

// A broker whose methods do not return although their contexts have ended does not keep a
// Shutdown from returning.
func TestShutdownWithABrokerThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"close", "leave"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				b := &altered{Broker: memory.New()}
				end := make(chan struct{})
				defer synctest.Wait()
				defer close(end)
				var leaves atomic.Int64
				if call == "close" {
					b.close = func(context.Context) error {
						<-end
						return nil
					}
				} else {
					b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
						if e.Kind != broker.Leave {
							return b.Broker.Append(ctx, channel, e)
						}
						if leaves.Add(1) > 1 { // the first fails, so that the Server retries
							<-end
						}
						return broker.Appended{}, errBroker
					}
				}
				srv := startOn(t, b, pushy.Options{})
				p := connectPeer(t, srv)
				p.subscribe("private-room", "")
				p.Abort()
				time.Sleep(time.Minute)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				assert.ErrorContains(t, srv.Shutdown(ctx), "did not return")
				assert.Less(t, time.Since(began), 30*time.Second)
			})
		})
	}
}

// A Server keeps its promise to call Close last, even if its commands come
// back after the deadline.
func TestNothingAfterBrokerClose(t *testing.T) {
	bubble(t, func(t *testing.T, _ *unreliable, start func(pushy.Options) *pushy.Server) {
		srv := start(pushy.Options{})
		held := make(chan struct{})
		returned := make(chan error)
		srv.RegisterCommand("late", func(_ *pushy.Server, conn *pushy.Conn, _ json.RawMessage, cs *pushy.Channels) {
			<-held
			returned <- cs.Join(conn, "private-late", nil)
		})
		p := connectPeer(t, srv)
		p.subscribe("private-room", "")
		p.send(`{"command":"late"}`)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		close(held)
		assert.ErrorIs(t, <-returned, pushy.ErrClosed)
		time.Sleep(time.Minute)
	})
}
