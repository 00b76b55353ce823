// Package redistest starts Redis servers for tests, on free ports of 127.0.0.1. A Refuser
// makes a server refuse commands.
package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/testproc"
)

// Server is one redis-server process.
type Server struct {
	Addr string
	dir  string
	args []string
	cmd  *exec.Cmd
	exit chan struct{}
}

const patience = 60 * time.Second

// Start starts a redis-server with the given arguments in addition to its address.
func Start(args ...string) (*Server, error) { return start("redis-server", nil, args) }

// start tries several ports, because another process can take a port after it was found, for
// example as the second port of a Cluster's server.
func start(program string, config []string, args []string) (s *Server, err error) {
	for range 5 {
		if s, err = startOnce(program, config, args); err == nil || !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return s, err
}

func startOnce(program string, config []string, args []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "pushy-redis-")
	if err != nil {
		return nil, err
	}
	port, err := testproc.FreePort() // a Cluster's second port is 10,000 higher
	if err != nil {
		return nil, err
	}
	all := []string{
		"--port", port, "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no",
	}
	if config != nil {
		file := filepath.Join(dir, "server.conf")
		lines := append([]string{"port " + port, "bind 127.0.0.1", "dir " + dir}, config...)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		all = []string{file}
	}
	s := &Server{Addr: "127.0.0.1:" + port, dir: dir, args: append(append([]string{program}, all...), args...)}
	return s, s.Restart()
}

// Restart starts the server again after Stop. The data that it had in memory is lost.
func (s *Server) Restart() error {
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	var out bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	testproc.DieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%s is needed (Debian: apt-get install redis-server redis-sentinel): %w", s.args[0], err)
	}
	s.exit = make(chan struct{})
	go func(cmd *exec.Cmd, exit chan struct{}) {
		_ = cmd.Wait()
		close(exit)
	}(s.cmd, s.exit)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		answer, err := s.Command("PING")
		if err == nil && (strings.Contains(answer, "PONG") || strings.HasPrefix(answer, "-")) {
			return nil
		}
		select {
		case <-s.exit:
			return fmt.Errorf("%s ended: %s", s.args[0], out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not answer", strings.Join(s.args, " "))
}

// Stop kills the process, as a crash does.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	<-s.exit
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

// Command sends one command and returns its answer. Answers that are lists are not supported.
func (s *Server) Command(args ...string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, command(args)); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || line[0] != '$' {
		return strings.TrimSpace(line), err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || n < 0 {
		return "", err
	}
	bulk := make([]byte, n)
	_, err = io.ReadFull(r, bulk)
	return string(bulk), err
}

// Cluster starts a Redis Cluster of n masters.
func Cluster(n int) ([]*Server, error) {
	var all []*Server
	for range n {
		s, err := Start("--cluster-enabled", "yes", "--cluster-node-timeout", "10000")
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	for i, s := range all {
		slots := []string{"CLUSTER", "ADDSLOTS"} // ADDSLOTSRANGE needs Redis 7
		for slot := i * 16384 / n; slot < (i+1)*16384/n; slot++ {
			slots = append(slots, strconv.Itoa(slot))
		}
		if answer, err := s.Command(slots...); err != nil || !strings.HasPrefix(answer, "+OK") {
			return all, fmt.Errorf("add slots: answer %q, error %v", answer, err)
		}
		host, port, _ := net.SplitHostPort(s.Addr)
		if answer, err := all[0].Command("CLUSTER", "MEET", host, port); err != nil || !strings.HasPrefix(answer, "+OK") {
			return all, fmt.Errorf("meet: answer %q, error %v", answer, err)
		}
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		ready := 0
		for _, s := range all {
			info, err := s.Command("CLUSTER", "INFO")
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", n)) &&
				strings.Contains(info, fmt.Sprintf("cluster_size:%d", n)) {
				ready++
			}
		}
		if ready == n {
			return all, nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return all, errors.New("the cluster did not become ready")
}

// Sentinel starts a Sentinel that watches a master under the name "main".
func Sentinel(master *Server) (*Server, error) {
	host, port, _ := net.SplitHostPort(master.Addr)
	return start("redis-sentinel", []string{
		"sentinel monitor main " + host + " " + port + " 1",
		"sentinel down-after-milliseconds main 1000",
		"sentinel failover-timeout main 5000",
	}, nil)
}
