package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/subscriber"
)

// canonical is the one text of a JSON value: numbers keep their digits.
func canonical(value []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	if _, err := d.Token(); err != io.EOF {
		return "", fmt.Errorf("more than one value: %s", value)
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// heard is an event that a client has received.
type heard struct {
	text string          // its name and its canonical data
	at   broker.Position // zero if the protocol has no positions, or the channel keeps no events
}

// listener is a client of any protocol in one channel.
type listener struct {
	t     *testing.T
	name  string
	id    string       // of its connection
	leave func() error // unsubscribes; nil if the protocol has no such message

	mu      sync.Mutex
	in      bool // the subscription was successful
	events  []heard
	members map[string]shownMember // by the id of the protocol
	more    chan struct{}          // closed when something has changed
}

// shownMember is a member as a client sees it.
type shownMember struct{ user, info string }

func newListener(t *testing.T, name string) *listener {
	return &listener{
		t:       t,
		name:    name,
		members: map[string]shownMember{},
		more:    make(chan struct{}),
	}
}

// change makes a change, and wakes those who wait.
func (l *listener) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.more)
	l.more = make(chan struct{})
}

// event records an event.
func (l *listener) event(name string, data []byte, at broker.Position) {
	text, err := canonical(data)
	if !assert.NoError(l.t, err, "%s: data of %s: %s", l.name, name, data) {
		return
	}
	l.change(func() {
		l.events = append(l.events, heard{
			text: name + " " + text,
			at:   at,
		})
	})
}

// await waits until ok returns true, which is called with the lock.
func (l *listener) await(what string, ok func() bool) {
	l.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		done, more := ok(), l.more
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
		case <-timeout.C:
			l.mu.Lock()
			defer l.mu.Unlock()
			require.FailNow(l.t, "not within a minute: "+what, "%s has %d events and the members %v", l.name, len(l.events), l.members)
		}
	}
}

// got waits for an event of this name, and returns how many of all events came before it.
func (l *listener) got(event string) (before int) {
	l.t.Helper()
	l.await("event "+event, func() bool {
		before = slices.IndexFunc(l.events, func(e heard) bool { return strings.HasPrefix(e.text, event+" ") })
		return before >= 0
	})
	return before
}

func (l *listener) texts() (texts []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		texts = append(texts, e.text)
	}
	return texts
}

// usersLocked returns the users in the channel, with what the client sees of each.
func (l *listener) usersLocked() map[string]string {
	users := map[string]string{}
	for _, m := range l.members {
		users[m.user] = m.info
	}
	return users
}

// kinds are the clients of all protocols. Each returns when it is subscribed.
var kinds = map[string]func(t *testing.T, n protocolNode, channel, user string) *listener{
	"pushy WebSocket": func(t *testing.T, n protocolNode, channel, user string) *listener {
		return listenPushy(t, n, "rawwebsocket", channel, user)
	},
	"pushy SockJS": func(t *testing.T, n protocolNode, channel, user string) *listener {
		return listenPushy(t, n, "xhr_streaming", channel, user)
	},
	"SSE":       listenSSE,
	"Go client": listenGo,
	"Pusher":    listenPusher,
}

// seesMembers are the kinds that receive the members.
var seesMembers = []string{"Go client", "Pusher", "pushy SockJS", "pushy WebSocket"}

func kindNames() []string { return slices.Sorted(maps.Keys(kinds)) }

// presenceData is what pushy's clients say about a user.
func presenceData(user string) string {
	return `{"user":"` + user + `","user_info":{"name":"N` + user + `"}}`
}

// memberOf reads a member as pushy's clients receive it.
func memberOf(t *testing.T, member []byte) (id string, m shownMember) {
	var fields struct {
		MemberID, User string
		Info           json.RawMessage `json:"user_info"`
	}
	assert.NoError(t, json.Unmarshal(member, &fields), "member %s", member)
	if fields.Info == nil {
		fields.Info = []byte("{}")
	}
	info, err := canonical(fields.Info)
	assert.NoError(t, err)
	return fields.MemberID, shownMember{fields.User, info}
}

