package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// patience bounds waits for what must come, on any machine.
	patience = 60 * time.Second
	// secret must never be seen in a log.
	secret = "the-secret-of-all-tests"
)

// asProgram is the variable with which the test binary runs main instead of the tests. A build of its
// own would take as long as that of the tests.
const asProgram = "PUSHY_SERVER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// newProgram returns a command that runs the program.
func newProgram(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// logText collects a log that is written while the test reads it.
type logText struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed by the next write
}

func newLogText() *logText { return &logText{changed: make(chan struct{})} }

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines returns the whole lines so far, each of which must be a JSON object.
func (l *logText) lines(t testing.TB) (all []map[string]any, changed <-chan struct{}) {
	t.Helper()
	l.mu.Lock()
	text, changed := l.text.String(), l.changed
	l.mu.Unlock()
	text = text[:strings.LastIndexByte(text, '\n')+1]
	for line := range strings.Lines(text) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields), "no JSON: %s", line)
		all = append(all, fields)
	}
	return all, changed
}

// wait returns the first line with that message, once it is there.
func (l *logText) wait(t testing.TB, message string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		all, changed := l.lines(t)
		for _, fields := range all {
			if fields["msg"] == message {
				return fields
			}
		}
		select {
		case <-changed:
		case <-timeout:
			require.Failf(t, "not logged", "%q is not in\n%s", message, l)
		}
	}
}

// process is a run of the program in a process of its own.
type process struct {
	cmd    *exec.Cmd
	log    *logText
	addr   string
	exited chan struct{}
}

// startProcess runs the program on a config until it listens. It is killed when
// the test ends, if it still runs.
func startProcess(t *testing.T, config string, env ...string) *process {
	t.Helper()
	return startProcessIn(t, t.TempDir(), config, env...)
}

// startProcessIn has the config in a directory with other files.
func startProcessIn(t *testing.T, dir, config string, env ...string) *process {
	t.Helper()
	file := filepath.Join(dir, "config.json")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	p := &process{cmd: newProgram(t, file), log: newLogText(), exited: make(chan struct{})}
	p.cmd.Stderr = p.log
	p.cmd.Env = append(p.cmd.Env, append([]string{"PUSHY_SECRET_KEY="}, env...)...)
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		assert.NotContains(t, p.log.String(), secret, "the log")
	})
	p.addr, _ = p.log.wait(t, "listening")["address"].(string)
	return p
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(sig))
}

// status waits for the program's end.
func (p *process) status(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.Failf(t, "still runs", "its log:\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// running is a service within the test.
type running struct {
	log     *logText
	addr    string
	signals chan os.Signal
	status  chan int
	service *service
}

// startService serves a config on a free port of 127.0.0.1, changed as the test
// wants, until the test ends.
func startService(t *testing.T, text string, timeout time.Duration, change func(*config)) *running {
	t.Helper()
	c, err := parseConfig([]byte(text), secret)
	require.NoError(t, err)
	c.host, c.port = "127.0.0.1", 0
	c.drainTimeout = timeout
	if change != nil {
		change(c)
	}
	r := &running{log: newLogText(), signals: make(chan os.Signal, 2), status: make(chan int, 1)}
	r.service, err = newService(c, newLogger(r.log, false))
	require.NoError(t, err)
	r.addr = r.service.listener.Addr().String()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.status <- r.service.serve(r.signals)
	}()
	t.Cleanup(func() {
		_ = r.service.pushy.Close()
		_ = r.service.http.Close()
		// Twice: the test may have sent one, or none.
		for range 2 {
			select {
			case r.signals <- syscall.SIGTERM:
			case <-ended:
			}
		}
		<-ended
		assert.NotContains(t, r.log.String(), secret, "the log")
	})
	return r
}

// wait returns the exit status.
func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case status := <-r.status:
		return status
	case <-time.After(patience):
		require.Failf(t, "still serves", "its log:\n%s", r.log)
		return -1
	}
}

// get answers a GET with Origin, if any.
func get(t *testing.T, url, origin string) (status int, header http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	return do(t, req)
}

// do makes a request over a connection of its own.
func do(t *testing.T, req *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, b.String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func writeConfig(t *testing.T, config string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	return file
}
