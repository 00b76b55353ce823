package webhook_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

// logLines passes on the text of each log line.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

// sendTo makes a real Sender send one event to a URL, and returns the log lines of the Server.
func sendTo(t *testing.T, target string) logLines {
	t.Helper()
	lines := make(logLines, 100)
	srv := newServer(t, pushy.Options{Logger: slog.New(slog.NewTextHandler(lines, nil))})
	s, err := webhook.New(srv, webhook.Options{
		URL:    target,
		Secret: secret,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = srv.Close()
		_ = s.Close(ctx)
	})
	kit := pushytest.New(t, srv)
	kit.Allow("webhook.", "net/http.", "net.")
	kit.Connect().Subscribe("news")
	return lines
}

// await returns the first log line that contains a string.
func (l logLines) await(t *testing.T, part string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line := <-l:
			if strings.Contains(line, part) {
				return line
			}
		case <-timeout:
			require.Fail(t, "no log line contains "+part)
		}
	}
}

const notAccepted = "does not accept a request"

// The receiver redirects to an address of the link. The redirect is not followed, and nothing is
// sent to another place.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var other atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { other.Add(1) }))
	defer elsewhere.Close()
	for _, target := range []string{"http://169.254.169.254/latest/meta-data/", elsewhere.URL} {
		srv := httptest.NewServer(http.RedirectHandler(target, http.StatusTemporaryRedirect))
		line := sendTo(t, srv.URL).await(t, notAccepted)
		assert.Contains(t, line, "status=307")
		srv.Close()
	}
	assert.Zero(t, other.Load())
}

// Names whose addresses are not allowed, and forms of such addresses. No connection is made.
func TestAddressesThatAreNotDialled(t *testing.T) {
	names := map[string][]string{
		"link.test.":       {"169.254.169.254"},
		"link6.test.":      {"fe80::1"},
		"mapped.test.":     {"::ffff:169.254.169.254"},
		"nat64.test.":      {"64:ff9b::a9fe:a9fe"},
		"compatible.test.": {"::169.254.169.254"},
		"multi.test.":      {"224.0.0.1"},
		"multi6.test.":     {"ff02::1"},
		"any.test.":        {"0.0.0.0"},
		"this.test.":       {"0.1.2.3"},
		"any6.test.":       {"::"},
		"metadata.test.":   {"fd00:ec2::254"},
		"identity.test.":   {"fd00:ec2::23"},
		"google.test.":     {"fd20:ce::254"},
		"alibaba.test.":    {"100.100.100.200"},
		"nat64local.test.": {"64:ff9b:1::a9fe:a9fe"},
		"6to4.test.":       {"2002:a9fe:a9fe::1"},
		"public.test.":     {"203.0.113.7"}, // without TLS
		"broadcast.test.":  {"255.255.255.255"},
		// Other systems read these as 169.254.169.254. Go asks for them as names, or not at all.
		"2852039166.":          {"169.254.169.254"},
		"0xa9fea9fe.":          {"169.254.169.254"},
		"0251.0376.0251.0376.": {"169.254.169.254"},
		"169.254.43518.":       {"169.254.169.254"},
		"0xa9.0xfe.0xa9.0xfe.": {"169.254.169.254"},
	}
	useNames(t, names)
	for host := range names {
		host = strings.TrimSuffix(host, ".")
		t.Run(host, func(t *testing.T) {
			scheme := "https" // so that not only private addresses are allowed
			if host == "public.test" {
				scheme = "http"
			}
			line := sendTo(t, scheme+"://"+host+":9/").await(t, "receiver of webhooks")
			if strings.HasSuffix(host, ".test") {
				assert.Contains(t, line, "the address is not allowed")
			} else {
				assert.Regexp(t, "the address is not allowed|no such host", line)
			}
		})
	}
}

// A name has an address that is allowed at the first look-up, and one that is not at the next.
func TestNameThatChangesItsAddress(t *testing.T) {
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer srv.Close()
	useNames(t, map[string][]string{"rebind.test.": {"127.0.0.1", "169.254.169.254"}})
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	lines := sendTo(t, "http://rebind.test:"+u.Port()+"/")
	lines.await(t, "status=500")
	assert.Contains(t, lines.await(t, "is not allowed"), "169.254.169.254 is link-local")
	assert.EqualValues(t, 1, requests.Load())
}

