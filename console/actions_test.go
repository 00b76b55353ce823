package console_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/console"
	"github.com/gopushy/pushy/internal/transport/inmem"
	"github.com/gopushy/pushy/pushytest"
)

// pair starts two nodes of a cluster with consoles; the log is that of the first one.
func pair(t *testing.T, o console.Options) (page http.Handler, nodes []*node, log *bytes.Buffer) {
	log = &bytes.Buffer{}
	cluster := memory.NewCluster(memory.Options{})
	for i := range 2 {
		nodes = append(nodes, startNode(t, func(options *pushy.Options) {
			options.Broker = cluster.Broker()
			if i == 0 {
				options.Logger = slog.New(slog.NewTextHandler(log, nil))
			}
		}))
		handler := open(t, nodes[i].Server, o)
		if i == 0 {
			page = handler
		}
	}
	return page, nodes, log
}

// Each action takes effect on the node that has the connection, and leaves a line with the operator.
func TestActions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		page, nodes, log := pair(t, console.Options{})
		c := inmem.NewSink()
		conn := nodes[1].connect("ann", c, "news")

		w := call(page, http.MethodPost, "/publish", `{"channel":"news","event":"hi","data":{"n":1}}`)
		assert.JSONEq(t, `{"done":1,"nodeCount":1}`, w.Body.String())
		assert.EqualValues(t, 1, nodes[0].Stats().Published)
		w = call(page, http.MethodPost, "/remove", fmt.Sprintf(`{"conn":%q,"channel":"NEWS"}`, conn.ID()))
		assert.JSONEq(t, `{"done":1,"nodeCount":2}`, w.Body.String())
		assert.Empty(t, conn.Channels())
		w = call(page, http.MethodPost, "/remove", fmt.Sprintf(`{"conn":%q,"channel":"news"}`, conn.ID()))
		assert.JSONEq(t, `{"done":0,"nodeCount":2}`, w.Body.String())
		w = call(page, http.MethodPost, "/kick", fmt.Sprintf(`{"target":"conn:%s","reason":"spam"}`, conn.ID()))
		assert.JSONEq(t, `{"done":1,"nodeCount":2}`, w.Body.String())
		synctest.Wait()
		assert.Zero(t, nodes[1].Stats().Connections)
		for _, line := range []string{
			`msg="console: action" who=ops action=publish channel=news event=hi bytes=7 done=1 nodes=1`,
			`msg="console: action" who=ops action=remove conn=` + conn.ID() + ` channel=news reason=Removed done=1 nodes=2`,
			`msg="console: action" who=ops action=kick target=conn:` + conn.ID() + ` reason=spam done=1 nodes=2`,
		} {
			assert.Contains(t, log.String(), line)
		}
	})
}

func TestActionsAreChecked(t *testing.T) {
	t.Parallel()
	page, nodes, _ := pair(t, console.Options{})
	for _, c := range []struct {
		path, body string
		status     int
		message    string
	}{
		{"/kick", `{"target":"channel:news"}`, 400, `must begin with \"conn:\" or \"user:\"`},
		{"/kick", `{"target":"user:x","until":5}`, 400, "unknown field"},
		{"/kick", `{"target":"user:x"}{}`, 400, "more than one value"},
		{"/kick", `{"target":"user:x","reason":"` + strings.Repeat("x", 124) + `"}`, 400, "at most 123 bytes"},
		{"/remove", `{"conn":"x","channel":""}`, 400, "must not be empty"},
		{"/remove", `{"channel":"news"}`, 400, "not the id of a connection"},
		{"/remove", `{"conn":"x","channel":"news","reason":"` + strings.Repeat("x", 124) + `"}`, 400, "at most 123 bytes"},
		{"/publish", `{"channel":"news","event":"hi"}`, 400, "data: is missing"},
		{"/publish", `{"channel":"news","event":"pushy:hi","data":1}`, 400, "is reserved"},
		{"/publish", `{"channel":"news","event":"hi","data":"` + strings.Repeat("x", 512<<10) + `"}`, 413, "limit"},
		{"/watch", `{}`, 400, "not the id of a connection"},
	} {
		w := call(page, http.MethodPost, c.path, c.body)
		assert.Equal(t, c.status, w.Code, c.body)
		assert.Contains(t, w.Body.String(), c.message)
	}
	assert.Zero(t, nodes[0].Stats().Published)
}

