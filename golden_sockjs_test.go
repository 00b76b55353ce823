package pushy_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sockjsAnswers are the steps whose answer differs from the recorded one.
var sockjsAnswers = map[string]map[int]struct {
	why  string
	want reply
}{
	"connect-htmlfile":        {0: {"D22", reply{400, "", `"callback" parameter required`}}},
	"connect-jsonp?c=a(b":     {0: {"D22", reply{400, "", `invalid "callback" parameter`}}},
	"connect-eventsource":     {0: {"D35, as SockJS's own suite wants", reply{200, "text/event-stream", ""}}},
	"sockjs-http-misc":        {6: {"D23: no script was named", reply{404, "text/plain; charset=UTF-8", "404 Error: Page not found\n"}}},
	"json-null-over-xhr_send": {1: {"D2", reply{204, "text/plain; charset=UTF-8", ""}}},
	"crash-inputs-over-xhr_send": {
		1: {"D2", reply{204, "text/plain; charset=UTF-8", ""}}, 2: {"D2", reply{204, "text/plain; charset=UTF-8", ""}},
		3: {"D2", reply{204, "text/plain; charset=UTF-8", ""}}, 4: {"D3", reply{204, "text/plain; charset=UTF-8", ""}},
		5: {"D2", reply{204, "text/plain; charset=UTF-8", ""}},
	},
}

// crashAnswers are what the inputs of crash-inputs-over-xhr_send get (D2, D3).
var crashAnswers = []string{
	`{"event":"pushy:error","data":{"message":"No channel specified","code":"300"}}`,
	`{"event":"pushy:error","data":{"message":"Bogus message recieved","code":"100"}}`,
	`{"event":"pushy:error","data":{"message":"No channel specified","code":"300"}}`,
	`{"event":"pushy:subscription-success","data":{"channel":"map","memberId":"<memberId:A>"}}`,
	`{"event":"pushy:subscription-needauth","data":{"channel":"private-x"}}`,
}

func TestSockJSTranscripts(t *testing.T) {
	t.Parallel()
	var scenarios []scenario
	readGolden(t, "transcripts.json", &scenarios)
	played := 0
	for _, s := range scenarios {
		if !s.needsHTTPTransport() {
			continue
		}
		require.Contains(t, httpTransportScenarios, s.Name)
		played++
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			newSockJSPlay(t, s).run()
		})
	}
	require.Equal(t, len(httpTransportScenarios), played)
}

// sockjsPlay is one scenario over SockJS's HTTP transports.
type sockjsPlay struct {
	*play
	session string
	due     []string // messages that A is to have received
	poller  bool     // A is a SockJS client that polls
	waiting []string // messages that a poll brought, not yet due
	stream  *bufio.Reader
	last    time.Time
}

func newSockJSPlay(t *testing.T, s scenario) *sockjsPlay {
	p := &sockjsPlay{play: newPlay(t, s, nil, false), session: "golden"}
	var err error
	p.srv, err = pushy.New(pushy.Options{
		SecretKey: "secret", Heartbeat: -1, Logger: testLogger(t), Origins: []string{"*"}, SockJS: pushy.SockJS{Legacy: true},
	})
	require.NoError(t, err)
	p.srv.SetClock(goldenClock)
	p.baseURL = serveHandler(t, p.srv, p.srv)
	p.poller = s.Name == "sockjs-client-xhr-polling"
	if s.Name == "xhr-streaming-response-limit-sane" {
		p.openStream()
	}
	return p
}

