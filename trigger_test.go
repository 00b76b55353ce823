package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

const triggerNow = 1700000000

// A call is one trigger; its zero fields are those of a good one.
type call struct {
	method, path string
	channel      string
	query        string // instead of event, timestamp and auth_key; %k is the right key
	more         string // at the end of the query
	contentType  string // "-" for none
	encoding     string
	signed       string // what the key is over; "" is body
	key          string
	body         string
	length       int64 // claimed
	reader       io.Reader
	at           string
}

func (c call) do(srv http.Handler) *httptest.ResponseRecorder {
	if c.channel == "" {
		c.channel = "room"
	}
	if c.at == "" {
		c.at = strconv.Itoa(triggerNow)
	}
	if c.signed == "" {
		c.signed = c.body
	}
	if c.key == "" {
		c.key = ownSum(c.channel + ":told:" + c.at + ":" + c.signed + ":" + peerKey)
	}
	if c.query == "" {
		c.query = "event=told&timestamp=" + c.at + "&auth_key=%k"
	}
	if c.path == "" {
		c.path = "/pushy/channel/" + url.PathEscape(c.channel) + "/trigger"
	}
	if c.method == "" {
		c.method = "POST"
	}
	var body io.Reader = strings.NewReader(c.body)
	if c.reader != nil {
		body = c.reader
	}
	r := httptest.NewRequest(c.method, c.path+"?"+strings.ReplaceAll(c.query, "%k", url.QueryEscape(c.key))+c.more, body)
	if c.length != 0 {
		r.ContentLength = c.length
	}
	switch c.contentType {
	case "-":
	case "":
		r.Header.Set("Content-Type", "application/json")
	default:
		r.Header.Set("Content-Type", c.contentType)
	}
	if c.encoding != "" {
		r.Header.Set("Content-Encoding", c.encoding)
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func triggerServer(t *testing.T, o pushy.Options) *pushy.Server {
	srv := startServer(t, o)
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	return srv
}

// PROTOCOL.md, section 7: its table, and the order of its checks.
func TestTriggerAnswers(t *testing.T) {
	t.Parallel()
	srv := triggerServer(t, pushy.Options{OldSecretKeys: []string{"an older secret key"}})
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	const (
		created = `{"status":{"code":201,"message":"Ok"}}`
		missing = `{"error":{"code":"400","message":"Missing required parameters"}}`
		stale   = `{"error":{"code":"501","message":"Timestamp out of bounds (600 seconds)"}}`
		form    = "application/x-www-form-urlencoded"
	)
	huge := func(c call) call { c.length, c.reader = 256<<10+1, unread{t}; return c }
	at := func(s int) string { return strconv.Itoa(triggerNow + s) }
	for _, c := range []struct {
		name   string
		call   call
		status int
		body   string // "" is any; a part if it begins with ~
		data   string // what the subscriber gets, "" for nothing
	}{
		{"json", call{body: `{ "b":1.0, "a":[] }`}, 201, created, `{"b":1.0,"a":[]}`},
		{"array", call{body: `[1]`}, 201, created, `[1]`},
		{"canonicalKey", call{body: `{ "b":1.0 }`, signed: `{"b":1}`}, 201, created, `{"b":1.0}`},
		{"plusJSON", call{body: `{}`, contentType: "Application/Vnd.X+JSON; charset=utf-8"}, 201, created, `{}`},
		{"form", call{body: "a=1&b[]=é/", signed: `{"a":"1","b":["é/"]}`, contentType: form}, 201, created, `{"a":"1","b":["é/"]}`},
		{"formPHP", call{body: "b=é/", signed: `{"b":"\u00e9\/"}`, contentType: form}, 201, created, `{"b":"é/"}`},
		{"formRaw", call{body: "a=1", contentType: form}, 403, "", ""},
		{"empty", call{signed: "{}"}, 201, created, `{}`},
		{"emptyArrayKey", call{signed: "[]", contentType: "-"}, 201, created, `{}`},
		{"emptyKeyOverNothing", call{key: ownSum("room:told:" + at(0) + "::" + peerKey)}, 403, "", ""},
		{"emptyAnyType", call{signed: "{}", contentType: "image/png"}, 201, created, `{}`},
		{"oldKey", call{body: "{}", key: ownSum("room:told:" + at(0) + ":{}:an older secret key")}, 201, created, `{}`},
		{"slashAtTheEnd", call{body: "{}", path: "/pushy/channel/room/trigger/"}, 201, created, `{}`},
		{"nobody", call{body: "{}", channel: "nobody"}, 200, `{"status":{"code":200,"message":"Ok"}}`, ""},
		{"otherCase", call{body: "{}", path: "/pushy/channel/ROOM/trigger"}, 201, created, `{}`},
		{"unknownParameter", call{body: "{}", more: "&x=1&x=2"}, 201, created, `{}`},
		{"emptyOptional", call{body: "{}", more: "&socket_id=&id="}, 201, created, `{}`},
		{"unknownSocket", call{body: "{}", more: "&socket_id=3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"}, 201, created, `{}`},
		{"ownSocket", call{body: "{}", more: "&socket_id=" + p.id}, 201, created, ""},

		{"get", call{method: "GET", query: "x"}, 405, "", ""},
		{"put", call{method: "PUT", body: "{}"}, 405, "", ""},
		{"twoSlashes", call{body: "{}", path: "/pushy/channel/room/trigger//"}, 404, "", ""},
		{"upperPath", call{body: "{}", path: "/pushy/channel/room/Trigger"}, 404, "", ""},
		{"noEvent", call{body: "{}", query: "timestamp=1&auth_key=x"}, 400, missing, ""},
		{"emptyEvent", call{body: "{}", query: "event=&timestamp=1&auth_key=x"}, 400, missing, ""},
		{"noTimestamp", call{body: "{}", query: "event=x&auth_key=x"}, 400, missing, ""},
		{"noKey", call{body: "{}", query: "event=x&timestamp=1"}, 400, missing, ""},
		{"eventTwice", call{body: "{}", more: "&event=told"}, 400, "~event", ""},
		{"timestampTwice", call{body: "{}", more: "&timestamp=1"}, 400, "~timestamp", ""},
		{"keyTwice", call{body: "{}", more: "&auth_key=x"}, 400, "~auth_key", ""},
		{"socketTwice", call{body: "{}", more: "&socket_id=&socket_id="}, 400, "~socket_id", ""},
		{"idTwice", call{body: "{}", more: "&id=a&id=a"}, 400, "~id", ""},
		{"badSocket", call{body: "{}", more: "&socket_id=x"}, 400, "~socket_id", ""},
		{"badID", call{body: "{}", more: "&id=a.b"}, 400, "~id", ""},
		{"longID", call{body: "{}", more: "&id=" + strings.Repeat("a", 65)}, 400, "~id", ""},
		{"badChannel", call{body: "{}", channel: "a:b"}, 400, "~channel", ""},
		{"escapedSlashIsAName", call{body: "{}", channel: "a/b"}, 200, "", ""},
		{"reservedEvent", call{body: "{}", query: "event=Pushy:x&timestamp=1&auth_key=x"}, 400, "~reserved", ""},
		{"namesBeforeTimestamp", call{body: "{}", channel: "a:b", at: "x"}, 400, "~channel", ""},
		{"timestampText", call{body: "{}", at: "x"}, 400, "~Invalid timestamp", ""},
		{"timestampZeroFirst", call{body: "{}", at: "01700000000"}, 400, "~Invalid timestamp", ""},
		{"timestampSign", call{body: "{}", at: "-1"}, 400, "~Invalid timestamp", ""},
		{"timestampFraction", call{body: "{}", at: "1700000000.0"}, 400, "~Invalid timestamp", ""},
		{"timestampLong", call{body: "{}", at: "17000000000000000"}, 400, "~Invalid timestamp", ""},
		{"timestampZero", call{body: "{}", at: "0"}, 403, stale, ""},
		{"sixteenDigits", call{body: "{}", at: "9999999999999999"}, 403, stale, ""},
		{"early", call{body: "{}", at: at(-599)}, 201, created, `{}`},
		{"tooEarly", call{body: "{}", at: at(-600)}, 403, stale, ""},
		{"late", call{body: "{}", at: at(599)}, 201, created, `{}`},
		{"tooLate", call{body: "{}", at: at(600)}, 403, stale, ""},
		{"noType", call{body: "{}", contentType: "-"}, 415, "~415", ""},
		{"textType", call{body: "{}", contentType: "text/plain"}, 415, "~415", ""},
		{"gzip", call{body: "{}", encoding: "gzip"}, 415, "~415", ""},
		{"identity", call{body: "{}", encoding: "Identity"}, 201, created, `{}`},
		{"timestampBeforeType", call{body: "{}", contentType: "-", at: "x"}, 400, "~Invalid timestamp", ""},
		{"typeBeforeLength", huge(call{contentType: "text/plain"}), 415, "~415", ""},
		{"lengthBeforeReading", huge(call{key: "bad"}), 413, "~413", ""},
		{"badTimeBeforeLength", huge(call{at: at(-600)}), 403, stale, ""},
		{"largest", call{body: `"` + strings.Repeat("x", 256<<10-2) + `"`}, 400, "~400", ""},
		{"chunkedTooLarge", call{body: "{}", reader: io.LimitReader(endless{}, 256<<10+1), length: -1}, 413, "~413", ""},
		{"blanks", call{body: "  "}, 400, "~400", ""},
		{"broken", call{body: `{"a":`}, 400, "~400", ""},
		{"brokenBeforeKey", call{body: `{`, key: "bad"}, 400, "~400", ""},
		{"number", call{body: `7`}, 400, "~400", ""},
		{"tooDeep", call{body: strings.Repeat("[", 257) + strings.Repeat("]", 257)}, 400, "~400", ""},
		{"tooMany", call{body: "[" + strings.Repeat("0,", 20_000) + "0]"}, 400, "~400", ""},
		{"wrongKey", call{body: "{}", key: "<é>"}, 403, `{"error":{"code":"403","message":"Invalid credentials (<é>)"}}`, ""},
		{"upperKey", call{body: "{}", key: strings.ToUpper(ownSum("room:told:" + at(0) + ":{}:" + peerKey))}, 403, "", ""},
		{"longKey", call{body: "{}", key: strings.Repeat("é", 65)}, 403, "~(" + strings.Repeat("é", 64) + ")", ""},
		{"disguisedToken", call{path: "/pushy/channel/victims/trigger", query: "event=evil&timestamp=" + at(0) + "&auth_key=%k", body: "a=1:private-room",
			key: ownSum("victims:evil:" + at(0) + ":a=1:private-room:" + peerKey), contentType: form}, 403, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.call.do(srv)
			assert.Equal(t, c.status, w.Code, "%s", w.Body)
			if part, is := strings.CutPrefix(c.body, "~"); is {
				assert.Contains(t, w.Body.String(), part)
			} else if c.body != "" {
				assert.Equal(t, c.body, w.Body.String())
			}
			if c.status != 404 {
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			}
			if c.status == 405 {
				assert.Equal(t, "POST", w.Header().Get("Allow"))
			}
			if c.data != "" {
				p.expect("told room " + c.data)
			}
			p.quiet()
		})
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// Now is the clock rounded to the nearest second.
func TestTriggerTimestampRounding(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	for _, c := range []struct {
		nanos  int64
		at     int
		status int
	}{
		{499_999_999, 600, 403}, {500_000_000, 600, 200}, {500_000_000, -599, 403}, {499_999_999, -599, 200},
	} {
		srv.SetClock(func() time.Time { return time.Unix(triggerNow, c.nanos) })
		w := call{body: "{}", at: strconv.Itoa(triggerNow + c.at)}.do(srv)
		assert.Equal(t, c.status, w.Code, "%+v: %s", c, w.Body)
	}
}

func TestTriggerRepeats(t *testing.T) {
	t.Parallel()
	now := time.Unix(triggerNow, 0)
	srv := startServer(t, pushy.Options{Limits: pushy.Limits{CommandRate: -1}})
	srv.SetClock(func() time.Time { return now })
	p := connectPeer(t, srv)
	first := call{body: `{"n":1}`, more: "&id=one", at: strconv.Itoa(triggerNow + 599)}
	assert.Equal(t, 200, first.do(srv).Code)
	p.subscribe("room", "")
	assert.Equal(t, 200, first.do(srv).Code, "the first answer again")
	p.quiet()
	assert.Equal(t, 201, call{body: `{"n":1}`, more: "&id=two", at: first.at}.do(srv).Code)
	p.expect(`told room {"n":1}`)
	assert.Equal(t, 201, call{body: `{"n":2}`, more: "&id=one", at: first.at}.do(srv).Code, "another key is another request")
	p.expect(`told room {"n":2}`)
	assert.Equal(t, 403, call{body: `{"n":1}`, more: "&id=one", at: first.at, key: "bad"}.do(srv).Code)
	last := now.Add(1198 * time.Second) // the last second of its timestamp
	srv.SetClock(func() time.Time { return last })
	assert.Equal(t, 200, first.do(srv).Code)
	p.quiet()

	// At the same moment.
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			assert.Equal(t, 201, call{body: `{"n":3}`, more: "&id=x", at: first.at}.do(srv).Code)
		})
	}
	wait(t, peerPatience, "the repeats", all.Wait)
	p.expect(`told room {"n":3}`)
	p.quiet()
}

