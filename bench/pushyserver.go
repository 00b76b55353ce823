package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// buildPushyServer builds pushy-server, of this tree or of a commit, and returns the program. That
// of a commit is built once. bench leaves the workspace, and pushy-server needs it.
func buildPushyServer(commit string) (string, error) {
	program, err := filepath.Abs(filepath.Join(binDir, "pushy-server"))
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", program, "./cmd/pushy-server")
	if commit != "" {
		program += "-" + commit
		build = exec.Command("ci/build_at.sh", commit, "cmd/pushy-server", program)
	}
	build.Dir = ".."
	build.Env = append(os.Environ(), "GOWORK=")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", program, err)
	}
	return program, nil
}

// pushyServerConfig is the config of a pushy-server with the default options. The secret replaces
// nothing that anybody uses.
const pushyServerConfig = `{"host": "127.0.0.1", "port": 0, "secretKey": "the secret of the benchmark"}`

// pushyServerCommand returns the command of a pushy-server with a config of its own.
func pushyServerCommand(commit string) (*exec.Cmd, error) {
	program, err := buildPushyServer(commit)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(binDir, "pushy-server.json")
	if err := os.WriteFile(config, []byte(pushyServerConfig), 0o600); err != nil {
		return nil, err
	}
	return exec.Command(program, config), nil
}

// listeningAt reads the log of a pushy-server until the line with its address. The rest of the log
// is dropped.
func listeningAt(log io.Reader) (netip.AddrPort, error) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return netip.ParseAddrPort(line.Address)
		}
	}
	return netip.AddrPort{}, errors.Join(errors.New("pushy-server has not written its address"), lines.Err())
}