func (p *sockjsPlay) run() {
	steps := p.scenario.Steps
	for i, st := range steps {
		switch {
		case st.Dir == "note":
			p.note(st)
		case st.Request != nil && st.Response.Status == 0 && i+1 < len(steps):
			p.giveUp(*st.Request)
		case st.Request != nil && st.Response.Status == 0: // it was begun before the last one
		case st.Request != nil && i+1 < len(steps) && strings.HasPrefix(st.Response.Body, "c[2010,"):
			p.race(*st.Request, steps[i+1])
		case st.Request != nil:
			// Frames that came while the request ran stand before it: channel events.
			p.drainUntil(func(message string) bool {
				return strings.Contains(message, `,"channel":`) && !strings.Contains(message, `"data":{"channel"`)
			})
			p.step(i, st)
			p.drainDue()
		case st.Dir == "send":
			p.drainDue()
			p.sendMessage(st)
		case st.Event == "open" || st.Frame != nil && *st.Frame == "o":
			p.open()
		case st.Event == "close":
			p.drainDue()
			p.giveUp(request{Method: "POST", Path: p.path("xhr")})
		case st.Message != nil:
			p.due = append(p.due, *st.Message)
		default:
			messages, ok := unframe(*st.Frame)
			require.True(p.t, ok)
			p.due = append(p.due, messages...)
		}
	}
	p.drainDue()
}

func (p *sockjsPlay) path(what string) string { return "/pushy/socket/000/" + p.session + "/" + what }

func (p *sockjsPlay) note(st step) {
	switch {
	case strings.HasPrefix(st.Note, "after trigger"):
		if ended := string(st.Value) == "true"; ended && p.stream != nil {
			_, err := p.stream.ReadByte()
			require.ErrorIs(p.t, err, io.EOF, st.Note)
			p.stream = nil
		}
	case strings.HasPrefix(st.Note, "whole seconds"):
		p.drainDue()
		require.GreaterOrEqual(p.t, time.Since(p.last), 4900*time.Millisecond)
	}
}

// open connects A.
func (p *sockjsPlay) open() {
	if p.poller {
		require.Equal(p.t, "o\n", p.poll())
	} else {
		require.Equal(p.t, "o", p.player("A").Next())
	}
}

// openStream opens what the recording was made with.
func (p *sockjsPlay) openStream() {
	res := p.ask(request{Method: "POST", Path: p.path("xhr_streaming")})
	p.stream = res.body
	for _, want := range []string{strings.Repeat("h", 2048) + "\n", "o\n"} {
		line, err := p.stream.ReadString('\n')
		require.NoError(p.t, err)
		require.Equal(p.t, want, line)
	}
	_, err := p.stream.ReadString('\n') // pushy:connect
	require.NoError(p.t, err)
}

func (p *sockjsPlay) poll() string {
	p.t.Helper()
	res := p.ask(request{Method: "POST", Path: p.path("xhr")})
	text, err := io.ReadAll(res.body)
	require.NoError(p.t, err)
	return string(text)
}

// drainDue receives what A is to have.
func (p *sockjsPlay) drainDue() { p.drainUntil(func(string) bool { return false }) }

func (p *sockjsPlay) drainUntil(keep func(message string) bool) {
	p.t.Helper()
	for ; len(p.due) > 0 && !keep(p.due[0]); p.due = p.due[1:] {
		got := ""
		if !p.poller {
			messages, ok := unframe(p.player("A").Next())
			require.True(p.t, ok && len(messages) == 1)
			got = messages[0]
		} else {
			if len(p.waiting) == 0 {
				var ok bool
				p.waiting, ok = unframe(strings.TrimSpace(p.poll()))
				require.True(p.t, ok)
			}
			got, p.waiting = p.waiting[0], p.waiting[1:]
		}
		require.True(p.t, p.known.match(p.due[0], got), "got %s\nwant %s", got, p.due[0])
	}
}

func (p *sockjsPlay) sendMessage(st step) {
	if !p.poller {
		messages, _ := unframe("a" + *st.Frame)
		p.player("A").Send(p.fill(messages[0]))
		return
	}
	body, err := json.Marshal([]string{p.fill(*st.Message)})
	require.NoError(p.t, err)
	text := string(body)
	res := p.ask(request{Method: "POST", Path: p.path("xhr_send"), Body: &text})
	require.Equal(p.t, 204, res.status)
}

// asked is an answer whose body is still to be read.
type asked struct {
	status      int
	contentType string
	body        *bufio.Reader
	conn        net.Conn
}

