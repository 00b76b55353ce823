package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const patience = time.Minute // for one step, on a busy machine

// start runs the example and returns its address. Its end is checked too.
func start(t *testing.T) (base string, stop func()) {
	t.Helper()
	return startWith(t, Config{})
}

func startWith(t *testing.T, c Config) (base string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			err = Serve(ctx, listener, in, c)
		}
		in.CloseWithError(err)
		ended <- err
	}()
	stop = func() {
		if ctx.Err() == nil {
			cancel()
			assert.NoError(t, <-ended)
		}
	}
	t.Cleanup(stop)
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	base, is := strings.CutPrefix(strings.TrimSuffix(said, "/\n"), "open ")
	require.True(t, is, "it said %q", said)
	return base, stop
}

// visitor is a person who has logged in.
type visitor struct {
	person
	base   string
	cookie *http.Cookie
}

func enter(t *testing.T, base, name string) visitor {
	t.Helper()
	v := visitor{base: base}
	resp := v.post(t, "/login", url.Values{"name": {name}})
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&v.person))
	require.Len(t, resp.Cookies(), 1)
	v.cookie = resp.Cookies()[0]
	return v
}

func (v visitor) post(t *testing.T, path string, form url.Values) *http.Response {
	t.Helper()
	return v.do(t, path, form, nil)
}

func (v visitor) do(t *testing.T, path string, form url.Values, header http.Header) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.base+path+"?id="+v.ID, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header = header.Clone()
	if header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if v.cookie != nil {
		req.AddCookie(v.cookie)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// client is a visitor's bare WebSocket.
type client struct {
	t    *testing.T
	conn net.Conn
	from io.ReadWriter
	id   string // what the server calls the connection
}

func (v visitor) dial() (net.Conn, *bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	header := http.Header{}
	if v.cookie != nil {
		header.Set("Cookie", v.cookie.Name+"="+v.cookie.Value)
	}
	dialer := ws.Dialer{Header: ws.HandshakeHeaderHTTP(header)}
	conn, rest, _, err := dialer.Dial(ctx, strings.Replace(v.base, "http", "ws", 1)+"/pushy/socket/websocket?id="+v.ID)
	return conn, rest, err
}

func (v visitor) connect(t *testing.T) *client {
	t.Helper()
	conn, rest, err := v.dial()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	c := &client{t: t, conn: conn, from: conn}
	if rest != nil { // the first message may have come with the handshake
		c.from = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(rest, conn), conn}
	}
	var data struct{ SocketID string }
	c.expect("pushy:connect", &data)
	c.id = data.SocketID
	return c
}

func (c *client) send(message string) {
	c.t.Helper()
	require.NoError(c.t, wsutil.WriteClientText(c.conn, []byte(message)))
}

// expect reads one message, which must be of that event.
func (c *client) expect(event string, data any) {
	c.t.Helper()
	text, err := wsutil.ReadServerText(c.from)
	require.NoError(c.t, err)
	var m struct {
		Event string
		Data  json.RawMessage
	}
	require.NoError(c.t, json.Unmarshal(text, &m))
	require.Equal(c.t, event, m.Event, "%s", text)
	if data != nil {
		require.NoError(c.t, json.Unmarshal(m.Data, data))
	}
}

func (c *client) join(room string) {
	c.t.Helper()
	c.send(`{"command":"subscribe","data":{"channel":"` + room + `"}}`)
	c.expect("pushy:subscription-success", nil)
}

type member struct {
	person
	MemberID string
}

func TestTwoPeopleChat(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	ada, grace := enter(t, base, "Ada"), enter(t, base, " Grace ")
	a, g := ada.connect(t), grace.connect(t)
	both := []*client{a, g}
	for _, c := range both {
		c.join(lobby)
	}

	a.send(`{"command":"say","data":{"channel":"lobby","text":" Hello ","from":{"id":"1","name":"Grace"},"name":"Grace"}}`)
	for _, c := range both {
		var got line
		c.expect("message", &got)
		assert.Equal(t, line{From: ada.person, Time: got.Time, Text: "Hello"}, got)
		assert.WithinDuration(t, time.Now(), time.UnixMilli(got.Time), patience)
	}
	g.send(`{"command":"roll","data":{"channel":"lobby"}}`)
	var rolls [2]line
	for i, c := range both {
		c.expect("roll", &rolls[i])
	}
	assert.Equal(t, rolls[0], rolls[1])
	assert.Equal(t, person{grace.ID, "Grace"}, rolls[0].From)
	require.Len(t, rolls[0].Dice, 2)
	for _, n := range rolls[0].Dice {
		assert.True(t, n >= 1 && n <= 6, "a die shows %d", n)
	}

	assert.Equal(t, http.StatusNoContent, ada.post(t, "/announce", nil).StatusCode)
	for _, c := range both {
		var got line
		c.expect("announcement", &got)
		assert.Equal(t, ada.person, got.From)
		assert.NotEmpty(t, got.Text)
	}
}

