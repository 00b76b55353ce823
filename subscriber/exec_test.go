package subscriber_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

type number struct {
	N int `json:"n"`
}

func TestExec(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
		pushy.Handle(srv, "double", func(_ context.Context, _ *pushy.Conn, v number) (number, error) {
			if v.N < 0 {
				return number{}, &pushy.Error{Code: "417", Message: "Too small"}
			}
			return number{2 * v.N}, nil
		})
		srv.RegisterCommand("list", func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
			_ = c.Reply("list", []int{1, 2})
		})
		c := connect(t, "a", n.options())
		var out number
		require.NoError(t, c.Exec(t.Context(), "double", number{21}, &out))
		assert.Equal(t, 42, out.N)
		require.NoError(t, c.Exec(t.Context(), "double", number{1}, nil))
		require.NoError(t, c.Exec(t.Context(), "double", nil, &out))
		assert.Zero(t, out.N)
		var list []int
		require.NoError(t, c.Exec(t.Context(), "list", nil, &list))
		assert.Equal(t, []int{1, 2}, list)
		var refused *subscriber.Error
		require.ErrorAs(t, c.Exec(t.Context(), "double", number{-1}, nil), &refused)
		assert.Equal(t, subscriber.Error{Code: "417", Message: "Too small"}, *refused)
		require.EqualError(t, c.Exec(t.Context(), "none", nil, nil), "subscriber: Unknown command (200)")
		require.ErrorContains(t, c.Exec(t.Context(), "double", func() {}, nil), "subscriber: double: json")
		require.ErrorContains(t, c.Exec(t.Context(), "list", nil, &out), "subscriber: list: the answer: json")
		c.Close()
		require.ErrorIs(t, c.Exec(t.Context(), "double", nil, nil), subscriber.ErrClosed)
	})
}

// A command waits for a connection until its ctx ends.
func TestExecWaitsForAConnection(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
		pushy.Handle(srv, "ping", func(context.Context, *pushy.Conn, struct{}) (struct{}, error) { return struct{}{}, nil })
		c := connect(t, "a", n.options())
		n.listen("a") // which accepts nothing
		n.cut()
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no time"))
		defer cancel()
		err := c.Exec(ctx, "ping", nil, nil)
		require.ErrorContains(t, err, "no time")
		require.NotErrorIs(t, err, subscriber.ErrUncertain)
		go func() {
			time.Sleep(time.Minute)
			n.serve("a", srv)
		}()
		require.NoError(t, c.Exec(t.Context(), "ping", nil, nil))
	})
}

// Reach C6: 1,000 commands at once are answered out of order, and the connection is lost in the middle.
// Each call returns once, with its own answer or ErrUncertain, and none is sent twice.
func TestThousandCommands(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		n := newNetwork(t)
		var mu sync.Mutex
		sent := map[string]int{}
		n.raw("a", func(conn net.Conn) {
			say(conn, hello)
			var waiting []string
			for {
				text, err := wsutil.ReadClientText(conn)
				if err != nil {
					return
				}
				var m struct {
					ID   string
					Data json.RawMessage
				}
				if !assert.NoError(t, json.Unmarshal(text, &m)) {
					return
				}
				mu.Lock()
				sent[string(m.Data)]++
				all := len(sent)
				mu.Unlock()
				waiting = append(waiting, fmt.Sprintf(`{"event":"pushy:reply","data":{"id":%q,"data":%s}}`, m.ID, m.Data))
				if all != 1000 {
					continue
				}
				rand.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
				for _, answer := range waiting[:600] {
					say(conn, answer)
				}
				return
			}
		})
		c := connect(t, "a", n.options())
		var answered, uncertain atomic.Int64
		var calls sync.WaitGroup
		for i := range 1000 {
			calls.Go(func() {
				var out number
				err := c.Exec(t.Context(), "x", number{i}, &out)
				if err == nil {
					assert.Equal(t, i, out.N)
					answered.Add(1)
					return
				}
				assert.ErrorIs(t, err, subscriber.ErrUncertain)
				uncertain.Add(1)
			})
		}
		calls.Wait()
		time.Sleep(time.Minute) // connected again
		assert.EqualValues(t, 600, answered.Load())
		assert.EqualValues(t, 400, uncertain.Load())
		mu.Lock()
		defer mu.Unlock()
		assert.Len(t, sent, 1000)
		for data, times := range sent {
			assert.Equal(t, 1, times, data)
		}
	})
}

// A command that is too large for the server fails, and is not sent again; the others are uncertain.
func TestTooLargeCommand(t *testing.T) {
	onNetwork(t, pushy.Options{}, func(t *testing.T, n *network, srv *pushy.Server) {
		started := make(chan struct{})
		srv.RegisterCommand("silent", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {
			close(started)
		})
		c := connect(t, "a", n.options())
		var small error
		var calls sync.WaitGroup
		calls.Go(func() { small = c.Exec(t.Context(), "silent", nil, nil) })
		<-started
		err := c.Exec(t.Context(), "large", make([]int, 100_000), nil)
		var closed *subscriber.CloseError
		require.ErrorAs(t, err, &closed)
		assert.Equal(t, 1009, closed.Code)
		calls.Wait()
		require.ErrorIs(t, small, subscriber.ErrUncertain)
		time.Sleep(time.Minute)
		assert.Equal(t, subscriber.Connected, c.State())
		before := len(n.dials)
		_, err = c.Subscribe(t.Context(), "private-room", &subscriber.SubscribeOptions{
			Data: map[string]string{"a": strings.Repeat("x", 100_000)},
		})
		require.ErrorAs(t, err, &closed)
		time.Sleep(time.Minute)
		assert.Equal(t, subscriber.Connected, c.State())
		n.mu.Lock()
		defer n.mu.Unlock()
		assert.Len(t, n.dials, before+1)
	})
}