var authKey = regexp.MustCompile(`auth_key=[^&]*`)

// begin sends a request.
func (p *sockjsPlay) begin(rq request) net.Conn {
	p.t.Helper()
	body, err := goldenBody(rq.Body, rq.BodyBase64)
	require.NoError(p.t, err)
	if rq.BodyNote != "" {
		require.Equal(p.t, "JSON object with one 50000 character string", rq.BodyNote)
		body = []byte(`{"a":"` + strings.Repeat("x", 50_000) + `"}`)
	}
	target := strings.ReplaceAll(rq.Path, "<session>", p.session)
	if strings.Contains(target, "/trigger?") { // of this body, and this clock
		u, err := url.Parse(target)
		require.NoError(p.t, err)
		signed := strings.Split(u.Path, "/")[3] + ":" + u.Query().Get("event") + ":" + u.Query().Get("timestamp") + ":" + string(body) + ":secret"
		target = authKey.ReplaceAllString(target, "auth_key="+sha256Hex(signed))
	}
	host := strings.TrimPrefix(p.baseURL, "http://")
	conn, err := net.Dial("tcp", host)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(p.t, conn.SetDeadline(time.Now().Add(clientPatience)))
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", rq.Method, target, host, len(body))
	for name, value := range rq.Headers {
		if name != "Host" && name != "Content-Length" {
			head += name + ": " + value + "\r\n"
		}
	}
	_, err = io.WriteString(conn, head+"\r\n"+string(body))
	require.NoError(p.t, err)
	return conn
}

// giveUp makes a request that is not answered, and ends its session.
func (p *sockjsPlay) giveUp(rq request) {
	p.t.Helper()
	require.Equal(p.t, 1, p.srv.Stats().Connections)
	_ = p.begin(rq).Close()
	require.Eventually(p.t, func() bool { return p.srv.Stats().Connections == 0 }, clientPatience, time.Millisecond)
}

// race makes a request while another waits. Either may come first: one is
// refused, the other goes on waiting.
func (p *sockjsPlay) race(rq request, waits step) {
	p.t.Helper()
	require.Zero(p.t, waits.Response.Status)
	bodies := make(chan string, 2)
	for _, r := range []request{rq, *waits.Request} {
		conn := p.begin(r)
		go func() {
			if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				text, _ := io.ReadAll(res.Body)
				bodies <- string(text)
			}
		}()
	}
	require.Equal(p.t, `c[2010,"Another connection still open"]`+"\n", <-bodies)
	require.Equal(p.t, 1, p.srv.Stats().Connections)
	require.Empty(p.t, bodies)
}

// step makes a request and checks the answer.
func (p *sockjsPlay) step(i int, st step) {
	p.t.Helper()
	rq := *st.Request
	if rq.Body != nil {
		filled := p.fill(*rq.Body)
		rq.Body = &filled
	}
	want := reply{status: st.Response.Status, body: st.Response.Body}
	for name, value := range st.Response.Headers {
		if strings.EqualFold(name, "Content-Type") {
			want.contentType = value
		}
	}
	d, differs := sockjsAnswers[p.scenario.Name][i]
	if differs {
		require.NotEqual(p.t, want, d.want, "stale deviation")
		if d.want.body == "" && d.want.status == want.status {
			d.want.body = want.body
		}
		want = d.want
	}
	p.last = time.Now() // before the server's own count begins
	res := p.ask(rq)
	require.Equal(p.t, want.status, res.status, "step %d, %s", i, rq.Path)
	if want.status != 400 && want.status != 405 { // WriteHeader alone names none
		require.Equal(p.t, want.contentType, res.contentType, "step %d, %s", i, rq.Path)
	}
	p.body(i, want.body, res)
	if p.stream != nil && strings.Contains(rq.Path, "/trigger?") || p.stream != nil && strings.HasSuffix(rq.Path, "/xhr_send") {
		line, err := p.stream.ReadString('\n')
		require.NoError(p.t, err)
		require.Regexp(p.t, `^a\["\{\\"event\\":\\"(e|pushy:subscription-success)\\",`, line)
	}
}

