package pusher_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/pushytest"
)

func withClientEvents() pushy.Options {
	return pushy.Options{Channel: pusher.ChannelsWithClientEvents(nil)}
}

func TestClientEvents(t *testing.T) {
	t.Parallel()
	n := serve(t, withClientEvents())
	a, b := n.dial(), n.dial()
	a.join("private-room")
	b.join("private-room")
	for _, data := range []string{`{"to":"all"}`, `"text"`, `"{\"a\":1}"`, `5`, `null`, `[1]`, `"123"`, `9007199254740993`} {
		a.sendText(`{"event":"client-typing","channel":"private-room","user_id":"forged","from":"x","data":` + data + `,"socket_id":"1.1"}`)
		text := b.text()
		assert.Equal(t, `{"event":"client-typing","channel":"private-room","data":`+data+`}`, text)
	}
	a.send("client-none", "private-room", nil)
	assert.Equal(t, "null", string(b.expect("client-none").Data))
	a.sync() // not echoed
	// In presence channels the server says who has sent it.
	a.list("presence-room", channelData("42"))
	b.list("presence-room", channelData("43"))
	a.joined()
	a.sendText(`{"event":"client-typing","channel":"presence-room","user_id":"43","data":{}}`)
	g := b.expect("client-typing")
	require.NotNil(t, g.UserID)
	assert.Equal(t, "42", *g.UserID)
	// Between the protocols.
	kit := pushytest.New(t, n.srv)
	own := kit.Connect()
	own.Subscribe("presence-room", pushytest.Member(map[string]any{"user": "9"}))
	a.joined()
	b.joined()
	a.send("client-typing", "presence-room", map[string]any{"x": 1})
	b.expect("client-typing")
	var data map[string]any
	own.ExpectEvent("presence-room", "client-typing", &data)
	assert.Equal(t, map[string]any{"x": 1.0}, data)
	own.SendEvent("presence-room", "client-typing", map[string]any{"y": 2})
	g = a.expect("client-typing")
	assert.JSONEq(t, `{"y":2}`, string(g.Data))
	assert.Equal(t, "9", *g.UserID)
}

// laravel/reverb#272: a client event of a connection that is not a member reaches nobody.
func TestClientEventsThatAreRefused(t *testing.T) {
	t.Parallel()
	o := withClientEvents()
	o.CheckEvent = func(name string) error {
		if name == "client-no" {
			return errors.New("is refused")
		}
		return nil
	}
	n := serve(t, o)
	a, b := n.dial(), n.dial()
	for _, name := range []string{"news", "private-room", "private-encrypted-room"} {
		b.join(name)
	}
	a.join("news")
	a.join("private-encrypted-room")
	a.join("private-own")
	for _, c := range []struct{ event, channel, data string }{
		{"client-x", "news", `1`}, // public
		{"client-x", "private-room", `1`},
		{"client-x", "private-encrypted-room", `1`},
		{"client-x", "private-nowhere", `1`},
		{"client-x", "Private-Room", `1`},
		{"client-x", "#server-to-user-1", `1`},
		{"client-x", "a b", `1`},
		{"client-x", "", `1`},
		{"client-no", "private-own", `1`},
		{"Client-x", "private-own", `1`},
		{"headline", "private-own", `1`},
		{"client-" + strings.Repeat("x", 200), "private-own", `1`},
		{"client-\u202e", "private-own", `1`},
		{"client-x", "private-own", `"` + strings.Repeat("x", 10<<10) + `"`},
		{"client-x", "private-own", strings.Repeat("[", 300) + strings.Repeat("]", 300)},
	} {
		event, err := json.Marshal(c.event)
		require.NoError(t, err)
		a.sendText(fmt.Sprintf(`{"event":%s,"channel":%q,"data":%s}`, event, c.channel, c.data))
		code, channel := a.failed()
		assert.Equal(t, 4301, code, c)
		assert.Equal(t, c.channel, channel)
	}
	b.sync()
	off := serve(t, pushy.Options{})
	c := off.dial()
	c.join("private-room")
	c.send("client-x", "private-room", 1)
	code, _ := c.failed()
	assert.Equal(t, 4301, code)
}

func TestRateOfClientEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, withClientEvents())
		a, b := n.dial(), n.dial()
		a.join("private-room")
		b.join("private-room")
		for range 20 {
			a.send("client-x", "private-room", 1)
			b.expect("client-x")
		}
		a.send("client-x", "private-room", 1)
		code, _ := a.failed()
		assert.Equal(t, 4301, code)
		time.Sleep(time.Second)
		a.send("client-x", "private-room", 1)
		b.expect("client-x")
		a.sync()
	})
}

