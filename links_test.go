package pushy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a host links that imports only pushy, as the first program of the README.
func TestPlainHostLinksOnlyWhatItUses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "plain")
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
		`|gobwas/(ws|httphead|pool)(/.*)?)$`)
	// If these are linked, the linker keeps all exported methods, because templates and plugins call them by name.
	byName := []string{"text/template", "html/template", "plugin"}
	for _, name := range packages {
		if outside.MatchString(name) {
			assert.Regexp(t, allowed, name, "no host must link this if it imports only pushy")
		}
		assert.NotContains(t, byName, name)
		assert.NotContains(t, name, "pushy/internal/deflate", "only package deflate needs it")
	}

	run("build", "-o", program, source)
	var symbols []string
	for _, line := range run("tool", "nm", program) {
		fields := strings.Fields(line)
		symbols = append(symbols, fields[len(fields)-1])
	}
	// The linker drops the methods that the host does not call.
	for _, method := range []string{"ServeHTTP", "Shutdown"} {
		assert.True(t, slices.Contains(symbols, "github.com/gopushy/pushy.(*Server)."+method), method)
	}
	unused := regexp.MustCompile(`^github\.com/gopushy/pushy(` +
		`\.\(\*Server\)\.(Listen|Subscribe|HandleAsk|History|Stats)` +
		`|\.\(\*Listener\)\..*|\.Received\..*` +
		`|\.foreign\..*` + // what package pusher needs
		`|/internal/hub\.\(\*Conn\)\.(JoinAll|Attach)` + // what packages sse and pusher need
		`|/internal/hub\.\(\*(Listener|subscriptions?)\)\..*|/internal/hub\.\(\*Hub\)\.(NewListener|AddForeign)` +
		`)$`)
	for _, symbol := range symbols {
		if unused.MatchString(symbol) {
			assert.Fail(t, "linked, but not used", symbol)
		}
	}
}
