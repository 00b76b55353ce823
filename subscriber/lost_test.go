package subscriber_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/ordercheck"
	"github.com/gopushy/pushy/subscriber"
)

// follow checks what a Subscription receives, and saves its position, until its loop ends.
func follow(t testing.TB, f *ordercheck.Follower, s *subscriber.Subscription, place broker.Position) error {
	success := fmt.Sprintf(`{"epoch":%q,"offset":%d}`, place.Epoch, place.Offset)
	if f.At != nil {
		success = fmt.Sprintf(`{"epoch":%q,"offset":%d,"recovered":true}`, place.Epoch, place.Offset)
	}
	assert.NoError(t, f.Success([]byte(success)))
	for e, err := range s.Events() {
		switch {
		case err != nil:
			return err
		case e.Kind == subscriber.KindGap:
			gap := fmt.Sprintf(`{"reason":%q,"epoch":%q,"offset":%d}`, e.Reason, e.Position.Epoch, e.Position.Offset)
			assert.NoError(t, f.Resync([]byte(gap)))
		default:
			assert.NoError(t, f.Event(e.Position.Offset, string(e.Data)))
		}
	}
	return nil
}

// late is a node of a cluster to which everything is delivered 500 ms late.
type late struct {
	*memory.Broker
	sink  broker.Sink
	queue chan func()
	done  chan struct{}
}

func newLate(c *memory.Cluster) *late {
	return &late{
		Broker: c.Broker(),
		queue:  make(chan func(), 100_000),
		done:   make(chan struct{}),
	}
}

func (l *late) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	l.sink = sink
	go func() {
		defer close(l.done)
		for deliver := range l.queue {
			deliver()
		}
	}()
	return l.Broker.Open(ctx, o, l)
}

func (l *late) after(deliver func()) {
	at := time.Now().Add(500 * time.Millisecond)
	l.queue <- func() {
		time.Sleep(time.Until(at))
		deliver()
	}
}

func (l *late) Deliver(channel string, e broker.Entry) {
	l.after(func() { l.sink.Deliver(channel, e) })
}

func (l *late) Reset(channel string, s broker.State, reason string) {
	l.after(func() { l.sink.Reset(channel, s, reason) })
}

func (l *late) Close(ctx context.Context) error {
	err := l.Broker.Close(ctx)
	close(l.queue)
	<-l.done
	return err
}

// cluster has three nodes, of which clients reach any as host "a".
type cluster struct {
	servers []*pushy.Server
	next    atomic.Int64
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.servers[int(c.next.Add(1))%len(c.servers)].ServeHTTP(w, r)
}

// Reach C1: clients move between three nodes, of which two are 500 ms behind, under 50 events a
// second. None loses or repeats an event, and none receives a Gap.
func TestMovingBetweenNodes(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		shared := newCluster()
		nodes := &cluster{}
		for _, b := range []broker.Broker{shared.Broker(), newLate(shared), newLate(shared)} {
			o := keeping(20_000)
			o.Broker = b
			nodes.servers = append(nodes.servers, startServer(t, o))
		}
		n.serve("a", nodes)
		var log ordercheck.Log
		clients := 6
		var running sync.WaitGroup
		var all []*subscriber.Client
		var followers []*ordercheck.Follower
		for range clients {
			c := connect(t, "a", n.options())
			s := subscribe(t, c, "news", nil)
			f := log.Follower()
			all = append(all, c)
			followers = append(followers, f)
			place := s.Position()
			running.Go(func() { assert.ErrorIs(t, follow(t, f, s, place), subscriber.ErrClosed) })
		}
		const events = 8_750 // 175 s; a client is away for a second at most, and misses less than 500
		for i := range events {
			if i%1750 == 1749 { // after that time a lost connection is no failure
				n.cut()
			}
			receipt, err := nodes.servers[0].PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "n", Data: i})
			require.NoError(t, err)
			require.NoError(t, log.Published(receipt.Position, fmt.Sprint(i)))
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		for _, c := range all {
			c.Close()
		}
		running.Wait()
		top, err := nodes.servers[0].Position(t.Context(), "news")
		require.NoError(t, err)
		for _, f := range followers {
			assert.Equal(t, top, *f.At)
			assert.Equal(t, events, f.Events)
			assert.Empty(t, f.Breaks)
		}
	})
}

// Reach C1: the only server, without a store, is killed and started again: its clients receive a Gap
// with the reason each time, and then all events.
func TestRestartsWithoutAStore(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		srv := startServer(t, keeping(100))
		down := n.serve("a", srv)
		c := connect(t, "a", n.options())
		r := read(t, subscribe(t, c, "news", nil))
		for i := range 20 {
			publish(t, srv, "news", "n", i)
			r.expect(fmt.Sprintf("published news n %d @1", i))
			_ = srv.Close()
			down()
			srv = startServer(t, keeping(100))
			down = n.serve("a", srv)
			time.Sleep(2 * time.Minute)
			r.expect("gap news epoch")
		}
	})
}

