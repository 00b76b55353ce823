package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

const binDir = "bin"

// build builds the servers from the current sources.
func build() error {
	cmd := exec.Command("go", "build", "-o", binDir+"/", "./server", "./peers")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	return nil
}

// missing returns the programs that some kinds need and that are not installed.
func missing() []string {
	var names []string
	for _, k := range kinds {
		name := k.needs()
		if name == "" || slices.Contains(names, name) {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			names = append(names, name)
		}
	}
	return names
}

// installPeers installs the packages of the Node peers, unless they are installed.
func installPeers() error {
	if _, err := os.Stat("node/node_modules"); err == nil {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "node", os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm ci: %w", err)
	}
	return nil
}

// process is a running server.
type process struct {
	kind kind
	cmd  *exec.Cmd
	addr netip.AddrPort
	rss  int64 // before a client connects
}

// startServer starts a server and waits until it listens. flags are passed to Go servers.
func startServer(k kind, flags ...string) (*process, error) {
	var cmd *exec.Cmd
	if k.tls {
		flags = append(flags, "-tls")
	}
	switch k.server {
	case "node":
		cmd = exec.Command("node", "peer.mjs", k.arg)
		cmd.Dir = "node"
	case "go":
		cmd = exec.Command(filepath.Join(binDir, "peers"), append(flags, "-kind", k.arg)...)
	case "pushy":
		if k.arg != "" {
			flags = append(flags, "-"+k.arg)
		}
		cmd = exec.Command(filepath.Join(binDir, "server"), flags...)
	case "pushy-server":
		var err error
		if cmd, err = pushyServerCommand(k.arg); err != nil {
			return nil, err
		}
	default: // another build of pushy
		if k.arg != "" {
			flags = append(flags, "-"+k.arg)
		}
		cmd = exec.Command(k.server, flags...)
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, address := cmd.StdoutPipe, printedAddress
	if k.server == "pushy-server" {
		cmd.Stderr = nil
		pipe, address = cmd.StderrPipe, listeningAt
	}
	out, err := pipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", k.name, err)
	}
	p := &process{kind: k, cmd: cmd}
	if p.addr, err = address(out); err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", k.name, err)
	}
	time.Sleep(50 * time.Millisecond) // the memory of the rest of the start is not that of connections
	if p.rss, err = load.RSS(cmd.Process.Pid); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// printedAddress reads the address that a server prints as its first line. What follows is dropped.
func printedAddress(out io.Reader) (netip.AddrPort, error) {
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("it printed %q: %w", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return netip.ParseAddrPort(strings.TrimSpace(line))
}

// stop ends the server and waits for it. It first sends a signal, so that the server writes
// its profile.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait()
}

// counter returns one of the counters of a Go server.
func (p *process) counter(name string) (int64, error) {
	if p.kind.server == "node" {
		return 0, nil
	}
	values, err := p.ask(http.MethodGet, "/bench/counters", counterTimeout)
	if err != nil {
		return 0, err
	}
	value, ok := values[name]
	if !ok {
		return 0, fmt.Errorf("%s has no counter %q", p.kind.name, name)
	}
	return value, nil
}

const counterTimeout = 5 * time.Second

// ask requests an endpoint of a server that answers with a name and a number a line.
func (p *process) ask(method, path string, timeout time.Duration) (map[string]int64, error) {
	client := http.Client{Timeout: timeout}
	scheme := "http"
	if p.kind.tls {
		scheme = "https"
		client.Transport = insecure
	}
	req, err := http.NewRequest(method, scheme+"://"+p.addr.String()+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s: %s: %s", path, resp.Status, message)
	}
	values := map[string]int64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if values[name], err = strconv.ParseInt(value, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return values, lines.Err()
}