// Reach C6: Close and the end of ctx end a call in each phase.
func TestEndsInEveryPhase(t *testing.T) {
	hang := func(conn net.Conn) {
		buf := make([]byte, 1<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}
	phases := map[string]func(n *network){
		"dialling":        func(n *network) { n.listen("a") },
		"refused":         func(*network) {},
		"TLS, handshake":  func(n *network) { n.accept("a", hang) },
		"no first event":  func(n *network) { n.raw("a", hang) },
		"half of a frame": func(n *network) { n.raw("a", func(c net.Conn) { _, _ = c.Write([]byte{0x81, 126}); hang(c) }) },
	}
	for name, set := range phases {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				t.Parallel()
				fakeTime(t, func(t *testing.T) {
					n := newNetwork(t)
					set(n)
					began := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
					defer cancel()
					_, err := subscriber.Dial(ctx, scheme+"://a/pushy", n.options())
					require.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Less(t, time.Since(began), 28*time.Second)
				})
			})
		}
	}
	for _, phase := range []string{"subscribing", "replay", "token", "backoff", "exec"} {
		for _, how := range []string{"close", "ctx"} {
			t.Run(phase+" "+how, func(t *testing.T) {
				t.Parallel()
				fakeTime(t, func(t *testing.T) {
					n := newNetwork(t)
					n.raw("a", func(conn net.Conn) {
						say(conn, hello)
						if phase == "replay" {
							text, _ := wsutil.ReadClientText(conn)
							var m struct{ ID string }
							_ = json.Unmarshal(text, &m)
							say(conn, fmt.Sprintf(`{"event":"pushy:subscription-success","data":{"channel":"news",`+
								`"memberId":"m","epoch":"e","offset":3,"replay":3,"id":%q}}`, m.ID))
						}
						hang(conn)
					})
					o := n.options()
					o.Token = func(ctx context.Context, _ subscriber.TokenRequest) (map[string]subscriber.Token, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					c := connect(t, "a", o)
					channel := "news"
					if phase == "token" {
						channel = "private-news"
					}
					if phase == "backoff" {
						n.listen("a")
						n.cut()
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					end := time.AfterFunc(5*time.Second, func() {
						if how == "close" {
							c.Close()
						}
					})
					defer end.Stop()
					if how == "close" {
						ctx = t.Context()
					}
					var err error
					switch phase {
					case "replay":
						s := subscribe(t, c, channel, &subscriber.SubscribeOptions{Rewind: 3})
						if how == "ctx" {
							c.Close()
						}
						for _, err = range s.Events() {
						}
						how = "close"
					case "exec":
						err = c.Exec(ctx, "x", nil, nil)
					default:
						_, err = c.Subscribe(ctx, channel, nil)
					}
					switch {
					case how == "ctx":
						require.ErrorIs(t, err, context.DeadlineExceeded)
					case phase == "exec":
						require.ErrorIs(t, err, subscriber.ErrUncertain)
					default:
						require.ErrorIs(t, err, subscriber.ErrClosed)
					}
				})
			})
		}
	}
}

// accept serves connections by hand, from their first byte.
func (n *network) accept(host string, serve func(conn net.Conn)) {
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
				serve(conn)
			}()
		}
	}()
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		url  string
		o    subscriber.Options
		want string
	}{
		{"ftp://a/", subscriber.Options{}, `the URL "ftp://a/" must begin with ws, wss, http or https`},
		{"ws:///pushy", subscriber.Options{}, `the URL "ws:///pushy" has no host`},
		{"ws://a b/", subscriber.Options{}, `parse "ws://a b/": invalid character " " in host name`},
		{"ws://a", subscriber.Options{MinDelay: -1}, "option MinDelay is -1ns, it must be positive"},
		{"ws://a", subscriber.Options{Heartbeat: -1}, "option Heartbeat is -1ns, it must be positive"},
		{"ws://a", subscriber.Options{MaxEvents: -1}, "option MaxEvents is -1, it must be positive"},
		{"ws://a", subscriber.Options{MaxBytes: -1}, "option MaxBytes is -1, it must be positive"},
		{"ws://a", subscriber.Options{OnFull: 9}, "option OnFull is 9, it must be EndWhenFull or SkipWhenFull"},
	} {
		_, err := subscriber.Dial(t.Context(), test.url, test.o)
		assert.EqualError(t, err, "subscriber: dial: "+test.want)
	}
}

// Code that handles what a Listener of package pushy receives handles the events of a Subscription.
func TestEventHasTheShapeOfReceived(t *testing.T) {
	t.Parallel()
	event, received := reflect.TypeFor[subscriber.Event](), reflect.TypeFor[pushy.Received]()
	require.Equal(t, received.NumField(), event.NumField())
	for i := range event.NumField() {
		assert.Equal(t, received.Field(i).Name, event.Field(i).Name)
		if event.Field(i).Name != "Kind" {
			assert.Equal(t, received.Field(i).Type, event.Field(i).Type)
		}
	}
	for k := range subscriber.Kind(20) {
		assert.Equal(t, pushy.Kind(k).String(), k.String())
	}
}