func listenPushy(t *testing.T, n protocolNode, transport, channel, user string) *listener {
	l := newListener(t, "pushy over "+transport+" of "+user)
	got := func(text []byte) {
		var m struct {
			Event, Channel string
			Data           json.RawMessage
			Offset         uint64
		}
		if !assert.NoError(t, json.Unmarshal(text, &m), "%s", text) {
			return
		}
		var fields struct {
			SocketID string
			Presence []json.RawMessage
			Member   json.RawMessage
		}
		own := strings.HasPrefix(m.Event, "pushy:")
		if own {
			assert.NoError(t, json.Unmarshal(m.Data, &fields), "%s", text)
		}
		switch m.Event {
		case "pushy:connect":
			l.change(func() { l.id = fields.SocketID })
		case "pushy:subscription-success", "pushy:presence-sync":
			l.change(func() {
				l.in = true
				clear(l.members)
				for _, member := range fields.Presence {
					id, m := memberOf(t, member)
					l.members[id] = m
				}
			})
		case "pushy:presence-add", "pushy:presence-update":
			l.change(func() {
				id, m := memberOf(t, fields.Member)
				if _, known := l.members[id]; !known {
					l.members[id] = m
				}
			})
		case "pushy:subscription-end":
		case "pushy:presence-quit":
			l.change(func() {
				id, _ := memberOf(t, fields.Member)
				delete(l.members, id)
			})
		default:
			if !assert.False(t, own, "%s received %s", l.name, text) {
				return
			}
			at := broker.Position{Offset: m.Offset}
			l.event(m.Event, m.Data, at)
		}
	}
	link, err := dialQuery(n.url, transport, "?user="+user, got, func(error) {})
	require.NoError(t, err)
	t.Cleanup(link.close)
	l.leave = func() error { return link.send(`{"command":"unsubscribe","data":{"channel":"` + channel + `"}}`) }
	l.await("pushy:connect", func() bool { return l.id != "" })
	data := ""
	if strings.HasPrefix(channel, "presence-") {
		data = `,"auth":"any","data":` + presenceData(user)
	}
	require.NoError(t, link.send(`{"command":"subscribe","data":{"channel":"`+channel+`"`+data+`}}`))
	l.await("the subscription", func() bool { return l.in })
	return l
}

func listenSSE(t *testing.T, n protocolNode, channel, user string) *listener {
	l := newListener(t, "SSE of "+user)
	ctx, cancel := context.WithCancel(t.Context())
	query := url.Values{
		"channel": {channel},
		"data":    {"json"},
		"user":    {user},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/pushy/events?"+query.Encode(), nil)
	require.NoError(t, err)
	answer, err := httpClient.Do(r)
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	require.Equal(t, http.StatusOK, answer.StatusCode)
	go func() {
		defer close(ended)
		defer answer.Body.Close()
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 1<<20)
		var name, data string
		var at broker.Position
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "event":
				name = value
			case "data":
				data = value
			case "id":
				if value != "-" {
					at, _ = broker.ParsePosition(value)
				}
			case "":
				switch {
				case name == "pushy:open":
					var open struct{ SocketID string }
					assert.NoError(t, json.Unmarshal([]byte(data), &open))
					l.change(func() { l.id, l.in = open.SocketID, true })
				case data != "":
					l.event(name, []byte(data), at)
				}
				name, data = "", ""
			}
		}
	}()
	l.await("pushy:open", func() bool { return l.in })
	return l
}

