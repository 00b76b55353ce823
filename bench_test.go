package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
)

// benchEvent is 200 bytes of data.
var benchEvent = json.RawMessage(`{"text":"` + strings.Repeat("x", 189) + `"}`)

// audience counts what is written to sessions that take everything at once: what
// is left to measure is the Server.
type audience struct {
	bytes  atomic.Int64
	target atomic.Int64
	there  chan struct{}
}

func (a *audience) took(n int) {
	if target := a.target.Load(); target > 0 && a.bytes.Add(int64(n)) == target {
		a.there <- struct{}{}
	}
}

// expect begins to count; the channel tells when that many bytes were written.
func (a *audience) expect(bytes int64) {
	a.bytes.Store(0)
	a.target.Store(bytes)
}

// listener is one such session, over nothing.
type listener struct {
	in   *audience
	stop sync.Once
	over chan struct{}
}

var _ session.Session = (*listener)(nil)

func (l *listener) Form() fanout.Form                 { return fanout.Framed }
func (l *listener) Protocol() string                  { return "websocket" }
func (l *listener) ShutdownCode() int                 { return pushy.CloseShutdown }
func (l *listener) Start(*fanout.Outbox)              {}
func (l *listener) Stop()                             { l.stop.Do(func() { close(l.over) }) }
func (l *listener) Abort()                            { l.Stop() }
func (l *listener) Linger()                           {}
func (l *listener) Direct() fanout.Direct             { return l }
func (l *listener) Broken()                           {}
func (l *listener) Finish(int, string, time.Duration) {}

func (l *listener) Receive() ([]byte, error) {
	<-l.over
	return nil, &session.CloseError{Cause: session.Stopped}
}

func (l *listener) Write(p []byte, _ time.Duration) error {
	l.in.took(len(p))
	return nil
}

func (l *listener) TryWrite(p []byte) (int, error) {
	l.in.took(len(p))
	return len(p), nil
}

// fullRoom connects n listeners and puts them into "room".
func fullRoom(b *testing.B, n int) (*pushy.Server, *audience, []*pushy.Conn) {
	b.Helper()
	in := &audience{there: make(chan struct{}, 1)}
	conns := make(chan *pushy.Conn, n)
	srv := startServer(b, pushy.Options{
		// Nobody waits for the trigger's one subscriber: without a bound it is not cut.
		Limits:      pushy.Limits{Connections: -1, ConnBuffer: -1},
		MaxBuffered: -1,
		Hooks:       pushy.Hooks{Connect: func(c *pushy.Conn) { conns <- c }},
	})
	all := make([]*pushy.Conn, n)
	for i := range all {
		srv.Connect(&listener{in: in, over: make(chan struct{})}, nil)
		all[i] = <-conns
		require.NoError(b, srv.Channels().Join(all[i], "room", nil))
	}
	// What they were greeted with must be out before events are counted.
	for srv.Stats().Buffered > 0 {
		runtime.Gosched()
	}
	return srv, in, all
}

// BenchmarkFanOut is one event to all members of a channel, eight of them in a
// row before their delivery is awaited.
func BenchmarkFanOut(b *testing.B) {
	const window = 8
	for _, n := range []int{10, 1000, 20_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			srv, in, _ := fullRoom(b, n)
			text := fmt.Sprintf(`{"event":"told","channel":"room","data":%s}`, benchEvent)
			size := int64(len(fanout.NewFrame([]byte(text)).Bytes(fanout.Framed)))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			b.ReportAllocs()
			events := 0
			for b.Loop() {
				if events%window == 0 {
					in.expect(window * int64(n) * size)
				}
				require.NoError(b, srv.Publish(context.Background(), "room", "told", benchEvent))
				if events++; events%window == 0 {
					<-in.there
				}
			}
			runtime.ReadMemStats(&after)
			deliveries := float64(events) * float64(n)
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/deliveries, "allocs/delivery")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
		})
	}
}

// BenchmarkMembership is one connection that comes and goes, or asks to come
// twice, in a channel of few and of many. It must cost the same.
func BenchmarkMembership(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		srv, _, all := fullRoom(b, n)
		channels, conn := srv.Channels(), all[n/2]
		b.Run(fmt.Sprintf("leaveAndJoin/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, channels.Leave(conn, "room"))
				require.NoError(b, channels.Join(conn, "room", nil))
			}
		})
		b.Run(fmt.Sprintf("joinTwice/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.Error(b, channels.Join(conn, "room", nil))
			}
		})
		require.NoError(b, srv.Close())
	}
}

// BenchmarkTrigger is one signed publish, from the request as net/http has
// parsed it to the answer.
func BenchmarkTrigger(b *testing.B) {
	for _, n := range []int{0, 1} {
		b.Run(fmt.Sprintf("%dSubscribers", n), func(b *testing.B) {
			srv, _, _ := fullRoom(b, n)
			at := strconv.FormatInt(time.Now().Unix(), 10)
			key := ownSum("room:told:" + at + ":" + string(benchEvent) + ":" + peerKey)
			target, err := url.Parse("/pushy/channel/room/trigger?event=told&timestamp=" + at + "&auth_key=" + key)
			require.NoError(b, err)
			r := &http.Request{
				Method: "POST", URL: target, Header: http.Header{"Content-Type": {"application/json"}},
				Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(benchEvent)),
			}
			body := &rewindable{text: string(benchEvent)}
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(body.text)
				r.Body = body
				w := answerWriter{header: http.Header{}}
				srv.ServeHTTP(&w, r)
				require.Equal(b, 200+n, w.status)
			}
		})
	}
}

type rewindable struct {
	strings.Reader
	text string
}

func (*rewindable) Close() error { return nil }

// answerWriter keeps an answer's status. A trigger's body is read within a
// deadline, which has nothing to be set on here.
type answerWriter struct {
	header http.Header
	status int
}

func (w *answerWriter) Header() http.Header             { return w.header }
func (w *answerWriter) Write(p []byte) (int, error)     { return len(p), nil }
func (w *answerWriter) WriteHeader(status int)          { w.status = status }
func (w *answerWriter) SetReadDeadline(time.Time) error { return nil }

// BenchmarkPresenceJoins joins 10,000 clients to one channel with presence. With the mode
// list, the cost of a join grows with the members; with the others, it does not.
func BenchmarkPresenceJoins(b *testing.B) {
	const clients = 10_000
	for _, mode := range []string{"diff", "count"} {
		b.Run(mode, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				srv := startServer(b, pushy.Options{Heartbeat: -1})
				var peers []*peer
				for range clients {
					peers = append(peers, connectPeer(b, srv))
				}
				b.StartTimer()
				var readers sync.WaitGroup
				for _, p := range peers {
					p.send(withKey(subscribeText(b, p.id, "private-room", `{"name":"somebody"}`), "presence", `"`+mode+`"`))
					f := p.next()
					if f.Event != "pushy:subscription-success" {
						b.Fatal(f)
					}
					readers.Go(func() {
						for {
							if _, err := p.Receive(context.Background()); err != nil {
								return
							}
						}
					})
				}
				b.StopTimer()
				require.NoError(b, srv.Close())
				readers.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/clients, "µs/join")
		})
	}
}
