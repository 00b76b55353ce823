package cluster_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	publisherapi "github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/ordercheck"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/sse"
)

// protocolNode is a node that serves all protocols.
type protocolNode struct {
	srv     *pushy.Server
	adapter *pusher.Adapter
	url     string
}

func serveProtocols(t *testing.T, shared broker.Broker) protocolNode {
	t.Helper()
	o := options(shared, time.Minute, slog.New(slog.NewTextHandler(t.Output(), nil)))
	o.Channel = pusher.Channels(o.Channel)
	srv, err := pushy.New(o)
	require.NoError(t, err)
	adapter, err := pusher.New(srv, pusher.Options{
		App:    "3",
		Key:    pusherKey,
		Secret: pusherSecret,
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/pushy/events", sse.New(srv, sse.Options{}))
	mux.Handle("/", adapter.Handler())
	web := httptest.NewServer(mux)
	t.Cleanup(func() {
		_ = srv.Close()
		web.CloseClientConnections()
		web.Close()
	})
	return protocolNode{srv, adapter, web.URL}
}

// onProtocols runs a test on one node, and on three nodes of real stores.
func onProtocols(t *testing.T, test func(t *testing.T, nodes []protocolNode)) {
	t.Helper()
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, []protocolNode{serveProtocols(t, memory.New())})
	})
	on(t, everyStore, func(t *testing.T, s *store) {
		var nodes []protocolNode
		for range 3 {
			nodes = append(nodes, serveProtocols(t, s.join(t)))
		}
		for _, n := range nodes {
			soon(t, patience, "the node has its store", func() bool { return n.srv.Stats().Away == nil })
		}
		test(t, nodes)
	})
}

// ways are the ways to publish. except can be "".
var ways = map[string]func(ctx context.Context, n protocolNode, channel, event, data, except string) error{
	"Server": func(ctx context.Context, n protocolNode, channel, event, data, except string) error {
		e := pushy.Event{
			Channel: channel,
			Name:    event,
			Data:    json.RawMessage(data),
		}
		if except != "" {
			e.Except = []string{except}
		}
		_, err := n.srv.PublishEvent(ctx, e)
		return err
	},
	"signed API": func(ctx context.Context, n protocolNode, channel, event, data, except string) error {
		b, err := publisherapi.New(publisherapi.Options{
			URL:        n.url + "/pushy",
			SecretKey:  secretKey,
			HTTPClient: httpClient,
		})
		if err != nil {
			return err
		}
		e := publisherapi.Event{
			Channels: []string{channel},
			Name:     event,
			Data:     json.RawMessage(data),
		}
		if except != "" {
			e.Except = []string{except}
		}
		_, err = b.PublishEvent(ctx, e)
		return err
	},
	"Pusher API": func(ctx context.Context, n protocolNode, channel, event, data, except string) error {
		fields := map[string]any{
			"name":     event,
			"channels": []string{channel},
			"data":     data, // as the SDKs do: JSON in a string
		}
		if except != "" {
			fields["socket_id"] = except
		}
		body, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		sum := md5.Sum(body)
		const path = "/apps/3/events"
		query := "auth_key=" + pusherKey + "&auth_timestamp=" + strconv.FormatInt(time.Now().Unix(), 10) +
			"&auth_version=1.0&body_md5=" + hex.EncodeToString(sum[:])
		signature := pusherSign("POST\n" + path + "\n" + query)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+path+"?"+query+"&auth_signature="+signature,
			strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		answer, err := httpClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("Pusher's API answered %s", answer.Status)
		}
		return nil
	},
}

// values are JSON values that a protocol could change.
var values = []string{
	`9007199254740993`, `-9223372036854775809`, `0.1`, `1e21`, `12345678901234567890.5`, `0`, `null`, `true`, `[]`, `{}`,
	`"plain"`, `""`, `" "`, `" 12 "`, `"9007199254740993"`, `"null"`, `"true"`, `"😀"`, `"\u2028\u0000\u007f"`,
	`"{\"a\":1}"`, `"{\"a\":"`, `"\"quoted\""`, `"a\nb\r\nc\rd"`, `"data: x"`, `"<b>&amp;</b>"`, `"\\"`,
	`{"n":9007199254740993,"s":"{\"b\":[1,2]}","e":"😀","null":null,"":""}`, `[null,"",0,"0",[[]]]`,
	`{"event":"pushy:presence-add","channel":"other","data":{"user_id":"1"}}`,
}

