// Package natstest starts NATS servers for tests, on free ports of 127.0.0.1.
package natstest

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
	"time"

	"github.com/gopushy/pushy/internal/testproc"
)

// Server is one nats-server process.
type Server struct {
	Addr string // host:port
	URL  string
	dir  string
	port string
	args []string

	monitor string // the URL of its monitoring endpoint
	cmd     *exec.Cmd
	log     *os.File
}

const patience = 60 * time.Second

// Start starts a nats-server with the given arguments in addition to its address. JetStream
// is off unless the arguments turn it on.
func Start(args ...string) (*Server, error) {
	s, err := prepare(args...)
	if err != nil {
		return nil, err
	}
	return s, s.Restart()
}

// StartJetStream starts a nats-server with JetStream.
func StartJetStream(args ...string) (*Server, error) {
	s, err := prepare(args...)
	if err != nil {
		return nil, err
	}
	s.args = append(s.args, "-js", "-sd", s.dir)
	return s, s.Restart()
}

// StartConfigured starts a nats-server with JetStream and the given configuration.
func StartConfigured(config string) (*Server, error) {
	s, err := prepare()
	if err != nil {
		return nil, err
	}
	s.args = append(s.args, "-js", "-sd", s.dir, "-c", s.configFile())
	if err := s.Configure(config); err != nil {
		return nil, err
	}
	return s, s.Restart()
}

func prepare(args ...string) (*Server, error) {
	port, err := testproc.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pushy-nats-")
	return &Server{dir: dir, port: port, args: args}, err
}

// Configure replaces the configuration. It takes effect with the next Restart.
func (s *Server) Configure(config string) error {
	return os.WriteFile(s.configFile(), []byte(config), 0o600)
}

func (s *Server) configFile() string { return filepath.Join(s.dir, "server.conf") }

// Restart starts the server again after Stop, with the data that it has in files.
func (s *Server) Restart() (err error) {
	ports := filepath.Join(s.dir, "ports")
	if err := os.MkdirAll(ports, 0o755); err != nil {
		return err
	}
	s.log, err = os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	s.cmd = exec.Command("nats-server", append([]string{
		"-a", "127.0.0.1",
		"-p", s.port,
		"-m", "-1",
		"--ports_file_dir", ports,
	}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	testproc.DieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("nats-server is needed (Debian: apt-get install nats-server): %w", err)
	}
	file := filepath.Join(ports, fmt.Sprintf("nats-server_%d.ports", s.cmd.Process.Pid))
	var address struct{ Nats, Monitoring []string }
	for deadline := time.Now().Add(patience); ; {
		text, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(text, &address) == nil && len(address.Nats) > 0 && answers(address.Nats[0]) {
			break
		}
		if time.Now().After(deadline) {
			s.Stop()
			text, _ := os.ReadFile(s.logFile())
			return fmt.Errorf("nats-server did not start: %s", text)
		}
		<-time.After(5 * time.Millisecond)
	}
	s.port = address.Nats[0][strings.LastIndexByte(address.Nats[0], ':')+1:]
	s.Addr, s.monitor = "127.0.0.1:"+s.port, address.Monitoring[0]
	s.URL = "nats://" + s.Addr
	return nil
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

func answers(url string) bool {
	c, err := net.Dial("tcp", url[strings.Index(url, "://")+3:])
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// Log returns the server's log.
func (s *Server) Log() (string, error) {
	text, err := os.ReadFile(s.logFile())
	return string(text), err
}

// Stop kills the process, as a crash does.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = s.log.Close()
}

// Pause and Resume stop and continue the process. A stopped server accepts connections and
// does not answer.
func (s *Server) Pause() error  { return testproc.Pause(s.cmd.Process) }
func (s *Server) Resume() error { return testproc.Resume(s.cmd.Process) }

// Close kills the process and removes its files.
func (s *Server) Close() {
	s.Stop()
	_ = os.RemoveAll(s.dir)
}

// Monitored reads a page of the server's monitoring endpoint.
func (s *Server) Monitored(page string, into any) error {
	resp, err := http.Get(s.monitor + page)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// Cluster starts a cluster of n servers with JetStream, which are named n0, n1, …
func Cluster(n int) (all []*Server, err error) {
	var ports, routes []string
	for range n {
		port, err := testproc.FreePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
		routes = append(routes, "nats://127.0.0.1:"+port)
	}
	for i, port := range ports {
		s, err := StartJetStream(
			"--name", "n"+strconv.Itoa(i),
			"--cluster_name", "test",
			"--cluster", "nats://127.0.0.1:"+port,
			"--routes", strings.Join(routes, ","))
		if err != nil {
			for _, s := range all {
				s.Close()
			}
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// URLs returns the URLs of several servers, separated by commas.
func URLs(servers []*Server) string {
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL)
	}
	return strings.Join(urls, ",")
}

// Port returns the port of Addr.
func (s *Server) Port() string { return s.port }
