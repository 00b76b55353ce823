package pushy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/require"
)

// scenario is one recorded conversation with the original.
type scenario struct {
	Name  string
	Crash bool // it ended the original's process
	Auths map[string]string
	Steps []step
}

type step struct {
	Dir, Conn string
	Frame     *string // a WebSocket message as it was on the wire
	Message   *string // a message of the protocol, as a SockJS client saw it
	Close     json.RawMessage
	Event     string
	Transport string // of the SockJS client that is open
	Note      string
	Value     json.RawMessage
	Request   *request
	Response  *response
}

// closing is a WebSocket's close code and reason.
type closing struct {
	Code   int
	Reason string
}

// scenarioClocks are the Servers' clocks that were not at goldenTime.
var scenarioClocks = map[string]time.Time{
	"timestamp-rounding":       goldenClock().Add(500 * time.Millisecond),
	"readme-signature-example": time.Unix(123_456_789, 0),
}

// needsHTTPTransport reports whether a step uses SockJS without a WebSocket.
func (s scenario) needsHTTPTransport() bool {
	return slices.ContainsFunc(s.Steps, func(st step) bool {
		return st.Request != nil && strings.HasPrefix(st.Request.Path, "/pushy/socket/") ||
			st.Transport != "" && st.Transport != "websocket"
	})
}

func TestTranscripts(t *testing.T) {
	t.Parallel()
	var scenarios []scenario
	readGolden(t, "transcripts.json", &scenarios)
	byName := map[string]scenario{}
	for _, s := range scenarios {
		byName[s.Name] = s
	}
	require.Len(t, byName, len(scenarios))
	later := map[string]bool{}
	for _, name := range httpTransportScenarios {
		require.Contains(t, byName, name)
		require.True(t, byName[name].needsHTTPTransport(), "%s can be played", name)
		later[name] = true
	}
	for name := range wirelessScenarios {
		require.Contains(t, byName, name)
		for _, st := range byName[name].Steps {
			require.Equal(t, "note", st.Dir, "%s can be played", name)
		}
	}
	entries := map[string][]*deviation{}
	for i := range deviations {
		d := &deviations[i]
		require.Contains(t, byName, d.scenario, "a deviation of no scenario")
		require.Regexp(t, deviationNumber, d.number, d.scenario)
		require.False(t, later[d.scenario], "a deviation of %s, which is not played", d.scenario)
		entries[d.scenario] = append(entries[d.scenario], d)
	}
	for _, s := range scenarios {
		if _, wireless := wirelessScenarios[s.Name]; wireless || later[s.Name] {
			continue
		}
		name := s.Name
		for _, d := range entries[s.Name] {
			if !strings.Contains(name+",", ","+d.number+",") {
				name += "," + d.number
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newPlay(t, s, entries[s.Name], false).run()
		})
		t.Run("kept/"+name, func(t *testing.T) {
			t.Parallel()
			newPlay(t, s, entries[s.Name], true).run()
		})
	}
}

// play is one scenario against one Server. What a connection must receive is
// read before the next step that could depend on it.
type play struct {
	t          *testing.T
	scenario   scenario
	deviations []*deviation
	used       map[*deviation]map[int]bool
	srv        *pushy.Server
	baseURL    string
	uploads    atomic.Int64 // requests of which a multipart form was read
	known      bindings
	conns      map[string]*player
	kept       bool // all channels keep their events; see asOff
}

type player struct {
	*client
	due    []due
	closed bool
}

// due is a message that must be the connection's next.
type due struct {
	step     int
	template string // of the message; for "o" of the frame
	frame    bool
}

