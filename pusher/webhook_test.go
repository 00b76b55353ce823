package pusher_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/webhook"
)

// hooks is a web application that receives webhooks, without a socket. It verifies them as Pusher's
// SDKs do.
type hooks struct {
	t        *testing.T
	mu       sync.Mutex
	events   []string // as JSON
	requests int
}

func (h *hooks) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var content struct {
		Time   int64             `json:"time_ms"`
		Events []json.RawMessage `json:"events"`
	}
	assert.NoError(h.t, json.Unmarshal(body, &content))
	assert.Equal(h.t, []string{"application/json"}, r.Header["Content-Type"])
	assert.Equal(h.t, appKey, r.Header.Get("X-Pusher-Key"))
	assert.Equal(h.t, sign(string(body)), appKey+":"+r.Header.Get("X-Pusher-Signature"))
	assert.Equal(h.t, time.Now().UnixMilli(), content.Time)
	assert.NotEmpty(h.t, content.Events)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests++
	for _, e := range content.Events {
		h.events = append(h.events, string(e))
	}
	return &http.Response{
		StatusCode: http.StatusOK,
		Body:       http.NoBody,
		Request:    r,
	}, nil
}

// take returns the events that have arrived since the last take.
func (h *hooks) take() (list []string) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	list = h.events
	h.events = nil
	return list
}

// withHooks makes a node send webhooks, and returns what stops the node as a deploy does.
func (n *node) withHooks(h *hooks, events ...string) (stop func()) {
	n.t.Helper()
	s, err := webhook.New(n.srv, webhook.Options{
		URL:       "https://app.example.com/pusher/webhooks",
		Format:    webhook.Pusher(appKey, appSecret),
		Events:    events,
		Transport: h,
	})
	require.NoError(n.t, err)
	stop = func() {
		_ = n.srv.Shutdown(context.Background())
		_ = s.Close(context.Background())
	}
	n.t.Cleanup(stop)
	return stop
}

