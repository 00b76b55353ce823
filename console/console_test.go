package console_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/console"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
	"github.com/gopushy/pushy/pushytest"
)

// start starts a node; o can be zero.
func start(t testing.TB, o pushy.Options) *pushy.Server {
	t.Helper()
	o.SecretKey = "only the tests of the console know it"
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := pushy.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// open returns the console of a node, which anybody can use as "ops".
func open(t testing.TB, srv *pushy.Server, o console.Options) http.Handler {
	t.Helper()
	if o.Authorize == nil {
		o.Authorize = func(*http.Request) (string, error) { return "ops", nil }
	}
	page, err := console.New(srv, o)
	require.NoError(t, err)
	return page
}

// call makes a request; edit can change it.
func call(page http.Handler, method, path, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, change := range edit {
		change(r)
	}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	return w
}

// get returns the JSON of an answer.
func get(t testing.TB, page http.Handler, path string) map[string]any {
	t.Helper()
	w := call(page, http.MethodGet, path, "")
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	var answer map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer
}

// rowsOf returns the values of a key of the rows in an answer.
func rowsOf(answer map[string]any, list, key string) (values []any) {
	for _, row := range answer[list].([]any) {
		values = append(values, row.(map[string]any)[key])
	}
	return values
}

// stalled returns a client that reads nothing.
func stalled() *inmem.Sink {
	c := inmem.NewSink()
	c.Stall()
	return c
}

// people accepts clients as the user that a header names, and reports their connections.
func people(greeted chan<- *pushy.Conn) pushy.Options {
	return pushy.Options{
		Accept:       func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		Hooks:        pushy.Hooks{Connect: func(c *pushy.Conn) { greeted <- c }},
		WriteTimeout: -1, // clients that do not read stay
		Limits:       pushy.Limits{Connections: -1},
	}
}

// node is a Server whose clients are in memory.
type node struct {
	*pushy.Server
	t       testing.TB
	greeted chan *pushy.Conn
}

func startNode(t testing.TB, edit ...func(*pushy.Options)) *node {
	greeted := make(chan *pushy.Conn, 1)
	o := people(greeted)
	for _, change := range edit {
		change(&o)
	}
	return &node{
		Server:  start(t, o),
		t:       t,
		greeted: greeted,
	}
}

// connect connects a client as an HTTP request does, and lets it join channels.
func (n *node) connect(user string, c *inmem.Sink, channels ...string) *pushy.Conn {
	n.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/pushy/socket/websocket", nil)
	r.Header["X-User"] = []string{user}
	r.Header.Set("User-Agent", "Agent/1.0")
	ticket, ok := seam.Of(n.Server).Admit(httptest.NewRecorder(), r)
	require.True(n.t, ok)
	ticket.Start(c)
	conn := <-n.greeted
	for known := false; !known; _, known = n.Conn(conn.ID()) { // until the hook has returned
		runtime.Gosched()
	}
	for _, name := range channels {
		require.NoError(n.t, n.Channels().Join(conn, name, json.RawMessage(fmt.Sprintf(`{"name":%q}`, user))))
	}
	return conn
}

func TestNewNeedsAuthorize(t *testing.T) {
	t.Parallel()
	srv := start(t, pushy.Options{})
	_, err := console.New(srv, console.Options{})
	require.ErrorContains(t, err, "Options.Authorize is nil")
	_, err = console.New(nil, console.Options{})
	require.ErrorContains(t, err, "the Server is nil")
	allow := func(*http.Request) (string, error) { return "", nil }
	for _, host := range []string{"", "ops.example.com:443", "https://ops.example.com", "*.example.com"} {
		_, err = console.New(srv, console.Options{Authorize: allow, Hosts: []string{host}})
		require.ErrorContains(t, err, "Options.Hosts", host)
	}
}

// Each request is refused with the status that Authorize decides, and has nothing of the page.
func TestAuthorizeDecides(t *testing.T) {
	t.Parallel()
	srv := start(t, pushy.Options{})
	for _, c := range []struct {
		err    error
		status int
	}{
		{nil, http.StatusOK},
		{errors.New("not an operator"), http.StatusForbidden},
		{fmt.Errorf("no session: %w", pushy.ErrNeedAuth), http.StatusUnauthorized},
	} {
		page := open(t, srv, console.Options{Authorize: func(*http.Request) (string, error) { return "ops", c.err }})
		for _, path := range []string{"/", "/data", "/console.js", "/console.css", "/ends", "/channels", "/members?channel=x"} {
			w := call(page, http.MethodGet, path, "")
			assert.Equal(t, c.status, w.Code, path)
			if c.err != nil {
				assert.Less(t, w.Body.Len(), 100, path)
				assert.NotContains(t, w.Body.String(), "not an operator")
			}
			assert.Equal(t, c.status == http.StatusUnauthorized, w.Header().Get("WWW-Authenticate") != "", path)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	page := open(t, start(t, pushy.Options{}), console.Options{})
	for path, kind := range map[string]string{
		"/":               "text/html; charset=utf-8",
		"/some/prefix/":   "text/html; charset=utf-8",
		"/console.js":     "text/javascript; charset=utf-8",
		"/console.css":    "text/css; charset=utf-8",
		"/data":           "application/json",
		"/nothing":        "application/json",
		"/console.js.map": "application/json",
	} {
		w := call(page, http.MethodGet, path, "")
		head := w.Header()
		assert.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
			"frame-ancestors 'none'; base-uri 'none'; form-action 'none'", head.Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", head.Get("X-Content-Type-Options"), path)
		assert.Equal(t, "no-store", head.Get("Cache-Control"), path)
		assert.Equal(t, kind, head.Get("Content-Type"), path)
	}
	assert.Equal(t, http.StatusNotFound, call(page, http.MethodGet, "/nothing", "").Code)
	assert.Equal(t, http.StatusMethodNotAllowed, call(page, http.MethodPost, "/data", "").Code)
}

// A page of another site cannot have its own name stand for the console (DNS rebinding).
func TestHosts(t *testing.T) {
	t.Parallel()
	page := open(t, start(t, pushy.Options{}), console.Options{Hosts: []string{"Ops.example.com"}})
	for host, status := range map[string]int{
		"localhost":               http.StatusOK,
		"LOCALHOST:8123":          http.StatusOK,
		"127.0.0.1:8123":          http.StatusOK,
		"[::1]:8123":              http.StatusOK,
		"[::1]":                   http.StatusOK,
		"ops.example.com":         http.StatusOK,
		"OPS.example.com.:443":    http.StatusOK,
		"evil.example":            http.StatusMisdirectedRequest,
		"ops.example.com.evil":    http.StatusMisdirectedRequest,
		"127.0.0.1.nip.io:8123":   http.StatusMisdirectedRequest,
		"localhost.evil.example":  http.StatusMisdirectedRequest,
		"0x7f.1":                  http.StatusMisdirectedRequest,
		"":                        http.StatusMisdirectedRequest,
		"ops.example.com:80:evil": http.StatusMisdirectedRequest,
	} {
		w := call(page, http.MethodGet, "/data", "", func(r *http.Request) { r.Host = host })
		assert.Equal(t, status, w.Code, host)
		assert.Equal(t, status == http.StatusOK, strings.Contains(w.Body.String(), "connections"), host)
	}
}

// What a browser requests for a page of another origin is refused, except that a link can open the page.
func TestOtherOriginsSeeNothing(t *testing.T) {
	t.Parallel()
	page := open(t, start(t, pushy.Options{}), console.Options{})
	for _, c := range []struct {
		name, path, site, mode, dest string
		allowed                      bool
	}{
		{"own fetch", "/data", "same-origin", "cors", "empty", true},
		{"typed address", "/", "none", "navigate", "document", true},
		{"link", "/", "cross-site", "navigate", "document", true},
		{"no-cors fetch", "/data", "cross-site", "no-cors", "empty", false},
		{"fetch of a subdomain", "/data", "same-site", "cors", "empty", false},
		{"script", "/console.js", "cross-site", "no-cors", "script", false},
		{"frame", "/", "cross-site", "navigate", "iframe", false},
		{"opened data", "/data", "cross-site", "navigate", "document", false},
		{"WebSocket", "/data", "cross-site", "websocket", "websocket", false},
	} {
		w := call(page, http.MethodGet, c.path, "", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", c.site)
			r.Header.Set("Sec-Fetch-Mode", c.mode)
			r.Header.Set("Sec-Fetch-Dest", c.dest)
		})
		assert.Equal(t, c.allowed, w.Code == http.StatusOK, c.name)
	}
}

// The overview has the figures of all nodes, the channels and connections with the most bytes that
// wait, and a node that does not answer as silent.
func TestOverviewOfACluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		var nodes []*node
		var brokers []*memory.Broker
		var page http.Handler
		for i := range 3 {
			broker := cluster.Broker()
			n := startNode(t, func(o *pushy.Options) { o.Broker = broker })
			nodes, brokers = append(nodes, n), append(brokers, broker)
			handler := open(t, n.Server, console.Options{ReadOnly: true})
			if i == 0 {
				page = handler
			}
		}
		slow := nodes[1].connect("slow", stalled(), "prices", "news")
		nodes[0].connect("quick", inmem.NewSink(), "prices")
		nodes[2].connect("quick", inmem.NewSink(), "prices")
		require.NoError(t, nodes[0].Publish(t.Context(), "prices", "tick", strings.Repeat("x", 1000)))
		synctest.Wait()

		o := get(t, page, "/data")
		assert.Equal(t, "ops", o["who"])
		assert.Equal(t, true, o["readOnly"])
		totals := o["totals"].(map[string]any)
		assert.EqualValues(t, 3, totals["connections"])
		assert.EqualValues(t, 1, totals["published"])
		assert.Greater(t, totals["waiting"], 1000.0)
		assert.Equal(t, []any{nodes[0].Node()}, rowsOf(o, "nodes", "node")[:1])
		assert.ElementsMatch(t, []any{nodes[0].Node(), nodes[1].Node(), nodes[2].Node()}, rowsOf(o, "nodes", "node"))
		assert.Equal(t, []any{"prices", "news"}, rowsOf(o, "channels", "name"))
		assert.Equal(t, []any{3.0, 1.0}, rowsOf(o, "channels", "subscribers"))
		assert.Equal(t, []any{totals["waiting"], totals["waiting"]}, rowsOf(o, "channels", "waiting"))
		assert.Equal(t, []any{slow.ID()}, rowsOf(o, "conns", "id"))
		assert.Equal(t, []any{"slow"}, rowsOf(o, "conns", "user"))
		assert.Equal(t, []any{nodes[1].Node()}, rowsOf(o, "conns", "node"))

		// The figures are shared until they are 1.9 s old.
		nodes[0].connect("late", inmem.NewSink())
		assert.EqualValues(t, 3, get(t, page, "/data")["totals"].(map[string]any)["connections"])
		time.Sleep(2 * time.Second)
		assert.EqualValues(t, 4, get(t, page, "/data")["totals"].(map[string]any)["connections"])

		brokers[2].Cut()
		time.Sleep(2 * time.Second)
		o = get(t, page, "/data")
		assert.EqualValues(t, 1, o["silentCount"])
		assert.Equal(t, []any{nil, true, nil}, rowsOf(o, "nodes", "silent"))
		assert.Equal(t, nodes[2].Node(), rowsOf(o, "nodes", "node")[1])
		assert.EqualValues(t, 3, o["totals"].(map[string]any)["connections"])
	})
}

