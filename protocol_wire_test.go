package pushy_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// Issue 11, number 35: what PROTOCOL.md says of the auth endpoint, of HTTP statuses,
// of frames and of examples, tried on a running server.

func TestProtocolAuthRows(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	id := "&connection_id=" + someID
	good, upper := "channel=private-x"+id, strings.ToUpper(someID)
	srv := startServer(t, pushy.Options{SecretKey: vectorKey})
	const asJSON = "application/json"
	byMessage := map[string]struct {
		method, contentType, body, origin string
		reader                            io.Reader
		err                               error
		most                              int64 // of http.MaxBytesHandler
	}{
		"malformed body":                         {contentType: asJSON, body: "{"},
		"cannot read the body":                   {reader: broken{}},
		"channel and connection_id are needed":   {body: "channel=private-x"},
		"channel name …":                         {body: "channel=private-a:b" + id},
		"connection_id is not a connection's id": {body: "channel=private-x&connection_id=" + upper},
		"authentication needed":                  {body: good, err: pushy.ErrNeedAuth},
		"not authorized":                         {body: good, err: pushy.ErrDenied},
		"Internal error":                         {body: good, err: errBroker},
		"for people":                             {body: good, origin: "https://evil.example"},
		"the host's":                             {body: good, err: &pushy.Error{Code: "429", Message: "Later"}},
		"at most 100 channels are allowed":       {body: good + strings.Repeat("&channel=x", 100)},
		"body over 64 KiB":                       {body: good + strings.Repeat("&", 64<<10)},

		"method not allowed: POST channel and connection_id": {method: "GET"},
		"the channel is not private: it needs no token":      {body: "channel=x" + id},
		"the body did not come in time":                      {}, // below

		"the body is over the limit of … bytes that middleware sets (http.MaxBytesHandler or http.MaxBytesReader)": {
			body: good,
			most: 8,
		},
		"body must be application/x-www-form-urlencoded (URLSearchParams) or application/json": {
			contentType: "text/plain",
			body:        good,
		},
	}
	rows := tableRows(protocolSection(t, "## 11. The auth endpoint"))
	require.Len(t, rows, len(byMessage))
	for _, row := range rows {
		message := strings.Trim(row[1], "`")
		c, found := byMessage[message]
		require.True(t, found, message)
		if message == "the body did not come in time" {
			continue
		}
		var body io.Reader = strings.NewReader(c.body)
		if c.reader != nil {
			body = c.reader
		}
		r := httptest.NewRequest(cmp.Or(c.method, "POST"), "/auth", body)
		r.Header.Set("Content-Type", cmp.Or(c.contentType, form))
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		h := srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, c.err })
		http.MaxBytesHandler(h, cmp.Or(c.most, 1<<20)).ServeHTTP(w, r)
		status := row[0]
		if message == "the host's" {
			status = "429"
		}
		assert.Equal(t, status, strconv.Itoa(w.Code), "%s: %s", message, w.Body)
		code, text := httpError(t, w.Result())
		assert.Equal(t, status, code)
		if strings.HasPrefix(row[1], "`") {
			assert.Regexp(t, "^"+strings.ReplaceAll(regexp.QuoteMeta(message), "…", ".+")+"$", text)
		}
	}

	// A body that does not come needs a connection.
	slow := startServer(t, pushy.Options{SecretKey: vectorKey, BodyTimeout: time.Second})
	web := httptest.NewServer(slow.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }))
	t.Cleanup(web.Close)
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: "+form+"\r\nContent-Length: 9\r\n\r\nc")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(clientPatience)))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	assert.Equal(t, 408, answer.StatusCode)
	_, text := httpError(t, answer)
	assert.Equal(t, "the body did not come in time", text)
}