func TestTriggerWhenTheBrokerFails(t *testing.T) {
	t.Parallel()
	var fail func() error
	srv := triggerServer(t, pushy.Options{
		Broker: publishing(func(context.Context, string, broker.Entry) (broker.Appended, error) {
			return broker.Appended{Receivers: broker.Unknown}, fail()
		}),
	})
	c := call{body: "{}", more: "&id=a"}
	fail = func() error { return errors.New("down") }
	w := c.do(srv)
	assert.Equal(t, 503, w.Code)
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.Contains(t, w.Body.String(), `{"error":{"code":"503",`)
	fail = func() error { panic("worse") }
	assert.Equal(t, 503, c.do(srv).Code, "a Broker that panics is a Broker that fails")
	fail = func() error { return nil }
	wait(t, peerPatience, "a retry after a panic", func() {
		assert.Equal(t, 201, c.do(srv).Code, "Unknown counts as somebody")
	})
	require.ErrorContains(t, srv.Publish(t.Context(), "room", "x", func() {}), "encode")
}

// Issue 11, number 24: a trigger's event must not look like a private channel,
// or tokens of careless auth endpoints are keys of triggers.
func TestPrivateEventsAreRefusedOnTheTrigger(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	send := func(srv *pushy.Server, event string) *httptest.ResponseRecorder {
		at := strconv.Itoa(triggerNow)
		key := ownSum("room:" + event + ":" + at + ":{}:" + peerKey)
		return call{body: "{}", query: "timestamp=" + at + "&auth_key=" + key + "&event=" + url.QueryEscape(event)}.do(srv)
	}
	srv := triggerServer(t, pushy.Options{Logger: log})
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	for _, event := range []string{"private-x", "private-", "PRIVATE-x", "Private-room", "pRiVaTe-\u00e9"} {
		w := send(srv, event)
		assert.Equal(t, 400, w.Code, event)
		assert.Equal(t, `{"error":{"code":"400","message":"Invalid event name: must not begin with \"private-\""}}`, w.Body.String(), event)
	}
	w := send(srv, "Presence-x")
	assert.Equal(t, 400, w.Code)
	assert.Contains(t, w.Body.String(), `must not begin with \"presence-\"`)
	p.quiet()
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "trigger refused")
	for _, event := range []string{"private", "presence", "privates-x", "x-private-x", " private-x"} {
		assert.Equal(t, 201, send(srv, event).Code, event)
		p.expect(event + " room {}")
	}
	require.NoError(t, srv.Publish(t.Context(), "room", "private-x", 1), "the host may")
	p.expect("private-x room 1")
	open := triggerServer(t, pushy.Options{AllowPrivateEvents: true})
	assert.Equal(t, 200, send(open, "private-x").Code)
}