func TestLoungeShowsWhoIsHere(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	ada, grace := enter(t, base, "Ada"), enter(t, base, "Grace")
	a, g := ada.connect(t), grace.connect(t)
	here := func(v visitor, c *client) (names []string) {
		t.Helper()
		resp := v.post(t, "/auth", url.Values{"channel": {lounge}, "connection_id": {c.id}})
		require.Equal(t, http.StatusOK, resp.StatusCode)
		var token map[string]any
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&token))
		token["channel"] = lounge
		message, err := json.Marshal(map[string]any{"command": "subscribe", "data": token})
		require.NoError(t, err)
		c.send(string(message))
		var got struct{ Presence []member }
		c.expect("pushy:subscription-success", &got)
		for _, m := range got.Presence {
			names = append(names, m.Name)
		}
		return names
	}
	assert.Equal(t, []string{"Ada"}, here(ada, a))
	assert.Equal(t, []string{"Ada", "Grace"}, here(grace, g))
	var add, quit struct{ Member member }
	a.expect("pushy:presence-add", &add)
	assert.Equal(t, grace.person, add.Member.person)
	require.NoError(t, g.conn.Close())
	a.expect("pushy:presence-quit", &quit)
	assert.Equal(t, add, quit)
}

func TestNewcomerSeesTheLastLines(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	a := enter(t, base, "Ada").connect(t)
	a.join(lobby)
	for n := range 60 {
		a.send(fmt.Sprintf(`{"command":"say","data":{"channel":"lobby","text":"line %d"}}`, n))
		a.expect("message", nil)
	}
	g := enter(t, base, "Grace").connect(t)
	g.send(`{"command":"subscribe","data":{"channel":"lobby","rewind":50}}`)
	var in struct{ Replay int }
	g.expect("pushy:subscription-success", &in)
	assert.Equal(t, 50, in.Replay)
	for n := 10; n < 60; n++ {
		var got line
		g.expect("message", &got)
		assert.Equal(t, fmt.Sprint("line ", n), got.Text)
	}
}

// Somebody who loses the connection stays in the lounge, and returns as the same member.
func TestNobodyNoticesALostConnection(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	ada, grace := enter(t, base, "Ada"), enter(t, base, "Grace")
	join := func(v visitor, c *client, more map[string]any) (in struct {
		MemberID, Key string
		Resumed       bool
	}) {
		t.Helper()
		data := map[string]any{"channel": lounge, "hold": true}
		maps.Copy(data, more)
		resp := v.post(t, "/auth", url.Values{"channel": {lounge}, "connection_id": {c.id}})
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&data))
		message, err := json.Marshal(map[string]any{"command": "subscribe", "data": data})
		require.NoError(t, err)
		c.send(string(message))
		c.expect("pushy:subscription-success", &in)
		return in
	}
	a, g := ada.connect(t), grace.connect(t)
	join(ada, a, nil)
	before := join(grace, g, nil)
	a.expect("pushy:presence-add", nil)
	require.NoError(t, g.conn.Close())
	g = grace.connect(t)
	after := join(grace, g, map[string]any{"member": map[string]string{"id": before.MemberID, "key": before.Key}})
	assert.True(t, after.Resumed)
	assert.Equal(t, before.MemberID, after.MemberID)
	g.send(`{"command":"say","data":{"channel":"private-lounge","text":"I was never away"}}`)
	a.expect("message", nil) // the first that Ada receives since Grace has joined
}