// reach.md P6: the clients of all protocols in one channel receive all events in one order, with equal
// data, whatever way they were published.
func TestProtocolsHaveOneOrder(t *testing.T) {
	onProtocols(t, func(t *testing.T, nodes []protocolNode) {
		const channel = "kept-by-all"
		rounds := 30
		if strict {
			rounds = 300
		}
		var log ordercheck.Log
		var stream ordercheck.Stream
		start, err := nodes[0].srv.Position(t.Context(), channel)
		require.NoError(t, err)
		var clients []*listener
		var readers []*ordercheck.Reader
		for i, n := range nodes {
			for k, kind := range kindNames() {
				clients = append(clients, kinds[kind](t, n, channel, strconv.Itoa(10*i+k)))
				readers = append(readers, stream.Reader())
			}
		}
		var publishing sync.WaitGroup
		var mu sync.Mutex
		var sent []string
		for i, n := range nodes {
			for way, publish := range ways {
				publishing.Go(func() {
					for k := range rounds {
						event := fmt.Sprintf("e%d-%s-%d", i, strings.ReplaceAll(way, " ", ""), k)
						value := values[(k+7*i)%len(values)]
						if !assert.NoError(t, publish(t.Context(), n, channel, event, value, "")) {
							return
						}
						text, err := canonical([]byte(value))
						assert.NoError(t, err)
						mu.Lock()
						sent = append(sent, event+" "+text)
						mu.Unlock()
					}
				})
			}
		}
		publishing.Wait()
		require.NoError(t, nodes[0].srv.Publish(t.Context(), channel, "last", 0))
		for _, c := range clients {
			c.got("last")
		}
		order := clients[0].texts()
		require.ElementsMatch(t, append(sent, "last 0"), order)
		for _, text := range order {
			require.NoError(t, stream.Sent(text, "", false))
		}
		success := fmt.Appendf(nil, `{"epoch":%q,"offset":%d}`, start.Epoch, start.Offset)
		placed := 0
		for i, c := range clients {
			r := readers[i]
			require.NoError(t, r.Success())
			f := log.Follower()
			require.NoError(t, f.Success(success))
			for _, e := range c.events {
				require.NoError(t, r.Message(e.text), c.name)
				if e.at.Offset > 0 {
					require.NoError(t, f.Event(e.at.Offset, e.text), c.name)
					placed++
				}
				if e.at.Epoch != "" {
					require.Equal(t, start.Epoch, e.at.Epoch, c.name)
				}
			}
			require.NoError(t, r.Complete(), c.name)
		}
		assert.Equal(t, 4*len(nodes)*len(order), placed, "all protocols but Pusher's have positions")
		t.Logf("%d events, %d clients of %d protocols on %d nodes", len(order), len(clients), len(kinds), len(nodes))
	})
}

// reach.md P6, Except in each direction: an event that excludes a connection of one protocol reaches the
// clients of all others, on all nodes, and not that one. Pusher's API knows only the ids of its own.
func TestExceptOfEveryProtocol(t *testing.T) {
	onProtocols(t, func(t *testing.T, nodes []protocolNode) {
		for _, channel := range []string{"news", "kept-news"} {
			var clients []*listener
			for i, n := range nodes {
				for k, kind := range kindNames() {
					clients = append(clients, kinds[kind](t, n, channel, strconv.Itoa(10*i+k)))
				}
			}
			at := 0
			excluded := make([]map[string]bool, len(clients)) // the events that a client must not receive
			all := 0
			for i, c := range clients {
				excluded[i] = map[string]bool{}
				for way, publish := range ways {
					if way == "Pusher API" && !strings.HasPrefix(c.name, "Pusher") {
						continue
					}
					event := fmt.Sprintf("not-to-%d-%s", i, strings.ReplaceAll(way, " ", ""))
					excluded[i][event] = true
					all++
					at++
					require.NoError(t, publish(t.Context(), nodes[at%len(nodes)], channel, event, `{"n":1}`, c.id), "%s: %s", way, c.name)
				}
			}
			for i, n := range nodes {
				require.NoError(t, n.srv.Publish(t.Context(), channel, "last"+strconv.Itoa(i), 0))
			}
			for i, c := range clients {
				for k := range nodes {
					c.got("last" + strconv.Itoa(k))
				}
				received := 0
				for _, text := range c.texts() {
					event, _, _ := strings.Cut(text, " ")
					assert.False(t, excluded[i][event], "%s received %s", c.name, event)
					received++
				}
				assert.Equal(t, all-len(excluded[i])+len(nodes), received, c.name)
			}
		}
	})
}

// reach.md P6: the clients of all protocols that receive the members of a channel have equal lists. A user
// who is in the channel with several protocols and on several nodes is one member.
func TestPresenceOfEveryProtocol(t *testing.T) {
	onProtocols(t, func(t *testing.T, nodes []protocolNode) {
		const channel = "presence-all"
		var clients []*listener
		in := map[string][]*listener{} // the connections of each user
		enter := func(n protocolNode, kind, user string) {
			c := kinds[kind](t, n, channel, user)
			clients = append(clients, c)
			in[user] = append(in[user], c)
		}
		// A stream is a member without data, whom pushy's clients see without a user.
		kinds["SSE"](t, nodes[0], channel, "stream")
		agree := func(what string) {
			t.Helper()
			for _, c := range clients {
				want := map[string]string{"": `{}`}
				if strings.HasPrefix(c.name, "Pusher") {
					want = map[string]string{"stream": `{}`}
				}
				for user := range in {
					want[user] = `{"name":"N` + user + `"}`
				}
				c.await(what+fmt.Sprintf(": the members %v", want), func() bool {
					return maps.Equal(want, c.usersLocked())
				})
			}
		}
		for i, n := range nodes {
			for _, kind := range seesMembers {
				enter(n, kind, fmt.Sprintf("%d%s", i, url.PathEscape(strings.ReplaceAll(kind, " ", ""))))
			}
		}
		agree("each has a user")
		for k, kind := range seesMembers {
			enter(nodes[k%len(nodes)], kind, "shared")
		}
		agree("with a user of all protocols")
		for k := range seesMembers {
			c := in["shared"][(k+1)%len(seesMembers)]
			require.NoError(t, c.leave(), c.name)
			if k == len(seesMembers)-1 {
				delete(in, "shared")
			}
			clients = without(clients, c)
		}
		agree("without that user")
		t.Logf("%d clients on %d nodes", len(clients), len(nodes))
	})
}

func without(clients []*listener, one *listener) (left []*listener) {
	for _, c := range clients {
		if c != one {
			left = append(left, c)
		}
	}
	return left
}