// Issue 11, number 20: a publisher that leaves does not end the publish, and its
// retry is not delivered again.
func TestTriggerOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"clientLeaves", context.WithCancel},
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithDeadline(ctx, time.Now())
			return ctx, cancel
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			published := 0
			begun, release := make(chan struct{}), make(chan struct{})
			hold := func(ctx context.Context, _ string, _ broker.Entry) (broker.Appended, error) {
				published++
				close(begun)
				select {
				case <-release:
					return broker.Appended{Receivers: broker.Some}, nil
				case <-ctx.Done():
					return broker.Appended{}, ctx.Err()
				}
			}
			srv := triggerServer(t, pushy.Options{Broker: publishing(hold)})
			ctx, cancel := c.ctx(t.Context())
			answered := make(chan int)
			leaving := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { srv.ServeHTTP(w, r.WithContext(ctx)) })
			trigger := call{body: "{}", more: "&id=one"}
			go func() { answered <- trigger.do(leaving).Code }()
			<-begun
			cancel()
			retried := make(chan int)
			go func() { retried <- trigger.do(srv).Code }() // while the first is under way
			close(release)
			assert.Equal(t, 201, <-answered)
			assert.Equal(t, 201, <-retried)
			assert.Equal(t, 201, trigger.do(srv).Code)
			assert.Equal(t, 1, published)
		})
	}
}

