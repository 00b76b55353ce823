package pushy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a host links that imports only pushy, as the first program of the README.
func TestPlainHostLinksOnlyWhatItUses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte(docsBlock(t, "README.md", "go", "package main")), 0o600))
	run := func(args ...string) []string {
		t.Helper()
		var problems strings.Builder
		cmd := exec.Command("go", args...)
		cmd.Stderr = &problems
		out, err := cmd.Output()
		require.NoError(t, err, "%s", problems.String())
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}

	packages := run("list", "-deps", source)
	require.Contains(t, packages, "github.com/gopushy/pushy")
	outside := regexp.MustCompile(`^[^/]+\.[a-z]+/`) // of the standard library
	allowed := regexp.MustCompile(`^github\.com/(gopushy/pushy(/internal/.*|/broker|/broker/memory|/client)?` +
		`|gobwas/(ws|httphead|pool)(/.*)?` +
		`|igm/sockjs-go/v3/sockjs|gorilla/websocket)$`)
	for _, name := range packages {
		if outside.MatchString(name) {
			assert.Regexp(t, allowed, name, "no host must link this if it imports only pushy")
		}
	}
}
