package pushy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pages returns every Markdown file of the project by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "bin" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(path)
			all[filepath.ToSlash(path)] = string(text)
			return err
		}
		return nil
	})
	require.NoError(t, err)
	require.Contains(t, all, "docs/README.md")
	return all
}

var (
	goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// Every whole Go program in the documentation compiles. Issue 11, number 36.
func TestDocumentedProgramsCompile(t *testing.T) {
	t.Parallel()
	found := 0
	for path, text := range pages(t) {
		if !strings.HasPrefix(path, "docs/") {
			continue
		}
		for _, block := range goBlock.FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(block[1], "package main") {
				continue
			}
			found++
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(block[1]), 0o600))
			out, err := exec.Command("go", "vet", file).CombinedOutput()
			assert.NoError(t, err, "%s: %s", path, out)
		}
	}
	assert.NotZero(t, found)
}

// No page links to a file that is not there.
func TestDocumentationLinks(t *testing.T) {
	t.Parallel()
	for path, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, ":") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(path), target))
			assert.NoError(t, err, "%s links to %s", path, m[1])
		}
	}
}

// Every log line that the troubleshooting page names is one of pushy's.
func TestDocumentedLogLines(t *testing.T) {
	t.Parallel()
	page := pages(t)["docs/troubleshooting.md"]
	var sources strings.Builder
	for _, pattern := range []string{"*.go", "internal/hub/*.go", "internal/transport/*.go", "internal/transport/*/*.go", "broker/*/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			sources.Write(text)
		}
	}
	for _, line := range []string{
		"origin refused", "path outside Options.Prefix", "path that is not served", "events that are not served", "connection refused by Options.Accept",
		"connection refused: a limit is reached", "WebSocket handshake refused", "cannot upgrade to WebSocket",
		"the server's ResponseWriter is hidden by middleware", "a deadline of the request's context ends responses that wait",
		"clients cannot subscribe", "Options.Authorizer failed", "AuthHandler cannot give a token", "trigger refused",
		"trigger with a slash in the channel's name", "cannot publish a trigger", "NATS is away; this node serves its own clients alone",
		"NATS does not permit what this node needs", "redis is away: this node serves its own clients alone",
		"a call of the broker ", "nodes have different settings",
		"kept events of a channel may be missing for its clients", "the history of a channel cannot be read",
		"a client cannot take over its earlier membership: the key is wrong",
		"members leave at once: too many members of this address are held",
		"the memory for kept events is full: clients that reconnect are served from the broker",
		"cannot extend the lease for the shutdown",
		"connection refused: the user is banned", "connection refused: too many new connections of one address",
		"a token was refused", "auth endpoint that is not served", "an event of a client was ignored", "ChannelOptions.ClientEvent failed",
		"trigger while version 1 is disabled", "events of other processes refused: there are too many",
		"signed request refused", "signed request refused: too many ids are remembered",
		"cannot publish all events of a signed request",
		"memory is low: kept events were freed, and clients that reconnect are served from the broker",
		"memory is low: new connections are refused", "memory is nearly full: events are not published",
		"memory is full: the connections with the most queued bytes were closed",
	} {
		assert.Contains(t, page, line, "the page lacks a log line")
		assert.Contains(t, sources.String(), line, "the page names a log line that pushy does not write")
	}
}