// soketi/soketi#710, #933: an empty cache channel says so; a filled one sends the event under its own
// name. sockudo/sockudo#78: the event has its channel, and cache_miss has the data "{}".
func TestCacheChannels(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	for _, name := range []string{"cache-a", "private-cache-a", "presence-cache-a"} {
		join := func(p *peer) {
			if strings.HasPrefix(name, "presence-") {
				p.join(name, channelData(p.id))
				return
			}
			p.join(name)
		}
		first := n.dial()
		join(first)
		assert.Equal(t, `{"event":"pusher:cache_miss","channel":"`+name+`","data":"{}"}`, first.text())
		for i := range 3 {
			require.NoError(t, n.srv.Publish(t.Context(), name, fmt.Sprintf("price-%d", i), map[string]int{"n": i}))
		}
		second := n.dial()
		join(second)
		g := second.expect("price-2")
		assert.Equal(t, name, g.Channel)
		assert.Equal(t, `{"n":2}`, g.content(t))
		second.sync()
		for i := range 3 {
			first.expectSkipping("pusher_internal:member_added", fmt.Sprintf("price-%d", i))
		}
	}
	c := n.dial()
	c.join("uncached-a") // not a cache channel
	c.sync()
}

// expectSkipping is expect, after any number of events of another name.
func (p *peer) expectSkipping(skipped, event string) got {
	p.t.Helper()
	for {
		if g := p.next(); g.Event != skipped {
			require.Equal(p.t, event, g.Event)
			return g
		}
	}
}

func TestCacheExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		require.NoError(t, n.srv.Publish(t.Context(), "cache-a", "price", 1))
		time.Sleep(29 * time.Minute)
		c := n.dial()
		c.join("cache-a")
		c.expect("price")
		c.leave()
		time.Sleep(2 * time.Minute)
		d := n.dial()
		d.join("cache-a")
		d.expect("pusher:cache_miss")
	})
}

// Events that are published while clients subscribe come after the one that was kept, and never before.
func TestCacheOrder(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	require.NoError(t, n.srv.Publish(t.Context(), "cache-a", "price", 0))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; i <= 2000; i++ {
			assert.NoError(t, n.srv.Publish(t.Context(), "cache-a", "price", i))
		}
	}()
	for range 20 {
		c := n.dial()
		c.join("cache-a")
		last := -1
		for range 5 {
			var at int
			if last == 2000 {
				break
			}
			require.NoError(t, json.Unmarshal([]byte(c.expect("price").content(t)), &at))
			if last >= 0 {
				require.Equal(t, last+1, at)
			}
			last = at
		}
		_ = c.conn.Close()
	}
	<-done
}

func (p *peer) signIn(userData string) {
	p.t.Helper()
	p.send("pusher:signin", "", map[string]any{"auth": sign(p.id + "::user::" + userData), "user_data": userData})
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	status, _ := c.refused(map[string]any{"channel": "#server-to-user-42"})
	assert.Equal(t, 401, status)
	userData := `{"id":"42","user_info":{"name":"Ann"}}`
	c.signIn(userData)
	g := c.expect("pusher:signin_success")
	var data map[string]string
	require.NoError(t, json.Unmarshal([]byte(g.content(t)), &data))
	assert.Equal(t, userData, data["user_data"])
	conn, found := n.srv.Conn(c.id)
	require.True(t, found)
	assert.Equal(t, "42", conn.UserID())
	for _, other := range []string{"#server-to-user-43", "#server-to-user-", "#server-to-user-4"} {
		status, _ = c.refused(map[string]any{"channel": other})
		assert.Equal(t, 401, status)
	}
	sent, err := n.srv.SendUser(t.Context(), "42", "order", map[string]int{"n": 1})
	require.NoError(t, err)
	assert.Equal(t, 1, sent.Sent)
	assert.Equal(t, `{"event":"order","data":"{\"n\":1}"}`, c.text(), "without a subscription")
	c.join("#server-to-user-42")
	_, err = n.srv.SendUser(t.Context(), "42", "order", map[string]int{"n": 2})
	require.NoError(t, err)
	g = c.expect("order")
	assert.Equal(t, "#server-to-user-42", g.Channel)
	assert.Equal(t, `{"n":2}`, g.content(t))
	// A presence channel without channel_data: the user who has signed in.
	c.send("pusher:subscribe", "", map[string]any{"channel": "presence-x", "auth": sign(c.id + ":presence-x")})
	g = c.expect("pusher_internal:subscription_succeeded")
	assert.JSONEq(t, `{"presence":{"ids":["42"],"hash":{"42":{"name":"Ann"}},"count":1}}`, g.content(t))
	// The channel of the user is none of the core: a client of pushy's is in an ordinary channel.
	kit := pushytest.New(t, n.srv)
	own := kit.Connect()
	own.Subscribe("#server-to-user-42")
	require.NoError(t, n.srv.Publish(t.Context(), "#server-to-user-42", "fake", nil))
	c.sync()
	c.send("pusher:unsubscribe", "", map[string]any{"channel": "#server-to-user-42"})
	c.signIn(userData) // again, as the same user
	c.expect("pusher:signin_success")
	c.signIn(`{"id":"43"}`)
	code, _ := c.failed()
	assert.Equal(t, 4009, code)
	code, _ = c.closed()
	assert.Equal(t, 4009, code)
}

