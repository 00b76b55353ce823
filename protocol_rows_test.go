package pushy_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// Issue 11, number 35: the rows of PROTOCOL.md's tables are what a Server answers,
// and where it says that the first rule that applies decides, it does: each two
// rules are broken at once.

// choosy is a broker that decides by the channel's name once it is armed.
type choosy struct {
	altered
	armed atomic.Bool
}

func newChoosy() *choosy {
	c := &choosy{altered: altered{Broker: memory.New()}}
	c.append = c.choose
	c.follow = func(ctx context.Context, channel string) (broker.State, error) {
		if c.is(channel, "down") {
			return broker.State{}, errBroker
		}
		return c.Broker.Follow(ctx, channel)
	}
	return c
}

func (c *choosy) is(channel, word string) bool {
	return c.armed.Load() && strings.Contains(channel, word)
}

func (c *choosy) choose(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	switch {
	case e.Kind == broker.Event && c.is(channel, "large"), e.Kind == broker.Join && c.is(channel, "huge"):
		return broker.Appended{}, fmt.Errorf("over 8 bytes: %w", broker.ErrTooLarge)
	case e.Kind == broker.Event && c.is(channel, "down"):
		return broker.Appended{}, errBroker
	}
	return c.Broker.Append(ctx, channel, e)
}

// attempt is a trigger's request before it is signed.
type attempt struct {
	method      string
	path        string // of the URL, with %s for the channel
	channel     string
	event       string
	timestamp   string
	more        string // at the end of the query
	key         string // "" for the right one, "-" for none
	contentType string
	encoding    string
	body        string
	length      int64 // declared, if not 0
	reader      io.Reader
}

