package pushy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
)

// relay is a ChannelOptions.ClientEvent that changes nothing.
func relay(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) { return data, nil }

// talking allows client events in the channels that contain "talk".
func talking(run func(*pushy.Conn, string, json.RawMessage) (json.RawMessage, error)) func(string) pushy.ChannelOptions {
	return func(name string) pushy.ChannelOptions {
		var o pushy.ChannelOptions
		if strings.Contains(name, "talk") {
			o.ClientEvent = run
		}
		if strings.Contains(name, "kept") {
			o.Keep = broker.Keep{Size: 10}
		}
		o.Presence.Off = strings.Contains(name, "silent")
		o.Presence.PerUser = strings.Contains(name, "users")
		return o
	}
}

// text returns the next message as it was sent.
func (p *peer) text() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	text, err := p.Receive(ctx)
	require.NoError(p.t, err)
	return text
}

func emitText(channel, event, data string) string {
	return fmt.Sprintf(`{"event":%q,"channel":%q,"data":%s,"id":1}`, event, channel, data)
}

const sent = `pushy:reply {"id":1,"data":{}}`

// A client event reaches the other members, on all nodes and another tab of the user too, with
// the member that has sent it, and not its sender.
func TestClientEvent(t *testing.T) {
	t.Parallel()
	for name, channel := range map[string]string{
		"plain":      "private-talk",
		"kept":       "private-talk-kept",
		"noPresence": "private-talk-silent",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster()
			log := &testlog.Log{}
			o := pushy.Options{
				Channel: talking(relay),
				Logger:  log.Logger(),
			}
			a, b := startOn(t, c.Broker(), o), startOn(t, c.Broker(), o)
			ann, tab, bob, cyd := connectPeer(t, a), connectPeer(t, a), connectPeer(t, a), connectPeer(t, b)
			member := ann.subscribe(channel, "").field("memberId")
			for _, p := range []*peer{tab, bob, cyd} {
				p.subscribe(channel, "")
			}
			ann.send(`{"event":"client-typing","channel":"` + strings.ToUpper(channel[:1]) + channel[1:] + `","data": {"from":"me", "n":1}}`)
			want := `{"event":"client-typing","channel":"` + channel + `","data":{"from":"me","n":1},"from":"` + member + `"}`
			for _, p := range []*peer{tab, bob, cyd} {
				assert.Equal(t, want, p.text())
				p.quiet()
			}
			ann.quiet()
			ann.send(`{"event":"client-typing","channel":"` + channel + `","id":1}`)
			ann.expect(sent)
			want = `{"event":"client-typing","channel":"` + channel + `","data":null,"from":"` + member + `"}`
			assert.Equal(t, want, bob.text())
			assert.Equal(t, want, cyd.text())

			// The host can use such names, too: then there is no sender.
			require.NoError(t, a.Publish(t.Context(), channel, "client-typing", 1))
			assert.NotContains(t, bob.text(), `"from"`)
			assert.NotContains(t, cyd.text(), `"from"`)
			if name == "kept" {
				past, err := a.History(t.Context(), channel, pushy.HistoryOptions{})
				require.NoError(t, err)
				assert.Len(t, past.Events, 1, "only the event of the host is kept")
			}
			assert.Empty(t, log.With(""))
		})
	}
}

// The sender is the member that the others see.
func TestClientEventOfAUser(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Channel: talking(relay)})
	ann, bob := connectPeer(t, srv), connectPeer(t, srv)
	own := ann.subscribe("private-talk-users", `{"user":"ann"}`)
	var seen struct {
		MemberID string
		Presence []struct{ MemberID string }
	}
	require.NoError(t, json.Unmarshal(own.Data, &seen))
	require.NotEqual(t, seen.MemberID, seen.Presence[0].MemberID)
	bob.subscribe("private-talk-users", `{"user":"bob"}`)
	ann.next() // presence-add
	ann.send(emitText("private-talk-users", "client-x", "1"))
	assert.Contains(t, bob.text(), `"from":"`+seen.Presence[0].MemberID+`"`)
}