// What Pusher clients do reaches the webhooks, and what pushy's clients do has the same form.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hooks{t: t}
		n := serve(t, withClientEvents())
		n.withHooks(h, webhook.ChannelOccupied, webhook.ChannelVacated, webhook.MemberJoined, webhook.MemberLeft,
			webhook.ClientEvent, webhook.ChannelMiss)
		a, b := n.dial(), n.dial()
		a.join("private-App.Models.User.1")
		b.join("private-App.Models.User.1")
		time.Sleep(time.Second)
		assert.Equal(t, []string{`{"name":"channel_occupied","channel":"private-App.Models.User.1"}`}, h.take())

		// data is the string that Pusher's clients and SDKs exchange.
		for data, want := range map[string]string{
			`{"to":"all"}`:     `"{\"to\":\"all\"}"`,
			`"text <é>"`:       `"text <é>"`,
			`"{\"a\":1}"`:      `"\"{\\\"a\\\":1}\""`,
			`5`:                `"5"`,
			`null`:             `"null"`,
			`9007199254740993`: `"9007199254740993"`,
		} {
			a.sendText(`{"event":"client-typing","channel":"private-App.Models.User.1","user_id":"forged","data":` + data + `}`)
			b.expect("client-typing")
			time.Sleep(time.Second)
			assert.Equal(t, []string{`{"name":"client_event","channel":"private-App.Models.User.1","event":"client-typing","data":` +
				want + `,"socket_id":"` + a.id + `"}`}, h.take())
		}
		a.send("client-no", "private-other", nil)
		a.failed()
		time.Sleep(time.Second)
		assert.Empty(t, h.take(), "an event that is refused")

		// user_id is that of the signature, also in events.
		a.list("presence-room", `{"user_id":42,"user_info":{"name":"Ann"}}`)
		a.send("client-typing", "presence-room", map[string]any{"user_id": "43"})
		time.Sleep(time.Second)
		assert.Equal(t, []string{
			`{"name":"channel_occupied","channel":"presence-room"}`,
			`{"name":"member_added","channel":"presence-room","user_id":"42"}`,
			`{"name":"client_event","channel":"presence-room","event":"client-typing","data":"{\"user_id\":\"43\"}",` +
				`"socket_id":"` + a.id + `","user_id":"42"}`,
		}, h.take())

		// A client of pushy's own protocol is known by the same user_id as to Pusher clients.
		own := pushytest.New(t, n.srv).Connect()
		own.Subscribe("presence-room", pushytest.Member(map[string]any{"user": "9"}))
		own.Subscribe("private-room", pushytest.Member(map[string]any{"user": "9"}))
		id, _ := a.joined()
		assert.Equal(t, "9", id)
		own.SendEvent("presence-room", "client-typing", map[string]any{"y": 2})
		a.expect("client-typing")
		time.Sleep(time.Second)
		assert.Equal(t, []string{
			`{"name":"member_added","channel":"presence-room","user_id":"9"}`,
			`{"name":"channel_occupied","channel":"private-room"}`,
			`{"name":"client_event","channel":"presence-room","event":"client-typing","data":"{\"y\":2}",` +
				`"socket_id":"` + own.ID() + `","user_id":"9"}`,
		}, h.take(), "a private channel has no members for Pusher")

		a.join("cache-prices")
		a.expect("pusher:cache_miss")
		require.NoError(t, n.p.Publish(t.Context(), "cache-prices", "price", 5, ""))
		a.expect("price")
		b.join("cache-prices")
		b.expect("price")
		time.Sleep(time.Second)
		assert.ElementsMatch(t, []string{
			`{"name":"channel_occupied","channel":"cache-prices"}`,
			`{"name":"cache_miss","channel":"cache-prices"}`,
		}, h.take(), "one for the subscription that found none")

		own.Close(1000)
		a.leave()
		b.leave()
		time.Sleep(20 * time.Second)
		assert.ElementsMatch(t, []string{
			`{"name":"member_removed","channel":"presence-room","user_id":"42"}`,
			`{"name":"member_removed","channel":"presence-room","user_id":"9"}`,
			`{"name":"channel_vacated","channel":"private-App.Models.User.1"}`,
			`{"name":"channel_vacated","channel":"presence-room"}`,
			`{"name":"channel_vacated","channel":"private-room"}`,
			`{"name":"channel_vacated","channel":"cache-prices"}`,
		}, h.take())
	})
}

// soketi/soketi#616: channel_vacated only when no node has a subscriber, and once. So are the users
// that have connections on several nodes.
func TestWebhooksOfACluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hooks{t: t}
		cluster := newCluster()
		var nodes []*node
		for range 3 {
			n := serve(t, pushy.Options{Broker: cluster.Broker()})
			n.withHooks(h)
			nodes = append(nodes, n)
		}
		var peers []*peer
		for _, n := range nodes {
			p := n.dial()
			p.join("news")
			p.list("presence-room", channelData("u"))
			peers = append(peers, p)
			go answerPings(p)
		}
		time.Sleep(time.Second)
		assert.ElementsMatch(t, []string{
			`{"name":"channel_occupied","channel":"news"}`,
			`{"name":"channel_occupied","channel":"presence-room"}`,
			`{"name":"member_added","channel":"presence-room","user_id":"u"}`,
		}, h.take(), "several workers of a node write to the log")
		for i, at := range []int{1, 0, 2} {
			assert.Empty(t, h.take(), "%d nodes have a subscriber", len(peers)-i)
			_ = peers[at].conn.Close()
			time.Sleep(30 * time.Second)
		}
		assert.ElementsMatch(t, []string{
			`{"name":"channel_vacated","channel":"news"}`,
			`{"name":"member_removed","channel":"presence-room","user_id":"u"}`,
			`{"name":"channel_vacated","channel":"presence-room"}`,
		}, h.take())
	})
}

