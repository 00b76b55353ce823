// Package publishers_test runs the publishers of this directory, which are written in other
// languages than Go, against a Server.
package publishers_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
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
			var recording atomic.Bool
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !recording.Load() {
					srv.ServeHTTP(w, r)
					return
				}
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
			// A server that has just started answers 503 until the next second, so wait for that.
			client, err := backend.New(backend.Options{URL: url, SecretKey: secret})
			require.NoError(t, err)
			t.Cleanup(client.CloseIdleConnections)
			require.NoError(t, client.Publish(t.Context(), "nobody", "x", nil))
			recording.Store(true)
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

// Each publisher, and package backend, gets through to a server that starts in the second in
// which the request was signed.
func TestServerHasJustStarted(t *testing.T) {
	t.Parallel()
	publish := map[string]func(t *testing.T, url string){
		"backend": func(t *testing.T, url string) {
			client, err := backend.New(backend.Options{URL: url, SecretKey: secret})
			require.NoError(t, err)
			t.Cleanup(client.CloseIdleConnections)
			require.NoError(t, client.Publish(t.Context(), "lobby", "x", nil))
		},
	}
	for name, program := range programs {
		publish[name] = func(t *testing.T, url string) {
			out, failures, ok := run(t, program, url, secret, "one", "lobby", "x")
			require.True(t, ok, failures)
			assert.JSONEq(t, `{"events":[{"channels":{"lobby":{"received":false}}}]}`, out)
		}
	}
	for name, publish := range publish {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var statuses []int
			ids := map[string]bool{}
			var srv *pushy.Server
			var mu sync.Mutex
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				parts := strings.Split(r.Header.Get("Pushy-Signature"), " ")
				if !assert.Len(t, parts, 5) {
					return
				}
				ids[parts[3]] = true
				if srv == nil {
					srv = startedIn(t, parts[2])
				}
				if srv == nil { // the request took longer than the rest of its second
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				recorder := httptest.NewRecorder()
				srv.ServeHTTP(recorder, r)
				statuses = append(statuses, recorder.Code)
				maps.Copy(w.Header(), recorder.Header())
				w.WriteHeader(recorder.Code)
				_, _ = w.Write(recorder.Body.Bytes())
			}))
			t.Cleanup(func() {
				web.Close()
				if srv != nil {
					_ = srv.Close()
				}
			})
			publish(t, web.URL+"/pushy")
			assert.Equal(t, []int{503, 200}, statuses)
			assert.Len(t, ids, 1)
		})
	}
}

// startedIn starts a Server in a second, unless that has passed.
func startedIn(t *testing.T, second string) *pushy.Server {
	inTime := func() bool { return strconv.FormatInt(time.Now().Unix(), 10) == second }
	if !inTime() {
		return nil
	}
	srv, err := pushy.New(pushy.Options{SecretKey: secret, Logger: slog.New(slog.DiscardHandler)})
	assert.NoError(t, err)
	if err != nil || inTime() {
		return srv
	}
	_ = srv.Close()
	return nil
}
