package sockjs_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/session"
)

// The rules of SockJS 0.3.3 that the test suite of the protocol checks.

const notCached = "no-store, no-cache, no-transform, must-revalidate, max-age=0"

func TestSuiteURLs(t *testing.T) {
	t.Parallel()
	s := serveSite(t, func(s *site) {
		s.cfg.SessionID = func(id string) bool { return id != "forbidden" }
	})
	tests := []struct {
		method, path string
		status       int
		body, ctype  string
	}{
		{"GET", "", 200, "Welcome to SockJS!\n", "text/plain; charset=UTF-8"},
		{"GET", "/", 200, "Welcome to SockJS!\n", "text/plain; charset=UTF-8"},
		{"GET", "/a", 404, "", ""},
		{"GET", "/a.html", 404, "", ""},
		{"GET", "//", 404, "", ""},
		{"GET", "///", 404, "", ""},
		{"GET", "/a/a", 404, "", ""},
		{"GET", "/a/a/", 404, "", ""},
		{"GET", "/iframe", 404, "", ""},
		{"GET", "/IFRAME.HTML", 404, "", ""},
		{"GET", "/iframe.htm", 404, "", ""},
		{"POST", "//a/xhr", 404, "", ""},
		{"POST", "/a//xhr", 404, "", ""},
		{"POST", "/a./a/xhr", 404, "", ""},
		{"POST", "/a/a./xhr", 404, "", ""},
		{"POST", "/./a/xhr", 404, "", ""},
		{"POST", "/a/forbidden/xhr", 404, "", ""},
		{"POST", "/a/a/xhr/", 404, "", ""},
		{"POST", "/a/a/unknown", 404, "", ""},
		{"POST", "/a/unknown/xhr_send", 404, "", ""},
		{"POST", "/a/unknown/jsonp_send", 404, "", ""},
		{"GET", "/a/a/xhr", 405, "", ""},
		{"GET", "/a/a/xhr_send", 405, "", ""},
		{"GET", "/a/a/xhr_streaming", 405, "", ""},
		{"POST", "/a/a/eventsource", 405, "", ""},
		{"POST", "/a/a/htmlfile", 405, "", ""},
		{"POST", "/a/a/jsonp", 405, "", ""},
		{"GET", "/a/a/jsonp_send", 405, "", ""},
		{"POST", "/info", 405, "", ""},
		{"POST", "/iframe.html", 405, "", ""},
	}
	for _, tt := range tests {
		got := s.call(tt.method, tt.path, "")
		assert.Equal(t, tt.status, got.status, "%s %s", tt.method, tt.path)
		if tt.body != "" {
			assert.Equal(t, tt.body, got.body)
			assert.Equal(t, tt.ctype, got.header.Get("Content-Type"))
		}
		if tt.status == 405 {
			assert.Empty(t, got.body)
			assert.NotEmpty(t, got.header.Get("Allow"))
			assert.Empty(t, got.header.Get("Content-Type"))
		}
	}
	assert.Zero(t, s.admitted.Load(), "a request that was refused has opened a session")
}

func TestSuiteInfo(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		s := serveSite(t, func(s *site) { s.cfg.DisableWebSocket, s.cfg.JSessionID = off, off })
		info := regexp.MustCompile(`^\{"websocket":(true|false),"origins":\["\*:\*"\],"cookie_needed":(true|false),"entropy":([0-9]+)\}$`)
		entropies := map[string]bool{}
		for range 3 {
			got := s.call("GET", "/info", "", "Origin", "http://a.example")
			assert.Equal(t, 200, got.status)
			assert.Equal(t, "application/json; charset=UTF-8", got.header.Get("Content-Type"))
			assert.Equal(t, notCached, got.header.Get("Cache-Control"))
			assert.Equal(t, "http://a.example", got.header.Get("Access-Control-Allow-Origin"))
			assert.Empty(t, got.header.Get("Set-Cookie"))
			m := info.FindStringSubmatch(got.body)
			require.NotNil(t, m, got.body)
			assert.Equal(t, off, m[1] == "false")
			assert.Equal(t, off, m[2] == "true")
			entropies[m[3]] = true
		}
		assert.Greater(t, len(entropies), 1)
		want := http.StatusBadRequest
		if off {
			want = http.StatusNotFound
		}
		assert.Equal(t, want, s.call("GET", "/0/0/websocket", "").status)
	}
}