// The texts of the answers to handshakes and callbacks that are not valid.
func TestProtocolHandshakeRows(t *testing.T) {
	t.Parallel()
	_, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{Legacy: true}})
	host := strings.TrimPrefix(baseURL, "http://")
	const (
		upgrade = "Upgrade: websocket\r\n"
		connect = "Connection: Upgrade\r\n"
		version = "Sec-WebSocket-Version: 13\r\n"
		key     = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		plain   = "GET /pushy/socket/websocket HTTP/1.1\r\nHost: x\r\n"
	)
	byText := map[string]string{
		`Can "Upgrade" only to "WebSocket".`: plain + connect + version + key,

		`"Connection" must be "Upgrade".`: plain + upgrade + version + key,

		`"Sec-WebSocket-Version" must be 13.`: plain + upgrade + connect + "Sec-WebSocket-Version: 8\r\n" + key,

		`HTTP/1.1 is needed.`: strings.Replace(plain, "1.1", "1.0", 1) + upgrade + connect + version + key,

		`No body is allowed.`: plain + upgrade + connect + version + key + "Content-Length: 1\r\n",

		`"Sec-WebSocket-Key" must be 16 bytes in base64.`: plain + upgrade + connect + version + "Sec-WebSocket-Key: x\r\n",

		`"callback" parameter required`: "GET /pushy/socket/0/s/jsonp HTTP/1.1\r\nHost: x\r\n",

		`invalid "callback" parameter`: "GET /pushy/socket/0/s/htmlfile?c=a(b HTTP/1.1\r\nHost: x\r\n",
	}
	listed := 0
	for _, row := range tableRows(protocolSection(t, "### HTTP statuses of the endpoints under /pushy/socket")) {
		if len(row) != 2 {
			continue
		}
		listed++
		text := strings.Trim(row[0], "`")
		request, found := byText[text]
		require.True(t, found, text)
		conn, err := net.Dial("tcp", host)
		require.NoError(t, err)
		_, err = io.WriteString(conn, request+"\r\n")
		require.NoError(t, err)
		if strings.Contains(request, "Content-Length: 1\r\n") {
			_, err = io.WriteString(conn, "x") // net/http reads it before it answers
		}
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(clientPatience)))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		body := make([]byte, answer.ContentLength)
		_, err = io.ReadFull(answer.Body, body)
		require.NoError(t, err)
		assert.Equal(t, text, string(body))
		status := 400
		if strings.HasPrefix(row[1], "426") {
			status = 426
			assert.Equal(t, "13", answer.Header.Get("Sec-WebSocket-Version"))
		}
		assert.Equal(t, status, answer.StatusCode, text)
		require.NoError(t, conn.Close())
	}
	assert.Len(t, byText, listed)
}

// post sends a body to a SockJS session and returns the status and the answer's body.
func post(t *testing.T, baseURL, path, body string) (status int, text string) {
	t.Helper()
	answer, err := http.Post(baseURL+"/pushy/socket"+path, "text/plain", strings.NewReader(body))
	require.NoError(t, err)
	raw, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode, string(raw)
}

