package pushy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/testlog"
)

// slowCrowd are clients that never read.
type slowCrowd struct {
	t     *testing.T
	srv   *pushy.Server
	peers []*peer
	conns []*pushy.Conn
}

func newSlowCrowd(t *testing.T, srv *pushy.Server, n int) *slowCrowd {
	c := &slowCrowd{
		t:   t,
		srv: srv,
	}
	for range n {
		p := connectPeer(t, srv)
		c.peers = append(c.peers, p)
		c.conns = append(c.conns, p.conn(srv))
	}
	return c
}

// fill queues messages for the clients until the Server uses that many bytes, and lets it
// measure.
func (c *slowCrowd) fill(bytes int64) {
	c.t.Helper()
	text := strings.Repeat("x", 2000)
	for i := 0; c.srv.Stats().Memory.Total() < bytes; i++ {
		_ = c.conns[i%len(c.conns)].Send("filler", text) // it fails for one that has been closed
		if i%500 == 0 {
			synctest.Wait()
		}
		require.Less(c.t, i, 1_000_000)
	}
	time.Sleep(500 * time.Millisecond)
}

// leave ends clients until the Server uses at most that many bytes, and lets it measure.
func (c *slowCrowd) leave(bytes int64) {
	for len(c.peers) > 0 && c.srv.Stats().Memory.Total() > bytes {
		c.peers[0].Abort()
		c.peers = c.peers[1:]
		c.conns = c.conns[1:]
		synctest.Wait()
	}
	time.Sleep(500 * time.Millisecond)
}

// connecting returns the status of an attempt to connect.
func connecting(srv *pushy.Server) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	srv.ServeHTTP(deadlines{w}, httptest.NewRequest(http.MethodPost, "/pushy/socket/000/m"+strconv.FormatInt(sessions.Add(1), 10)+"/xhr", nil))
	return w
}

// deadlines is a recorder that accepts deadlines.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error  { return nil }
func (deadlines) SetWriteDeadline(time.Time) error { return nil }

// Acceptance 16, in fake time: what is refused as the memory fills, in which order, and that it
// ends. 1,000 clients never read (200 without PUSHY_SOAK).
func TestMemoryStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		clients := 200
		if soak {
			clients = 1000
		}
		log := &testlog.Log{}
		var mu sync.Mutex
		ends := map[string]int{}
		srv := startServer(t, pushy.Options{
			Limits:       pushy.Limits{Memory: limit},
			WriteTimeout: -1, // otherwise the clients are disconnected before
			Logger:       log.Logger(),
			Channel:      talking(relay),
			Hooks: pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, reason string) {
				mu.Lock()
				defer mu.Unlock()
				if code == pushy.CloseSlowConsumer {
					ends[reason]++
				}
			}},
		})
		reader := connectPeer(t, srv)
		reader.subscribe("kept", "")
		crowd := newSlowCrowd(t, srv, clients)
		publish := func() error { return srv.Publish(t.Context(), "kept", "news", strings.Repeat("x", 10_000)) }
		for range 10 {
			require.NoError(t, publish())
			reader.next()
		}
		kept := srv.Stats().Memory.Kept
		require.Greater(t, kept, int64(100_000))

		crowd.fill(limit * 78 / 100)
		assert.Equal(t, kept, srv.Stats().Memory.Kept)

		// 80 %: the kept events go, and with them the reason to refuse anybody.
		crowd.fill(limit * 805 / 1000)
		assert.Zero(t, srv.Stats().Memory.Kept)
		assert.Empty(t, refusals(srv))
		assert.Equal(t, http.StatusOK, connecting(srv).Code)
		past, err := srv.History(t.Context(), "kept", pushy.HistoryOptions{})
		require.NoError(t, err)
		assert.Len(t, past.Events, 10, "the broker has them")
		assert.Len(t, log.With("kept events were freed"), 1)

		// Then new connections are refused, and nothing else.
		crowd.fill(limit * 83 / 100)
		answer := connecting(srv)
		assert.Equal(t, http.StatusServiceUnavailable, answer.Code)
		assert.NotEmpty(t, answer.Header().Get("Retry-After"))
		assert.Equal(t, map[string]uint64{"memory": 1}, refusals(srv))
		require.NoError(t, srv.Ready())
		require.NoError(t, publish())
		reader.next()

		// 90 %: no events.
		crowd.fill(limit * 93 / 100)
		require.ErrorIs(t, srv.Ready(), pushy.ErrOverloaded)
		require.ErrorIs(t, publish(), pushy.ErrOverloaded)
		key, err := pushy.SignTrigger(peerKey, "kept", "news", time.Now().Unix(), []byte("{}"))
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodPost, "/pushy/channel/kept/trigger?event=news&timestamp="+
			strconv.FormatInt(time.Now().Unix(), 10)+"&auth_key="+key, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		answer = httptest.NewRecorder()
		srv.ServeHTTP(answer, r)
		assert.Equal(t, http.StatusServiceUnavailable, answer.Code)
		assert.NotEmpty(t, answer.Header().Get("Retry-After"))
		reader.quiet()
		assert.Equal(t, clients+2, srv.Stats().Connections, "nobody was closed")
		assert.Empty(t, ends)

		// 100 %: the connections with the most.
		crowd.fill(limit)
		mu.Lock()
		closed := ends["server buffers full"]
		mu.Unlock()
		assert.Positive(t, closed)
		assert.Less(t, closed, clients/2)
		assert.Less(t, srv.Stats().Memory.Total(), int64(limit))
		reader.quiet()

		// It ends by itself, each stage 5 points lower.
		crowd.leave(limit * 84 / 100)
		require.NoError(t, srv.Ready())
		require.NoError(t, publish())
		reader.next()
		assert.Equal(t, http.StatusServiceUnavailable, connecting(srv).Code)
		crowd.leave(limit * 74 / 100)
		assert.Equal(t, http.StatusOK, connecting(srv).Code)
		for _, line := range []string{
			"new connections are refused", "events are not published", "connections with the most queued bytes were closed",
		} {
			found := log.With(line)
			require.Len(t, found, 1, line)
			assert.Contains(t, found[0], "limit=8388608")
			assert.Contains(t, found[0], "used=")
			assert.Contains(t, found[0], "hint=")
		}
	})
}