func TestSignInThatFails(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	for name, data := range map[string]func(c *peer) any{
		"none":   func(*peer) any { return nil },
		"number": func(*peer) any { return 5 },
		"noAuth": func(*peer) any { return map[string]any{"user_data": `{"id":"1"}`} },
		"wrongAuth": func(c *peer) any {
			return map[string]any{"user_data": `{"id":"1"}`, "auth": sign(c.id + "::user::" + `{"id":"2"}`)}
		},
		"channel": func(c *peer) any {
			return map[string]any{"user_data": `{"id":"1"}`, "auth": sign(c.id + `:user:{"id":"1"}`)}
		},
		"noID": func(c *peer) any { return map[string]any{"user_data": `{}`, "auth": sign(c.id + "::user::{}")} },
		"numberID": func(c *peer) any {
			return map[string]any{"user_data": `{"id":1}`, "auth": sign(c.id + `::user::{"id":1}`)}
		},
		"emptyID": func(c *peer) any {
			return map[string]any{"user_data": `{"id":""}`, "auth": sign(c.id + `::user::{"id":""}`)}
		},
		"notJSON": func(c *peer) any { return map[string]any{"user_data": `x`, "auth": sign(c.id + `::user::x`)} },
		"types":   func(*peer) any { return map[string]any{"user_data": 5, "auth": true} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := n.dial()
			c.t = t
			c.send("pusher:signin", "", data(c))
			code, _ := c.failed()
			assert.Equal(t, 4009, code)
			code, _ = c.closed()
			assert.Equal(t, 4009, code)
		})
	}
}

func TestKickAndBan(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c, d := n.dial(), n.dial()
	c.signIn(`{"id":"42"}`)
	c.expect("pusher:signin_success")
	c.join("private-App.Room")
	d.join("private-App.Room")
	// A channel is named in lower case, and all of its spellings are meant.
	_, err := n.srv.Kick(t.Context(), pushy.Kick{Target: "channel:private-app.room", Reason: "Closed", Until: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	for _, p := range []*peer{c, d} {
		g := p.expect("pusher:subscription_error")
		assert.Equal(t, "private-App.Room", g.Channel)
		assert.Contains(t, g.content(t), "Closed")
	}
	status, _ := d.refused(map[string]any{"channel": "private-App.Room", "auth": sign(d.id + ":private-App.Room")})
	assert.Equal(t, 403, status)
	_, err = n.srv.Kick(t.Context(), pushy.Kick{Target: "user:42", Reason: "Spam", Until: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	code, reason := c.closed()
	assert.Equal(t, 4009, code)
	assert.Equal(t, "Spam", reason)
	data := channelData("42")
	status, _ = d.refused(map[string]any{"channel": "presence-x", "channel_data": data, "auth": sign(d.id + ":presence-x:" + data)})
	assert.Equal(t, 403, status, "a banned user stays banned, whoever has signed")
	d.signIn(`{"id":"42"}`)
	d.failed()
	code, reason = d.closed()
	assert.Equal(t, 4009, code)
	assert.Equal(t, "Spam", reason)
}

// Clients of Pusher do not receive events with the names of the protocol. One that permits omissions takes no
// other's place in the queue of a slow client.
func TestHiddenEventsPermitOmissions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, pushy.Options{})
		p := n.dial()
		p.join("room")
		publish := func(name, latest string, data int) {
			_, err := n.srv.PublishEvent(t.Context(), pushy.Event{Channel: "room", Name: name, Data: data, Latest: latest})
			require.NoError(t, err)
		}
		for i := range 10 {
			publish("event", "", i)
			synctest.Wait() // the client does not read the first one, so that the others are queued
		}
		for i := range 3 {
			publish("pusher-hidden", "key", i)
		}
		for i := range 5 {
			publish("event", "", 10+i)
		}
		publish("pusher-hidden", "key", 3)
		publish("event", "key", 15)
		for i := range 16 {
			assert.Equal(t, fmt.Sprint(i), p.expect("event").content(t))
		}
		p.sync()
	})
}