// Section 2, over HTTP: what xhr_send answers, and D27 and D29.
func TestProtocolSendRows(t *testing.T) {
	t.Parallel()
	// Sessions must outlast a pause on a busy machine.
	_, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{DisconnectDelay: time.Minute}})
	framed := func(data string) string {
		return `a["` + strings.ReplaceAll(`{"event":"pushy:error","data":`+data+`}`, `"`, `\"`) + "\"]\n"
	}
	bogus := framed(`{"message":"Bogus message recieved","code":"100"}`)
	unknown := framed(`{"message":"Unknown command","code":"200","id":1}`)
	for i, c := range []struct {
		body     string
		status   int
		answer   string
		received string
	}{
		{`["{\"command\":\"x\",\"id\":1}"]`, 204, "", unknown},
		{`"{\"command\":\"x\",\"id\":1}"`, 204, "", unknown},
		{` [ "{\"command\":\"x\",\"id\":1}" ] `, 204, "", unknown},
		{`5`, 204, "", bogus},
		{`"5"`, 204, "", bogus},
		{`null`, 204, "", bogus},
		{`true`, 204, "", bogus},
		{`{}`, 204, "", bogus},
		{`{"command":"x"}`, 204, "", bogus},
		{`[1]`, 204, "", bogus},
		{`[[]]`, 204, "", bogus},
		{`[null]`, 204, "", bogus},
		{`""`, 204, "", bogus},
		{`[]`, 204, "", ""},
		{``, 500, "Payload expected.", ""},
		{` `, 500, "Broken JSON encoding.", ""},
		{`[`, 500, "Broken JSON encoding.", ""},
		{`["a",]`, 500, "Broken JSON encoding.", ""},
		{`not JSON`, 500, "Broken JSON encoding.", ""},
		{`["` + strings.Repeat("x", 64<<10+1) + `"]`, 413, "", ""},
	} {
		session := fmt.Sprintf("/0/send%d", i)
		status, text := post(t, baseURL, session+"/xhr_send", c.body)
		require.Equal(t, 404, status, "before the session is open")
		require.Equal(t, "404 Error: Page not found\n", text)
		_, text = post(t, baseURL, session+"/xhr", "")
		require.Equal(t, "o\n", text)
		_, text = post(t, baseURL, session+"/xhr", "")
		require.Contains(t, text, "pushy:connect")
		status, text = post(t, baseURL, session+"/xhr_send", c.body)
		assert.Equal(t, c.status, status, "%.20s", c.body)
		if c.status != 413 {
			assert.Equal(t, c.answer, text, "%.20s", c.body)
		}
		if c.received == "" { // the session goes on, and nothing is before this answer
			status, _ = post(t, baseURL, session+"/xhr_send", `["{\"command\":\"x\",\"id\":1}"]`)
			require.Equal(t, 204, status)
			c.received = unknown
		}
		_, text = post(t, baseURL, session+"/xhr", "")
		assert.Equal(t, c.received, text, "%.20s", c.body)
	}
	for id, want := range map[string]int{
		strings.Repeat("a", 64): 200,
		strings.Repeat("a", 65): 404,
		"Z_-9":                  200,
		"a.b":                   404,
		"a%20b":                 404,
		"%C3%A9":                404,
		"a~":                    404,
	} {
		status, _ := post(t, baseURL, "/0/"+id+"/xhr", "")
		assert.Equal(t, want, status, id)
	}
}

// Section 2: the statuses with which a connection is refused, on every transport.
func TestProtocolRefusalsAtConnect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		options    pushy.Options
		before     func(t *testing.T, srv *pushy.Server)
		origin     string
		status     int
		code       string
		retryAfter string
	}{
		{name: "needAuth", options: accepting(pushy.ErrNeedAuth), status: 401, code: "401"},
		{name: "denied", options: accepting(pushy.ErrDenied), status: 403, code: "403"},
		{name: "otherError", options: accepting(errBroker), status: 403, code: "403"},
		{name: "ownStatus", options: accepting(&pushy.Error{Code: "402", Message: "Pay"}), status: 402, code: "402"},
		{name: "ownCode", options: accepting(&pushy.Error{Code: "banned", Message: "No"}), status: 403, code: "banned"},
		{name: "origin", origin: "https://evil.example", status: 403, code: "403"},
		{
			name:       "full",
			options:    pushy.Options{Limits: pushy.Limits{Connections: 1}},
			before:     func(t *testing.T, srv *pushy.Server) { connectPeer(t, srv) },
			status:     503,
			code:       "503",
			retryAfter: "5",
		},
		{
			name:       "shutdown",
			before:     func(t *testing.T, srv *pushy.Server) { require.NoError(t, srv.Shutdown(t.Context())) },
			status:     503,
			code:       "503",
			retryAfter: "5",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, c.options)
			if c.before != nil {
				c.before(t, srv)
			}
			for _, door := range []struct {
				method, path string
				header       []string
			}{
				{"GET", "/websocket", upgradeHeader},
				{"GET", "/0/s/websocket", upgradeHeader},
				{"POST", "/0/s/xhr", nil},
				{"POST", "/0/s/xhr_streaming", nil},
				{"GET", "/0/s/eventsource", nil},
			} {
				header := door.header
				if c.origin != "" {
					header = append([]string{"Origin", c.origin}, header...)
				}
				w := ask(allAbilities(srv), door.method, "/pushy/socket"+door.path, header...)
				assert.Equal(t, c.status, w.StatusCode, door.path)
				assert.Equal(t, c.retryAfter, w.Header.Get("Retry-After"), door.path)
				code, _ := httpError(t, w)
				assert.Equal(t, c.code, code, door.path)
			}
		})
	}
}