func TestSuitePreflight(t *testing.T) {
	t.Parallel()
	s := serveSite(t)
	for path, method := range map[string]string{
		"/info": "GET", "/a/a/xhr": "POST", "/a/a/xhr_send": "POST", "/a/a/xhr_streaming": "POST",
		"/a/a/eventsource": "GET", "/a/a/jsonp": "GET", "/a/a/jsonp_send": "POST",
	} {
		for _, origin := range []string{"http://a.example", "null"} {
			got := s.call("OPTIONS", path, "", "Origin", origin, "Access-Control-Request-Headers", "X-A")
			assert.Equal(t, 204, got.status, path)
			assert.Empty(t, got.body)
			assert.Equal(t, "public, max-age=31536000", got.header.Get("Cache-Control"))
			assert.NotEmpty(t, got.header.Get("Expires"))
			assert.Equal(t, "31536000", got.header.Get("Access-Control-Max-Age"))
			assert.Equal(t, "OPTIONS, "+method, got.header.Get("Access-Control-Allow-Methods"))
			assert.Equal(t, "X-A", got.header.Get("Access-Control-Allow-Headers"))
			assert.Equal(t, origin, got.header.Get("Access-Control-Allow-Origin"))
			assert.Equal(t, "true", got.header.Get("Access-Control-Allow-Credentials"))
		}
	}
	assert.Zero(t, s.admitted.Load())
}

// Every transport opens with o, echoes, and sends a close code, also to later requests.
func TestSuiteTransports(t *testing.T) {
	types := map[string]string{
		"xhr": "application/javascript; charset=UTF-8", "xhr_streaming": "application/javascript; charset=UTF-8",
		"eventsource": "text/event-stream", "htmlfile": "text/html; charset=UTF-8", "jsonp": "application/javascript; charset=UTF-8",
	}
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t, func(s *site) { s.cfg.JSessionID = true })
		p := s.peer(c)
		require.NoError(t, p.request())
		head := p.response.Header
		assert.Equal(t, types[c.name], head.Get("Content-Type"))
		assert.Equal(t, notCached, head.Get("Cache-Control"))
		assert.Equal(t, "nosniff", head.Get("X-Content-Type-Options"))
		assert.Equal(t, "JSESSIONID=dummy; Path=/", head.Get("Set-Cookie"))
		assert.Equal(t, "o", p.next())
		host := s.session()
		assert.Equal(t, c.protocol, host.Protocol())
		p.send(`["x","<\/script>"]`)
		var got []string
		for len(got) < 2 {
			got = append(got, p.receive()...)
		}
		assert.Equal(t, []string{"x", "</script>"}, got)
		p.send(`[]`)
		host.close(3000, "Go away!")
		for range 3 {
			assert.Equal(t, `c[3000,"Go away!"]`, p.next())
		}
		p.abort()
		host.wait(t)
		sendPath, status := c.sending()
		assert.Equal(t, status, s.post(p.path(sendPath), `["late"]`, "Content-Type", "text/plain").status, "row 24")
	})
}

// The bytes around frames.
func TestSuiteFraming(t *testing.T) {
	want := map[string]string{
		"xhr":           "o\n",
		"xhr_streaming": strings.Repeat("h", 2048) + "\no\nc[3000,\"\\\"</script>\"]\n",
		"eventsource":   "\r\ndata: o\r\n\r\ndata: c[3000,\"\\\"</script>\"]\r\n\r\n",
		"jsonp":         "/**/cb(\"o\");\r\n",
		"htmlfile": "<script>\np(\"o\");\n</script>\r\n" +
			"<script>\np(\"c[3000,\\\"\\\\\\\"\\u003c/script>\\\"]\");\n</script>\r\n",
	}
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		go func() { s.session().close(3000, `"</script>`) }()
		p := s.peer(c)
		got := s.call(c.method, p.path(c.name)+c.query(), "")
		if c.name == "htmlfile" {
			head, frames, ok := strings.Cut(got.body, "\r\n\r\n")
			require.True(t, ok)
			assert.GreaterOrEqual(t, len(head), 1024)
			assert.Contains(t, head, "var c = parent.cb;")
			got.body = frames
		}
		assert.Equal(t, want[c.name], got.body)
	})
}

// A streaming response ends at ResponseLimit, and a poll after its frame. The messages after that
// are not lost.
func TestSuiteResponseLimit(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t, func(s *site) { s.cfg.ResponseLimit = 4096 })
		p := s.open(c)
		host := s.session()
		text := strings.Repeat("x", 128)
		for range 64 {
			require.True(t, host.send(text))
		}
		got, responses := 0, 0
		for got < 64 {
			if p.response == nil {
				require.NoError(t, p.request())
				responses++
			}
			frame, err := p.frame()
			if err != nil {
				continue
			}
			n := strings.Count(frame, text)
			assert.LessOrEqual(t, n, 33, "a response over the limit")
			got += n
		}
		assert.Equal(t, 64, got)
		assert.GreaterOrEqual(t, responses, 1)
		p.abort()
	})
}