// The rates are those of all nodes. They are not known until each node was asked twice, nor after a
// time in which nobody has looked, and do not depend on the clock.
func TestRatesOfACluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		var kits []*pushytest.Kit
		var first *pushy.Server
		var page http.Handler
		for range 2 {
			srv := start(t, pushy.Options{Broker: cluster.Broker()})
			page = open(t, srv, console.Options{})
			first = cmp.Or(first, srv)
			kit := pushytest.New(t, srv)
			kits = append(kits, kit)
			kit.Connect().Subscribe("prices")
		}
		ann := kits[0].Connect()
		rates := func() any {
			t.Helper()
			return get(t, page, "/data")["totals"].(map[string]any)["rates"]
		}
		assert.Nil(t, rates())
		for range 20 {
			require.NoError(t, first.Publish(t.Context(), "prices", "tick", 1))
			require.Error(t, ann.Exec("nonsense", nil, nil))
			time.Sleep(100 * time.Millisecond)
		}
		got := rates().(map[string]any)
		assert.EqualValues(t, 10, got["published"])
		assert.EqualValues(t, 10, got["messagesIn"])
		assert.EqualValues(t, 30, got["messagesOut"], "two subscribers, and the answers")
		assert.Greater(t, got["bytesIn"], 100.0)
		assert.Greater(t, got["bytesOut"], 1000.0)
		assert.EqualValues(t, 0, got["ended"])
		ann.Close(4000)
		time.Sleep(2 * time.Second)
		got = rates().(map[string]any)
		assert.EqualValues(t, 0.5, got["ended"])
		assert.EqualValues(t, 0, got["published"])
		time.Sleep(time.Minute)
		assert.Nil(t, rates())
		time.Sleep(2 * time.Second)
		assert.NotNil(t, rates())
	})
}

