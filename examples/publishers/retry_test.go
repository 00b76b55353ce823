package publishers_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/pushytest"
)

// cut closes the connection without an answer, as a proxy that fails does.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// Each of these faults is that of the first request. All tries have the same id, so the event is
// delivered once.
func TestRetry(t *testing.T) {
	carriedOut := func(g *gateway, r *http.Request) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		g.srv.ServeHTTP(w, r)
		return w
	}
	faults := map[string]func(g *gateway, w http.ResponseWriter, r *http.Request){
		"unavailable": func(_ *gateway, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"error":{"code":"503","message":"Service unavailable"}}`))
		},
		"badGateway": func(g *gateway, w http.ResponseWriter, r *http.Request) {
			carriedOut(g, r)
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>\xff"))
		},
		"tooMany": func(_ *gateway, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"signedBeforeTheStart": func(_ *gateway, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"error":{"code":"501","message":"Signed before this server started, …"}}`))
		},
		"cutBefore": func(_ *gateway, w http.ResponseWriter, _ *http.Request) { cut(w) },
		"cutAfter": func(g *gateway, w http.ResponseWriter, r *http.Request) {
			carriedOut(g, r)
			cut(w)
		},
		"cutInTheAnswer": func(g *gateway, w http.ResponseWriter, r *http.Request) {
			answer := carriedOut(g, r).Body.String()
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(answer[:len(answer)/2]))
			_ = http.NewResponseController(w).Flush()
			cut(w)
		},
		"cutInAnError": func(_ *gateway, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"error":`))
			_ = http.NewResponseController(w).Flush()
			cut(w)
		},
	}
	each(t, func(t *testing.T, _ *gateway, p publisher) {
		for name, fault := range faults {
			if testing.Short() && name != "unavailable" && name != "cutInTheAnswer" {
				continue // each needs two processes, and make quick has little time
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				g := startGateway(t)
				g.fail(func(n int, w http.ResponseWriter, r *http.Request) bool {
					if n == 0 {
						fault(g, w, r)
					}
					return n == 0
				})
				p := p
				p.t = t
				p.url = g.url
				reader := pushytest.New(t, g.srv).Connect()
				reader.Subscribe("lobby")
				out := p.do("publish", "lobby", "paid", `{"order":17}`)
				assert.JSONEq(t, `{"events":[{"channels":{"lobby":{"received":true}}}]}`, out)
				assert.JSONEq(t, `{"order":17}`, string(reader.ExpectEvent("lobby", "paid", nil).Data))
				reader.ExpectNone("lobby", "paid")
				seen := g.requests()
				require.Len(t, seen, 2)
				assert.Equal(t, seen[0].id, seen[1].id, "both tries have the same id")
			})
		}
	})
}

// Retry-After is waited for, unless it is over a minute.
func TestRetryAfter(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		unavailable := func(after string) fault {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					return false
				}
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(`{"error":{"code":"503","message":"Service unavailable"}}`))
				return true
			}
		}
		g.fail(unavailable("3"))
		p.do("publish", "lobby", "x")
		seen := g.requests()
		require.Len(t, seen, 2)
		assert.GreaterOrEqual(t, seen[1].sent.Sub(seen[0].sent), 2900*time.Millisecond)

		g.fail(unavailable("99999999999999999999"))
		assert.Contains(t, p.refused("publish", "lobby", "x"), "status 503: Service unavailable")
		require.Len(t, g.requests(), 3)
	})
}

// After six tries the last error is shown.
func TestTriesEnd(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		g.fail(func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 5 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			cut(w)
			return true
		})
		assert.Contains(t, p.refused("publish", "lobby", "x"), ": no answer: ")
		seen := g.requests()
		require.Len(t, seen, 6)
		for _, r := range seen {
			assert.Equal(t, seen[0].id, r.id)
			assert.Regexp(t, "^[0-9a-f]{32}$", r.id)
		}
	})
}
