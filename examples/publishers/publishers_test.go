// Package publishers_test runs the programs of this directory, which are written in other
// languages than Go, against a Server.
package publishers_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
)

const secret = "a secret of more than sixteen bytes"

// programs are the publishers and the commands that run them.
var programs = map[string][]string{
	"php":    {"php", "pushy_api.php"},
	"python": {"python3", "-B", "pushy_api.py"},
	"node":   {"node", "pushy_api.mjs"},
	"shell":  {"sh", "pushy_api.sh"},
}

// publisher is one of the programs, for one server.
type publisher struct {
	t       *testing.T
	program []string
	url     string
	key     string
	id      string // PUSHY_ID
}

// run runs the program. It fails if the program prints the key.
func (p publisher) run(stdin string, args ...string) (stdout, stderr string, ok bool) {
	p.t.Helper()
	command := slices.Concat(p.program, args)
	cmd := exec.CommandContext(p.t.Context(), command[0], command[1:]...)
	var out, failures strings.Builder
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout = &out
	cmd.Stderr = &failures
	cmd.Env = append(os.Environ(), "PUSHY_URL="+p.url, "PUSHY_SECRET_KEY="+p.key, "PUSHY_ID="+p.id)
	err := cmd.Run()
	if p.key != "" {
		assert.NotContains(p.t, out.String()+failures.String(), p.key)
	}
	return out.String(), failures.String(), err == nil
}

// do runs the program, which must succeed, and returns the answer.
func (p publisher) do(args ...string) string {
	p.t.Helper()
	out, failures, ok := p.run("", args...)
	require.True(p.t, ok, failures)
	return out
}

// refused runs the program, which must fail, and returns what it says about the error.
func (p publisher) refused(args ...string) string {
	p.t.Helper()
	out, failures, ok := p.run("", args...)
	require.False(p.t, ok, out)
	assert.Empty(p.t, out)
	assert.Equal(p.t, 1, strings.Count(failures, "\n"), "one line, not the trace of an exception: %s", failures)
	return failures
}

// request is what a gateway has seen of a request.
type request struct {
	id   string
	sent time.Time
}

// gateway is an HTTP server in front of a Server.
type gateway struct {
	srv *pushy.Server
	url string

	mu    sync.Mutex
	seen  []request
	fault fault // or nil
}

// fault answers the nth request, where the first is 0, instead of the Server. It returns false if
// the Server shall answer.
type fault func(n int, w http.ResponseWriter, r *http.Request) bool

func (g *gateway) fail(f fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = f
}

// lastingBroker returns a broker whose Ledger does not look as if it ended with the process.
// Otherwise, the requests of the first second would be refused.
func lastingBroker() broker.Broker {
	b := memory.NewCluster(memory.Options{}).Broker()
	return struct {
		broker.Broker
		broker.History
		broker.Ledger
		broker.Cluster
	}{b, b, b, b}
}

// startGateway starts a Server whose clients have the user id of their header User.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Broker:    lastingBroker(),
		Logger:    slog.New(slog.DiscardHandler),
		Accept:    func(r *http.Request) (any, error) { return r.Header.Get("User"), nil },
	})
	require.NoError(t, err)
	g := &gateway{srv: srv}
	web := httptest.NewServer(g)
	g.url = web.URL + "/pushy"
	t.Cleanup(func() {
		_ = srv.Close()
		web.Close()
	})
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := append(strings.Split(r.Header.Get("Pushy-Signature"), " "), "", "", "", "")
	g.mu.Lock()
	n := len(g.seen)
	g.seen = append(g.seen, request{
		id:   parts[3],
		sent: time.Now(),
	})
	f := g.fault
	g.mu.Unlock()
	if f == nil || !f(n, w, r) {
		g.srv.ServeHTTP(w, r)
	}
}

func (g *gateway) requests() []request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

// each runs a test for each program.
func each(t *testing.T, test func(t *testing.T, g *gateway, p publisher)) {
	t.Parallel()
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t)
			test(t, g, publisher{
				t:       t,
				program: program,
				url:     g.url,
				key:     secret,
			})
		})
	}
}