// The order is the same if all of the memory fills between two measurements.
func TestMemoryStagesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		log := &testlog.Log{}
		srv := startServer(t, pushy.Options{
			Limits:       pushy.Limits{Memory: limit},
			WriteTimeout: -1,
			Logger:       log.Logger(),
			Channel:      talking(relay),
		})
		reader := connectPeer(t, srv)
		reader.subscribe("kept", "")
		require.NoError(t, srv.Publish(t.Context(), "kept", "news", strings.Repeat("x", 10_000)))
		reader.next()
		newSlowCrowd(t, srv, 100).fill(limit * 11 / 10)
		found := log.With("memory is")
		require.Len(t, found, len(memoryStages), found)
		for i, stage := range memoryStages {
			assert.Contains(t, found[i], stage)
		}
	})
}

// An event that many clients wait for counts once.
func TestMemoryOfSharedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{
			Limits:       pushy.Limits{Memory: 4 << 20},
			WriteTimeout: -1,
		})
		crowd := newSlowCrowd(t, srv, 200)
		for _, p := range crowd.peers {
			p.subscribe("news", "")
		}
		for range 60 {
			require.NoError(t, srv.Publish(t.Context(), "news", "news", strings.Repeat("x", 10_000)))
			time.Sleep(200 * time.Millisecond)
		}
		stats := srv.Stats()
		assert.Greater(t, stats.Buffered, int64(10<<20))
		assert.Less(t, stats.Memory.Outboxes, int64(4<<20)*80/100)
		assert.NoError(t, srv.Ready())
		assert.Equal(t, http.StatusOK, connecting(srv).Code)
		assert.Equal(t, 201, srv.Stats().Connections)
	})
}

// The figures of members, and of bodies that have arrived in part.
func TestMemoryStats(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{
		Limits: pushy.Limits{Memory: 1 << 30},
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}}
		},
	})
	assert.Zero(t, srv.Stats().Memory.Total())
	p := connectPeer(t, srv)
	p.subscribe("private-room", `{"name":"`+strings.Repeat("x", 3000)+`"}`)
	m := srv.Stats().Memory
	assert.InDelta(t, 7000, m.Members, 1000)
	assert.Zero(t, m.Reading)

	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)
	c := dial(t, web.URL, false)
	half := strings.Repeat("x", 30_000)
	c.SendFrame(0, half) // without a beginning it is an error, and nothing remains
	code, _ := c.Closed()
	assert.Equal(t, 1002, code)
	c = dial(t, web.URL, false)
	frame := ws.NewFrame(ws.OpText, false, []byte(half))
	require.NoError(t, ws.WriteFrame(c.conn, ws.MaskFrame(frame)))
	assert.Eventually(t, func() bool { return srv.Stats().Memory.Reading >= 30_000 }, peerPatience, time.Millisecond)
	_ = c.conn.Close()
	assert.Eventually(t, func() bool { return srv.Stats().Memory.Reading == 0 }, peerPatience, time.Millisecond)

	// So do the bodies of AuthHandler, which anybody can send, too.
	body, in := io.Pipe()
	r := httptest.NewRequest(http.MethodPost, "/auth", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	served := make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(w, r)
		served <- w.Code
	}()
	_, err := io.WriteString(in, "channel="+half)
	require.NoError(t, err)
	assert.Eventually(t, func() bool { return srv.Stats().Memory.Reading >= 30_000 }, peerPatience, time.Millisecond)
	require.NoError(t, in.Close())
	assert.Equal(t, http.StatusBadRequest, <-served)
	assert.Zero(t, srv.Stats().Memory.Reading)
}

// Without a limit for the process there is none for the Server; a negative number turns the
// limit off.
func TestMemoryDefault(t *testing.T) {
	old := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(old) })
	debug.SetMemoryLimit(1 << 40)
	assert.Equal(t, int64(3<<38), startServer(t, pushy.Options{}).Stats().Memory.Limit)
	assert.Zero(t, startServer(t, pushy.Options{Limits: pushy.Limits{Memory: -1}}).Stats().Memory.Limit)
	debug.SetMemoryLimit(1000)
	assert.Zero(t, startServer(t, pushy.Options{}).Stats().Memory.Limit, "no limit of use")
	debug.SetMemoryLimit(old)
	_, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Limits:    pushy.Limits{Memory: 512},
	})
	assert.EqualError(t, err, "pushy: Options.Limits.Memory is 512 bytes, must be at least 1048576; a negative number turns it off")
	if old == 1<<63-1 {
		assert.Zero(t, startServer(t, pushy.Options{}).Stats().Memory.Limit)
	}
}