// Issue 11, number 20: a Broker that hangs is given up all the same.
func TestTriggerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ string, _ broker.Entry) (broker.Appended, error) {
			<-ctx.Done()
			return broker.Appended{}, ctx.Err()
		}
		srv := triggerServer(t, pushy.Options{Broker: publishing(hang)})
		began := time.Now()
		assert.Equal(t, 503, call{body: "{}"}.do(srv).Code)
		assert.Equal(t, 10*time.Second, time.Since(began))
		_ = srv.Close()
	})
}

// Issue 11, number 15: a clock that is off is in the log with both times.
func TestRefusedTriggerIsLogged(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv := triggerServer(t, pushy.Options{Logger: log})
	for range 3 {
		assert.Equal(t, 403, call{body: "{}", at: strconv.Itoa(triggerNow - 700)}.do(srv).Code)
		assert.Equal(t, 403, call{body: "{}", key: "0123456789abcdef"}.do(srv).Code)
	}
	require.Len(t, lines(), 2)
	assert.Contains(t, lines()[0], strconv.Itoa(triggerNow-700))
	assert.Contains(t, lines()[0], strconv.Itoa(triggerNow))
	assert.Contains(t, lines()[1], "Options.SecretKey")
	assert.NotContains(t, lines()[1], "0123456789abcdef")
}