// A node on which New was not called is shown with the reason.
func TestNodeWithoutAConsole(t *testing.T) {
	t.Parallel()
	cluster := memory.NewCluster(memory.Options{})
	page := open(t, start(t, pushy.Options{Broker: cluster.Broker()}), console.Options{})
	start(t, pushy.Options{Broker: cluster.Broker()})
	o := get(t, page, "/data")
	assert.Equal(t, []any{nil, "this node has no AskFunc of that name"}, rowsOf(o, "nodes", "error"))
}

func TestSearch(t *testing.T) {
	t.Parallel()
	cluster := memory.NewCluster(memory.Options{})
	var nodes []*node
	for range 2 {
		nodes = append(nodes, startNode(t, func(o *pushy.Options) { o.Broker = cluster.Broker() }))
	}
	page := open(t, nodes[0].Server, console.Options{})
	open(t, nodes[1].Server, console.Options{})
	var ann *pushy.Conn
	for i := range 120 {
		ann = nodes[i%2].connect("ann", inmem.NewSink(), fmt.Sprintf("order-%03d", i))
	}
	bob := nodes[1].connect("bob", inmem.NewSink(), "private-room")

	var found []any
	after := ""
	for calls := 0; calls < 3; calls++ {
		p := get(t, page, "/channels?prefix=ORDER-&after="+after)
		found = append(found, rowsOf(p, "rows", "name")...)
		after = p["next"].(string)
	}
	require.Len(t, found, 120)
	assert.Equal(t, "order-119", found[119])
	assert.Empty(t, after)

	p := get(t, page, "/connections?user=ann")
	assert.Len(t, p["rows"], 50)
	assert.NotEmpty(t, p["next"])
	p = get(t, page, "/connections?channel=private-room")
	assert.Equal(t, []any{bob.ID()}, rowsOf(p, "rows", "id"))
	assert.EqualValues(t, 2, p["nodeCount"])
	w := call(page, http.MethodGet, "/connections?user=a&conn=b", "")
	assert.Equal(t, http.StatusBadRequest, w.Code)
	assert.Contains(t, w.Body.String(), "exactly one of user, conn and channel must be set")

	detail := get(t, page, "/connection?conn="+ann.ID())["conn"].(map[string]any)
	assert.Equal(t, "ann", detail["user"])
	assert.Equal(t, "Agent/1.0", detail["agent"])
	assert.Equal(t, "192.0.2.1:1234", detail["address"])
	assert.Equal(t, []any{"order-119"}, detail["channels"])
	assert.Nil(t, get(t, page, "/connection?conn=unknown")["conn"])
	assert.Equal(t, http.StatusBadRequest, call(page, http.MethodGet, "/connection", "").Code)

	p = get(t, page, "/members?channel=private-room")
	require.Len(t, p["rows"], 1)
	assert.Contains(t, rowsOf(p, "rows", "data")[0], `"name":"bob"`)
	assert.Equal(t, true, get(t, page, "/members?channel=order-001")["public"])
	assert.Equal(t, http.StatusBadRequest, call(page, http.MethodGet, "/members?channel=%00", "").Code)
}