// Acceptance 18: where client events are off there is silence.
func TestClientEventsOff(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]pushy.Options{
		"noChannel":    {},
		"otherChannel": {Channel: talking(relay)},
		"broken":       {Channel: orders},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &testlog.Log{}
			options.Logger = log.Logger()
			srv := startServer(t, options)
			ann, bob := connectPeer(t, srv), connectPeer(t, srv)
			ann.subscribe("private-room", "")
			bob.subscribe("private-room", "")
			for _, text := range []string{
				emitText("private-room", "client-x", "1"),
				emitText("private-room", "other", "1"),
				emitText("nobody", "client-x", "1"),
				emitText("a:b", "client-x", "1"),
				`{"event":"client-x"}`,
				`{"event":{"a":1},"channel":["private-talk"]}`,
				`{"event":"client-x","channel":"private-room","data":"` + strings.Repeat("x", 20<<10) + `"}`,
			} {
				ann.send(text)
				ann.quiet()
			}
			bob.quiet()
			if name != "broken" {
				assert.Len(t, log.With("an event of a client was ignored"), 1)
			}
		})
	}
}

// Acceptance 18: what is refused, and that nothing else happens then.
func TestClientEventRefused(t *testing.T) {
	t.Parallel()
	calls := 0 // the commands of one connection run one after another
	srv := startServer(t, pushy.Options{
		Channel: talking(func(_ *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) {
			calls++
			return data, nil
		}),
		CheckEvent: func(event string) error {
			switch event {
			case "client-bad":
				return errors.New("is not wanted")
			case "client-broken":
				panic(event)
			}
			return nil
		},
	})
	ann, bob := connectPeer(t, srv), connectPeer(t, srv)
	for _, channel := range []string{"private-talk", "talk"} {
		ann.subscribe(channel, "")
		bob.subscribe(channel, "")
	}
	bob.subscribe("private-talk-bob", "")
	failed := func(code, message string) string {
		return fmt.Sprintf(`pushy:error {"message":"%s","code":"%s","id":1}`, message, code)
	}
	for _, c := range []struct{ text, want string }{
		{emitText("private-talk-bob", "client-x", "1"), failed("403", "Not subscribed to this channel")},
		{emitText("private-talk-nobody", "client-x", "1"), failed("404", "Channel not found")},
		{emitText("talk", "client-x", "1"), failed("403", "Client events are not allowed")},
		{emitText("private-talk", "x", "1"), failed("400", "event: must begin with client-")},
		{emitText("private-talk", "Client-x", "1"), failed("400", "event: must begin with client-")},
		{`{"event":7,"channel":"private-talk","id":1}`, failed("400", "event: must be a string, not a number")},
		{emitText("private-talk", "client-"+strings.Repeat("x", 200), "1"), failed("400", "event: must not be longer than 200 bytes")},
		{emitText("private-talk", "client-{", "1"), failed("400", "event: must not contain {")},
		{emitText("private-talk", "client-bad", "1"), failed("400", "event: is not wanted")},
		{emitText("private-talk", "client-broken", "1"), failed("500", "Internal error")},
		{emitText("private-talk", "client-x", strings.Repeat("[", 300)+strings.Repeat("]", 300)),
			failed("400", "data: is not valid: byte 256: over the limit of depth (256)")},
		{emitText("private-talk", "client-x", `"`+strings.Repeat("x", 10<<10-1)+`"`), failed("413", "Event too large")},
	} {
		assert.Equal(t, c.want, ann.ask(c.text).String(), c.text[:min(len(c.text), 80)])
	}
	assert.Zero(t, calls)
	bob.quiet()

	ann.send(emitText("private-talk", "client-x", `"`+strings.Repeat("x", 10<<10-2)+`"`))
	ann.expect(sent)
	assert.Equal(t, "client-x", bob.next().Event)
	ann.send(`{"command":"unsubscribe","data":{"channel":"private-talk"}}`)
	ann.next()
	ann.send(emitText("private-talk", "client-x", "1"))
	ann.expect(failed("403", "Not subscribed to this channel"))
	bob.quiet()
}

