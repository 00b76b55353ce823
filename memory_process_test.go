package pushy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testproc"
)

// memoryChildEnv makes the test binary a server whose clients do not read.
const memoryChildEnv = "PUSHY_TEST_MEMORY_CHILD"

// memoryReport is what that server observes of itself.
type memoryReport struct {
	Stage       string  // the log line that it belongs to, or "" for one of those ten times a second
	Used        float64 // of Limits.Memory
	RSS         int64   // bytes, without the program; 0 if the system does not tell
	Go          int64   // bytes that Go has of the system, which GOMEMLIMIT limits
	Kept        int64
	Connections int
	Refuses     bool // a handshake is answered with 503
	NotReady    bool
	Overloaded  bool // Publish returns ErrOverloaded
}

// memoryStages are the log lines of the stages of Limits.Memory, in their order.
var memoryStages = []string{
	"kept events were freed",
	"new connections are refused",
	"events are not published",
	"the connections with the most queued bytes were closed",
}

// stageLog reports the state of the server at the moment at which it enters a stage.
type stageLog struct {
	slog.Handler
	report func(stage string)
}

func (l *stageLog) Handle(_ context.Context, r slog.Record) error {
	for _, stage := range memoryStages {
		if strings.Contains(r.Message, stage) {
			l.report(stage)
		}
	}
	return nil
}

func (l *stageLog) Enabled(context.Context, slog.Level) bool { return true }

// smallBuffers accepts connections for which the kernel holds only few bytes.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(4 << 10)
	}
	return c, err
}

// memoryChild is the process. Its first line is the address; then it waits for a line, fills the
// outboxes, and reports ten times a second, and at each stage, until its input ends.
func memoryChild() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	conns := make(chan *pushy.Conn, 10_000)
	reports := make(chan memoryReport, 100)
	var report func(stage string) // set before there can be a stage
	// filling is locked while messages are queued, and while a stage is reported: meanwhile the
	// server does not measure.
	var filling sync.Mutex
	srv, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Logger: slog.New(&stageLog{slog.DiscardHandler, func(stage string) {
			filling.Lock()
			defer filling.Unlock()
			report(stage)
		}}),
		WriteTimeout: time.Hour, // the limit of the memory must end the connections
		Channel:      func(string) pushy.ChannelOptions { return talking(relay)("kept") },
		Hooks:        pushy.Hooks{Connect: func(c *pushy.Conn) { conns <- c }},
	})
	fail(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	report = func(stage string) {
		m := srv.Stats().Memory
		reports <- memoryReport{
			Stage:       stage,
			Used:        float64(m.Total()) / float64(m.Limit),
			RSS:         residentBytes(),
			Go:          goBytes(),
			Kept:        m.Kept,
			Connections: srv.Stats().Connections,
			Refuses:     refuses("http://" + l.Addr().String()),
			NotReady:    errors.Is(srv.Ready(), pushy.ErrOverloaded),
			Overloaded:  errors.Is(srv.Publish(context.Background(), "nobody", "x", 1), pushy.ErrOverloaded),
		}
	}
	go func() { _ = http.Serve(smallBuffers{l}, srv) }()
	fmt.Println(l.Addr())
	go func() {
		out := json.NewEncoder(os.Stdout)
		for r := range reports {
			fail(out.Encode(r))
		}
	}()
	in := bufio.NewReader(os.Stdin)
	_, err = in.ReadString('\n')
	fail(err)
	var all []*pushy.Conn
	for len(conns) > 0 {
		all = append(all, <-conns)
	}
	channel := "news"
	fail(srv.Channels().Join(all[0], channel, nil))
	for range 10 {
		fail(srv.Publish(context.Background(), channel, "kept", strings.Repeat("x", 10_000)))
	}
	stop := make(chan struct{})
	go func() {
		_, err := in.ReadString('\n')
		fail(err) // the test has ended
		close(stop)
	}()
	fillMemory(srv, all, &filling, stop, func() { report("") })
}

// fillMemory queues messages until stop is closed, and calls report ten times a second: quickly
// at first, and slowly near the limit, because the server measures ten times a second.
func fillMemory(srv *pushy.Server, all []*pushy.Conn, filling *sync.Mutex, stop <-chan struct{}, report func()) {
	text := strings.Repeat("x", 2000)
	pace := time.NewTicker(20 * time.Millisecond)
	slow := 2
	if soak {
		slow = 5
	}
	for round := 0; ; round++ {
		select {
		case <-stop:
		default:
			times := 0
			switch m := srv.Stats().Memory; {
			case float64(m.Total()) < 0.6*float64(m.Limit):
				times = 5
			case round%slow == 0:
				times = 1
			}
			filling.Lock()
			for range times {
				for _, c := range all {
					_ = c.Send("filler", text) // it fails for one that was closed
				}
			}
			filling.Unlock()
		}
		<-pace.C
		if round%5 == 0 {
			report()
		}
	}
}

