package nats_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/testproc"
)

// natsServer is a nats-server process. ci/unit.sh installs the program.
type natsServer struct {
	url     string
	port    string
	monitor string
	dir     string
	args    []string
	process *exec.Cmd
	log     *os.File
}

// startNATS starts a server on a free port of 127.0.0.1; extra are more of its
// arguments.
func startNATS(dir string, extra ...string) (*natsServer, error) {
	s := &natsServer{dir: dir, port: "-1", args: extra}
	return s, s.start()
}

func (s *natsServer) start() (err error) {
	ports := filepath.Join(s.dir, "ports")
	if err := os.MkdirAll(ports, 0o755); err != nil {
		return err
	}
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	args := append([]string{"-a", "127.0.0.1", "-p", s.port, "-m", "-1", "--ports_file_dir", ports}, s.args...)
	s.process = exec.Command("nats-server", args...)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	testproc.DieWithParent(s.process)
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("nats-server is needed (Debian: apt-get install nats-server): %w", err)
	}
	file := filepath.Join(ports, fmt.Sprintf("nats-server_%d.ports", s.process.Process.Pid))
	var said struct{ Nats, Monitoring []string }
	for deadline := time.Now().Add(20 * time.Second); ; {
		text, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(text, &said) == nil && len(said.Nats) > 0 && answers(said.Nats[0]) {
			break
		}
		if time.Now().After(deadline) {
			s.stop()
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("nats-server does not start: %s", text)
		}
		<-time.After(5 * time.Millisecond)
	}
	s.port = said.Nats[0][strings.LastIndexByte(said.Nats[0], ':')+1:]
	s.url, s.monitor = "nats://127.0.0.1:"+s.port, said.Monitoring[0]
	return nil
}

// webSocketURL is where the server takes WebSockets, as its log says.
func (s *natsServer) webSocketURL(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "Listening for websocket clients on ")
	require.True(t, found, string(text))
	url, _, _ := strings.Cut(rest, "\n")
	return url
}

func answers(url string) bool {
	c, err := net.Dial("tcp", url[strings.Index(url, "://")+3:])
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// stop ends the process, by its own id.
func (s *natsServer) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	_ = s.log.Close()
}

// monitored reads a page of the server's monitoring.
func (s *natsServer) monitored(t testing.TB, page string, into any) {
	t.Helper()
	resp, err := http.Get(s.monitor + page)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}

// shared is the server that most tests use, each with a prefix of its own.
var shared *natsServer

func TestMain(m *testing.M) {
	childMain()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pushy-nats")
		if err == nil {
			defer os.RemoveAll(dir)
			shared, err = startNATS(dir, "-js", "-sd", dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer shared.stop()
		return m.Run()
	}())
}

// pause has the process take no time at all, and resume go on.
func (s *natsServer) pause() error  { return testproc.Pause(s.process.Process) }
func (s *natsServer) resume() error { return testproc.Resume(s.process.Process) }

// ownNATS is a server for one test alone.
func ownNATS(t testing.TB, extra ...string) *natsServer {
	t.Helper()
	dir := t.TempDir()
	s, err := startNATS(dir, append(extra, "-js", "-sd", dir)...)
	require.NoError(t, err)
	t.Cleanup(s.stop)
	return s
}

var prefixes struct {
	sync.Mutex
	made int
	of   map[string]string // by the name of a test that runs
}

// prefix is that of one run of a test: all its nodes share it, and with -count=2 the
// second run does not meet what the first has left behind.
func prefix(t testing.TB) string {
	prefixes.Lock()
	defer prefixes.Unlock()
	name := t.Name()
	if prefixes.of == nil {
		prefixes.of = map[string]string{}
	}
	if prefixes.of[name] == "" {
		prefixes.of[name] = "test" + strconv.Itoa(prefixes.made)
		prefixes.made++
		t.Cleanup(func() {
			prefixes.Lock()
			delete(prefixes.of, name)
			prefixes.Unlock()
		})
	}
	return prefixes.of[name]
}

// proxy stands between a node and its server, and can cut it off.
type proxy struct {
	url      string
	to       string
	listener net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool
	rate  int  // bytes a second in each direction, or 0
	shut  bool // connections are ended, and no new ones made
	hole  bool // what is sent goes nowhere
}

func newProxy(t testing.TB, server *natsServer) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{url: "nats://" + listener.Addr().String(), to: "127.0.0.1:" + server.port, listener: listener, conns: map[net.Conn]bool{}}
	go p.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
	})
	return p
}

func (p *proxy) serve() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to)
		if err != nil || !p.add(from, to) {
			_ = from.Close()
			if to != nil {
				_ = to.Close()
			}
			continue
		}
		go p.carry(from, to)
		go p.carry(to, from)
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *proxy) carry(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		hole, rate := p.hole, p.rate
		p.mu.Unlock()
		if rate > 0 {
			<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if err == nil && !hole {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_ = from.Close()
			_ = to.Close()
			p.mu.Lock()
			delete(p.conns, from)
			p.mu.Unlock()
			return
		}
	}
}

// slow lets through so many bytes a second.
func (p *proxy) slow(rate int) {
	p.mu.Lock()
	p.rate = rate
	p.mu.Unlock()
}

// Cut is what brokertest.Cutter says.
func (p *proxy) Cut() (mend func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for c := range p.conns {
		_ = c.Close()
	}
	return func() {
		p.mu.Lock()
		p.shut = false
		p.mu.Unlock()
	}
}

// Hole cuts without a word: nobody is told.
func (p *proxy) Hole() (mend func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hole = true
	return func() {
		p.mu.Lock()
		p.hole = false
		for c := range p.conns {
			_ = c.Close() // bytes are missing in between
		}
		p.mu.Unlock()
	}
}