// Every character arrives as it was sent.
func TestPublish(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		reader := pushytest.New(t, g.srv).Connect()
		reader.Subscribe("ünï/co de?")
		out := p.do("publish", "Ünï/co de?", `say: it's`, `{"text":"Zoë \"🎉\" /","n":[1.0,{}]}`)
		assert.JSONEq(t, `{"events":[{"channels":{"ünï/co de?":{"received":true}}}]}`, out)
		var got map[string]any
		reader.ExpectEvent("ünï/co de?", "say: it's", &got)
		assert.Equal(t, map[string]any{"text": `Zoë "🎉" /`, "n": []any{1.0, map[string]any{}}}, got)

		// PHP has arrays whose keys are numbers, and no empty objects.
		reader.Subscribe("0")
		assert.JSONEq(t, `{"events":[{"channels":{"0":{"received":true}}}]}`, p.do("publish", "0", "empty"))
		assert.JSONEq(t, `{}`, string(reader.ExpectEvent("0", "empty", nil).Data))
		assert.Len(t, g.requests(), 2)
	})
}

// With PUSHY_ID, a program that runs twice publishes once.
func TestPublishUnderAnID(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		reader := pushytest.New(t, g.srv).Connect()
		reader.Subscribe("lobby")
		p.id = "order-17"
		first := p.do("publish", "lobby", "paid", `{"order":17}`)
		assert.Equal(t, first, p.do("publish", "lobby", "paid", `{"order":17}`))
		reader.ExpectEvent("lobby", "paid", nil)
		reader.ExpectNone("lobby", "paid")
		assert.Contains(t, p.refused("publish", "lobby", "paid", `{"order":18}`),
			"status 409: Id order-17 was used with another path or body")
	})
}

func TestPublishMany(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		reader := pushytest.New(t, g.srv).Connect()
		reader.Subscribe("lobby")
		events := make([]map[string]any, 100)
		for i := range events {
			events[i] = map[string]any{
				"channels": []string{"lobby", "nobody"},
				"event":    "counted",
				"data":     []any{i, strings.Repeat("ö", 2000)}, // together too long for an argument
			}
		}
		batch, err := json.Marshal(events)
		require.NoError(t, err)
		out, failures, ok := p.run(string(batch), "publish-all")
		require.True(t, ok, failures)
		var answer struct {
			Events []struct {
				Channels map[string]struct{ Received bool }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(out), &answer))
		require.Len(t, answer.Events, 100)
		for i := range events {
			assert.True(t, answer.Events[i].Channels["lobby"].Received)
			assert.False(t, answer.Events[i].Channels["nobody"].Received)
			var data []any
			reader.ExpectEvent("lobby", "counted", &data)
			assert.EqualValues(t, i, data[0])
		}
		assert.Len(t, g.requests(), 1)

		events[41]["event"] = "pushy:x"
		batch, err = json.Marshal(events)
		require.NoError(t, err)
		_, failures, ok = p.run(string(batch), "publish-all")
		assert.False(t, ok)
		assert.Contains(t, failures, `status 400: events[41].event: "pushy:" is reserved`)
		reader.ExpectNone("lobby", "counted")
	})
}

func TestKick(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		kit := pushytest.New(t, g.srv)
		connect := func(user string) *pushytest.Client {
			return kit.Connect(func(r *http.Request) { r.Header.Set("User", user) })
		}
		ann, bob := connect("ann"), connect(`bob "the builder"`)
		ann.Subscribe("lobby")
		assert.JSONEq(t, `{"closed":1,"nodes":1,"silent":[]}`, p.do("kick", `user:bob "the builder"`, "Zoë says: \"no\"\\"))
		code, reason := bob.ExpectClose()
		assert.Equal(t, 3500, code)
		assert.Equal(t, "Zoë says: \"no\"\\", reason)

		assert.JSONEq(t, `{"closed":1,"nodes":1,"silent":[]}`, p.do("kick", "channel:lobby"))
		end := ann.ExpectEvent("", "pushy:subscription-end", nil)
		assert.JSONEq(t, `{"channel":"lobby","reason":"Removed"}`, string(end.Data))
		assert.Contains(t, p.refused("kick", "team:7"), "status 400: target: ")

		// A ban has an end, which only the call takes.
		until := time.Now().Add(time.Hour).Unix()
		p.do("call", "kick", fmt.Sprintf(`{"target":"user:ann","reason":"Spam","until":%d}`, until))
		code, reason = ann.ExpectClose()
		assert.Equal(t, 3500, code)
		assert.Equal(t, "Spam", reason)
		assert.Equal(t, 403, kit.Refused(func(r *http.Request) { r.Header.Set("User", "ann") }))
		p.do("call", "unban", `{"target":"user:ann"}`)
		connect("ann")
	})
}