// piped is a listener whose connections have no buffers.
type piped struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error {
	close(p.done)
	return nil
}

func (p *piped) Addr() net.Addr { return &net.UnixAddr{} }

func (p *piped) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// onHandler runs a test in its own time with a receiver that is a real HTTP server.
func onHandler(t *testing.T, handler http.HandlerFunc, run func(t *testing.T, kit *pushytest.Kit)) {
	t.Helper()
	t.Parallel()
	inTime(t, func(t *testing.T) {
		listener := &piped{
			conns: make(chan net.Conn),
			done:  make(chan struct{}),
		}
		web := &http.Server{Handler: handler}
		go web.Serve(listener)
		transport := &http.Transport{DialContext: listener.dial}
		srv := newServer(t, pushy.Options{})
		s, err := webhook.New(srv, webhook.Options{
			URL:       "http://127.0.0.1/",
			Secret:    secret,
			Transport: transport,
		})
		require.NoError(t, err)
		kit := pushytest.New(t, srv)
		kit.Allow("webhook.", "net/http.")
		run(t, kit)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = srv.Close()
		_ = s.Close(ctx)
		transport.CloseIdleConnections()
		_ = web.Close()
	})
}

// The answer does not end. Not more than 4 KiB of it are read, and the event counts as accepted.
func TestEndlessAnswerIsCut(t *testing.T) {
	var requests, sent atomic.Int64
	onHandler(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		for {
			n, err := w.Write(bytesOf(1 << 10))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, func(t *testing.T, kit *pushytest.Kit) {
		kit.Connect().Subscribe("news")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(t, 1, requests.Load())
		kit.Connect().Subscribe("sports")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(t, 2, requests.Load(), "the first one was accepted")
		assert.Less(t, sent.Load(), int64(2*(4<<10+16<<10)), "beside the answer, the buffers of both sides")
	})
}

// The receiver needs longer than 10 s, for its status or for the rest of its answer.
func TestSlowAnswerIsCut(t *testing.T) {
	var requests atomic.Int64
	var times [3]time.Time
	onHandler(t, func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		times[n-1] = time.Now()
		_, _ = io.Copy(io.Discard, r.Body)
		if n == 2 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if n == 3 {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}, func(t *testing.T, kit *pushytest.Kit) {
		kit.Connect().Subscribe("news")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, 1, requests.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 2, requests.Load(), "no status within 10 s is a failure")
		assert.InDelta(t, 10.75, times[1].Sub(times[0]).Seconds(), 0.35)

		kit.Connect().Subscribe("sports")
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.EqualValues(t, 3, requests.Load(), "the status counts, although the answer does not end")
	})
}

// useNames makes this process resolve the names, until the test ends. The n-th look-up of a name
// returns its n-th address, or the last one.
func useNames(t *testing.T, names map[string][]string) {
	t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	address := func(name string) (a netip.Addr, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		list, ok := names[name]
		if !ok {
			return a, false
		}
		n := counts[name]
		a = netip.MustParseAddr(list[min(n/2, len(list)-1)]) // two questions for each look-up
		counts[name]++
		return a, true
	}
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go answerNames(far, address)
			return near, nil
		},
	}
	t.Cleanup(func() { net.DefaultResolver = old })
}

// answerNames answers DNS questions in the form of TCP, where the length precedes a message.
func answerNames(conn net.Conn, address func(name string) (netip.Addr, bool)) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		m := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, m); err != nil {
			return
		}
		var name strings.Builder
		end := 12
		for m[end] != 0 {
			n := int(m[end])
			name.Write(m[end+1 : end+1+n])
			name.WriteByte('.')
			end += n + 1
		}
		question := m[12 : end+5]
		kind := binary.BigEndian.Uint16(m[end+1:])
		answer := append([]byte{m[0], m[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
		a, ok := address(name.String())
		switch {
		case !ok:
			answer[3] |= 3 // no such name
		case a.Is4() == (kind == 1):
			answer[7] = 1
			answer = append(answer, 0xc0, 12)
			answer = binary.BigEndian.AppendUint16(answer, kind)
			answer = append(answer, 0, 1, 0, 0, 0, 0, 0, byte(len(a.AsSlice())))
			answer = append(answer, a.AsSlice()...)
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
