package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// crowded returns options of a Server whose channels private-0 to private-(n-1)
// have members with data of that size already.
func crowded(t testing.TB, channels, members, size int) pushy.Options {
	t.Helper()
	cluster := newCluster()
	others := spy(t, cluster)
	data := json.RawMessage(fmt.Sprintf(`{"name":%q}`, strings.Repeat("x", size)))
	for c := range channels {
		for m := range members {
			_, err := others.Append(t.Context(), fmt.Sprintf("private-%d", c), broker.Entry{
				Kind:   broker.Join,
				Member: fmt.Sprintf("member-%d-%d", c, m),
				Owner:  "others",
				Data:   data,
				Joined: time.UnixMilli(1),
			})
			require.NoError(t, err)
		}
	}
	return pushy.Options{
		Broker:    cluster.Broker(),
		Heartbeat: -1,
	}
}

// lists reads until the successes of so many channels have come. It does not
// parse them, or on a loaded machine the test itself would be a slow client.
func (p *peer) lists(channels int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*peerPatience)
	defer cancel()
	for got := 0; got < channels; {
		text, err := p.Receive(ctx)
		if !assert.NoError(p.t, err, "after %d lists", got) {
			return
		}
		if strings.HasPrefix(text, `{"event":"pushy:subscription-success"`) {
			got++
		}
	}
}

// Clients that subscribe to several channels with long lists at once receive
// them all: what a client asked for does not make it a slow one. Issue 11,
// number 3.
func TestListsOfSeveralChannelsFit(t *testing.T) {
	t.Parallel()
	options := crowded(t, 3, 300, 4000)
	srv := startServer(t, options)
	var all, readers sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range 20 {
		p := connectPeer(t, srv)
		for c := range 3 {
			p.send(subscribeText(t, p.id, fmt.Sprintf("private-%d", c), ""))
		}
		all.Add(1)
		readers.Go(func() {
			p.lists(3)
			all.Done()
			for { // and the joins of those that come after it
				if _, err := p.Receive(ctx); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	assert.Equal(t, 20, srv.Stats().Connections, "nobody is disconnected")
	cancel()
	readers.Wait()
}

// serveMemory serves srv to WebSocket clients over net.Pipe, in a bubble.
func serveMemory(t *testing.T, srv *pushy.Server) (dial func() net.Conn) {
	t.Helper()
	open := listenMemory(t, srv)
	return func() net.Conn {
		conn, err := upgradeMemory(open(), &url.URL{Scheme: "ws", Host: "site", Path: "/pushy/socket/websocket"})
		require.NoError(t, err)
		return conn
	}
}

// earlyConn is a connection of which a bufio.Reader has read the first bytes.
type earlyConn struct {
	net.Conn
	r io.Reader
}

func (c *earlyConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// upgradeMemory makes the handshake of a client. The server's first messages come with its response.
func upgradeMemory(conn net.Conn, to *url.URL) (net.Conn, error) {
	early, _, err := ws.Dialer{}.Upgrade(conn, to)
	if err != nil || early == nil {
		return conn, err
	}
	return &earlyConn{conn, early}, nil
}

// listenMemory serves srv over net.Pipe until the test ends. Each call of open connects.
func listenMemory(t *testing.T, srv *pushy.Server) (open func() net.Conn) {
	t.Helper()
	conns := make(chan net.Conn)
	listener := &memoryConns{conns: conns, closed: make(chan struct{})}
	web := &http.Server{Handler: srv}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = web.Close()
		<-served
	})
	return func() net.Conn {
		server, conn := net.Pipe()
		conns <- server
		return conn
	}
}

type memoryConns struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memoryConns) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryConns) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryConns) Addr() net.Addr { return &net.TCPAddr{} }

// slowly reads a number of bytes a second.
type slowly struct {
	io.Reader
	perSecond int
}

func (r slowly) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), 16<<10)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(r.perSecond))
	return n, err
}

// askForLists subscribes to channels, one command after the other, while the
// server takes them.
func askForLists(t *testing.T, conn net.Conn, id string, channels int) {
	for i := range channels {
		text := subscribeText(t, id, fmt.Sprintf("private-%d", i), "")
		if ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(text)))) != nil {
			return
		}
	}
}