// Reach C3: the log is emptied while a client is connected, while it is away, and before a process is
// started again with its saved position.
func TestEmptiedLog(t *testing.T) {
	onNetwork(t, keeping(100), func(t *testing.T, n *network, srv *pushy.Server) {
		c := connect(t, "a", n.options())
		s := subscribe(t, c, "news", nil)
		r := read(t, s)
		publish(t, srv, "news", "n", 1)
		publish(t, srv, "news", "n", 2)
		r.expect("published news n 1 @1", "published news n 2 @2")
		old := s.Position()
		require.NoError(t, srv.Forget(t.Context(), "news"))
		publish(t, srv, "news", "n", 3)
		r.expect("gap news epoch", "published news n 3 @1")
		assert.NotEqual(t, old.Epoch, s.Position().Epoch)
		n.cut()
		require.NoError(t, srv.Forget(t.Context(), "news"))
		publish(t, srv, "news", "n", 4)
		time.Sleep(time.Minute)
		publish(t, srv, "news", "n", 5)
		r.expect("gap news @1 epoch", "published news n 5 @2")
		c.Close()
		again := connect(t, "a", n.options())
		s = subscribe(t, again, "news", &subscriber.SubscribeOptions{Since: old})
		assert.Equal(t, old, s.Position())
		r = read(t, s)
		publish(t, srv, "news", "n", 6)
		r.expect("gap news @2 epoch", "published news n 6 @3")
		foreign := connect(t, "a", n.options())
		s = subscribe(t, foreign, "off", &subscriber.SubscribeOptions{Since: old})
		read(t, s).expect("gap off off")
		assert.Equal(t, old, s.Position())
	})
}

// Reach C3: a process that saves the position and is stopped at any moment handles every event at
// least once.
func TestSavedPositions(t *testing.T) {
	onNetwork(t, keeping(1000), func(t *testing.T, n *network, srv *pushy.Server) {
		start, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		saved := start
		handled := map[string]int{}
		for i := range 10 {
			for j := range 30 {
				publish(t, srv, "news", "n", i*30+j)
			}
			c := connect(t, "a", n.options())
			s := subscribe(t, c, "news", &subscriber.SubscribeOptions{Since: saved})
			left := 10 + 3*i
			for e, err := range s.Events() {
				require.NoError(t, err)
				saved = s.Position()
				if left == 0 {
					break // the process is killed before it has handled e
				}
				handled[string(e.Data)]++
				left--
			}
			c.Close()
		}
		c := connect(t, "a", n.options())
		s := subscribe(t, c, "news", &subscriber.SubscribeOptions{Since: saved})
		for e, err := range s.Events() {
			require.NoError(t, err)
			handled[string(e.Data)]++
			if e.Position.Offset == 300 {
				break
			}
		}
		require.Len(t, handled, 300)
		for data, times := range handled {
			assert.LessOrEqual(t, times, 2, data)
		}
	})
}

func TestRewind(t *testing.T) {
	onNetwork(t, keeping(10), func(t *testing.T, n *network, srv *pushy.Server) {
		for i := range 15 {
			publish(t, srv, "news", "n", i+1)
		}
		c := connect(t, "a", n.options())
		s := subscribe(t, c, "news", &subscriber.SubscribeOptions{Rewind: 2})
		assert.Zero(t, s.Position())
		r := read(t, s)
		r.expect("published news n 14 @14", "published news n 15 @15")
		n.cut()
		time.Sleep(time.Minute) // what was received is not received again
		publish(t, srv, "news", "n", 16)
		r.expect("published news n 16 @16")
		top := s.Position()
		other := connect(t, "a", n.options())
		s = subscribe(t, other, "news", &subscriber.SubscribeOptions{
			Since:  broker.Position{Epoch: top.Epoch, Offset: 1},
			Rewind: 1,
		})
		read(t, s).expect("gap news @15 trimmed", "published news n 16 @16")
	})
}

// raw serves connections by hand: serve gets each one after the handshake.
func (n *network) raw(host string, serve func(conn net.Conn)) {
	l := n.listen(host)
	n.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := ws.Upgrade(conn); err == nil {
					serve(conn)
				}
			}()
		}
	}()
}

func say(conn net.Conn, text string) { _ = wsutil.WriteServerText(conn, []byte(text)) }

const hello = `{"event":"pushy:connect","data":{"socketId":"0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"}}`