func TestKillButton(t *testing.T) {
	t.Parallel()
	killed := make(chan struct{})
	base, _ := startWith(t, Config{Node: "node 1", Kill: sync.OnceFunc(func() { close(killed) })})
	assert.Equal(t, http.StatusUnauthorized, visitor{base: base}.post(t, "/kill", nil).StatusCode)
	select {
	case <-killed:
		t.Error("a stranger can kill the node")
	default:
	}
	enter(t, base, "Ada").post(t, "/kill", nil)
	<-killed
}

func TestCommandsRefuse(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	ada, grace := enter(t, base, "Ada").connect(t), enter(t, base, "Grace").connect(t)
	ada.join(lobby)
	grace.join(lobby)
	grace.join("attic")
	for _, tc := range []struct{ name, message, code string }{
		{"emptySay", `{"command":"say","data":{"channel":"lobby","text":""}}`, "bad-text"},
		{"blankSay", `{"command":"say","data":{"channel":"lobby","text":" \n\t\u00a0"}}`, "bad-text"},
		{"longSay", `{"command":"say","data":{"channel":"lobby","text":"` + strings.Repeat("é", 501) + `"}}`, "bad-text"},
		{"sayWithoutText", `{"command":"say","data":{"channel":"lobby"}}`, "bad-text"},
		{"sayANumber", `{"command":"say","data":{"channel":"lobby","text":7}}`, "bad-data"},
		{"sayWithoutData", `{"command":"say"}`, "bad-data"},
		{"sayInARoomOfOthers", `{"command":"say","data":{"channel":"attic","text":"Hello"}}`, "not-in-room"},
		{"sayInNoRoom", `{"command":"say","data":{"text":"Hello"}}`, "not-in-room"},
		{"rollInARoomOfOthers", `{"command":"roll","data":{"channel":"attic"}}`, "not-in-room"},
		{"rollWithoutData", `{"command":"roll"}`, "bad-data"},
		{"rollAList", `{"command":"roll","data":[]}`, "bad-data"},
	} {
		ada.send(tc.message)
		var got struct{ Code, Message string }
		ada.expect("pushy:error", &got)
		assert.Equal(t, tc.code, got.Code, tc.name)
		assert.NotEmpty(t, got.Message, tc.name)
	}
	// The first message that Grace receives is the first valid one.
	longest := strings.Repeat("é", 500)
	ada.send(`{"command":"say","data":{"channel":"lobby","text":"` + longest + `"}}`)
	var got line
	grace.expect("message", &got)
	assert.Equal(t, longest, got.Text)
}

func TestLogin(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	for _, tc := range []struct{ name, as string }{
		{"empty", ""},
		{"blank", " \t"},
		{"long", strings.Repeat("a", 25)},
		{"control", "a\x00b"},
		{"reversing", "a\u202eb"},
		{"notUTF8", "a\xffb"},
		{"overTheBodyLimit", strings.Repeat("a", 5<<10)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			resp := visitor{base: base}.post(t, "/login", url.Values{"name": {tc.as}})
			assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
			assert.Empty(t, resp.Cookies())
		})
	}
	ada := enter(t, base, strings.Repeat("é", 24))
	assert.True(t, ada.cookie.HttpOnly)
	assert.Equal(t, http.SameSiteLaxMode, ada.cookie.SameSite)
	var again, other person
	require.NoError(t, json.NewDecoder(ada.post(t, "/login", url.Values{"name": {ada.Name}}).Body).Decode(&again))
	assert.Equal(t, ada.person, again, "a person who logs in again keeps the id")
	require.NoError(t, json.NewDecoder(ada.post(t, "/login", url.Values{"name": {"Eve"}}).Body).Decode(&other))
	assert.NotEqual(t, ada.ID, other.ID)
}