func accepting(err error) pushy.Options {
	return pushy.Options{Accept: func(*http.Request) (any, error) { return nil, err }}
}

// Section 2: binary messages, and frames that are not what they should be, D28.
func TestProtocolFrames(t *testing.T) {
	t.Parallel()
	_, baseURL := serve(t, pushy.Options{})
	const command = `{"command":"x","id":1}`
	const unknown = `{"event":"pushy:error","data":{"message":"Unknown command","code":"200","id":1}}`
	const bogus = `{"event":"pushy:error","data":{"message":"Bogus message recieved","code":"100"}}`
	for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		bare, framed := dial(t, baseURL, false), dial(t, baseURL, true)
		bare.SendFrame(op, command)
		assert.Equal(t, unknown, bare.Receive())
		framed.SendFrame(op, `["`+strings.ReplaceAll(command, `"`, `\"`)+`"]`)
		assert.Equal(t, unknown, framed.Receive())
		for _, text := range []string{`5`, `null`, `[]`, `"{}"`, `{`, ``} {
			bare.SendFrame(op, text)
			assert.Equal(t, bogus, bare.Receive(), text)
		}
		framed.SendFrame(op, ``) // ignored
		framed.SendFrame(op, `[]`)
		for _, text := range []string{`5`, `null`, `{}`, `[1]`, `"5"`, `""`} {
			framed.SendFrame(op, text)
			assert.Equal(t, bogus, framed.Receive(), text)
		}
		framed.SendFrame(op, `not JSON`)
		code, reason := framed.Closed() // no c frame comes before
		assert.Equal(t, 1002, code)
		assert.Equal(t, "Broken framing.", reason)

		bare.SendFrame(op, "\xff")
		code, reason = bare.Closed()
		assert.Equal(t, 1007, code)
		assert.Equal(t, "message is not UTF-8", reason)
		framed = dial(t, baseURL, true)
		framed.SendFrame(op, "\"\xff\"")
		assert.Equal(t, `c[1007,"message is not UTF-8"]`, framed.Next())
		code, _ = framed.Closed()
		assert.Equal(t, 1007, code)

		large := `"` + strings.Repeat("x", 64<<10+1) + `"`
		bare, framed = dial(t, baseURL, false), dial(t, baseURL, true)
		bare.SendFrame(op, large)
		code, reason = bare.Closed()
		assert.Equal(t, 1009, code)
		assert.Equal(t, "message too big", reason)
		framed.SendFrame(op, large)
		assert.Equal(t, `c[1009,"message too big"]`, framed.Next())
		code, _ = framed.Closed()
		assert.Equal(t, 1009, code)
	}
}