var pageNote = regexp.MustCompile(`^<SockJS htmlfile page head: (\d+) bytes, sha256 ([0-9a-f]+)>`)

// body compares what frames say, and what stands around them.
func (p *sockjsPlay) body(i int, want string, res asked) {
	p.t.Helper()
	if m := pageNote.FindStringSubmatch(want); m != nil {
		want = strings.TrimPrefix(want, m[0])
		head := make([]byte, 1029)
		_, err := io.ReadFull(res.body, head)
		require.NoError(p.t, err)
		sum := sha256.Sum256(head)
		require.Equal(p.t, m[2], hex.EncodeToString(sum[:]))
	}
	if p.scenario.Name == "connect-jsonp?c=cb" {
		want = strings.Replace(want, "cb(", "/**/cb(", 1) // the guard of SockJS's newer suite
	}
	if strings.Contains(want, "<entropy>") {
		line, err := res.body.ReadString('}')
		require.NoError(p.t, err)
		require.Regexp(p.t, "^"+strings.Replace(regexp.QuoteMeta(want), "<entropy>", `\d+`, 1)+"$", line)
		return
	}
	for line := range strings.Lines(want) {
		got, err := res.body.ReadString('\n')
		if err != nil {
			require.ErrorIs(p.t, err, io.EOF)
		}
		p.line(i, line, got)
	}
	if p.scenario.Name == "crash-inputs-over-xhr_send" && i == len(p.scenario.Steps)-1 {
		return // line has looked at the rest
	}
	if streaming := strings.Contains(want, "data: ") || strings.Contains(want, "hhhh") || strings.Contains(want, "<script>"); !streaming {
		rest, err := io.ReadAll(res.body)
		require.NoError(p.t, err)
		require.Empty(p.t, string(rest), "step %d", i)
	}
	_ = res.conn.Close()
}

// line compares a line, of which the messages as messages.
func (p *sockjsPlay) line(i int, want, got string) {
	p.t.Helper()
	for _, quoted := range []string{"p(", "/**/cb("} {
		if strings.HasPrefix(want, quoted) {
			require.True(p.t, strings.HasPrefix(got, quoted), got)
			want, got = unquote(want[len(quoted):strings.LastIndex(want, ")")]), unquote(got[len(quoted):strings.LastIndex(got, ")")])
		}
	}
	wantMessages, ok := unframe(strings.TrimSpace(strings.TrimPrefix(want, "data: ")))
	if !ok {
		require.Equal(p.t, want, got, "step %d", i)
		return
	}
	require.Equal(p.t, strings.HasPrefix(want, "data: "), strings.HasPrefix(got, "data: "))
	gotMessages, ok := unframe(strings.TrimSpace(strings.TrimPrefix(got, "data: ")))
	require.True(p.t, ok, got)
	if p.scenario.Name == "crash-inputs-over-xhr_send" {
		wantMessages = append(wantMessages, crashAnswers...)
		for len(gotMessages) < len(wantMessages) { // the commands may still run
			more, ok := unframe(strings.TrimSpace(p.poll()))
			require.True(p.t, ok)
			gotMessages = append(gotMessages, more...)
		}
	}
	if !assert.Len(p.t, gotMessages, len(wantMessages), "step %d", i) {
		return
	}
	for k, message := range wantMessages {
		require.True(p.t, p.known.match(message, gotMessages[k]), "step %d: got %s\nwant %s", i, gotMessages[k], message)
	}
}

// ask makes a request and reads the head of the answer.
func (p *sockjsPlay) ask(rq request) asked {
	p.t.Helper()
	conn := p.begin(rq)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: rq.Method})
	require.NoError(p.t, err, "%s %s", rq.Method, rq.Path)
	return asked{res.StatusCode, res.Header.Get("Content-Type"), bufio.NewReader(res.Body), conn}
}