func TestStrangersStayOut(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	ada, grace := enter(t, base, "Ada"), enter(t, base, "Grace")
	renamed, unsigned := *ada.cookie, *ada.cookie
	renamed.Name = grace.cookie.Name
	unsigned.Value, _, _ = strings.Cut(ada.cookie.Value, ".")
	for _, tc := range []struct {
		name string
		who  visitor
	}{
		{"noName", visitor{base: base}},
		{"idWithoutCookie", visitor{base: base, person: ada.person}},
		{"cookieOfAnother", visitor{base: base, person: grace.person, cookie: &renamed}},
		{"cookieUnsigned", visitor{base: base, person: ada.person, cookie: &unsigned}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := tc.who.dial()
			assert.Equal(t, ws.StatusError(http.StatusUnauthorized), err)
			assert.Equal(t, http.StatusUnauthorized, tc.who.post(t, "/announce", nil).StatusCode)
			token := url.Values{"channel": {lounge}, "connection_id": {"7b0b9b58-6bd5-4d4e-9d4c-0d9a0c1b2a3f"}}
			assert.Equal(t, http.StatusUnauthorized, tc.who.post(t, "/auth", token).StatusCode)
			assert.Equal(t, http.StatusOK, ada.post(t, "/auth", token).StatusCode)
		})
	}
	t.Run("otherPrivateChannel", func(t *testing.T) {
		t.Parallel()
		token := url.Values{"channel": {"private-vault"}, "connection_id": {"7b0b9b58-6bd5-4d4e-9d4c-0d9a0c1b2a3f"}}
		assert.Equal(t, http.StatusForbidden, ada.post(t, "/auth", token).StatusCode)
	})
	t.Run("otherOrigin", func(t *testing.T) {
		t.Parallel()
		header := http.Header{"Origin": {"http://127.0.0.1:1"}}
		for _, path := range []string{"/login", "/announce", "/auth"} {
			assert.Equal(t, http.StatusForbidden, ada.do(t, path, url.Values{"name": {"Ada"}}, header).StatusCode, path)
		}
	})
}

func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	base, _ := start(t)
	for path, kind := range map[string]string{
		"/": "text/html", "/chat.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml",
	} {
		resp, err := http.Get(base + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		assert.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), "%s is %s", path, resp.Header.Get("Content-Type"))
		policy := strings.Split(resp.Header.Get("Content-Security-Policy"), "; ")
		assert.True(t, slices.Contains(policy, "default-src 'none'") && slices.Contains(policy, "script-src 'self'"), policy)
		assert.NotContains(t, string(body), "innerHTML", path)
	}
}

func TestPageNamesTheNode(t *testing.T) {
	t.Parallel()
	files, err := fs.Sub(page, "page")
	require.NoError(t, err)
	alone, err := indexPage(files, Config{})
	require.NoError(t, err)
	assert.NotContains(t, string(alone), `id="node"`)
	assert.NotContains(t, string(alone), `id="kill"`)
	one, err := indexPage(files, Config{Node: "node <1>", Kill: func() {}})
	require.NoError(t, err)
	assert.Contains(t, string(one), `id="kill"`)
	assert.Contains(t, string(one), `<b class="node" id="node">node &lt;1&gt;</b>`)
}

func TestShutdownTellsClients(t *testing.T) {
	t.Parallel()
	base, stop := start(t)
	ada := enter(t, base, "Ada").connect(t)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	frame, err := ws.ReadFrame(ada.from)
	require.NoError(t, err)
	require.Equal(t, ws.OpClose, frame.Header.OpCode)
	code, _ := ws.ParseCloseFrameData(frame.Payload)
	assert.Equal(t, ws.StatusCode(1012), code)
	require.NoError(t, ws.WriteFrame(ada.conn, ws.MaskFrame(ws.NewCloseFrame(frame.Payload)))) // the server waits for it
	<-stopped
}

// The console is off without a password, and asks for it.
func TestConsoleNeedsAPassword(t *testing.T) {
	status := func(base, password string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, base+"/console/data", nil)
		require.NoError(t, err)
		if password != "" {
			r.SetBasicAuth("ops", password)
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		return answer.StatusCode
	}
	const password = "correct horse battery"
	base, stop := startWith(t, Config{Password: password})
	defer stop()
	assert.Equal(t, http.StatusUnauthorized, status(base, ""))
	assert.Equal(t, http.StatusUnauthorized, status(base, "wrong"))
	assert.Equal(t, http.StatusOK, status(base, password))

	off, stopOff := startWith(t, Config{})
	defer stopOff()
	assert.Equal(t, http.StatusNotFound, status(off, password))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorContains(t, Serve(t.Context(), listener, io.Discard, Config{Password: "short"}), "it needs 16")
}