// The table of PROTOCOL.md, section 3: after which close codes a client connects again.
func TestCloseCodes(t *testing.T) {
	for code, again := range map[int]bool{
		1000: true, 1001: true, 1002: false, 1003: false, 1007: false, 1008: false, 1009: true, 1010: false,
		1011: true, 1012: true, 1013: true, 1014: true, 3000: true, 3001: true, 3008: true, 3499: true,
		3500: false, 3501: false, 3999: false, 4000: true, 4001: true, 4999: true,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				n := newNetwork(t)
				var connects atomic.Int64
				n.raw("a", func(conn net.Conn) {
					connects.Add(1)
					say(conn, hello)
					time.Sleep(time.Second)
					body := ws.NewCloseFrameBody(ws.StatusCode(code), "because")
					_ = ws.WriteFrame(conn, ws.NewCloseFrame(body))
					answer, err := ws.ReadFrame(conn)
					if assert.NoError(t, err) {
						sent, _ := ws.ParseCloseFrameData(ws.UnmaskFrame(answer).Payload)
						assert.Contains(t, []ws.StatusCode{ws.StatusCode(code), 1000}, sent) // 1000 at the end of the test
					}
				})
				c := connect(t, "a", n.options())
				time.Sleep(40 * time.Second)
				assert.Equal(t, again, connects.Load() > 1)
				if again {
					assert.NotEqual(t, subscriber.Closed, c.State())
					return
				}
				assert.Equal(t, subscriber.Closed, c.State())
				_, err := c.Subscribe(t.Context(), "news", nil)
				var closed *subscriber.CloseError
				require.ErrorAs(t, err, &closed)
				assert.Equal(t, code, closed.Code)
				assert.Equal(t, "because", closed.Reason)
				require.ErrorIs(t, c.Exec(t.Context(), "x", nil, nil), closed)
			})
		})
	}
}

// The statuses with which a server refuses a connection, at first and later.
func TestStatuses(t *testing.T) {
	for status, final := range map[int]struct{ first, later bool }{
		400: {true, false}, 401: {true, true}, 403: {true, true}, 404: {true, false}, 429: {}, 500: {}, 502: {},
		503: {}, 200: {}, 302: {},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
				var refusals atomic.Int64
				refuse := func(w http.ResponseWriter, _ *http.Request) {
					refusals.Add(1)
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Content-Length", "40")
					w.WriteHeader(status)
					_, _ = fmt.Fprintf(w, `%-40s`, `{"error":{"code":"1","message":"No."}}`)
				}
				n.serve("b", http.HandlerFunc(refuse))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := subscriber.Dial(ctx, "ws://b/pushy", n.options())
				require.Error(t, err)
				var closed *subscriber.CloseError
				assert.Equal(t, final.first, errors.As(err, &closed), "%v", err)
				if final.first {
					assert.Equal(t, status, closed.Status)
					assert.Equal(t, "No.", closed.Reason)
					assert.EqualValues(t, 1, refusals.Load())
				} else {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Greater(t, refusals.Load(), int64(4))
				}
				c := connect(t, "a", n.options())
				n.serve("a", http.HandlerFunc(refuse))
				n.cut()
				time.Sleep(time.Minute)
				assert.Equal(t, final.later, c.State() == subscriber.Closed)
			})
		})
	}
}

// Retry-After is added to the wait, up to a minute.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		srv := startServer(t, pushy.Options{})
		var came []time.Time
		n.serve("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came = append(came, time.Now())
			switch len(came) {
			case 1:
				w.Header().Set("Retry-After", "30")
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusTooManyRequests)
			default:
				srv.ServeHTTP(w, r)
			}
		}))
		connect(t, "a", n.options())
		require.Len(t, came, 3)
		first, second := came[1].Sub(came[0]), came[2].Sub(came[1])
		assert.True(t, first >= 30*time.Second && first <= 31*time.Second, first)
		assert.True(t, second >= time.Minute && second <= 62*time.Second, second)
	})
}