func TestQueries(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		kit := pushytest.New(t, g.srv)
		ann := kit.Connect(func(r *http.Request) { r.Header.Set("User", "ann") })
		for i := range 5 {
			member := pushytest.Member(map[string]any{"name": "Änn", "more": map[string]any{}})
			ann.Subscribe(fmt.Sprintf("private-%d", i), member)
		}
		assert.JSONEq(t, `{"channels":[{"name":"private-0","presence":true,"subscribers":1},
			{"name":"private-1","presence":true,"subscribers":1}],"next":"private-1","nodes":1,"silent":[]}`,
			p.do("call", "channels", `{"prefix":"private-","limit":2,"count":true}`))

		out := p.do("call", "members", `{"channel":"private-3"}`)
		var answer struct {
			Members []struct {
				User   string
				Member struct {
					Name string
					More json.RawMessage
				}
			}
		}
		require.NoError(t, json.Unmarshal([]byte(out), &answer))
		require.Len(t, answer.Members, 1)
		assert.Equal(t, "ann", answer.Members[0].User)
		assert.Equal(t, "Änn", answer.Members[0].Member.Name)
		assert.JSONEq(t, `{}`, string(answer.Members[0].Member.More))
		assert.Contains(t, p.do("call", "connections", `{"user":"ann"}`), `"`+ann.ID()+`"`)
		assert.Contains(t, p.refused("call", "members", `{"channel":"lobby"}`), "status 400: ")
		assert.Contains(t, p.refused("call", "nonsense"), "status 404: ")

		if slices.Contains(p.program, "sh") {
			return // it has no list
		}
		before := len(g.requests())
		assert.JSONEq(t, `{"channels":[{"name":"private-0","presence":true},{"name":"private-1","presence":true},
			{"name":"private-2","presence":true},{"name":"private-3","presence":true},
			{"name":"private-4","presence":true}],"silent":[]}`,
			p.do("list", "channels", `{"limit":2}`))
		assert.Len(t, g.requests(), before+3)
		assert.JSONEq(t, `{"bans":[],"silent":[]}`, p.do("list", "bans"))
	})
}

// What is wrong is said once, with the words of the server, and is not tried again.
func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, g *gateway, p publisher) {
		other := p
		other.key = "another secret key"
		assert.Contains(t, other.refused("publish", "lobby", "x"), "status 403: Unknown key ")
		assert.Contains(t, p.refused("publish", "a:b", "x"), "status 400: events[0].channels[0]: must not contain :")
		p.id = "not allowed"
		assert.Contains(t, p.refused("publish", "lobby", "x"), "status 401: Pushy-Signature is malformed")
		p.id = ""
		require.Len(t, g.requests(), 3, "these errors are final")

		g.fail(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(bytes.Repeat([]byte("Not here. "), 100))
			return true
		})
		says := p.refused("publish", "lobby", "x")
		assert.Contains(t, says, "status 404: Not here. Not here. ")
		assert.Less(t, len(says), 500)
		require.Len(t, g.requests(), 4)

		for _, args := range [][]string{
			{},
			{"publish", "lobby"},
			{"nonsense", "1"},
		} {
			assert.Contains(t, p.refused(args...), "the first lines of this file")
		}
		p.key = ""
		assert.Contains(t, p.refused("publish", "lobby", "x"), "PUSHY_SECRET_KEY is not set")
		require.Len(t, g.requests(), 4)
	})
}