func (a attempt) send(h http.Handler) *httptest.ResponseRecorder {
	key := a.key
	if key == "" {
		key = ownSum(strings.Join([]string{a.channel, a.event, a.timestamp, a.body, vectorKey}, ":"))
	}
	query := "event=" + url.QueryEscape(a.event) + "&timestamp=" + a.timestamp + a.more
	if key != "-" {
		query += "&auth_key=" + key
	}
	var body io.Reader = strings.NewReader(a.body)
	if a.reader != nil {
		body = a.reader
	}
	r := httptest.NewRequest(a.method, fmt.Sprintf(a.path, url.PathEscape(a.channel))+"?"+query, body)
	if a.length != 0 {
		r.ContentLength = a.length
	}
	r.Header.Set("Content-Type", a.contentType)
	if a.encoding != "" {
		r.Header.Set("Content-Encoding", a.encoding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// broken is a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// breaker breaks one row's rule. Two that change the same part cannot be combined.
type breaker struct {
	part string
	run  func(a *attempt)
}

func TestProtocolTriggerRows(t *testing.T) {
	t.Parallel()
	shared := newChoosy()
	shared.armed.Store(true)
	srv := startServer(t, pushy.Options{
		SecretKey: vectorKey,
		Broker:    shared,
		CheckEvent: func(event string) error {
			if event == "panics" {
				panic(event)
			}
			return nil
		},
	})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	p := connectPeer(t, srv)
	p.subscribe("room", "")

	const form = "application/x-www-form-urlencoded"
	breakers := []breaker{ // in the order of the table
		{"path", func(a *attempt) { a.path = "/pushy/channel/%s/triggers" }},
		{"method", func(a *attempt) { a.method = "PUT" }},
		{"query", func(a *attempt) { a.more += "&x=%zz" }},
		{"twice", func(a *attempt) { a.more += "&id=&id=" }},
		{"key", func(a *attempt) { a.key = "-" }},
		{"socket_id", func(a *attempt) { a.more += "&socket_id=x" }},
		{"twice", func(a *attempt) { a.more += "&id=a.b" }},
		{"channel", func(a *attempt) { a.channel = "a:b" }},
		{"event", func(a *attempt) { a.event = "pushy:x" }},
		{"event", func(a *attempt) { a.event = "Private-x" }},
		{"event", func(a *attempt) { a.event = "panics" }},
		{"timestamp", func(a *attempt) { a.timestamp = "1e9" }},
		{"timestamp", func(a *attempt) { a.timestamp = strconv.Itoa(triggerNow - 600) }},
		{"encoding", func(a *attempt) { a.encoding = "gzip" }},
		{"type", func(a *attempt) { a.contentType = "text/plain" }},
		{"length", func(a *attempt) { a.length = 256<<10 + 1 }},
		{"body", func(a *attempt) { a.reader, a.length = broken{}, cmp.Or(a.length, 8) }},
		{"body", func(a *attempt) { a.body = "{" }},
		{"body", func(a *attempt) { a.body = "5" }},
		{"body type", func(a *attempt) { a.body, a.contentType = "a"+strings.Repeat("[b]", 33)+"=1", form }},
		{"key", func(a *attempt) { a.key = "abc" }},
		{"channel", func(a *attempt) { a.channel = "large" }},
		{}, // too many events, see rate_test.go
		{"channel", func(a *attempt) { a.channel = "down" }},
		{}, // too many ids: it takes a million of them, see internal/httpapi
		{"channel", func(a *attempt) { a.channel = "room" }},
		{"channel", func(a *attempt) { a.channel = "nobody" }},
	}
	rows := tableRows(protocolSection(t, "### Answers"))
	require.Len(t, breakers, len(rows))
	good := attempt{
		method:      "POST",
		path:        "/pushy/channel/%s/trigger",
		channel:     "room",
		event:       "told",
		timestamp:   strconv.Itoa(triggerNow),
		contentType: "application/json",
		body:        `{"a":1}`,
	}
	check := func(row []string, a attempt, name string) {
		w := a.send(srv)
		require.Equal(t, row[0], strconv.Itoa(w.Code), "%s: %s", name, w.Body)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"), name)
		var body struct {
			Status struct {
				Code    int
				Message string
			}
			Error struct{ Code, Message string }
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), name)
		code, message := strconv.Quote(body.Error.Code), body.Error.Message
		if w.Code < 300 {
			code, message = strconv.Itoa(body.Status.Code), body.Status.Message
		}
		require.Equal(t, strings.Trim(row[1], "`"), code, name)
		if text := spans(row[2]); len(text) > 0 {
			require.Regexp(t, "^"+strings.ReplaceAll(regexp.QuoteMeta(text[0]), "…", ".+")+"$", message, name)
		}
		for _, header := range []string{"Allow", "Retry-After"} {
			m := regexp.MustCompile("`" + header + ": ([^`]+)`").FindStringSubmatch(row[3])
			if m == nil {
				m = []string{"", ""}
			}
			require.Equal(t, m[1], w.Header().Get(header), name)
		}
	}
	pairs := 0
	for i, first := range breakers {
		if first.run == nil {
			continue
		}
		a := good
		first.run(&a)
		check(rows[i], a, rows[i][2])
		if rows[i][0] < "300" {
			p.expect(`told room {"a":1}`)
			break // the last two rows are one rule's
		}
		for j, second := range breakers[i+1:] {
			overlaps := slices.ContainsFunc(strings.Fields(second.part), func(part string) bool {
				return slices.Contains(strings.Fields(first.part), part)
			})
			if second.run == nil || overlaps {
				continue
			}
			pairs++
			b := good
			second.run(&b)
			first.run(&b)
			check(rows[i], b, rows[i][2]+" before "+rows[i+1+j][2])
		}
	}
	assert.Greater(t, pairs, 150)
	nobody := good
	nobody.channel = "nobody"
	check(rows[len(rows)-1], nobody, "nobody")
	p.quiet()

	// T3: a name of a form has 32 brackets, so a value is 33 names deep.
	deep := good
	deep.body, deep.contentType = "a"+strings.Repeat("[b]", 32)+"=1", form
	data := `{"a":` + strings.Repeat(`{"b":`, 32) + `"1"` + strings.Repeat("}", 33)
	deep.key = ownSum(strings.Join([]string{deep.channel, deep.event, deep.timestamp, data, vectorKey}, ":"))
	require.Equal(t, 201, deep.send(srv).Code)
	p.expect("told room " + data)
}

func TestProtocolSubscribeRows(t *testing.T) {
	t.Parallel()
	const (
		noChannel = iota // in the order of the table
		colon
		panics
		badKey
		noAuth
		badAuth
		expired
		large
		invalid
		have
		most
		full
		down
		huge
		rules
	)
	rows := tableRows(protocolSection(t, "### What subscribe and unsubscribe answer"))
	rows = slices.DeleteFunc(rows, func(row []string) bool { // those of an Authorizer are in TestAuthorizers
		return row[1] == "" || strings.HasPrefix(row[0], "the host refuses") || strings.HasPrefix(row[0], "the host's rule")
	})
	require.Len(t, rows, rules+1)
	try := func(t *testing.T, broken ...int) {
		is := func(rule int) bool { return slices.Contains(broken, rule) }
		shared := newChoosy()
		srv := startServer(t, pushy.Options{
			Broker: shared,
			Limits: pushy.Limits{Channels: 2, Members: 1},
			CheckChannel: func(channel string) error {
				if shared.is(channel, "panics") {
					panic(channel)
				}
				return nil
			},
		})
		channel := "private-x"
		for rule, word := range map[int]string{panics: "panics", down: "down", huge: "huge"} {
			if is(rule) {
				channel += "-" + word
			}
		}
		p := connectPeer(t, srv)
		switch {
		case is(have):
			p.subscribe(channel, `{"a":1}`)
		case is(full):
			connectPeer(t, srv).subscribe(channel, `{"a":1}`)
		}
		if is(most) {
			for i := len(p.conn(srv).Channels()); i < 2; i++ {
				p.subscribe("other"+strconv.Itoa(i), "")
			}
		}
		shared.armed.Store(true)
		data, auth := `{"a":1}`, ""
		switch {
		case is(large) && is(invalid):
			data = `"` + strings.Repeat("x", 4<<10) + `"`
		case is(large):
			data = `{"a":"` + strings.Repeat("x", 4<<10) + `"}`
		case is(invalid):
			data = `7`
		}
		name := channel
		if is(colon) {
			name += ":"
		}
		switch {
		case is(badAuth):
			auth = "wrong"
		case is(expired):
			auth = ownTokenV2(peerKey, fmt.Sprintf(`{"sub":[%q],"conn":%q,"iat":1,"exp":1700000000,"data":%s}`, channel, p.id, data))
		case !is(noAuth):
			auth = ownToken(p.id, channel, data)
		}
		quoted := strconv.Quote(name)
		if is(noChannel) {
			quoted = "5"
		}
		more := ""
		if is(badKey) {
			more = `,"rewind":"all"`
		}
		answer := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%s,"auth":%q,"data":%s%s}}`, quoted, auth, data, more))
		cell := rows[rules][1]
		if len(broken) > 0 {
			cell = rows[slices.Min(broken)][1]
		}
		texts := spans(cell)
		switch texts[0] {
		case "pushy:subscription-failed":
			assert.Equal(t, `pushy:subscription-failed {"channel":"`+channel+`","reason":"`+texts[1]+`"}`, answer.String())
		case "pushy:subscription-needauth", "pushy:subscription-success":
			assert.Equal(t, texts[0], answer.Event, "%s", answer)
		default:
			assert.Equal(t, "pushy:error", answer.Event)
			assert.Equal(t, texts[0], strconv.Quote(answer.field("code")), "%s", answer)
		}
		p.quiet()
	}
	try(t)
	for first := range rules {
		t.Run(rows[first][0], func(t *testing.T) {
			t.Parallel()
			try(t, first)
			for second := first + 1; second < rules; second++ {
				if first == noAuth && (second == badAuth || second == expired) {
					continue
				}
				try(t, first, second)
			}
		})
	}
}