func newPlay(t *testing.T, s scenario, entries []*deviation, kept bool) *play {
	p := &play{
		t: t, scenario: s, deviations: entries, used: map[*deviation]map[int]bool{},
		known: bindings{}, conns: map[string]*player{}, kept: kept,
	}
	o := pushy.Options{}
	if kept {
		o = keeping(100, time.Hour)
	}
	o.SecretKey = "secret"
	o.Heartbeat = -1
	o.Logger = testLogger(t)
	var err error
	p.srv, err = pushy.New(o)
	require.NoError(t, err)
	clock, ok := scenarioClocks[s.Name]
	if !ok {
		clock = goldenClock()
	}
	p.srv.SetClock(func() time.Time { return clock })
	p.baseURL = serveHandler(t, p.srv, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.srv.ServeHTTP(w, r)
		if r.MultipartForm != nil {
			p.uploads.Add(1)
		}
	}))
	return p
}

func (p *play) run() {
	for i, st := range p.scenario.Steps {
		d := p.deviation(i)
		if p.scenario.Crash && d != nil && d.crash {
			p.expect("A", i, d.messages...)
			break // the rest is the original's end
		}
		switch {
		case st.Dir == "note":
		case st.Request != nil:
			p.http(i, st, d)
		case st.Dir == "server" && st.Event == "probe":
			p.probe(i, st, d)
		case st.Dir == "send":
			p.send(i, st, d)
		case st.Dir == "recv":
			p.receive(i, st, d)
		default:
			require.FailNow(p.t, "a step that cannot be played", "step %d", i)
		}
	}
	p.drain(nil)
	p.alive()
	for _, d := range p.deviations {
		for _, at := range d.steps {
			require.True(p.t, p.used[d][at], "the deviation at step %d (%s) is not used", at, d.number)
		}
		require.False(p.t, d.rename != [2]string{} && p.used[d] == nil, "the deviation %s is not used", d.number)
	}
}

// deviation returns the entry of a step, if there is one.
func (p *play) deviation(i int) (found *deviation) {
	for _, d := range p.deviations {
		if slices.Contains(d.steps, i) {
			require.Nil(p.t, found, "two deviations at step %d", i)
			p.use(d, i)
			found = d
		}
	}
	return found
}

func (p *play) use(d *deviation, i int) {
	if p.used[d] == nil {
		p.used[d] = map[int]bool{}
	}
	p.used[d][i] = true
}

// renamed is a recorded message with the names of a renaming deviation (D8).
func (p *play) renamed(i int, message string) string {
	for _, d := range p.deviations {
		if d.rename == [2]string{} {
			continue
		}
		after := strings.ReplaceAll(message, `"channel":"`+d.rename[0]+`"`, `"channel":"`+d.rename[1]+`"`)
		if after != message {
			p.use(d, i)
			message = after
		}
	}
	return message
}

// player returns the connection of that name, made when it is first heard of.
func (p *play) player(name string) *player {
	if c := p.conns[name]; c != nil {
		return c
	}
	framed, opened := true, false
	for _, st := range p.scenario.Steps {
		if st.Conn == name {
			framed = st.Frame == nil || *st.Frame == "o"
			opened = framed && st.Frame != nil || st.Event == "open"
			break
		}
	}
	c, err := upgrade(p.t, p.baseURL, framed)
	require.NoError(p.t, err)
	if framed && !opened { // recorded where "o" is not seen
		require.Equal(p.t, "o", c.Next())
	}
	p.conns[name] = &player{client: c}
	return p.conns[name]
}

func (p *play) send(i int, st step, d *deviation) {
	c := p.player(st.Conn)
	p.drain(nil)
	switch {
	case st.Close != nil:
		c.SendFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "")))
	case st.Message != nil:
		c.Send(p.fill(*st.Message))
	case st.Note == "binary websocket message with the same bytes":
		c.SendFrame(ws.OpBinary, p.fill(*st.Frame))
	case st.Note == "text message in two fragments":
		c.sendFragments(p.fill(*st.Frame))
	default:
		require.Empty(p.t, st.Note)
		c.SendFrame(ws.OpText, p.fill(*st.Frame))
	}
	if d != nil {
		require.NotEmpty(p.t, d.messages, "a deviation without effect")
		conn := st.Conn
		if d.conn != "" {
			conn = d.conn
		}
		p.expect(conn, i, d.messages...)
	}
}