// sockjs.md row 20, and D22: callbacks must be names, so that nothing else is written into a page.
func TestRow20Callbacks(t *testing.T) {
	t.Parallel()
	s := serveSite(t)
	for _, name := range []string{"jsonp", "htmlfile"} {
		for query, want := range map[string]string{
			"": `"callback" parameter required`, "?c=": `"callback" parameter required`,
			"?c=%20": `invalid "callback" parameter`, "?c=*": `invalid "callback" parameter`,
			"?c=abc(": `invalid "callback" parameter`, "?c=a%0Ab": `invalid "callback" parameter`,
			"?c=" + strings.Repeat("a", 129): `invalid "callback" parameter`,
		} {
			got := s.call("GET", "/a/a/"+name+query, "")
			assert.Equal(t, 400, got.status, "%s%s", name, query)
			assert.Equal(t, want, got.body)
		}
		got := s.call("GET", "/a/"+name+"/jsonp?c=_jp.a-1", "")
		assert.Equal(t, "/**/_jp.a-1(\"o\");\r\n", got.body)
	}
}

// sockjs.md row 20: the old transports are served only if Legacy is set, and the iframe page loads
// only the script that the host has set.
func TestRow20LegacyIsOptIn(t *testing.T) {
	t.Parallel()
	paths := []string{"/a/a/jsonp?c=x", "/a/a/htmlfile?c=x", "/iframe.html", "/iframe-1.6.1.html"}
	off := serveSite(t, func(s *site) { s.cfg.Legacy = false })
	noScript := serveSite(t, func(s *site) { s.cfg.ScriptURL = "" })
	for _, path := range paths {
		assert.Equal(t, 404, off.call("GET", path, "").status, path)
	}
	assert.Equal(t, 404, off.post("/a/a/jsonp_send", "[]").status)
	assert.Equal(t, 404, noScript.call("GET", "/iframe.html", "").status)

	s := serveSite(t, func(s *site) { s.cfg.ScriptURL = `https://a.example/s.js?a="b"&c` })
	for _, path := range []string{"/iframe.html", "/iframe-a.html", "/iframe-0.1.2.html", "/iframe.html?t=1"} {
		got := s.call("GET", path, "", "Cookie", "a=b")
		require.Equal(t, 200, got.status, path)
		assert.Equal(t, "text/html; charset=UTF-8", got.header.Get("Content-Type"))
		assert.Contains(t, got.header.Get("Cache-Control"), "public")
		assert.Empty(t, got.header.Get("Set-Cookie"))
		assert.Contains(t, got.body, `<script src="https://a.example/s.js?a=&#34;b&#34;&amp;c"></script>`)
		assert.Equal(t, 1, strings.Count(got.body, "src="))
		assert.Equal(t, 304, s.call("GET", path, "", "If-None-Match", got.header.Get("ETag")).status)
	}
}

// The client of jsonp posts a form, or text.
func TestSuiteJSONPSend(t *testing.T) {
	t.Parallel()
	s := serveSite(t)
	p := s.open(carriers[4])
	form, text := "application/x-www-form-urlencoded", "text/plain"
	tests := []struct {
		body, ctype string
		status      int
		want        string
	}{
		{"d=%5B%22abc%22%5D", form, 200, "ok"},
		{"d=%5B%22abc%22%5D", form + "; charset=UTF-8", 200, "ok"},
		{`["%61bc"]`, text, 200, "ok"},
		{`["%61bc"]`, "", 200, "ok"},
		{"d=%5B%22x", form, 500, "Broken JSON encoding."},
		{"", form, 500, "Payload expected."},
		{"d=", form, 500, "Payload expected."},
		{"p=p", form, 500, "Payload expected."},
		{"d=%5B%5D", form, 200, "ok"},
	}
	for _, tt := range tests {
		got := s.post(p.path("jsonp_send"), tt.body, "Content-Type", tt.ctype)
		assert.Equal(t, tt.status, got.status, tt.body)
		assert.Equal(t, tt.want, got.body, tt.body)
		if tt.status == 200 {
			assert.Equal(t, "text/plain; charset=UTF-8", got.header.Get("Content-Type"))
			assert.Equal(t, notCached, got.header.Get("Cache-Control"))
		}
	}
	var got []string
	for len(got) < 4 {
		got = append(got, p.receive()...)
	}
	assert.Equal(t, []string{"abc", "abc", "%61bc", "%61bc"}, got)
}

