package sockjs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// soak returns a size for make test, or for make soak.
func soak(short, long int) int {
	if os.Getenv("PUSHY_SOAK") != "" {
		return long
	}
	return short
}

// 100 clients poll on loopback while the server sends continuously: no client receives the close
// frame for a second request, and no message is lost or duplicated.
func TestRow02PollsLoseNothing(t *testing.T) {
	t.Parallel()
	polls := int64(soak(5_000, 200_000))
	s := serveSite(t, func(s *site) {
		// On a busy machine a client can wait for a long time before it runs.
		s.cfg.DisconnectDelay, s.cfg.CloseTimeout = 10*time.Minute, 10*time.Minute
	})
	var polled atomic.Int64
	var clients sync.WaitGroup
	for i := range 100 {
		p := s.open(carriers[i%2*4]) // xhr and jsonp
		host := s.session()
		last := make(chan int, 1)
		go func() {
			n := 0
			for polled.Load() < polls && host.send(strconv.Itoa(n)) {
				n++
				<-time.After(100 * time.Microsecond)
			}
			last <- n
			host.close(3000, "done")
		}()
		clients.Go(func() {
			want := 0
			for {
				polled.Add(1)
				frame, err := p.tryNext()
				if !assert.NoError(t, err) {
					return
				}
				if frame == `c[3000,"done"]` {
					break
				}
				texts, ok := strings.CutPrefix(frame, `a["`)
				if !assert.True(t, ok, frame) {
					return
				}
				for text := range strings.SplitSeq(strings.TrimSuffix(texts, `"]`), `","`) {
					if text != strconv.Itoa(want) {
						assert.Fail(t, "lost or twice", "got %s, want %d", text, want)
						return
					}
					want++
				}
			}
			assert.Equal(t, <-last, want)
		})
	}
	clients.Wait()
	t.Logf("%d polls", polled.Load())
}

// Every endpoint refuses a body of 512 MiB without keeping it in memory, and the session
// continues. Not parallel, because it measures the heap.
func TestRow05HugeBodies(t *testing.T) {
	const size = 512 << 20
	s := serveSite(t)
	p := s.open(carriers[0])
	zeros := make([]byte, 64<<10)
	for _, announced := range []bool{true, false} {
		for _, path := range []string{"xhr_send", "jsonp_send", "xhr", "xhr_streaming"} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
			require.NoError(t, err)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			head := "Transfer-Encoding: chunked"
			if announced {
				head = fmt.Sprintf("Content-Length: %d", size)
			}
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", p.path(path), head)
			require.NoError(t, err)
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				for sent := 0; sent < size; sent += len(zeros) {
					if !announced {
						if _, err := fmt.Fprintf(conn, "%x\r\n", len(zeros)); err != nil {
							return
						}
					}
					if _, err := conn.Write(zeros); err != nil {
						return // the server does not read all of it
					}
					if !announced {
						_, _ = io.WriteString(conn, "\r\n")
					}
				}
			}()
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, path)
			assert.Equal(t, 413, res.StatusCode, path)
			_ = conn.Close()
			<-wrote
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20), path)
			p.send(`["still here"]`)
			assert.Equal(t, []string{"still here"}, p.receive(), path)
		}
	}
}

// Connections of all transports are opened and ended in many ways: no session, goroutine or file
// descriptor is left. Not parallel, because it counts them.
func TestRow26ComeAndGo(t *testing.T) {
	total, atOnce := soak(600, 10_000), 100
	s := serveSite(t, func(s *site) {
		s.cfg.DisconnectDelay, s.cfg.CloseTimeout = 200*time.Millisecond, 200*time.Millisecond
		s.cfg.WriteTimeout = time.Second
	})
	require.Equal(t, 200, s.call("GET", "/", "").status)
	s.client.CloseIdleConnections()
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	var hosts []*siteConn
	var mu sync.Mutex
	stop := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() {
		for {
			select {
			case h := <-s.sessions:
				mu.Lock()
				hosts = append(hosts, h)
				mu.Unlock()
				switch rand.IntN(6) {
				case 0:
					h.close(3001, "bye")
				case 1:
					h.Abort()
				case 2:
					for range 3 {
						h.send(strings.Repeat("x", 600<<10)) // exceeds the limit
					}
				}
			case <-stop:
				return
			}
		}
	})
	slots := make(chan struct{}, atOnce)
	var clients sync.WaitGroup
	for i := range total {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			comeAndGo(s, i)
		})
	}
	clients.Wait()
	// The clients do not wait for the keeper, which sends megabytes: on a busy machine it may
	// have thousands of sessions before it.
	require.Eventually(t, func() bool { return len(s.sessions) == 0 }, 10*time.Minute, time.Millisecond)
	close(stop)
	keeper.Wait()
	for _, h := range hosts {
		h.wait(t)
	}
	t.Logf("%d sessions", len(hosts))
	s.client.CloseIdleConnections()
	assert.Zero(t, s.engine.Waiting())
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+2 }, patience, 10*time.Millisecond,
		"%d goroutines before", goroutines)
	assert.Eventually(t, func() bool { return openFiles(t) <= files+2 }, patience, 10*time.Millisecond, "%d files before", files)
}

