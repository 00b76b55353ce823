package sse_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/sse"
)

// A deploy: each client is told when to return, and its response is aborted. Requests that come
// meanwhile get the busy answer.
func TestShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		codes := map[int]int{}
		s := start(t, pushy.Options{
			ReturnRate: 10,
			Hooks: pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, _ string) {
				mu.Lock()
				codes[code]++
				mu.Unlock()
			}},
		}, sse.Options{}, nil)
		const clients = 50
		drains := make(chan event, clients)
		var reading sync.WaitGroup
		for range clients {
			st := s.listen("channel=a")
			reading.Go(func() {
				e, err := st.read()
				for err == nil && e.name != "pushy:drain" {
					e, err = st.read()
				}
				drains <- e
				st.ends(true)
			})
		}
		settle()
		stopped := make(chan error)
		go func() { stopped <- s.srv.Shutdown(context.Background()) }()
		settle()
		s.stream("channel=a").busy("draining", 1500*time.Millisecond, 6500*time.Millisecond)
		require.NoError(t, <-stopped)
		late := 0
		for range clients {
			e := <-drains
			require.Equal(t, "pushy:drain", e.name)
			var data struct{ ReturnIn int }
			require.NoError(t, json.Unmarshal([]byte(e.data), &data))
			assert.Equal(t, data.ReturnIn, e.retry)
			assert.GreaterOrEqual(t, e.retry, 1500)
			assert.LessOrEqual(t, e.retry, 6500)
			if e.retry > 4000 {
				late++
			}
		}
		reading.Wait()
		assert.InDelta(t, clients/2, late, clients/5)
		assert.Equal(t, map[int]int{pushy.CloseShutdown: clients}, codes)
	})
}

// A client that learns that it may return within a longer time does not return sooner than before: EventSource
// waits for that time after each attempt to connect that fails, too.
func TestReturnIsNotAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Limits: pushy.Limits{AcceptRate: 10}}, sse.Options{}, nil)
		var returns atomic.Int64
		for range 60 {
			st := s.listen("channel=a")
			assert.GreaterOrEqual(t, st.open.retry, 2000)
			go func() {
				for {
					e, err := st.read()
					if err != nil {
						return
					}
					if e.name == "pushy:return" {
						returns.Add(1)
						assert.GreaterOrEqual(t, e.retry, 2000)
					}
				}
			}()
			pause(time.Second)
		}
		settle()
		assert.Greater(t, returns.Load(), int64(20))
	})
}

// A client that is removed from a channel is told; when no channel is left, the stream ends, and
// the client is not to reconnect.
func TestRemoval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		st := s.listen("channel=a&channel=b")
		conn, _ := s.srv.Conn(st.opened().SocketID)
		for _, name := range []string{"a", "b"} {
			ch, _ := s.srv.Channels().Lookup(name)
			publish(t, s.srv, name, 1, 1)
			assert.Equal(t, "1", st.next().data)
			require.NoError(t, ch.Remove(conn, "Removed"))
			assert.Equal(t, event{"pushy:end", `{"channel":"` + name + `","reason":"Removed"}`, "-,-", -1}, st.next())
			if name == "a" {
				publish(t, s.srv, "a", 2, 2)
				require.NoError(t, s.srv.Channels().Join(conn, "a", nil))
				publish(t, s.srv, "a", 3, 3)
				assert.Equal(t, "3", st.next().data)
				require.NoError(t, ch.Remove(conn, "Again"))
				assert.Equal(t, `{"channel":"a","reason":"Again"}`, st.next().data)
			}
		}
		assert.Equal(t, "pushy:end", st.next().name)
		st.ends(false)
		settle()
		assert.Zero(t, s.srv.Stats().Connections)
	})
}

// The last event of a client that is kicked, or that the host closes for good, says so. The response
// is complete.
func TestKick(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Accept: func(*http.Request) (any, error) { return "ann", nil }}, sse.Options{}, nil)
		kicked := s.listen("channel=a")
		_, err := s.srv.Kick(t.Context(), pushy.Kick{Target: "user:ann", Reason: "Spam"})
		require.NoError(t, err)
		assert.Equal(t, event{"pushy:end", `{"channel":null,"reason":"Spam"}`, "-", -1}, kicked.next())
		kicked.ends(false)
		for code, end := range map[int]bool{1000: true, 1008: true, 3500: true, 3999: true, 1012: false, 3499: false, 4000: false} {
			st := s.listen("channel=a")
			conn, _ := s.srv.Conn(st.opened().SocketID)
			require.NoError(t, conn.Send("last", "words"))
			require.NoError(t, conn.Close(code, "because"))
			assert.Equal(t, "words", st.next().data)
			if end {
				assert.Equal(t, `{"channel":null,"reason":"because"}`, st.next().data, code)
			}
			st.ends(!end)
		}
	})
}