// An Authorizer of the host decides who may send events, and so does the host when it
// subscribes a connection itself.
func TestClientEventRights(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{
		Channel: talking(relay),
		Authorizer: granting(func(r pushy.AuthRequest) {
			r.Grant.ClientEvents = r.Auth == "speaker"
		}),
	})
	subscribe := `{"command":"subscribe","data":{"channel":"private-talk","auth":"%s"}}`
	ann, bob, cyd := connectPeer(t, srv), connectPeer(t, srv), connectPeer(t, srv)
	ann.ask(fmt.Sprintf(subscribe, "speaker"))
	bob.ask(fmt.Sprintf(subscribe, "listener"))
	require.NoError(t, srv.Channels().Join(cyd.conn(srv), "private-talk", nil))
	cyd.next()
	assert.Equal(t, `pushy:error {"message":"Client events are not allowed","code":"403","id":1}`,
		bob.ask(emitText("private-talk", "client-x", "1")).String())
	ann.send(emitText("private-talk", "client-x", "1"))
	ann.expect(sent)
	cyd.expect("client-x private-talk 1")
	cyd.send(emitText("private-talk", "client-x", "2"))
	cyd.expect(sent)
	ann.expect("client-x private-talk 2")
	bob.expect("client-x private-talk 1")
	bob.expect("client-x private-talk 2")
}

// A token of version 2 says whether the client may send events.
func TestClientEventRightsOfTokens(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Channel: talking(relay)})
	for allowed, want := range map[bool]string{
		true:  sent,
		false: `pushy:error {"message":"Client events are not allowed","code":"403","id":1}`,
	} {
		p := connectPeer(t, srv)
		token, err := pushy.SignToken(peerKey, pushy.Token{
			Channels:     []string{"private-talk"},
			Conn:         p.id,
			ClientEvents: allowed,
		})
		require.NoError(t, err)
		require.Equal(t, "pushy:subscription-success",
			p.ask(`{"command":"subscribe","data":{"channel":"private-talk","auth":"`+token+`"}}`).Event)
		assert.Equal(t, want, p.ask(emitText("private-talk", "client-x", "1")).String())
		require.NoError(t, srv.Channels().Leave(p.conn(srv), "private-talk"))
	}
}

// Acceptance 18: 20 events at once, and 10 a second.
func TestClientEventRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Channel: talking(relay)})
		ann, bob := connectPeer(t, srv), connectPeer(t, srv)
		for _, channel := range []string{"private-talk", "private-talk-2"} {
			ann.subscribe(channel, "")
			bob.subscribe(channel, "")
		}
		burst := func(want int) {
			t.Helper()
			accepted := 0
			for i := range 30 {
				channel := [2]string{"private-talk", "private-talk-2"}[i%2]
				if ann.ask(emitText(channel, "client-x", "1")).String() == sent {
					accepted++
					bob.next()
				} else {
					assert.GreaterOrEqual(t, i, want)
				}
			}
			assert.Equal(t, want, accepted)
		}
		burst(20)
		time.Sleep(time.Second)
		burst(10)
		time.Sleep(time.Minute)
		burst(20)
		ann.send(emitText("private-talk", "client-x", "1"))
		ann.expect(`pushy:error {"message":"Too many requests","code":"429","id":1}`)
		bob.quiet()
	})
}

// The host decides what the others receive.
func TestClientEventDecides(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	srv := startServer(t, pushy.Options{
		Logger: log.Logger(),
		Channel: talking(func(conn *pushy.Conn, event string, data json.RawMessage) (json.RawMessage, error) {
			switch event {
			case "client-changed":
				return json.Marshal(map[string]any{"id": conn.ID(), "data": data})
			case "client-refused":
				return data, &pushy.Error{Code: "7", Message: "Not now"}
			case "client-failed":
				return data, errBroker
			case "client-panic":
				panic("a wrong turn")
			case "client-exit":
				runtime.Goexit()
			case "client-dropped":
				return nil, nil
			case "client-invalid":
				return json.RawMessage("{"), nil
			}
			return data, nil
		}),
	})
	ann, bob := connectPeer(t, srv), connectPeer(t, srv)
	ann.subscribe("private-talk", "")
	bob.subscribe("private-talk", "")
	const internal = `pushy:error {"message":"Internal error","code":"500","id":1}`
	for _, c := range []struct{ event, answer string }{
		{"client-refused", `pushy:error {"message":"Not now","code":"7","id":1}`},
		{"client-failed", internal},
		{"client-panic", internal},
		{"client-exit", internal},
		{"client-invalid", internal},
		{"client-dropped", sent},
	} {
		assert.Equal(t, c.answer, ann.ask(emitText("private-talk", c.event, "1")).String(), c.event)
	}
	bob.quiet()
	assert.Len(t, log.With("ChannelOptions.ClientEvent panicked"), 1)
	assert.Len(t, log.With("ChannelOptions.ClientEvent failed"), 1)
	ann.send(emitText("private-talk", "client-changed", `{"a":[1, 2]}`))
	bob.expect(`client-changed private-talk {"data":{"a":[1,2]},"id":"` + ann.id + `"}`)
}