// comeAndGo runs one client; i decides its transport and how it ends.
func comeAndGo(s *site, i int) {
	if i%6 == 5 {
		comeAndGoOverWebSocket(s, i)
		return
	}
	p := s.peer(carriers[i%6])
	switch rand.IntN(5) {
	case 0: // disconnect at any moment
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Microsecond)
		defer cancel()
		if res, err := s.do(ctx, p.c.method, p.path(p.c.name)+p.c.query(), ""); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	case 1: // half a request
		if conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://")); err == nil {
			_, _ = fmt.Fprintf(conn, "%s %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[", p.c.method, p.path(p.c.name), p.c.query())
			_ = conn.Close()
		}
	case 2: // a reset after the first frame
		if conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://")); err == nil {
			_, _ = fmt.Fprintf(conn, "%s %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", p.c.method, p.path(p.c.name), p.c.query())
			_, _ = conn.Read(make([]byte, 100))
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	default:
		for range 3 {
			if _, err := p.tryNext(); err != nil {
				break
			}
			sending, _ := p.c.sending()
			if res, err := s.do(context.Background(), "POST", p.path(sending), `["x"]`, "Content-Type", "text/plain"); err == nil {
				_ = res.Body.Close()
			}
		}
		p.abort()
	}
}

func comeAndGoOverWebSocket(s *site, i int) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, strings.Replace(handshake, "GET /", "GET /0/w/websocket", 1))
	switch i / 6 % 4 {
	case 0:
		return
	case 1:
		_, _ = conn.Read(make([]byte, 300))
		_, _ = conn.Write(closeFrame(1000, ""))
	case 2:
		_, _ = conn.Read(make([]byte, 300))
		_ = conn.(*net.TCPConn).SetLinger(0)
		return
	case 3:
		_, _ = conn.Write(textFrame(`["x"]`))
	}
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _ = io.Copy(io.Discard, conn)
}

// openFiles returns the number of file descriptors, or 0 if the system does not provide it.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// sockjs.md rows 3 and 4, over real sockets: a client of each transport that never reads does not
// delay 200 others, is disconnected at its limit, and uses no more memory than the limit until
// then. Not parallel, because it measures the heap.
func TestRow03NeverReadsAmongMany(t *testing.T) {
	const (
		others = 200
		piece  = 64 << 10
		bound  = 1 << 20 // the limit of the queued bytes of one client
		beside = 3 * piece / 2
	)
	s := serveSite(t, func(s *site) { s.cfg.WriteTimeout = time.Hour }) // only the limit of the queued bytes acts
	all := append(carriers[:len(carriers):len(carriers)], carrier{name: "websocket"})
	stuck := map[string]*siteConn{}
	for _, c := range all {
		conn, host := s.knock(c)
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		stuck[c.name] = host
	}
	var hosts []*siteConn
	arrived := make(chan string, others)
	for i := range others {
		c := all[i%len(all)]
		if c.name == "websocket" {
			conn, host := s.knock(c)
			hosts = append(hosts, host)
			go func() {
				for reader := bufio.NewReader(conn); ; {
					f, err := ws.ReadFrame(reader)
					if err != nil {
						return
					}
					if strings.HasPrefix(string(f.Payload), "a") {
						arrived <- string(f.Payload)
					}
				}
			}()
			continue
		}
		p := s.open(c)
		hosts = append(hosts, s.session())
		go func() {
			for {
				frame, err := p.tryNext()
				if err != nil || frame[0] == 'c' {
					p.abort()
					return
				}
				arrived <- frame
			}
		}()
	}

	before, most := transporttest.LiveHeap(), int64(0)
	cut := 0
	for round := 0; len(stuck) > 0; round++ {
		require.Less(t, round, 1000)
		for name, host := range stuck {
			if host.send(string(make([]byte, piece))) {
				continue
			}
			assert.Equal(t, 3008, <-host.cut, name)
			host.Abort() // as the write timeout would do
			host.wait(t)
			delete(stuck, name)
			cut++
		}
		text := fmt.Sprint(round)
		for _, host := range hosts {
			require.True(t, host.send(text))
		}
		for range others {
			select {
			case frame := <-arrived:
				require.Equal(t, `a["`+text+`"]`, frame)
			case <-time.After(patience):
				require.Fail(t, "others wait", "round %d", round)
			}
		}
		// The bytes that the others have received may still count as queued.
		assert.LessOrEqual(t, s.engine.Waiting(), int64(len(stuck)*bound+others*len(text)))
		if round%16 == 0 || len(stuck) < len(all) {
			most = max(most, int64(transporttest.LiveHeap())-int64(before))
		}
	}
	assert.Equal(t, len(all), cut)
	assert.LessOrEqual(t, most, int64(len(all)*(bound+beside)))
	t.Logf("the heap grew by %d KiB at most, %d KiB for each that does not read", most>>10, most>>10/int64(len(all)))
	for _, host := range hosts {
		host.close(3000, "bye")
	}
	for _, host := range hosts {
		host.wait(t)
	}
}

// knock returns a connection on which the request was sent and, for a WebSocket, the header of the
// response was read.
func (s *site) knock(c carrier) (net.Conn, *siteConn) {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	ask := fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", c.method, s.peer(c).path(c.name), c.query())
	if c.name == "websocket" {
		ask = strings.Replace(handshake, "GET /", "GET /0/w/websocket", 1)
	}
	_, err = io.WriteString(conn, ask)
	require.NoError(s.t, err)
	if c.name == "websocket" {
		end := make([]byte, 4)
		for string(end) != "\r\n\r\n" {
			copy(end, end[1:])
			_, err = conn.Read(end[3:])
			require.NoError(s.t, err)
		}
	}
	return conn, s.session()
}
