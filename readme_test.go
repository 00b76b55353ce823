package pushy_test

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// docsBlock returns a file's first code block in a language that has what is asked
// for in it.
func docsBlock(t *testing.T, file, language, has string) string {
	t.Helper()
	readme, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		if strings.Contains(block[1], has) {
			return block[1]
		}
	}
	t.Fatalf("%s has no %s block with %q", file, language, has)
	return ""
}

func TestReadmeProgramBuilds(t *testing.T) {
	t.Parallel()
	program := docsBlock(t, "README.md", "go", "package main")
	assert.LessOrEqual(t, strings.Count(program, "\n"), 40, "a first program fits on a screen")
	for _, page := range []string{"README.md", "docs/getting-started.md"} {
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, []byte(docsBlock(t, page, "go", "package main")), 0o600))
		out, err := exec.Command("go", "vet", file).CombinedOutput()
		require.NoError(t, err, "%s: %s", page, out)
	}
}

func TestReadmePublishWorks(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: "the readme's own secret"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, srv.Close()) })
	// The script does not try again, so the server starts at the begin of this second.
	srv.SetClock(func() time.Time { return time.Now().Truncate(time.Second) })
	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)
	script := strings.ReplaceAll(docsBlock(t, "README.md", "sh", "hmac_sha256_hex"), "http://127.0.0.1:8080", web.URL)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euc", script)
	cmd.Env = append(os.Environ(), "PUSHY_SECRET_KEY=the readme's own secret")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.JSONEq(t, `{"events":[{"channels":{"lobby":{"received":false}}}]}`, string(out))
}
