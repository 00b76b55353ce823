// Package publishers_test runs the publishers of this directory, which are written in other
// languages than Go, against a Server.
package publishers_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

const secret = "a secret of more than sixteen bytes"

// programs are the publishers and the commands that run them.
var programs = map[string][]string{
	"php":    {"php", "publish.php"},
	"python": {"python3", "-B", "publish.py"},
	"node":   {"node", "publish.mjs"},
	"shell":  {"sh", "publish.sh"},
}

// run runs a publisher and returns its output and its errors.
func run(t *testing.T, program []string, url, key string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program[0], append(program[1:], args...)...)
	var out, failures strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &failures
	cmd.Env = append(os.Environ(), "PUSHY_URL="+url, "PUSHY_SECRET_KEY="+key, "PUSHY_ID=")
	err := cmd.Run()
	assert.NotContains(t, out.String()+failures.String(), key)
	return out.String(), failures.String(), err == nil
}

// Each publisher publishes one event and many. The first answer is lost, after the server has
// published: the second try has the same id, and nothing is delivered twice. A wrong key and a
// bad name are final errors.
func TestPublishers(t *testing.T) {
	t.Parallel()
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, err := pushy.New(pushy.Options{SecretKey: secret, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			var mu sync.Mutex
			var ids []string
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				parts := strings.Split(r.Header.Get("Pushy-Signature"), " ")
				mu.Lock()
				ids = append(ids, parts[min(3, len(parts)-1)])
				first := len(ids) == 1
				mu.Unlock()
				if first {
					srv.ServeHTTP(httptest.NewRecorder(), r)
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				srv.ServeHTTP(w, r)
			}))
			t.Cleanup(func() {
				_ = srv.Close()
				web.Close()
			})
			sent := func() []string {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(ids)
			}
			url := web.URL + "/pushy"
			reader := pushytest.New(t, srv).Connect()
			reader.Subscribe("ünï/co de?")
			reader.Subscribe("lobby")

			out, failures, ok := run(t, program, url, secret, "one", "Ünï/co de?", "say: it's", `{"text":"Zoë \"🎉\" /","n":[1.0]}`)
			require.True(t, ok, failures)
			assert.JSONEq(t, `{"events":[{"channels":{"ünï/co de?":{"received":true}}}]}`, out)
			var got map[string]any
			reader.ExpectEvent("ünï/co de?", "say: it's", &got)
			assert.Equal(t, map[string]any{"text": `Zoë "🎉" /`, "n": []any{1.0}}, got)
			reader.ExpectNone("ünï/co de?", "say: it's")
			require.Len(t, sent(), 2)
			assert.Equal(t, sent()[0], sent()[1], "both tries have the same id")

			batch, err := json.Marshal([]map[string]any{
				{"channels": []string{"lobby", "nobody"}, "event": "a", "data": map[string]any{}},
				{"channels": []string{"lobby"}, "event": "b", "data": []int{}},
			})
			require.NoError(t, err)
			out, failures, ok = run(t, program, url, secret, "many", string(batch))
			require.True(t, ok, failures)
			assert.JSONEq(t, `{"events":[{"channels":{"lobby":{"received":true},"nobody":{"received":false}}},
				{"channels":{"lobby":{"received":true}}}]}`, out)
			assert.JSONEq(t, `{}`, string(reader.ExpectEvent("lobby", "a", nil).Data))
			assert.JSONEq(t, `[]`, string(reader.ExpectEvent("lobby", "b", nil).Data))

			requests := len(sent())
			_, failures, ok = run(t, program, url, "another secret key", "one", "lobby", "x")
			assert.False(t, ok)
			assert.Contains(t, failures, "Unknown key")
			_, failures, ok = run(t, program, url, secret, "one", "a:b", "x")
			assert.False(t, ok)
			assert.Contains(t, failures, "events[0].channels[0]: must not contain :")
			assert.Len(t, sent(), requests+2, "these errors are final")
			reader.ExpectNone("lobby", "x")
		})
	}
}