func listenGo(t *testing.T, n protocolNode, channel, user string) *listener {
	l := newListener(t, "Go client of "+user)
	c, err := subscriber.Dial(t.Context(), n.url+"/pushy?user="+user, subscriber.Options{
		MaxEvents: 1 << 20,
		MaxBytes:  1 << 30,
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	l.id = c.ConnID()
	o := &subscriber.SubscribeOptions{}
	if strings.HasPrefix(channel, "presence-") {
		o.Presence = true
		o.Data = json.RawMessage(presenceData(user))
	}
	s, err := c.Subscribe(t.Context(), channel, o)
	require.NoError(t, err)
	l.leave = func() error { return s.Unsubscribe(t.Context()) }
	go func() {
		for e, err := range s.Events() {
			switch {
			case err != nil:
				assert.ErrorIs(t, err, subscriber.ErrClosed)
			case e.Kind == subscriber.KindPublished:
				l.event(e.Name, e.Data, e.Position)
			case e.Kind == subscriber.KindGap, e.Kind == subscriber.KindEnded:
				assert.Fail(t, "a gap or an end", "%s: %s %s", l.name, e.Kind, e.Reason)
			default: // about members
				l.change(func() {
					clear(l.members)
					for _, member := range s.Members() {
						id, m := memberOf(t, member)
						l.members[id] = m
					}
				})
			}
		}
	}()
	return l
}

const (
	pusherKey    = "278d425bdf160c739803"
	pusherSecret = "7ad3773142a6692b25b8"
)

func pusherSign(text string) string {
	mac := hmac.New(sha256.New, []byte(pusherSecret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func listenPusher(t *testing.T, n protocolNode, channel, user string) *listener {
	l := newListener(t, "Pusher client of "+user)
	type presence struct {
		Presence struct {
			Hash map[string]json.RawMessage
		}
	}
	add := func(id string, info []byte) {
		text, err := canonical(info)
		assert.NoError(t, err)
		l.members[id] = shownMember{id, text}
	}
	got := func(text []byte) {
		var m struct {
			Event string
			Data  string
		}
		if !assert.NoError(t, json.Unmarshal(text, &m), "%s", text) {
			return
		}
		var fields struct {
			presence
			SocketID string          `json:"socket_id"`
			UserID   string          `json:"user_id"`
			Info     json.RawMessage `json:"user_info"`
		}
		own := strings.HasPrefix(m.Event, "pusher")
		if own {
			assert.NoError(t, json.Unmarshal([]byte(m.Data), &fields), "%s", text)
		}
		switch m.Event {
		case "pusher:connection_established":
			l.change(func() { l.id = fields.SocketID })
		case "pusher_internal:subscription_succeeded":
			l.change(func() {
				l.in = true
				for id, info := range fields.Presence.Hash {
					add(id, info)
				}
			})
		case "pusher_internal:member_added":
			l.change(func() { add(fields.UserID, fields.Info) })
		case "pusher_internal:member_removed":
			l.change(func() { delete(l.members, fields.UserID) })
		default:
			if !assert.False(t, own, "%s received %s", l.name, text) {
				return
			}
			// As pusher-js does: what is not JSON is a string.
			data := []byte(m.Data)
			if !json.Valid(data) {
				data, _ = json.Marshal(m.Data)
			}
			l.event(m.Event, data, broker.Position{})
		}
	}
	link, err := dialWebSocket(n.url, "/app/"+pusherKey+"?protocol=7&user="+user, false, got, func(error) {})
	require.NoError(t, err)
	t.Cleanup(link.close)
	l.leave = func() error {
		return link.send(`{"event":"pusher:unsubscribe","data":{"channel":"` + channel + `"}}`)
	}
	l.await("pusher:connection_established", func() bool { return l.id != "" })
	data := map[string]string{"channel": channel}
	if strings.HasPrefix(channel, "presence-") {
		own := `{"user_id":"` + user + `","user_info":{"name":"N` + user + `"}}`
		data["channel_data"] = own
		data["auth"] = pusherKey + ":" + pusherSign(l.id+":"+channel+":"+own)
	}
	text, err := json.Marshal(map[string]any{
		"event": "pusher:subscribe",
		"data":  data,
	})
	require.NoError(t, err)
	require.NoError(t, link.send(string(text)))
	l.await("the subscription", func() bool { return l.in })
	return l
}