// Section 3: the server's answer to a client's close frame.
func TestProtocolAnswersToCloseFrames(t *testing.T) {
	t.Parallel()
	_, baseURL := serve(t, pushy.Options{})
	for _, framed := range []bool{false, true} {
		for _, code := range []int{
			1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 2010,
			3000, 3001, 3499, 3500, 3999, 4000, 4001, 4999,
			0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000,
		} {
			want := code
			if code < 1000 || code >= 1004 && code <= 1006 || code >= 1015 && code <= 2999 || code > 4999 {
				want = 1002
			}
			assert.Equal(t, want, dial(t, baseURL, framed).Close(code, "x"), "code %d", code)
		}
		assert.Equal(t, 1007, dial(t, baseURL, framed).Close(1000, "\xff"))
		c := dial(t, baseURL, framed)
		c.SendFrame(ws.OpClose, "")
		answer, err := c.read()
		require.NoError(t, err)
		assert.Equal(t, ws.OpClose, answer.Header.OpCode)
		assert.Empty(t, answer.Payload)
		c = dial(t, baseURL, framed)
		c.SendFrame(ws.OpClose, "x")
		answer, err = c.read()
		require.NoError(t, err)
		status, _ := ws.ParseCloseFrameData(answer.Payload)
		assert.EqualValues(t, 1002, status)
	}
}

// skeleton is a JSON text with every value replaced by its kind: what stays are the
// names of fields and their order.
func skeleton(t *testing.T, text string) string {
	t.Helper()
	tokens := json.NewDecoder(strings.NewReader(text))
	tokens.UseNumber()
	var b strings.Builder
	var isObject []bool
	name := false
	for {
		token, err := tokens.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		require.NoError(t, err, "%s", text)
		inObject := len(isObject) > 0 && isObject[len(isObject)-1]
		switch token := token.(type) {
		case json.Delim:
			b.WriteString(token.String())
			if token == '{' || token == '[' {
				isObject = append(isObject, token == '{')
				name = token == '{'
				continue
			}
			isObject = isObject[:len(isObject)-1]
		case string:
			if inObject && name {
				b.WriteString(token + ":")
				name = false
				continue
			}
			b.WriteString("string ")
		case json.Number:
			b.WriteString("number ")
		default:
			fmt.Fprintf(&b, "%v ", token)
		}
		name = len(isObject) > 0 && isObject[len(isObject)-1]
	}
}