// A reader of 1 MB/s gets into five channels of 999 members with 300 bytes each,
// and one of 100 KB/s, for which a list takes longer than the write timeout, into
// one with a list of 4 MB. Issue 11, number 3.
func TestSlowReadersGetTheirLists(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                               string
		channels, members, size, perSecond int
	}{
		{"fiveChannels", 5, 999, 300, 1_000_000},
		{"oneLongList", 1, 999, 4000, 100_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := startServer(t, crowded(t, c.channels, c.members, c.size))
				conn := serveMemory(t, srv)()
				defer conn.Close()
				in := slowly{conn, c.perSecond}
				hello, err := ws.ReadFrame(in)
				require.NoError(t, err)
				f, err := parseFrame(string(hello.Payload))
				require.NoError(t, err)
				go askForLists(t, conn, f.field("socketId"), c.channels)
				for got := 0; got < c.channels; {
					frame, err := ws.ReadFrame(in)
					require.NoError(t, err)
					require.Equal(t, ws.OpText, frame.Header.OpCode, "closed: %s", frame.Payload)
					if strings.Contains(string(frame.Payload[:60]), "subscription-success") {
						got++
					}
				}
			})
		})
	}
}

// A client that subscribes to many channels with huge lists and never reads is
// disconnected by the write timeout, and little waits for it until then. Issue
// 11, number 3.
func TestNeverReadingWhileAskingForListsIsBounded(t *testing.T) {
	t.Parallel()
	const channels = 30
	synctest.Test(t, func(t *testing.T) {
		var code atomic.Int64
		options := crowded(t, channels, 300, 4000) // a list has 1.2 MB
		options.Hooks.Disconnect = func(_ *pushy.Conn, c int, _ string) { code.Store(int64(c)) }
		srv := startServer(t, options)
		conn := serveMemory(t, srv)()
		defer conn.Close()
		hello, err := ws.ReadFrame(conn)
		require.NoError(t, err)
		f, err := parseFrame(string(hello.Payload))
		require.NoError(t, err)
		go askForLists(t, conn, f.field("socketId"), channels)
		began := time.Now()
		for srv.Stats().Connections > 0 {
			assert.Less(t, srv.Stats().Buffered, int64(5<<20))
			require.Less(t, time.Since(began), 12*time.Second, "it is not disconnected")
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		assert.Equal(t, int64(3008), code.Load())
	})
}

// The bound of events holds beside lists: a client that reads its list and then
// nothing is disconnected for the events that wait. Issue 11, number 3.
func TestEventsAreBoundedBesideLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		codes := make(chan int, 1)
		options := crowded(t, 1, 100, 1000)
		options.Limits.ConnBuffer = 10_000
		options.Hooks.Disconnect = func(_ *pushy.Conn, c int, _ string) { codes <- c }
		srv := startServer(t, options)
		p := connectPeer(t, srv)
		p.send(subscribeText(t, p.id, "private-0", ""))
		p.lists(1)
		for i := range 200 {
			require.NoError(t, srv.Publish(t.Context(), "private-0", "e", strings.Repeat("x", 1000)), i)
		}
		assert.Equal(t, 3008, <-codes)
	})
}

// A presence-sync has every member of a channel as its receiver: it counts once
// in MaxBuffered, however many they are. Issue 11, number 3.
func TestSharedListsCountOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients = 50
		options := pushy.Options{MaxBuffered: 3 << 20, Heartbeat: -1}
		srv := startServer(t, options)
		var all []*peer
		for range clients {
			p := connectPeer(t, srv)
			p.send(subscribeText(t, p.id, "private-room", ""))
			require.Equal(t, "pushy:subscription-success", p.next().Event)
			all = append(all, p)
		}
		// Presence comes on: all get the list of those before, 50 members, at once,
		// while nobody reads.
		session, client := inmem.Pipe("websocket")
		srv.Connect(session, nil)
		last := &peer{t: t, Client: client}
		last.id = last.next().field("socketId")
		last.send(subscribeText(t, last.id, "private-room", `{"name":"`+strings.Repeat("x", 4000)+`"}`))
		require.Equal(t, "pushy:subscription-success", last.next().Event)
		for _, p := range all {
			require.Equal(t, "pushy:presence-sync", p.next().Event)
			require.Equal(t, "pushy:presence-add", p.next().Event)
		}
	})
}