// Issue 11, number 9: what a broker can never take is not to be tried again.
func TestTooLargeForTheBroker(t *testing.T) {
	t.Parallel()
	small := &altered{
		Broker: memory.New(),
		append: func(context.Context, string, broker.Entry) (broker.Appended, error) {
			return broker.Appended{}, fmt.Errorf("the broker says: %w: 2 MiB", broker.ErrTooLarge)
		},
	}
	srv := triggerServer(t, pushy.Options{Broker: small})
	w := call{body: "{}"}.do(srv)
	assert.Equal(t, 413, w.Code)
	assert.JSONEq(t, `{"error":{"code":"413","message":"Event too large for the broker"}}`, w.Body.String())
	assert.Empty(t, w.Header().Get("Retry-After"))
	require.ErrorIs(t, srv.Publish(t.Context(), "room", "told", nil), broker.ErrTooLarge)
	p := connectPeer(t, srv)
	p.send(subscribeText(t, p.id, "private-room", `{"a":1}`))
	p.expect(`pushy:subscription-failed {"channel":"private-room","reason":"Presence data too large"}`)
}

// Issue 11, number 20: many publishers that leave at once, and try again, have each
// event delivered once.
func TestManyTriggersWhoseClientsLeave(t *testing.T) {
	t.Parallel()
	const many = 200
	release := make(chan struct{})
	var waiting atomic.Int64
	b := &altered{Broker: memory.New()}
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		waiting.Add(1)
		select {
		case <-release:
			return b.Broker.Append(ctx, channel, e)
		case <-ctx.Done():
			return broker.Appended{}, ctx.Err()
		}
	}
	srv, base := serve(t, pushy.Options{
		SecretKey: peerKey,
		Broker:    b,
		Limits:    pushy.Limits{ConnBuffer: -1},
	})
	p := connectPeer(t, srv)
	p.subscribe("news", "")
	client := &http.Client{Timeout: peerPatience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	now := time.Now().Unix()
	send := func(ctx context.Context, i int) (status int, err error) {
		body := fmt.Sprintf(`{"n":%d}`, i)
		key, err := pushy.SignTrigger(peerKey, "news", "x", now, []byte(body))
		if err != nil {
			return 0, err
		}
		target := fmt.Sprintf("%s/pushy/channel/news/trigger?event=x&timestamp=%d&auth_key=%s&id=i%d", base, now, key, i)
		r, err := http.NewRequestWithContext(ctx, "POST", target, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var first, again sync.WaitGroup
	for i := range many {
		first.Go(func() {
			_, err := send(ctx, i)
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
	wait(t, peerPatience, "all are being published", func() {
		for waiting.Load() < many {
			runtime.Gosched()
		}
	})
	leave()
	first.Wait()
	for i := range many {
		again.Go(func() {
			status, err := send(t.Context(), i)
			assert.NoError(t, err)
			assert.Equal(t, 201, status)
		})
	}
	close(release)
	again.Wait()
	seen := map[string]bool{}
	for range many {
		data := string(p.next().Data)
		assert.False(t, seen[data], data)
		seen[data] = true
	}
	p.quiet()
}
