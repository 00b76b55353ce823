package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is also the process of a node, as main is.
func TestMain(m *testing.M) {
	if os.Getenv(nodeVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const patience = time.Minute // for one step, on a busy machine

// start runs the example and returns its nodes' addresses.
func start(t *testing.T, nodes int) (bases []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, "127.0.0.1:0", nodes, "", in)
		in.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	lines := bufio.NewScanner(out)
	t.Cleanup(func() { go func() { _, _ = io.Copy(io.Discard, out) }() })
	for range nodes {
		require.True(t, lines.Scan(), "it says its addresses")
		base, is := strings.CutPrefix(strings.TrimSuffix(lines.Text(), "/"), "open ")
		require.True(t, is, "it said %q", lines.Text())
		bases = append(bases, base)
	}
	return bases
}

// person is somebody in the chat, on one node.
type person struct {
	t    *testing.T
	base string
	conn net.Conn
	from io.ReadWriter
	id   string // the connection's

	ID, Name string
	cookie   *http.Cookie
}

// enter logs in and connects.
func enter(t *testing.T, base, name string) *person {
	t.Helper()
	p := &person{t: t, base: base}
	resp := p.post("/login", url.Values{"name": {name}})
	require.NoError(t, json.NewDecoder(resp.Body).Decode(p))
	p.cookie = resp.Cookies()[0]
	p.connect()
	return p
}

// connect connects to the node at p.base.
func (p *person) connect() {
	t := p.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dialer := ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Cookie": {p.cookie.Name + "=" + p.cookie.Value}}}
	conn, rest, _, err := dialer.Dial(ctx, strings.Replace(p.base, "http", "ws", 1)+"/pushy/socket/websocket?id="+p.ID)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	p.conn, p.from = conn, conn
	if rest != nil { // the first message may have come with the handshake
		p.from = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(rest, conn), conn}
	}
	var hello struct{ SocketID string }
	p.expect("pushy:connect", &hello)
	p.id = hello.SocketID
}

func (p *person) request(path string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.base+path+"?id="+p.ID, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if p.cookie != nil {
			req.AddCookie(p.cookie)
		}
	}
	return req, err
}

func (p *person) post(path string, form url.Values) *http.Response {
	p.t.Helper()
	req, err := p.request(path, form)
	require.NoError(p.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { resp.Body.Close() })
	require.Equal(p.t, http.StatusOK, resp.StatusCode)
	return resp
}

func (p *person) send(command string, data map[string]any) {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{"command": command, "data": data})
	require.NoError(p.t, err)
	require.NoError(p.t, wsutil.WriteClientText(p.conn, text))
}

// expect reads one message, which must be of that event.
func (p *person) expect(event string, data any) {
	p.t.Helper()
	text, err := wsutil.ReadServerText(p.from)
	require.NoError(p.t, err)
	var m struct {
		Event string
		Data  json.RawMessage
	}
	require.NoError(p.t, json.Unmarshal(text, &m))
	require.Equal(p.t, event, m.Event, "%s", text)
	require.NoError(p.t, json.Unmarshal(m.Data, data))
}

// entered is what a person receives on entering the lounge.
type entered struct {
	MemberID, Key string
	Resumed       bool
	Replay        int
	Presence      []struct{ Name string }
}

func (e entered) names() (names []string) {
	for _, m := range e.Presence {
		names = append(names, m.Name)
	}
	return names
}

// lounge enters the private room. more has further keys of the command.
func (p *person) lounge(more map[string]any) (in entered) {
	p.t.Helper()
	token := maps.Clone(more)
	resp := p.post("/auth", url.Values{"channel": {"private-lounge"}, "connection_id": {p.id}})
	require.NoError(p.t, json.NewDecoder(resp.Body).Decode(&token))
	token["channel"] = "private-lounge"
	p.send("subscribe", token)
	p.expect("pushy:subscription-success", &in)
	return in
}

func TestThreeNodesAreOneChat(t *testing.T) {
	t.Parallel()
	bases := start(t, 3)
	var people []*person
	var names []string
	for i, base := range bases {
		resp, err := http.Get(base + "/")
		require.NoError(t, err)
		page, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		require.NoError(t, err)
		assert.Contains(t, string(page), fmt.Sprintf(`id="node">node %d</b>`, i+1))

		p := enter(t, base, fmt.Sprint("Person ", i+1))
		names = append(names, p.Name)
		assert.Equal(t, names, p.lounge(nil).names(), "on node %d", i+1)
		for _, other := range people {
			var add struct{ Member struct{ Name string } }
			other.expect("pushy:presence-add", &add)
			assert.Equal(t, p.Name, add.Member.Name)
		}
		people = append(people, p)
	}
	for i, from := range people {
		from.send("say", map[string]any{"channel": "private-lounge", "text": fmt.Sprint("Hello from ", i+1)})
		for _, to := range people {
			var line struct {
				From struct{ Name string }
				Text string
			}
			to.expect("message", &line)
			assert.Equal(t, from.Name, line.From.Name)
			assert.Equal(t, fmt.Sprint("Hello from ", i+1), line.Text)
		}
	}
	require.NoError(t, people[0].conn.Close())
	for _, p := range people[1:] {
		var quit struct{ Member struct{ Name string } }
		p.expect("pushy:presence-quit", &quit)
		assert.Equal(t, "Person 1", quit.Member.Name)
	}
}

// A node is killed. Whoever was on it comes back, here to another node, as the same member and
// with the lines that were said meanwhile. The others notice nothing.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	bases := start(t, 2)
	ada, grace := enter(t, bases[0], "Ada"), enter(t, bases[1], "Grace")
	ada.lounge(nil)
	first := grace.lounge(map[string]any{"hold": true, "rewind": 50})
	var ignored any
	ada.expect("pushy:presence-add", &ignored)

	req, err := grace.request("/kill", nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.Error(t, err, "the process does not answer any more")
	ada.send("say", map[string]any{"channel": "private-lounge", "text": "Where is Grace?"})
	ada.expect("message", &ignored)

	grace.base = bases[0]
	grace.connect()
	again := grace.lounge(map[string]any{
		"hold":   true,
		"rewind": 50,
		"member": map[string]string{"id": first.MemberID, "key": first.Key},
	})
	assert.True(t, again.Resumed)
	assert.Equal(t, first.MemberID, again.MemberID)
	assert.Equal(t, []string{"Ada", "Grace"}, again.names())
	require.Equal(t, 1, again.Replay)
	var line struct{ Text string }
	grace.expect("message", &line)
	assert.Equal(t, "Where is Grace?", line.Text)
	grace.send("say", map[string]any{"channel": "private-lounge", "text": "I was never away"})
	ada.expect("message", &line) // the next that Ada receives: neither a leave nor a join
	assert.Equal(t, "I was never away", line.Text)
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	assert.ErrorContains(t, run(t.Context(), taken.Addr().String(), 3, "", io.Discard), "exit status 1")
	assert.ErrorContains(t, serveNode(`{"addr":"`+taken.Addr().String()+`"}`, os.Stdin, io.Discard), "-addr")
	assert.ErrorContains(t, run(t.Context(), "127.0.0.1:http", 3, "", io.Discard), "a port and a number")
	assert.ErrorContains(t, run(t.Context(), "127.0.0.1:0", 0, "", io.Discard), "a port and a number")
}