func (c *client) sendFragments(text string) {
	half := len(text) / 2
	for _, frame := range []ws.Frame{
		ws.NewFrame(ws.OpText, false, []byte(text[:half])),
		ws.NewFrame(ws.OpContinuation, true, []byte(text[half:])),
	} {
		require.NoError(c.t, ws.WriteFrame(c.conn, ws.MaskFrameInPlace(frame)))
	}
}

// fill puts ids and tokens into what is sent.
func (p *play) fill(template string) string {
	template = p.known.fill(template)
	for name, how := range p.scenario.Auths {
		quoted, ok := strings.CutPrefix(how, "sha256 hex of ")
		require.True(p.t, ok, how)
		var hashed string
		require.NoError(p.t, json.Unmarshal([]byte(quoted), &hashed))
		token := sha256Hex(p.known.fill(hashed))
		upper := strings.Replace(name, "<auth:", "<AUTH:", 1)
		upper = strings.Replace(upper, ">", " in upper case>", 1)
		template = strings.NewReplacer(name, token, upper, strings.ToUpper(token)).Replace(template)
	}
	require.NotContains(p.t, template, "<auth")
	require.NotContains(p.t, template, "Id:")
	return template
}

func (p *play) receive(i int, st step, d *deviation) {
	switch {
	case st.Close != nil:
		var want closing
		require.NoError(p.t, json.Unmarshal(st.Close, &want))
		if d != nil {
			p.expect(st.Conn, i, d.messages...)
			require.NotNil(p.t, d.closing, "the deviation at step %d does not say how it closes", i)
			require.NotEqual(p.t, want, *d.closing, "stale deviation")
			want = *d.closing
		}
		p.drain(nil)
		// SockJS says why first, but to one that does not speak it.
		if c := p.player(st.Conn); c.framed && want.Code != 1000 && want.Code != 1002 && want.Code != 1006 {
			require.Equal(p.t, fmt.Sprintf("c[%d,%q]", want.Code, want.Reason), c.Next())
		}
		p.closed(st.Conn, i, want)
	case st.Event == "open":
		require.Equal(p.t, "o", p.player(st.Conn).Next())
	case st.Event == "close": // the client's doing
		c := p.player(st.Conn)
		p.drain(nil)
		c.SendFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "Normal closure")))
		p.closed(st.Conn, i, closing{1000, "Normal closure"})
	default:
		p.message(i, st, d)
	}
}

func (p *play) message(i int, st step, d *deviation) {
	text, c := st.Message, p.player(st.Conn)
	if text == nil && *st.Frame == "o" {
		require.Nil(p.t, d)
		c.due = append(c.due, due{i, "o", true})
		return
	}
	if text == nil {
		text = st.Frame
		if c.framed {
			messages, ok := unframe(*st.Frame)
			require.True(p.t, ok && len(messages) == 1, *st.Frame)
			text = &messages[0]
		}
	}
	recorded := p.renamed(i, *text)
	if d == nil {
		p.expect(st.Conn, i, recorded)
		return
	}
	if len(d.messages) == 1 {
		require.NotEqual(p.t, canon(recorded), canon(d.messages[0]), "stale deviation at step %d", i)
	}
	p.expect(st.Conn, i, d.messages...)
}

func (p *play) expect(conn string, i int, messages ...string) {
	for _, m := range messages {
		c := p.player(conn)
		c.due = append(c.due, due{i, m, false})
	}
}