// PROTOCOL.md, section 2: when a client makes its first attempt after the end of a connection. What the
// server sends wrong changes nothing.
func TestReturnTimes(t *testing.T) {
	second := time.Second
	for _, test := range []struct {
		name     string
		messages []string
		lost     bool // without a close frame
		min, max time.Duration
	}{
		{"small window", []string{`pushy:return","data":{"returnWithin":1}`}, false, 0, second},
		{"window", []string{`pushy:return","data":{"returnWithin":20000}`}, false, 0, 20 * second},
		{"large window", []string{`pushy:return","data":{"returnWithin":1e300}`}, false, 0, 60 * second},
		{"lost", []string{`pushy:return","data":{"returnWithin":20000}`}, true, 0, 5 * second},
		{"wrong window", []string{
			`pushy:return","data":{"returnWithin":1}`, `pushy:return","data":{"returnWithin":"60000"}`,
		}, false, 0, second},
		{"drain", []string{`pushy:drain","data":{"returnIn":4000}`}, false, 4 * second, 4 * second},
		{"drain at once", []string{`pushy:drain","data":{"returnIn":0}`}, false, 0, 0},
		{"long drain", []string{`pushy:drain","data":{"returnIn":1e300}`}, false, 60 * second, 60 * second},
		{"drain, lost", []string{`pushy:drain","data":{"returnIn":4000}`}, true, 4 * second, 4 * second},
		{"wrong drains", []string{
			`pushy:drain","data":{"returnIn":-1}`, `pushy:drain","data":{"returnIn":"x"}`, `pushy:drain","data":null`,
			`pushy:drain","data":7`, `pushy:return","data":{"returnWithin":1}`,
		}, false, 0, second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				longest, shortest := time.Duration(0), time.Hour
				for range 20 {
					n := newNetwork(t)
					var lost time.Time
					back := make(chan time.Duration, 100)
					n.raw("a", func(conn net.Conn) {
						say(conn, hello)
						if !lost.IsZero() {
							back <- time.Since(lost)
							return
						}
						for _, m := range test.messages {
							say(conn, `{"event":"`+m+`}`)
						}
						time.Sleep(40 * time.Second) // then it was no failure
						lost = time.Now()
						if !test.lost {
							_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(1012, "")))
							_, _ = ws.ReadFrame(conn)
						}
					})
					c := connect(t, "a", n.options())
					pause := <-back
					longest, shortest = max(longest, pause), min(shortest, pause)
					c.Close()
				}
				assert.LessOrEqual(t, longest, test.max)
				assert.GreaterOrEqual(t, longest, test.max/2)
				assert.GreaterOrEqual(t, shortest, test.min)
			})
		})
	}
}

// A client whose server fails at once again and again makes fewer and fewer attempts.
func TestBackoff(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		n.raw("a", func(conn net.Conn) { say(conn, hello) })
		connect(t, "a", n.options())
		time.Sleep(time.Minute)
		n.mu.Lock()
		first := len(n.dials)
		n.mu.Unlock()
		time.Sleep(10 * time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		later := len(n.dials) - first
		assert.True(t, later > 30 && later < 120, "%d attempts in 10 minutes", later) // about every 10 s
	})
}

// Reach C2: 10,000 clients (300 without PUSHY_SOAK) whose server is killed, or shuts down, come to
// another one evenly.
func TestManyClientsReturnEvenly(t *testing.T) {
	for _, how := range []string{"kill", "drain"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				clients, width := 300, 500*time.Millisecond
				if soak {
					clients, width = 10_000, 100*time.Millisecond
				}
				n := newNetwork(t)
				rate := clients / 5 // so that all return within 5 s
				srv := startServer(t, pushy.Options{ReturnRate: rate})
				other := startServer(t, pushy.Options{ReturnRate: rate})
				down := n.serve("a", srv)
				for range clients {
					connect(t, "a", n.options())
				}
				time.Sleep(time.Minute) // those that connected first have been sent longer times
				n.mu.Lock()
				n.dials = nil
				n.mu.Unlock()
				began := time.Now()
				n.serve("a", other)
				if how == "kill" {
					down()
					n.cut()
				} else {
					require.NoError(t, srv.Shutdown(t.Context()))
				}
				time.Sleep(time.Minute)
				assert.Equal(t, clients, other.Stats().Connections)
				var bins [600]int
				last := 0
				n.mu.Lock()
				for _, at := range n.dials {
					bin := int(at.Sub(began) / width)
					bins[bin]++
					last = max(last, bin)
				}
				n.mu.Unlock()
				mean := clients * int(width/time.Millisecond) / 5000
				for i, came := range bins {
					assert.LessOrEqual(t, came, 2*mean, "in the part %d", i)
				}
				assert.LessOrEqual(t, time.Duration(last)*width, 6*time.Second)
			})
		})
	}
}

// Reach C7: a server from which nothing arrives any more is lost after two heartbeats.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		pinged := make(chan ws.OpCode, 10)
		n.raw("a", func(conn net.Conn) {
			say(conn, hello)
			for {
				h, err := ws.ReadFrame(conn)
				if err != nil {
					return
				}
				pinged <- h.Header.OpCode
			}
		})
		var states []subscriber.State
		changed := make(chan subscriber.State, 10)
		o := n.options()
		o.OnState = func(s subscriber.State) { changed <- s }
		o.Heartbeat = 10 * time.Second
		c := connect(t, "a", o)
		began := time.Now()
		for s := range changed {
			states = append(states, s)
			if s == subscriber.Waiting {
				break
			}
		}
		assert.Equal(t, subscriber.Waiting, states[len(states)-1])
		assert.Equal(t, 20*time.Second, time.Since(began))
		assert.Equal(t, ws.OpPing, <-pinged)
		c.Close()
		synctest.Wait()
	})
}