// Nothing that a page of another origin can make a browser send is carried out.
func TestOtherOriginsCannotAct(t *testing.T) {
	t.Parallel()
	page, nodes, _ := pair(t, console.Options{})
	nodes[0].connect("ann", inmem.NewSink(), "news")
	header := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	bodies := map[string]string{
		"/kick":    `{"target":"user:ann"}`,
		"/remove":  `{"conn":"x","channel":"news"}`,
		"/publish": `{"channel":"news","event":"hi","data":1}`,
		"/watch":   `{"conn":"x","payloads":true}`,
	}
	for name, c := range map[string]struct {
		edit   func(*http.Request)
		status int
	}{
		"form":              {header("Content-Type", "text/plain", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"), 403},
		"old browser":       {header("Origin", "https://evil.example"), 403},
		"sandboxed frame":   {header("Origin", "null"), 403},
		"no-cors fetch":     {header("Content-Type", "text/plain", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"), 403},
		"subdomain":         {header("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"), 403},
		"rebinding":         {func(r *http.Request) { r.Host = "evil.example"; r.Header.Set("Sec-Fetch-Site", "same-origin") }, 421},
		"form of this host": {header("Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin"), 415},
		"WebSocket": {func(r *http.Request) {
			r.Method = http.MethodGet
			header("Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Upgrade", "websocket", "Connection", "Upgrade")(r)
		}, 403},
	} {
		for path, body := range bodies {
			w := call(page, http.MethodPost, path, body, c.edit)
			assert.Equal(t, c.status, w.Code, "%s %s: %s", name, path, w.Body)
		}
	}
	assert.Equal(t, 1, nodes[0].Stats().Connections)
	assert.Zero(t, nodes[0].Stats().Published)
	for path := range bodies {
		assert.Equal(t, http.StatusMethodNotAllowed, call(page, http.MethodGet, path, "").Code)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	page, nodes, log := pair(t, console.Options{ReadOnly: true})
	conn := nodes[0].connect("ann", inmem.NewSink(), "news")
	for path, body := range map[string]string{
		"/kick":    `{"target":"user:ann"}`,
		"/remove":  fmt.Sprintf(`{"conn":%q,"channel":"news"}`, conn.ID()),
		"/publish": `{"channel":"news","event":"hi","data":1}`,
	} {
		assert.Equal(t, http.StatusForbidden, call(page, http.MethodPost, path, body).Code, path)
	}
	assert.Equal(t, []string{"news"}, conn.Channels())
	assert.Zero(t, nodes[0].Stats().Published)
	assert.Contains(t, log.String(), "action refused, the console is read-only\" who=ops action=kick")
	assert.Equal(t, http.StatusOK, call(page, http.MethodPost, "/watch", fmt.Sprintf(`{"conn":%q}`, conn.ID())).Code)
}

// Of a connection that is being watched, the last 32 decisions are recorded for 5 minutes, with
// payloads only on request, and never a token.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := start(t, pushy.Options{})
		kit := pushytest.New(t, srv)
		c := kit.Connect()
		page := open(t, srv, console.Options{})
		watch := func(payloads bool) {
			w := call(page, http.MethodPost, "/watch", fmt.Sprintf(`{"conn":%q,"payloads":%t}`, c.ID(), payloads))
			require.JSONEq(t, `{"done":1,"nodeCount":1}`, w.Body.String())
		}
		decisions := func() (all []string) {
			p := get(t, page, "/decisions?conn="+c.ID())
			rows := p["rows"].([]any)
			for i := len(rows) - 1; i >= 0; i-- {
				d := rows[i].(map[string]any)
				line := ""
				for _, key := range []string{"kind", "channel", "name", "code", "reason", "data"} {
					if d[key] != nil {
						line += fmt.Sprint(d[key], " ")
					}
				}
				all = append(all, strings.TrimSpace(line))
			}
			return all
		}
		watch(false)
		c.Send("subscribe", map[string]string{"channel": "news", "auth": "a-token"})
		c.Send("subscribe", map[string]string{"channel": "private-x", "auth": "a-token"})
		c.Send("nonsense", "secret payload")
		synctest.Wait()
		require.NoError(t, srv.Publish(t.Context(), "news", "tick", "secret payload"))
		c.Send("unsubscribe", map[string]string{"channel": "news"})
		synctest.Wait()
		all := decisions()
		assert.Equal(t, []string{"received news subscribe", "joined news", "received private-x subscribe"}, all[:3])
		assert.Contains(t, all[3], "sent pushy:subscription-failed {\"channel\":\"private-x\"")
		assert.Equal(t, []string{
			"received nonsense", "refused 200 Unknown command", "event news tick", "received news unsubscribe", "left news",
		}, all[4:])

		watch(true)
		for i := range 40 {
			c.Send("nonsense", i)
		}
		synctest.Wait()
		all = decisions()
		require.Len(t, all, 32)
		assert.Equal(t, "received nonsense 39", all[30])
		assert.NotContains(t, strings.Join(all, "\n"), "a-token")

		time.Sleep(5*time.Minute + time.Second)
		assert.Empty(t, decisions())
		assert.EqualValues(t, 0, get(t, page, "/decisions?conn="+c.ID())["until"])

		watch(false)
		_, err := srv.Kick(t.Context(), pushy.Kick{Target: "conn:" + c.ID(), Reason: "spam"})
		require.NoError(t, err)
		synctest.Wait()
		assert.Contains(t, decisions(), "closed 3500 spam", "the record stays when the connection has ended")
		kit.Allow()
	})
}

func TestTwentyAreWatched(t *testing.T) {
	t.Parallel()
	page, nodes, _ := pair(t, console.Options{})
	for i := range 21 {
		conn := nodes[1].connect("ann", inmem.NewSink())
		w := call(page, http.MethodPost, "/watch", fmt.Sprintf(`{"conn":%q}`, conn.ID()))
		assert.Equal(t, i == 20, strings.Contains(w.Body.String(), "watches 20 connections already"), w.Body.String())
	}
	w := call(page, http.MethodPost, "/watch", `{"conn":"unknown"}`)
	assert.JSONEq(t, `{"done":0,"nodeCount":2}`, w.Body.String())
}