// Options.MaxAge aborts streams, after a time that differs.
func TestMaxAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{MaxAge: time.Hour}, nil)
		began := time.Now()
		s.listen("channel=a").ends(true)
		assert.LessOrEqual(t, time.Since(began), time.Hour)
		assert.Greater(t, time.Since(began), 54*time.Minute-time.Second)
	})
}

// The same in a channel that keeps no events, whose streams are sockets.
func TestSlowClientsOfOpenChannels(t *testing.T) {
	for name, o := range map[string]pushy.Options{
		"ConnBuffer":   {WriteTimeout: time.Hour, Limits: pushy.Limits{ConnBuffer: 64 << 10, TriggerBytes: 16 << 10}},
		"WriteTimeout": {WriteTimeout: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ended := make(chan pushy.Ending, 1)
				s := start(t, o, sse.Options{}, nil)
				s.srv.OnEnding(func(e pushy.Ending) { ended <- e })
				s.listen("channel=a")
				began := time.Now()
				for range 100 {
					require.NoError(t, s.srv.Publish(t.Context(), "a", "n", strings.Repeat("x", 1<<10)))
				}
				e := <-ended
				assert.Equal(t, pushy.CloseSlowConsumer, e.Code)
				if name == "WriteTimeout" {
					assert.Equal(t, 3*time.Second, time.Since(began))
				}
				settle()
				assert.Zero(t, s.srv.Stats().Connections)
			})
		})
	}
}

// S8: a client that does not read is ended by the limit of queued bytes, or by the time of one write,
// and its next request resumes.
func TestSlowClients(t *testing.T) {
	for name, o := range map[string]pushy.Options{
		"ConnBuffer":   {WriteTimeout: time.Hour, Limits: pushy.Limits{ConnBuffer: 64 << 10, TriggerBytes: 16 << 10}},
		"WriteTimeout": {WriteTimeout: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := o // for each of the runs
				o.Channel = keeping(400)
				ended := make(chan pushy.Ending, 1)
				s := start(t, o, sse.Options{}, nil)
				s.srv.OnEnding(func(e pushy.Ending) { ended <- e })
				st := s.listen("channel=kept")
				data := make([]byte, 1<<10)
				for i := range data {
					data[i] = 'x'
				}
				began := time.Now()
				var e pushy.Ending
				sent := 0
				for e.Conn == "" {
					require.Less(t, sent, 350)
					require.NoError(t, s.srv.Publish(t.Context(), "kept", "n", string(data)))
					sent++
					pause(20 * time.Millisecond)
					select {
					case e = <-ended:
					default:
					}
				}
				if name == "ConnBuffer" {
					assert.InDelta(t, 64+4, sent, 5, "what is being written does not count")
				} else {
					assert.InDelta(t, 3, time.Since(began).Seconds(), 0.1)
				}
				assert.Equal(t, pushy.CloseSlowConsumer, e.Code)
				assert.Equal(t, pushy.EndedByServer, e.By)
				epoch, _, _ := strings.Cut(st.open.id, ".")
				again := s.listen("channel=kept", after(epoch+"."+strconv.Itoa(sent-20)))
				opened := again.opened()
				assert.True(t, opened.Channels["kept"].Recovered, opened)
				assert.Equal(t, 20, opened.Channels["kept"].Replay)
			})
		})
	}
}

// A client that disconnects while it is being authorized leaves nothing behind.
func TestClientDisconnects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		entered := make(chan struct{})
		s := start(t, pushy.Options{Authorizer: authorizer(func(r pushy.AuthRequest) error {
			close(entered)
			<-r.Conn.Context().Done()
			return r.Conn.Context().Err()
		})}, sse.Options{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := s.try(ctx, "channel=a")
			failed <- err
		}()
		<-entered
		cancel()
		require.Error(t, <-failed)
		settle()
		assert.Zero(t, s.srv.Stats().Connections)
	})
}