// What happens on a node that does not send reaches the receiver through the one that does, with the
// user_id that the node of the client knows.
func TestWebhooksOfEventsOnAnotherNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := &hooks{t: t}, &hooks{t: t}
		cluster := newCluster()
		o := withClientEvents()
		for _, h := range []*hooks{first, second} {
			o.Broker = cluster.Broker()
			n := serve(t, o)
			n.withHooks(h, webhook.ClientEvent, webhook.ChannelMiss)
			if h == first {
				synctest.Wait() // the oldest node sends
				continue
			}
			p := n.dial()
			p.list("presence-cache-room", channelData("42"))
			p.expect("pusher:cache_miss")
			p.sendText(`{"event":"client-typing","channel":"presence-cache-room","data":"Hello"}`)
			p.sync()
			time.Sleep(time.Second)
			assert.Equal(t, []string{
				`{"name":"cache_miss","channel":"presence-cache-room"}`,
				`{"name":"client_event","channel":"presence-cache-room","event":"client-typing","data":"Hello",` +
					`"socket_id":"` + p.id + `","user_id":"42"}`,
			}, first.take())
			assert.Empty(t, second.take())
		}
	})
}

// soketi/soketi#830 and #502: what ends waits for 3 s, and is not sent if the client is back. It is sent
// for a connection that was lost, too, and for all connections of a node that was killed.
func TestWebhooksOfClientsThatReturn(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *peer){
		"unsubscribed": func(p *peer) {
			p.send("pusher:unsubscribe", "", map[string]any{"channel": "presence-room"})
			p.sync()
		},
		"disconnected": func(p *peer) { p.leave() },
		"lost":         func(p *peer) { _ = p.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &hooks{t: t}
				n := serve(t, pushy.Options{})
				n.withHooks(h)
				p := n.dial()
				p.list("presence-room", channelData("u"))
				time.Sleep(time.Second)
				assert.Len(t, h.take(), 2)
				for range 3 { // as pages that are reloaded
					end(p)
					time.Sleep(2 * time.Second)
					p = n.dial()
					p.list("presence-room", channelData("u"))
					time.Sleep(5 * time.Second)
					assert.Empty(t, h.take(), "the client was back after 2 s")
				}
				end(p)
				held := time.Duration(0)
				if name == "lost" {
					held = 15 * time.Second // Options.Grace
				}
				time.Sleep(held + 2900*time.Millisecond)
				assert.NotContains(t, strings.Join(h.take(), "\n"), "member_removed")
				time.Sleep(200 * time.Millisecond)
				assert.Contains(t, strings.Join(h.take(), "\n"), `{"name":"member_removed","channel":"presence-room","user_id":"u"}`)
			})
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h := &hooks{t: t}
			cluster := newCluster()
			other := serve(t, pushy.Options{Broker: cluster.Broker()})
			other.withHooks(h)
			broker := cluster.Broker()
			n := serve(t, pushy.Options{Broker: broker})
			n.withHooks(h)
			n.dial().list("presence-room", channelData("u"))
			time.Sleep(time.Second)
			assert.Len(t, h.take(), 2)
			broker.Kill()
			_ = n.srv.Close()
			time.Sleep(30 * time.Second)
			assert.ElementsMatch(t, []string{
				`{"name":"member_removed","channel":"presence-room","user_id":"u"}`,
				`{"name":"channel_vacated","channel":"presence-room"}`,
			}, h.take())
		})
	})
}

// A host that mounts no Adapter can send webhooks in Pusher's format.
func TestWebhooksNeedNoAdapter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hooks{t: t}
		srv, err := pushy.New(defaults(pushy.Options{Channel: pusher.Channels(nil)}))
		require.NoError(t, err)
		n := &node{
			t:   t,
			srv: srv,
		}
		n.withHooks(h)
		kit := pushytest.New(t, srv)
		kit.Allow("webhook.(*Sender).run")
		kit.Connect().Subscribe("news")
		time.Sleep(time.Second)
		assert.Equal(t, []string{`{"name":"channel_occupied","channel":"news"}`}, h.take())
	})
}
