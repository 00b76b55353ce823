package sse_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/sse"
)

// keeping keeps the events of channels whose names begin with "kept".
func keeping(size int) func(string) pushy.ChannelOptions {
	return func(name string) pushy.ChannelOptions {
		var o pushy.ChannelOptions
		if strings.HasPrefix(name, "kept") || strings.HasPrefix(name, "private-kept") {
			o.Keep = broker.Keep{
				Size: size,
				TTL:  time.Hour,
			}
		}
		return o
	}
}

// publish publishes events to a channel: "1", "2" and so on.
func publish(t *testing.T, srv *pushy.Server, channel string, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		require.NoError(t, srv.Publish(t.Context(), channel, "n", i))
	}
}

// opened is the data of pushy:open.
type opened struct {
	SocketID string `json:"socketId"`
	Channels map[string]struct {
		Recovered bool
		Replay    int
		Reason    string
	}
}

func (st *stream) opened() (o opened) {
	st.t.Helper()
	require.NoError(st.t, json.Unmarshal([]byte(st.open.data), &o))
	return o
}

func TestStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		st := s.listen("channel=Orders&channel=chat&channel=orders")
		h := st.res.Header
		assert.Equal(t, "no-store, no-transform", h.Get("Cache-Control"))
		assert.Equal(t, "no", h.Get("X-Accel-Buffering"))
		assert.Equal(t, "Origin", h.Get("Vary"))
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		assert.Equal(t, "-,-", st.open.id)
		assert.GreaterOrEqual(t, st.open.retry, 2000)
		assert.LessOrEqual(t, st.open.retry, 3000)
		o := st.opened()
		assert.Len(t, o.Channels, 2)
		assert.Equal(t, `{"recovered":false}`, strings.Split(strings.Split(st.open.data, `"orders":`)[1], ",")[0])
		conn, ok := s.srv.Conn(o.SocketID)
		require.True(t, ok)
		assert.Equal(t, "sse", conn.Protocol())
		assert.Equal(t, []string{"chat", "orders"}, conn.Channels())

		require.NoError(t, s.srv.Publish(t.Context(), "orders", "status", "<tr id=o7>\n<td>packed</td></tr>"))
		assert.Equal(t, event{"status", "<tr id=o7>\n<td>packed</td></tr>", "-,-", -1}, st.next())
		require.NoError(t, conn.Send("note", map[string]int{"a": 1}))
		assert.Equal(t, event{"note", `{"a":1}`, "-,-", -1}, st.next())
		_, err := s.srv.PublishEvent(t.Context(), pushy.Event{
			Channel: "chat",
			Name:    "said",
			Data:    1,
			Except:  []string{o.SocketID},
		})
		require.NoError(t, err)
		publish(t, s.srv, "chat", 2, 2)
		assert.Equal(t, "2", st.next().data)
		assert.Equal(t, 1, s.srv.Stats().Connections)
		st.close()
		settle()
		assert.Equal(t, 0, s.srv.Stats().Connections)
	})
}

// names and data say what an event is.
func TestForms(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(10)}, sse.Options{}, nil)
		for query, want := range map[string][3]event{
			"":                     {{"said", "a\nb", "", -1}, {"", "1", "", -1}, {"note", "x", "", -1}},
			"names=event&data=raw": {{"said", "a\nb", "", -1}, {"", "1", "", -1}, {"note", "x", "", -1}},
			"data=json":            {{"said", `"a\nb"`, "", -1}, {"", "1", "", -1}, {"note", `"x"`, "", -1}},
			"names=channel":        {{"kept", "a\nb", "", -1}, {"kept", "1", "", -1}, {"note", "x", "", -1}},
			"names=none":           {{"", "a\nb", "", -1}, {"", "1", "", -1}, {"", "x", "", -1}},
			"names=none&data=json": {{"", `"a\nb"`, "", -1}, {"", "1", "", -1}, {"", `"x"`, "", -1}},
			"names=channel&data=json": {
				{"kept", `"a\nb"`, "", -1}, {"kept", "1", "", -1}, {"note", `"x"`, "", -1},
			},
			"data=envelope": {
				{"", `{"event":"said","channel":"kept","data":"a\nb","offset":`, "", -1},
				{"", `{"event":"message","channel":"kept","data":1,"offset":`, "", -1},
				{"", `{"event":"note","data":"x"}`, "", -1},
			},
		} {
			st := s.listen("channel=kept&" + query)
			require.NoError(t, s.srv.Publish(t.Context(), "kept", "said", "a\nb"))
			require.NoError(t, s.srv.Publish(t.Context(), "kept", "message", 1))
			conn, _ := s.srv.Conn(st.opened().SocketID)
			require.NoError(t, conn.Send("note", "x"))
			for _, w := range want {
				e := st.next()
				e.id = ""
				if query == "data=envelope" {
					assert.True(t, strings.HasPrefix(e.data, w.data), e.data)
					e.data = w.data
				}
				assert.Equal(t, w, e, query)
			}
			conn.Close(pushy.CloseRemoved, "x")
			assert.Equal(t, "pushy:end", st.next().name, query)
			st.close()
		}
	})
}

