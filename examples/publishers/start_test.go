package publishers_test

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
)

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
			p := publisher{
				t:       t,
				program: program,
				url:     url,
				key:     secret,
			}
			out := p.do("publish", "lobby", "x")
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
			mu.Lock()
			defer mu.Unlock()
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