// Section 2: each event that a server sends has the fields of its example, in their
// order. Those of the commands are its own, too.
func TestProtocolExamplesAreWhatIsSent(t *testing.T) {
	t.Parallel()
	shared := newForeign()
	srv, baseURL := serve(t, pushy.Options{
		SecretKey: vectorKey,
		Broker:    shared,
		Channel:   func(string) pushy.ChannelOptions { return pushy.ChannelOptions{ClientEvent: relay} },
	})
	small, smallURL := serve(t, pushy.Options{ReturnRate: 1})
	pushy.Handle(srv, "play", func(context.Context, *pushy.Conn, struct{}) (struct {
		Turn int `json:"turn"`
	}, error) {
		return struct {
			Turn int `json:"turn"`
		}{7}, nil
	})
	srv.RegisterCommand("list", func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		_ = c.Reply("list", []string{"a", "b"})
	})
	received := map[string]string{} // by event
	keep := func(text string) string {
		var m struct{ Event string }
		require.NoError(t, json.Unmarshal([]byte(text), &m))
		received[m.Event] = text
		return m.Event
	}
	ann := dial(t, baseURL, false)
	token := func(c *client, data string) string {
		return ownSum(c.id + ":private-room" + data + ":" + vectorKey)
	}
	for _, text := range []string{
		`{"command":"nothing","id":4}`,
		`{"command":"play","id":5}`,
		`{"command":"subscribe","id":2,"data":{"channel":"private-room"}}`,
		`{"command":"subscribe","id":2,"data":{"channel":"private-room","auth":"x"}}`,
		`{"command":"subscribe","id":2,"data":{"channel":"private-room","auth":"` + token(ann, "") + `"}}`,
		`{"command":"subscribe","id":1,"data":{"channel":"news"}}`,
	} {
		ann.Send(text)
		keep(ann.Receive())
	}
	require.NoError(t, srv.Publish(t.Context(), "news", "headline", map[string]string{"text": "Hello"}))
	keep(ann.Receive())
	shared.sink.Reset("news", broker.State{}, broker.ResetGap)
	keep(ann.Receive())
	conn, ok := srv.Conn(ann.id)
	require.True(t, ok)
	require.NoError(t, conn.Send("welcome", map[string]string{"name": "Ann"}))
	keep(ann.Receive())
	ann.Send(`{"command":"unsubscribe","id":3,"data":{"channel":"news"}}`)
	keep(ann.Receive())

	bob := dial(t, baseURL, false)
	bob.Send(`{"command":"subscribe","id":2,"data":{"channel":"private-room","auth":"` +
		token(bob, `:{"name":"Bob"}`) + `","data":{"name":"Bob"}}}`)
	withPresence := bob.Receive()
	require.Equal(t, "pushy:presence-sync", keep(ann.Receive()))
	require.Equal(t, "pushy:presence-add", keep(ann.Receive()))
	bobs, ok := srv.Conn(bob.id)
	require.True(t, ok)
	room, ok := srv.Channels().Lookup("private-room")
	require.True(t, ok)
	require.NoError(t, room.Update(bobs, map[string]bool{"typing": true}))
	require.Equal(t, "pushy:presence-update", keep(ann.Receive()))
	cyd := dial(t, baseURL, false)
	cyd.Send(`{"command":"subscribe","data":{"channel":"private-room","auth":"` + token(cyd, "") + `","presence":"diff"}}`)
	cyd.Receive()
	require.Contains(t, ann.Receive(), "pushy:presence-add")
	cyd.Send(`{"event":"client-typing","channel":"private-room","data":{"to":"all"}}`)
	require.Equal(t, "client-typing", keep(ann.Receive()))
	bob.Close(1000, "")
	require.Equal(t, "pushy:presence-quit", keep(ann.Receive()))
	require.Equal(t, "pushy:presence-diff", keep(cyd.Receive()))

	returning := dial(t, smallURL, false, withPath("/pushy/socket/websocket?v=2"))
	other := dial(t, smallURL, false)
	require.Equal(t, "pushy:return", keep(returning.Receive()))
	ended := make(chan error, 1)
	go func() { ended <- small.Shutdown(t.Context()) }()
	require.Equal(t, "pushy:drain", keep(returning.Receive()))
	_ = returning.conn.Close()
	_ = other.conn.Close()
	require.NoError(t, <-ended)

	compared := 0
	for _, row := range tableRows(protocolSection(t, "### Events that the server sends")) {
		example := spans(row[2])[0]
		var m struct{ Event string }
		require.NoError(t, json.Unmarshal([]byte(example), &m))
		if m.Event == "pushy:connect" {
			continue // dial has received it
		}
		if m.Event == "pushy:dropped" {
			continue // TestLatestOnOtherNodes compares it, with a slow client
		}
		compared++
		got := skeleton(t, received[m.Event])
		switch m.Event {
		case "pushy:drain": // its moment is one of two, which random order decides
			require.Contains(t, []string{"0", "1000", "999"}, strings.Trim(received[m.Event][len(`{"event":"pushy:drain","data":{"returnIn":`):], "}"))
			received[m.Event] = example
		case "pushy:presence-sync": // of a member without data
			example = strings.Replace(example, `"name":"Bob",`, "", 1)
		case "pushy:presence-quit": // of a member with a state
			example = strings.Replace(example, `"idle":false`, `"idle":false,"state":{"typing":true}`, 1)
		}
		assert.Equal(t, skeleton(t, example), got, "%s", received[m.Event])
		if !strings.Contains(m.Event, "success") && m.Event != "client-typing" && !strings.Contains(m.Event, "presence") {
			assert.Equal(t, example, received[m.Event])
		}
	}
	assert.Equal(t, 17, compared)
	// The longer example of section 3 is of the first member, this is of the second.
	assert.Equal(t, `{event:string data:{channel:string memberId:string presence:[`+
		`{subscribed:number memberId:string idle:false }`+
		`{name:string subscribed:number memberId:string idle:false }]id:number }}`, skeleton(t, withPresence))

	// The rules about ids in section 3.
	ann.Send(`{"command":"list","id":7}`)
	list := ann.Receive()
	ann.Send(`{"command":"nothing","id":7}`)
	answers := protocolSection(t, "### Answers and ids")
	assert.Contains(t, answers, "`"+list+"`")
	assert.Contains(t, answers, "`"+ann.Receive()+"`")
	assert.Equal(t, "rawwebsocket", ann.protocol)
	assert.Equal(t, "websocket", dial(t, baseURL, true).protocol)
}