// The characters that browsers and proxies change are escaped, and all escapes of clients are
// decoded.
func TestSuiteEncoding(t *testing.T) {
	t.Parallel()
	var killer, escaped strings.Builder
	for _, r := range [][2]rune{{0x200c, 0x200f}, {0x2028, 0x202f}, {0x2060, 0x206f}, {0xfff0, 0xffff}} {
		for c := r[0]; c <= r[1]; c++ {
			killer.WriteRune(c)
			escaped.WriteString(`\u` + hex4(c))
		}
	}
	s := serveSite(t)
	p := s.open(carriers[0])
	p.send(`["` + killer.String() + `"]`)
	assert.Equal(t, `a["`+escaped.String()+`"]`, p.next())
	p.send(`["` + escaped.String() + `\u0000\u007f\u00ad\u2126é"]`)
	assert.Equal(t, []string{killer.String() + "\x00\u007f\u00ad\u2126é"}, p.receive())
}

// percents are strings that unescape or decodeURI change, or for which they fail.
var percents = []string{`%`, `%41`, `100%`, `%5C%22`, `%u0041`, `%22],"x"`, `%0d%0a`, `%25`, `<%3c>`, `é%C3%A9`}

// sockjs-client decodes the frames of eventsource (unescape before 1.0, decodeURI since), and not
// those of other transports. This must not change any message or close reason. Issue 11, number 1.
func TestPercentSurvivesClientsThatDecode(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		p := s.open(c)
		want, err := json.Marshal(percents)
		require.NoError(t, err)
		p.send(string(want))
		for got := 0; got < len(percents); {
			frame := p.next()
			require.True(t, strings.HasPrefix(frame, "a"), frame)
			var messages []string
			require.NoError(t, json.Unmarshal([]byte(frame[1:]), &messages))
			assert.Equal(t, percents[got:got+len(messages)], messages)
			got += len(messages)
			for name, decoded := range decodedByClients(t, c, frame) {
				assert.Equal(t, frame, decoded, name)
			}
		}
		conn := s.session()
		reason := strings.Join(percents, " ")
		conn.close(3500, reason)
		frame := p.next()
		var goodbye []any
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(frame, "c")), &goodbye), frame)
		assert.Equal(t, []any{3500.0, reason}, goodbye)
		for name, decoded := range decodedByClients(t, c, frame) {
			assert.Equal(t, frame, decoded, name)
		}
		conn.wait(t)
	})
}

// decodedByClients returns the frame as the receivers of sockjs-client decode it.
func decodedByClients(t *testing.T, c carrier, frame string) map[string]string {
	t.Helper()
	if c.name != "eventsource" {
		return nil
	}
	decodeURI, err := url.PathUnescape(frame)
	require.NoError(t, err, "decodeURI throws: %s", frame)
	unescape := regexp.MustCompile(`%u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2}`).ReplaceAllStringFunc(frame, func(code string) string {
		n, err := strconv.ParseUint(strings.TrimLeft(code, "%u"), 16, 16)
		require.NoError(t, err)
		return string(rune(n))
	})
	return map[string]string{"decodeURI": decodeURI, "unescape": unescape}
}

// A close reason is escaped like a message, because U+2028 ends a string in the scripts of old
// browsers. Issue 11, number 1.
func TestCloseReasonsAreEscaped(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		p := s.open(c)
		conn := s.session()
		conn.close(3500, "a\u2028b")
		assert.Equal(t, `c[3500,"a\u2028b"]`, p.next())
		conn.wait(t)
	})
}

func hex4(r rune) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15]})
}

// sockjs.md row 32: UTF-8 cannot encode a lone surrogate, so it becomes U+FFFD.
func TestRow32LoneSurrogates(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := serveSite(t)
		p := s.open(c)
		p.send(`["\ud800","\ud83d\ude00"]`)
		var got []string
		for len(got) < 2 {
			got = append(got, p.receive()...)
		}
		assert.Equal(t, []string{"\uFFFD", "😀"}, got)
		p.abort()
	})
}

// HTTP/1.0 clients receive a response that ends with the connection.
func TestSuiteHTTP10(t *testing.T) {
	t.Parallel()
	s := serveSite(t)
	for _, c := range carriers[:3] {
		go func() { s.session().close(3000, "bye") }()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, c.method+" "+s.peer(c).path(c.name)+" HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Empty(t, res.TransferEncoding)
		var text strings.Builder
		_, err = io.Copy(&text, res.Body)
		require.NoError(t, err)
		assert.Contains(t, text.String(), "o")
	}
}

var _ session.Session = (*siteConn)(nil)