// Limits that do not fit each other are logged with both values; the defaults fit.
// Issue 11, number 3.
func TestLimitsAreCheckedAgainstEachOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		options pushy.Options
		want    []string
	}{
		{"defaults", pushy.Options{}, nil},
		{"off", pushy.Options{Limits: pushy.Limits{Members: -1, ConnBuffer: -1}, MaxBuffered: -1}, nil},
		{"lists", pushy.Options{Limits: pushy.Limits{Members: 100_000}}, []string{"MaxBuffered", "268435456", "Limits.Members", "849200000"}},
		{
			"buffers", pushy.Options{Limits: pushy.Limits{ConnBuffer: 64 << 20, Members: 10}, MaxBuffered: 32 << 20},
			[]string{"Limits.ConnBuffer", "67108864", "33554432"},
		},
		{"events", pushy.Options{Limits: pushy.Limits{TriggerBytes: 2 << 20}}, []string{"Limits.TriggerBytes", "2097152", "1048576"}},
		{"data", pushy.Options{Limits: pushy.Limits{MessageBytes: 1000}}, []string{"Limits.PresenceBytes", "4096", "1000"}},
		{"burst", pushy.Options{Limits: pushy.Limits{CommandBurst: 50}}, []string{"Limits.CommandBurst", "50", "Limits.Channels", "200"}},
		{"burstFollows", pushy.Options{Limits: pushy.Limits{Channels: 500}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := &testlog.Log{}
			c.options.Logger = log.Logger()
			startServer(t, c.options)
			if c.want == nil {
				assert.NotContains(t, log.String(), "limits")
			}
			for _, part := range c.want {
				assert.Contains(t, log.String(), part)
			}
		})
	}
}

// A client that goes in and out of a channel with a long list pays for what it
// makes the server send. The first time in each channel costs one message, so a
// client that reconnects can subscribe to all. Issue 11, number 23.
func TestRepeatedJoinsAreChargedBySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := crowded(t, 5, 300, 1000) // a list has 300 KB, 75 tokens
		srv := startServer(t, options)
		p := connectPeer(t, srv)
		for c := range 5 {
			p.subscribe(fmt.Sprintf("private-%d", c), "")
		}
		leave := `{"command":"unsubscribe","data":{"channel":"private-0"}}`
		var bytes, joined, refused int
		began := time.Now()
		for time.Since(began) < 8*time.Second {
			p.send(leave)
			p.send(subscribeText(t, p.id, "private-0", ""))
			for range 2 {
				f := p.next()
				bytes += len(f.Data)
				switch {
				case f.Event == "pushy:subscription-success":
					joined++
				case strings.Contains(string(f.Data), `"429"`):
					refused++
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		assert.GreaterOrEqual(t, joined, 2, "it may still join")
		assert.Greater(t, refused, 100)
		assert.Less(t, bytes, 8<<20, "1 MiB a second at most")
	})
}

// Without Limits.Channels the memory of what a connection has joined is bounded all
// the same: joins beyond it are charged by size. Issue 11, number 23.
func TestJoinsAreChargedWithoutALimitOfChannels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ limit, remembered int }{{-1, 4096}, {50, 50}} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const burst = 5000
				options := crowded(t, c.remembered+20, 1, 4300) // a list is worth a token
				options.Limits = pushy.Limits{
					Channels:    c.limit,
					CommandRate: -1,
					JoinRate:    1, // none comes in while the clock stands
					JoinBurst:   burst,
				}
				srv := startServer(t, options)
				name := func(i int) string { return fmt.Sprintf("private-%d", i) }
				p := connectPeer(t, srv)
				conn := p.conn(srv)
				tokens := burst
				join := func(i, price int) {
					p.subscribe(name(i), "")
					require.NoError(t, srv.Channels().Leave(conn, name(i)))
					require.Equal(t, "pushy:subscription-end", p.next().Event)
					tokens -= price
				}
				for i := range c.remembered {
					join(i, 1)
				}
				join(0, 2)
				for i := range 20 {
					if c.limit < 0 {
						join(c.remembered+i, 2)
					}
				}
				for range tokens {
					p.subscribe("public", "")
					require.NoError(t, srv.Channels().Leave(conn, "public"))
					require.Equal(t, "pushy:subscription-end", p.next().Event)
				}
				p.expect0(`{"command":"subscribe","data":{"channel":"public"}}`, `pushy:error {"message":"Too many requests","code":"429"}`)
			})
		})
	}
}

// A client whose channels have no presence, or small lists, is not charged.
// Issue 11, number 23.
func TestSmallJoinsCostOneMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Heartbeat: -1})
		p := connectPeer(t, srv)
		for range 100 { // 200 messages at once
			p.subscribe("private-small", `{"name":"Ann"}`)
			require.Equal(t, "pushy:subscription-end", p.ask(`{"command":"unsubscribe","data":{"channel":"private-small"}}`).Event)
		}
	})
}