// The last 1,000 ends of each node are remembered, with the reason, and can be filtered by user.
func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		var nodes []*node
		for range 2 {
			nodes = append(nodes, startNode(t, func(o *pushy.Options) { o.Broker = cluster.Broker() }))
		}
		page := open(t, nodes[0].Server, console.Options{})
		open(t, nodes[1].Server, console.Options{})
		end := func(n *node, user string, code int, reason string) {
			c := inmem.NewSink()
			n.connect(user, c)
			time.Sleep(time.Millisecond)
			c.End(&session.CloseError{Cause: session.Closed, Code: code, Reason: reason})
			synctest.Wait()
		}
		end(nodes[0], "ann", 4000, "the oldest, which is forgotten")
		for i := range 1000 {
			end(nodes[0], fmt.Sprintf("user-%d", i%10), 4001, fmt.Sprint(i))
		}
		kicked := nodes[1].connect("ann", inmem.NewSink())
		time.Sleep(time.Second)
		_, err := nodes[0].Kick(context.Background(), pushy.Kick{Target: "user:ann", Reason: "spam"})
		require.NoError(t, err)
		synctest.Wait()

		p := get(t, page, "/ends?user=ann")
		require.Len(t, p["rows"], 1)
		row := p["rows"].([]any)[0].(map[string]any)
		assert.Equal(t, kicked.ID(), row["conn"])
		assert.EqualValues(t, pushy.CloseRemoved, row["code"])
		assert.Equal(t, "spam", row["reason"])
		assert.Equal(t, "server", row["by"])
		assert.Equal(t, nodes[1].Node(), row["node"])

		var reasons []any
		after := ""
		for more := true; more; more = after != "" {
			p = get(t, page, "/ends?after="+after)
			reasons = append(reasons, rowsOf(p, "rows", "reason")...)
			after = p["next"].(string)
		}
		require.Len(t, reasons, 1001)
		assert.Equal(t, []any{"spam", "999", "998"}, reasons[:3])
		assert.Equal(t, "0", reasons[1000])
		assert.Len(t, get(t, page, "/ends?user=user-7")["rows"], 50)
		assert.Equal(t, []any{"spam", "999"}, rowsOf(get(t, page, "/data"), "ends", "reason")[:2])
		assert.Equal(t, http.StatusBadRequest, call(page, http.MethodGet, "/ends?user="+strings.Repeat("x", 129), "").Code)
	})
}