// withRaceDetector reports whether the test was built with -race.
func withRaceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// residentBytes returns the resident set of this process, without the pages of the program
// itself, or 0.
func residentBytes() int64 {
	status, _ := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(status))
	if len(fields) < 3 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	files, _ := strconv.ParseInt(fields[2], 10, 64)
	return (pages - files) * int64(os.Getpagesize())
}

// goBytes returns the memory that GOMEMLIMIT limits.
func goBytes() int64 {
	samples := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// refuses reports whether a handshake is answered with 503.
func refuses(base string) bool {
	dialer := ws.Dialer{Timeout: clientPatience}
	conn, _, _, err := dialer.Dial(context.Background(), strings.Replace(base, "http", "ws", 1)+"/pushy/socket/websocket")
	if err == nil {
		_ = conn.Close()
	}
	var status ws.StatusError
	return errors.As(err, &status) && int(status) == http.StatusServiceUnavailable
}

// Acceptance 16, with a process, its memory limit and sockets: 1,000 clients never read (100
// without PUSHY_SOAK). The stages come in their order, the process stays below GOMEMLIMIT, and it
// recovers when nothing more is sent to the clients and they leave.
func TestMemoryOfAProcess(t *testing.T) {
	clients, limit := 100, int64(96<<20)
	if soak {
		clients, limit = 1000, 384<<20
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), memoryChildEnv+"=1", "GOMEMLIMIT="+strconv.FormatInt(limit, 10))
	cmd.Stderr = os.Stderr
	testproc.DieWithParent(cmd)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	base := "http://" + strings.TrimSpace(line)

	sockets := make([]net.Conn, clients)
	dialer := ws.Dialer{
		Timeout: clientPatience,
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if t, ok := conn.(*net.TCPConn); ok {
				_ = t.SetReadBuffer(4 << 10)
			}
			return conn, err
		},
	}
	for i := range sockets {
		sockets[i], _, _, err = dialer.Dial(t.Context(), strings.Replace(base, "http", "ws", 1)+"/pushy/socket/websocket")
		require.NoError(t, err)
		defer func() { _ = sockets[i].Close() }()
	}
	_, err = io.WriteString(in, "fill\n")
	require.NoError(t, err)

	var peakRSS, peakGo int64
	reports := json.NewDecoder(out)
	// next returns the first report for which the func returns true.
	next := func(what string, fits func(memoryReport) bool) (r memoryReport) {
		t.Helper()
		begun := time.Now()
		for {
			require.NoError(t, reports.Decode(&r), what)
			peakRSS = max(peakRSS, r.RSS)
			peakGo = max(peakGo, r.Go)
			if fits(r) {
				t.Logf("%s after %v: %+v", what, time.Since(begun).Round(time.Millisecond), r)
				return r
			}
			require.Less(t, time.Since(begun), 2*time.Minute, "%s: %+v", what, r)
		}
	}
	var stages []string
	entered := map[string]memoryReport{}
	for range memoryStages {
		r := next("the next stage", func(r memoryReport) bool { return r.Stage != "" })
		stages = append(stages, r.Stage)
		entered[r.Stage] = r
	}
	require.Equal(t, memoryStages, stages)
	freed, refused, overloaded, closed := entered[stages[0]], entered[stages[1]], entered[stages[2]], entered[stages[3]]
	assert.Zero(t, freed.Kept)
	assert.True(t, refused.Refuses)
	assert.Zero(t, refused.Kept)
	assert.True(t, overloaded.NotReady && overloaded.Overloaded && overloaded.Refuses, "%+v", overloaded)
	assert.GreaterOrEqual(t, overloaded.Connections, clients, "until then nobody is closed")
	assert.True(t, closed.NotReady && closed.Overloaded && closed.Refuses, "%+v", closed)
	next("connections have ended", func(r memoryReport) bool { return r.Connections < clients })
	for range 5 {
		next("it remains full", func(memoryReport) bool { return true })
	}
	t.Logf("GOMEMLIMIT %d MiB, peak of Go %d MiB, peak of the RSS %d MiB", limit>>20, peakGo>>20, peakRSS>>20)
	assert.LessOrEqual(t, peakGo, limit)
	if !withRaceDetector() { // its own memory would count
		assert.Less(t, peakRSS, limit)
	}

	_, err = io.WriteString(in, "stop\n")
	require.NoError(t, err)
	for _, conn := range sockets {
		_ = conn.Close()
	}
	next("it has recovered", func(r memoryReport) bool { return !r.Overloaded && !r.Refuses })
}