// S2: strings arrive as they are, with CR and CRLF as LF, and exactly as JSON.
func TestData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		raw := s.listen("channel=a")
		exact := s.listen("channel=a&data=json")
		envelope := s.listen("channel=a&data=envelope")
		for _, text := range []string{
			"", " ", "  x", "\n", "\n\n", "\r", "\r\n", "\r\r\n\n", "a\rb", "a\nb", "a\r\nb", "a\n", "\na",
			":", ": x", "data:", "data: x", "data: x\ndata: y", "event: x\n\ndata: z", "id: 7\nretry: 1",
			"\u2028\u2029\u0085", "a\x00b", "\x00", "\U0001F600 é", "\ufeffx", "\ufeff", "{\"a\":1}", "null", "1",
			strings.Repeat("0123456789abcdefé\n", 200<<10/18),
		} {
			require.NoError(t, s.srv.Publish(t.Context(), "a", "x", text))
			want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
			assert.Equal(t, event{"x", want, "-", -1}, raw.next())
			var got string
			e := exact.next()
			require.NoError(t, json.Unmarshal([]byte(e.data), &got))
			assert.Equal(t, text, got)
			var whole struct{ Data string }
			require.NoError(t, json.Unmarshal([]byte(envelope.next().data), &whole))
			assert.Equal(t, text, whole.Data)
		}
		for _, value := range []string{`null`, `1.50`, `{"a":[1,2],"b":"x\ny"}`, `[]`, `true`, "{\n \"a\": 1\r\n}"} {
			require.NoError(t, s.srv.Publish(t.Context(), "a", "x", json.RawMessage(value)))
			for _, st := range []*stream{raw, exact} {
				e := st.next()
				assert.JSONEq(t, value, e.data)
				assert.NotContains(t, e.data, "\n")
			}
			envelope.next()
		}
	})
}

func TestHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Heartbeat: 25 * time.Second}, sse.Options{}, nil)
		st := s.listen("channel=a")
		began := time.Now()
		for i := range 3 {
			e, err := st.read()
			require.NoError(t, err)
			assert.Equal(t, ":", e.name)
			assert.Equal(t, time.Duration(i+1)*25*time.Second, time.Since(began))
		}
		publish(t, s.srv, "a", 1, 1)
		assert.Equal(t, "1", st.next().data)
	})
}

// A stream is a member of a private channel that receives nothing about members.
func TestPrivateChannelBySession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		users := map[string]string{"a1": "ann", "b2": "bob"}
		s := start(t, pushy.Options{
			Accept: func(r *http.Request) (any, error) {
				cookie, err := r.Cookie("session")
				if err != nil {
					return nil, nil
				}
				return users[cookie.Value], nil
			},
			Authorizer: byUser{},
		}, sse.Options{}, nil)
		st := s.listen("channel=private-ann", header("Cookie", "session=a1"))
		ch, ok := s.srv.Channels().Lookup("private-ann")
		require.True(t, ok)
		assert.Equal(t, 1, ch.Len())
		publish(t, s.srv, "private-ann", 1, 1)
		assert.Equal(t, "1", st.next().data)
		for _, cookie := range []string{"session=b2", "session=c3", ""} {
			res, body := s.refused("channel=private-ann&channel=news", header("Cookie", cookie))
			want := http.StatusForbidden
			if cookie != "session=b2" {
				want = http.StatusUnauthorized
			}
			assert.Equal(t, want, res.StatusCode, cookie)
			assert.Contains(t, body, "channel private-ann: ")
		}
		settle()
		assert.Equal(t, 1, ch.Len())
		_, open := s.srv.Channels().Lookup("news")
		assert.False(t, open, "a refused request joins no channel")
	})
}

// In a channel with presence, the others see the stream as a member, and it receives nothing of them.
func TestPresenceIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Authorizer: byUser{any: true}}, sse.Options{}, nil)
		st := s.listen("channel=private-room")
		ch, _ := s.srv.Channels().Lookup("private-room")
		settle()
		list, err := s.srv.ListMembers(t.Context(), pushy.MemberQuery{Channel: "private-room"})
		require.NoError(t, err)
		assert.Len(t, list.Members, 1)
		assert.Equal(t, 1, ch.Len())
		publish(t, s.srv, "private-room", 1, 1)
		assert.Equal(t, "n", st.next().name)
	})
}