// A broker that fails: the client is answered, and the event is not delivered.
func TestClientEventBrokerFails(t *testing.T) {
	t.Parallel()
	var failure error
	srv := startOn(t, publishing(func(_ context.Context, channel string, _ broker.Entry) (broker.Appended, error) {
		return broker.Appended{}, failure
	}), pushy.Options{Channel: talking(relay)})
	ann := connectPeer(t, srv)
	ann.subscribe("private-talk", "")
	failure = errBroker
	assert.Equal(t, `pushy:error {"message":"Temporarily unavailable","code":"503","id":1}`,
		ann.ask(emitText("private-talk", "client-x", "1")).String())
	failure = fmt.Errorf("over 8 bytes: %w", broker.ErrTooLarge)
	assert.Equal(t, `pushy:error {"message":"Event too large","code":"413","id":1}`,
		ann.ask(emitText("private-talk", "client-x", "1")).String())
}

// What another program writes to the store is validated: the sender is a member's id, and only
// client events have one.
func TestClientEventFromTheStore(t *testing.T) {
	t.Parallel()
	store := newForeign()
	srv := startOn(t, store, pushy.Options{Channel: talking(relay)})
	p := connectPeer(t, srv)
	p.subscribe("private-talk", "")
	p.subscribe("private-talk-kept", "")
	deliver := func(channel, event, from string, at broker.Position) {
		store.sink.Deliver(channel, broker.Entry{
			Kind:  broker.Event,
			Event: event,
			From:  from,
			Data:  json.RawMessage("1"),
			At:    at,
		})
	}
	for _, from := range []string{`x","event":"y`, strings.Repeat("x", 65), "ä", " "} {
		deliver("private-talk", "client-x", from, broker.Position{})
	}
	p.quiet()
	deliver("private-talk", "news", "someone", broker.Position{})
	assert.Equal(t, `{"event":"news","channel":"private-talk","data":1}`, p.text())
	deliver("private-talk", "client-x", "someone", broker.Position{})
	assert.Equal(t, `{"event":"client-x","channel":"private-talk","data":1,"from":"someone"}`, p.text())
	past, err := srv.History(t.Context(), "private-talk-kept", pushy.HistoryOptions{})
	require.NoError(t, err)
	deliver("private-talk-kept", "client-x", "someone", broker.Position{
		Epoch:  past.Top.Epoch,
		Offset: 1,
	})
	assert.Equal(t, `{"event":"client-x","channel":"private-talk-kept","data":1,"offset":1}`, p.text(),
		"a kept event is none that a client has sent")
}

// A client that leaves while the host decides sends nothing.
func TestClientEventOfOneThatHasLeft(t *testing.T) {
	t.Parallel()
	var srv *pushy.Server
	srv = startServer(t, pushy.Options{
		Channel: talking(func(conn *pushy.Conn, _ string, data json.RawMessage) (json.RawMessage, error) {
			return data, srv.Channels().Leave(conn, "private-talk")
		}),
	})
	ann, bob := connectPeer(t, srv), connectPeer(t, srv)
	ann.subscribe("private-talk", "")
	bob.subscribe("private-talk", "")
	ann.send(emitText("private-talk", "client-x", "1"))
	ann.expect(`pushy:subscription-end {"channel":"private-talk"}`)
	ann.expect(`pushy:error {"message":"Not subscribed to this channel","code":"403","id":1}`)
	bob.quiet()
}

// While the broker cannot be reached, the members on the node receive client events.
func TestClientEventWhileAway(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	b := &altered{Broker: memory.New()}
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if away.Load() && e.Kind == broker.Event {
			return broker.Appended{}, broker.ErrAway
		}
		return b.Broker.Append(ctx, channel, e)
	}
	srv := startOn(t, b, pushy.Options{Channel: talking(relay)})
	ann, bob := connectPeer(t, srv), connectPeer(t, srv)
	member := ann.subscribe("private-talk-kept", "").field("memberId")
	bob.subscribe("private-talk-kept", "")
	away.Store(true)
	ann.send(emitText("private-talk-kept", "client-x", "1"))
	ann.expect(sent)
	assert.True(t, bytes.Contains([]byte(bob.text()), []byte(`"from":"`+member+`"`)))
	ann.quiet()
	away.Store(false)
}