// A client that reconnects subscribes to all channels that it may be in at once.
// Issue 11, number 23.
func TestReconnectingToAllChannels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Heartbeat: -1, Limits: pushy.Limits{Channels: 300}})
		p := connectPeer(t, srv)
		for c := range 300 {
			p.subscribe(fmt.Sprintf("private-%d", c), `{"name":"Ann"}`)
		}
	})
}

// hanging is a broker that does not answer to leaves, until ctx ends, while hang is set.
type hanging struct {
	altered
	hang atomic.Bool
	most atomic.Int64 // leaves at a time
	now  atomic.Int64

	mu   sync.Mutex
	left map[string]bool // by member
}

func newHanging() *hanging {
	b := &hanging{
		altered: altered{Broker: memory.New()},
		left:    map[string]bool{},
	}
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if e.Kind == broker.Leave {
			b.mu.Lock()
			b.left[e.Member] = true
			b.mu.Unlock()
			now := b.now.Add(1)
			defer b.now.Add(-1)
			for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
			}
			if b.hang.Load() {
				<-ctx.Done()
				return broker.Appended{}, ctx.Err()
			}
		}
		return b.Broker.Append(ctx, channel, e)
	}
	return b
}

func (b *hanging) leaves() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.left)
}

// A broker that does not answer holds up the end of a connection for one timeout,
// not for one a channel; each Unsubscribe hook runs once, and Disconnect last.
// Issue 11, number 22.
func TestLeavesAtDisconnectAreConcurrent(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"disconnect", "shutdown"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const channels, clients = 200, 60
				b := newHanging()
				var unsubscribed atomic.Int64
				early := false
				ended := make(chan time.Time, clients)
				var mu sync.Mutex
				left := map[string]int{}
				srv := startServer(t, pushy.Options{
					Broker:    b,
					Heartbeat: -1,
					Hooks: pushy.Hooks{
						Unsubscribe: func(c *pushy.Conn, _ *pushy.Channel) {
							unsubscribed.Add(1)
							mu.Lock()
							left[c.ID()]++
							mu.Unlock()
						},
						Disconnect: func(c *pushy.Conn, _ int, _ string) {
							mu.Lock()
							early = early || left[c.ID()] != channels
							mu.Unlock()
							ended <- time.Now()
						},
					},
				})
				var all []*peer
				for range clients {
					p := connectPeer(t, srv)
					all = append(all, p)
					for c := range channels {
						require.NoError(t, srv.Channels().Join(p.conn(srv), fmt.Sprintf("private-%d", c), nil))
						p.next()
					}
				}
				b.hang.Store(true)
				began := time.Now()
				if ending == "shutdown" {
					go func() {
						ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
						defer cancel()
						_ = srv.Shutdown(ctx)
					}()
				} else {
					for _, p := range all {
						p.Abort()
					}
				}
				for range clients {
					assert.Less(t, (<-ended).Sub(began), 20*time.Second)
				}
				assert.Equal(t, int64(channels*clients), unsubscribed.Load())
				assert.Equal(t, channels*clients, b.leaves())
				assert.LessOrEqual(t, b.most.Load(), int64(1024+clients+32), "leavers, readers and those who try again")
				assert.False(t, early, "a Disconnect hook came before an Unsubscribe hook")
				b.hang.Store(false)
			})
		})
	}
}

// A broker that does not answer does not keep the hooks from running before a Shutdown
// or Close returns that has waited long enough. Issue 11, number 22.
func TestShutdownDoesNotWaitForAHangingBroker(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"shutdown", "close"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const channels, clients = 200, 5
				b := newHanging()
				var unsubscribed, disconnected atomic.Int64
				srv := startServer(t, pushy.Options{
					Broker:    b,
					Heartbeat: -1,
					Hooks: pushy.Hooks{
						Unsubscribe: func(*pushy.Conn, *pushy.Channel) { unsubscribed.Add(1) },
						Disconnect:  func(*pushy.Conn, int, string) { disconnected.Add(1) },
					},
				})
				for range clients {
					p := connectPeer(t, srv)
					for c := range channels {
						require.NoError(t, srv.Channels().Join(p.conn(srv), fmt.Sprintf("private-%d", c), nil))
						p.next()
					}
				}
				b.hang.Store(true)
				began := time.Now()
				if ending == "shutdown" {
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					defer cancel()
					assert.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
				} else {
					assert.NoError(t, srv.Close())
				}
				assert.Less(t, time.Since(began), 4*time.Second)
				assert.EqualValues(t, channels*clients, unsubscribed.Load())
				assert.EqualValues(t, clients, disconnected.Load())
				b.hang.Store(false)
			})
		})
	}
}