// Section 9: the rules about origins, for a server at http://example.com.
func TestProtocolOriginRules(t *testing.T) {
	t.Parallel()
	const own, other = "http://example.com", "https://friend.example"
	servers := []*pushy.Server{
		startServer(t, pushy.Options{}),
		startServer(t, pushy.Options{Origins: []string{other}}),
		startServer(t, pushy.Options{AllowOrigin: func(_ *http.Request, page string) bool { return page == other }}),
		startServer(t, pushy.Options{Origins: []string{"*"}}),
	}
	for _, c := range []struct {
		header  []string
		allowed []bool // by each of the servers
	}{
		{nil, []bool{true, true, true, true}},
		{[]string{"Origin", own}, []bool{true, true, true, true}},
		{[]string{"Origin", "https://example.com"}, []bool{true, true, true, true}},
		{[]string{"Origin", own + ":81"}, []bool{false, false, false, true}},
		{[]string{"Origin", other}, []bool{false, true, true, true}},
		{[]string{"Origin", "null"}, []bool{false, false, false, true}},
		{[]string{"Origin", own, "Origin", own}, []bool{false, false, false, true}},
		{[]string{"Sec-Fetch-Site", "same-origin"}, []bool{true, true, true, true}},
		{[]string{"Sec-Fetch-Site", "none"}, []bool{true, true, true, true}},
		{[]string{"Sec-Fetch-Site", "cross-site"}, []bool{false, false, false, true}},
		{[]string{"Sec-Fetch-Site", "cross-site", "Referer", other + "/x"}, []bool{false, true, true, true}},
		{[]string{"Sec-Fetch-Site", "same-site", "Referer", own + "/x"}, []bool{false, false, false, true}},
		{[]string{"Referer", own + "/x"}, []bool{true, true, true, true}},
		{[]string{"Referer", other + "/x"}, []bool{false, true, true, true}},
		{[]string{"Referer", "https://evil.example/x"}, []bool{false, false, false, true}},
		{[]string{"Origin", other, "X-Forwarded-Host", "friend.example"}, []bool{false, true, true, true}},
	} {
		for i, srv := range servers {
			w := ask(srv, "GET", own+"/pushy/socket/info", c.header...)
			status := 403
			if c.allowed[i] {
				status = 200
			}
			assert.Equal(t, status, w.StatusCode, "server %d: %s", i, c.header)
			assert.Equal(t, "Origin", w.Header.Values("Vary")[0])
			assert.Equal(t, c.allowed[i] && i < 3, w.Header.Get("Content-Security-Policy") != "", "server %d", i)
		}
	}
}