// drain reads what is due, but for what keep says.
func (p *play) drain(keep func(due) bool) {
	p.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(p.conns)) {
		c := p.conns[name]
		for len(c.due) > 0 && (keep == nil || !keep(c.due[0])) {
			next := c.due[0]
			c.due = c.due[1:]
			got := ""
			if next.frame || !c.framed {
				got = c.Next()
			} else {
				frame := c.Next()
				messages, ok := unframe(frame)
				require.True(p.t, ok && len(messages) == 1, "%s, step %d: got frame %s, want %s", name, next.step, frame, next.template)
				got = messages[0]
			}
			got = p.asOff(got)
			if !p.known.match(next.template, got) {
				require.FailNow(p.t, "wrong message", "%s, step %d:\n got %s\nwant %s", name, next.step, got, p.known.fill(next.template))
			}
			if c.id == "" && !next.frame {
				c.connected(got)
			}
		}
	}
}

var (
	eventOffset   = regexp.MustCompile(`^(\{"event":.*),"offset":[1-9][0-9]*\}$`)
	eventPosition = regexp.MustCompile(`,"position":"[A-Za-z0-9_-]+\.[1-9][0-9]*"\}$`)
)

// asOff returns a message or an answer as it is in a channel that keeps no events: the offset of
// an event, and the position of one that was triggered, are all that Keep adds for clients and
// publishers that know nothing of it.
func (p *play) asOff(text string) string {
	if !p.kept {
		return text
	}
	if strings.HasPrefix(text, `{"event":"pushy:`) {
		return text
	}
	if event := eventOffset.FindStringSubmatch(text); event != nil {
		return event[1] + "}"
	}
	require.NotRegexp(p.t, `^\{"event":"[^"]*","channel":`, text, "an event without an offset")
	return eventPosition.ReplaceAllString(text, "}")
}

// closed checks how the server closes and waits until the connection is gone.
func (p *play) closed(conn string, i int, want closing) {
	c := p.player(conn)
	code, reason := c.Closed()
	require.Equal(p.t, want, closing{code, reason}, "%s, step %d", conn, i)
	c.closed = true
	require.Eventually(p.t, func() bool {
		_, connected := p.srv.Conn(c.id)
		return !connected
	}, clientPatience, time.Millisecond, "the connection is not forgotten")
}

// alive ends a scenario: connections that are open have got nothing more and
// still answer, and a new one is served.
func (p *play) alive() {
	for name, c := range p.conns {
		if c.closed {
			continue
		}
		c.Send(`{"command":"SUBSCRIBE","data":{"channel":"the last word"}}`)
		require.Contains(p.t, c.Receive(), `{"event":"pushy:subscription-success","data":{"channel":"the last word",`, "%s got more than is due", name)
	}
	c := dial(p.t, p.baseURL, true)
	c.Send(`{"command":"SUBSCRIBE","data":{"channel":"the last word"}}`)
	require.Contains(p.t, c.Receive(), `{"event":"pushy:subscription-success"`)
}

// probe looks for what a request left behind in the original's process.
func (p *play) probe(i int, st step, d *deviation) {
	if d != nil {
		p.exchange(i, request{Method: "POST", Path: d.probe}, *d.reply)
		return
	}
	require.Contains(p.t, st.Note, "new files left in the server temp folder")
	require.JSONEq(p.t, strconv.FormatInt(p.uploads.Load(), 10), string(st.Value))
}

func (p *play) http(i int, st step, d *deviation) {
	want := reply{status: st.Response.Status, body: st.Response.Body}
	for name, value := range st.Response.Headers {
		if strings.EqualFold(name, "Content-Type") {
			want.contentType = value
		}
	}
	if d != nil {
		if d.reply != nil {
			require.NotEmpty(p.t, d.reply.differs(want), "stale deviation at step %d", i)
			want = *d.reply
		}
		require.True(p.t, d.reply != nil || d.messages != nil, "a deviation without effect")
		p.expect("A", i, d.messages...)
	}
	// Frames that came while the request ran stand before it: channel events.
	p.drain(func(next due) bool {
		return strings.Contains(next.template, `,"channel":`) && !strings.HasPrefix(next.template, `{"event":"pushy:p`)
	})
	p.exchange(i, *st.Request, want)
	p.drain(nil)
}