// Section 1: the cookie for load balancers, and a server without WebSockets.
func TestProtocolSockJSOptions(t *testing.T) {
	t.Parallel()
	info := func(o pushy.SockJS) (srv *pushy.Server, text string) {
		srv = startServer(t, pushy.Options{SockJS: o})
		body, err := io.ReadAll(ask(srv, "GET", "/pushy/socket/info").Body)
		require.NoError(t, err)
		return srv, string(body)
	}
	srv, text := info(pushy.SockJS{})
	row := spans(protocolSection(t, "## 1. Endpoints"))
	i := slices.IndexFunc(row, func(text string) bool { return strings.HasPrefix(text, `{"websocket"`) })
	entropy := regexp.MustCompile(`"entropy":\d+`)
	assert.Equal(t, entropy.ReplaceAllString(row[i], ""), entropy.ReplaceAllString(text, ""))
	assert.Empty(t, ask(allAbilities(srv), "POST", "/pushy/socket/0/s/xhr").Header.Get("Set-Cookie"))

	srv, text = info(pushy.SockJS{JSessionID: true})
	assert.Contains(t, text, `"cookie_needed":true`)
	cookie := ask(allAbilities(srv), "POST", "/pushy/socket/0/s/xhr").Header.Get("Set-Cookie")
	assert.Equal(t, "JSESSIONID=dummy; Path=/", cookie)

	srv, text = info(pushy.SockJS{DisableWebSocket: true})
	assert.Contains(t, text, `"websocket":false`)
	for _, path := range []string{"/websocket", "/0/s/websocket"} {
		assert.Equal(t, 404, ask(allAbilities(srv), "GET", "/pushy/socket"+path, upgradeHeader...).StatusCode)
	}
}

// Section 3: what an Authorizer's errors are for the client.
func TestProtocolHostsOwnRule(t *testing.T) {
	t.Parallel()
	shown := &pushy.Error{Code: "paid", Message: "Members only"}
	for _, c := range []struct {
		err    error
		answer string
	}{
		{pushy.ErrNeedAuth, `pushy:subscription-needauth {"channel":"news"}`},
		{
			errors.Join(pushy.ErrNeedAuth, shown),
			`pushy:subscription-needauth {"channel":"news","reason":"Members only","code":"paid"}`,
		},
		{shown, `pushy:subscription-failed {"channel":"news","reason":"Members only","code":"paid"}`},
		{&pushy.Error{Message: "No"}, `pushy:subscription-failed {"channel":"news","reason":"No"}`},
		{&pushy.Error{}, `pushy:subscription-failed {"channel":"news","reason":"Invalid credentials"}`},
		{pushy.ErrDenied, `pushy:subscription-failed {"channel":"news","reason":"Invalid credentials"}`},
		{errBroker, `pushy:subscription-failed {"channel":"news","reason":"Temporarily unavailable"}`},
	} {
		srv := startServer(t, pushy.Options{Authorizer: allowAll{c.err}})
		p := connectPeer(t, srv)
		p.send(`{"command":"subscribe","data":{"channel":"News"}}`)
		p.expect(c.answer)
		p.quiet()
	}
}

// Section 2: the content type and the beginning of each HTTP transport's response.
func TestProtocolResponsesOverHTTP(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{Legacy: true}})
	begins := map[string]string{
		"xhr":           "o\n",
		"xhr_streaming": strings.Repeat("h", 2048) + "\no\na[",
		"eventsource":   "\r\ndata: o\r\n\r\ndata: a[",
		"jsonp":         "/**/cb(\"o\");\r\n",
		"htmlfile":      "<!doctype html>\n",
	}
	for _, row := range tableRows(protocolSection(t, "### Over HTTP"))[:len(begins)] {
		transport, contentType := spans(row[0])[0], spans(row[2])[0]
		path := "/0/" + transport + "/" + transport
		if strings.Contains(row[1], "callback") {
			path += "?c=cb"
		}
		answer := knock(t, baseURL, spans(row[1])[0], path)
		assert.Equal(t, contentType, answer.Header.Get("Content-Type"), transport)
		text := make([]byte, len(begins[transport]))
		_, err := io.ReadFull(answer.Body, text)
		require.NoError(t, err, transport)
		assert.Equal(t, begins[transport], string(text))
	}
	require.NoError(t, srv.Close()) // ends the streams
}
