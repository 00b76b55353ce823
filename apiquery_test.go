package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// ask sends a signed call with a new id and returns the answer.
func (n node) call(call, id, body string) *httptest.ResponseRecorder {
	return signedCall{
		call: call,
		id:   id,
		at:   time.Now().Unix(),
		body: body,
	}.do(n.Server)
}

func good(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	require.Equal(t, 200, w.Code, w.Body)
	return w.Body.String()
}

// PROTOCOL.md, section 15: the answers of the calls that ask.
func TestQueries(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann := connectOf(t, nodes[0].Server, "1")
		ann.subscribe("lobby", "")
		ann.subscribe("private-room", `{"name":"Ann"}`)
		bob := connectOf(t, nodes[1].Server, "2")
		bob.subscribe("lobby", "")
		since := time.Now().UnixMilli()
		for _, c := range []struct{ call, body, want string }{
			{"channels", `{}`, `{"channels":[{"name":"lobby","presence":false},{"name":"private-room","presence":true}],"nodes":2,"silent":[]}`},
			{
				"channels", `{"count":true,"limit":1}`,
				`{"channels":[{"name":"lobby","subscribers":2,"presence":false}],"next":"lobby","nodes":2,"silent":[]}`,
			},
			{
				"channels", `{"count":true,"limit":1,"after":"lobby"}`,
				`{"channels":[{"name":"private-room","subscribers":1,"presence":true}],"nodes":2,"silent":[]}`,
			},
			{"channels", `{"prefix":"Private-"}`, `{"channels":[{"name":"private-room","presence":true}],"nodes":2,"silent":[]}`},
			{"channels", `{"prefix":"x"}`, `{"channels":[],"nodes":2,"silent":[]}`},
			{
				"connections", `{"user":"2"}`,
				fmt.Sprintf(`{"connections":[{"id":%q,"user":"2","node":%q,"transport":"websocket","since":%d,"channels":["lobby"],`+
					`"channelCount":1,"waiting":0}],"nodes":2,"silent":[]}`, bob.id, nodes[1].Node(), since),
			},
			{"connections", `{"user":"3"}`, `{"connections":[],"nodes":2,"silent":[]}`},
		} {
			assert.JSONEq(t, c.want, good(t, nodes[0].call(c.call, "q", c.body)), "%s %s", c.call, c.body)
		}
		for _, body := range []string{`{"conn":"` + ann.id + `"}`, `{"channel":"PRIVATE-ROOM"}`} {
			got := good(t, nodes[1].call("connections", "q", body))
			assert.Contains(t, got, ann.id)
			assert.Contains(t, got, `"channels":["lobby","private-room"]`)
			assert.NotContains(t, got, bob.id)
		}
		for _, n := range nodes { // the second one does not have the channel
			var answer struct {
				Members []struct {
					ID, User string
					Member   struct {
						Name     string
						MemberID string
					}
				}
				Presence bool
				Silent   []string
			}
			require.NoError(t, json.Unmarshal([]byte(good(t, n.call("members", "q", `{"channel":"private-Room"}`))), &answer))
			require.Len(t, answer.Members, 1)
			assert.Equal(t, "1", answer.Members[0].User)
			assert.Equal(t, "Ann", answer.Members[0].Member.Name)
			assert.Equal(t, answer.Members[0].ID, answer.Members[0].Member.MemberID)
			assert.True(t, answer.Presence)
			assert.Empty(t, answer.Silent)
		}
		assert.JSONEq(t, `{"members":[],"presence":false,"silent":[]}`,
			good(t, nodes[0].call("members", "q", `{"channel":"private-empty"}`)))
	})
}

func TestQueriesOfHistory(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := newCluster().Broker()
		n := node{startOn(t, b, pushy.Options{
			Channel: func(name string) pushy.ChannelOptions {
				if name == "chat" {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 10}}
				}
				return pushy.ChannelOptions{}
			},
		}), b}
		for i := range 3 {
			require.NoError(t, n.Publish(t.Context(), "chat", "said", i))
		}
		at, err := n.Position(t.Context(), "chat")
		require.NoError(t, err)
		assert.JSONEq(t, `{"position":"`+at.String()+`"}`, good(t, n.call("position", "q", `{"channel":"Chat"}`)))
		event := func(i int) string {
			return fmt.Sprintf(`{"event":"said","data":%d,"offset":%d,"time":%d}`, i-1, i, time.Now().UnixMilli())
		}
		for body, want := range map[string]string{
			`{"channel":"chat"}`:                       event(1) + "," + event(2) + "," + event(3) + `],"more":false`,
			`{"channel":"chat","after":0,"limit":2}`:   event(1) + "," + event(2) + `],"more":true`,
			`{"channel":"chat","after":2}`:             event(3) + `],"more":false`,
			`{"channel":"chat","before":3,"limit":1}`:  event(2) + `],"more":true`,
			`{"channel":"chat","before":1}`:            `],"more":false`,
			`{"channel":"chat","after":100,"limit":1}`: `],"more":false`,
		} {
			assert.JSONEq(t, `{"epoch":"`+at.Epoch+`","position":"`+at.String()+`","events":[`+want+`}`,
				good(t, n.call("history", "q", body)), body)
		}
		w := n.call("history", "q", `{"channel":"news"}`)
		assert.Equal(t, 404, w.Code)
		w = n.call("position", "q", `{"channel":"news"}`)
		assert.Equal(t, 404, w.Code)
	})
}

// Every call refuses what is not valid, and names the place.
func TestCallsNameThePlace(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		n := node{Server: srv}
		long := strings.Repeat("x", 201)
		for _, c := range []struct {
			call, body, message string
			status              int
		}{
			{"channels", `{"limit":0}`, "limit: must be 1 to 1000", 400},
			{"channels", `{"limit":1001}`, "limit: must be 1 to 1000", 400},
			{"channels", `{"limit":"1"}`, "limit: must be a number, not a string", 400},
			{"channels", `{"limits":1}`, "limits: unknown field", 400},
			{"channels", `{"prefix":"a:"}`, "prefix: must not contain :", 400},
			{"channels", `{"after":"` + long + `"}`, "after: must not be longer than 200 bytes", 400},
			{"members", `{}`, "channel: must not be empty", 400},
			{"members", `{"channel":"lobby"}`, "channel: is not private, so it has no members; its connections can be listed", 400},
			{"members", `{"channel":"private-a","limit":-1}`, "limit: must be 1 to 1000", 400},
			{"connections", `{}`, "user: exactly one of user, conn and channel must be set", 400},
			{"connections", `{"user":"1","conn":"2"}`, "user: exactly one of user, conn and channel must be set", 400},
			{"connections", `{"user":"` + long + `"}`, "user: must be valid UTF-8 of at most 128 bytes", 400},
			{"connections", `{"channel":"a{"}`, "channel: must not contain {", 400},
			{"history", `{"channel":""}`, "channel: must not be empty", 400},
			{"history", `{"channel":"a","before":1,"after":1}`, "before: must not be given together with after", 400},
			{"history", `{"channel":"a","before":0}`, "before: must be at least 1", 400},
			{"history", `{"channel":"a","limit":501}`, "limit: must be 1 to 500", 400},
			{"position", `{"channel":"."}`, `channel: must not be "." or ".."`, 400},
			{"kick", `{}`, `target: must begin with "user:", "conn:" or "channel:"`, 400},
			{"kick", `{"target":"user:1","until":1}`, "until: must be in the future", 400},
			{"kick", `{"target":"user:1","until":1.5}`, "until: must be a whole number from -9223372036854775808 to 9223372036854775807", 400},
			{"kick", `{"target":"user:1","until":0}`, "until: must be in the future", 400},
			{"kick", `{"target":"user:1","until":-62135596800}`, "until: must be in the future", 400},
			{"kick", `{"target":"user:1","until":9223372036854775807}`, "until: must be at most 366 days from now", 400},
			{"kick", `{"target":"user:1","until":99999999999}`, "until: must be at most 366 days from now", 400},
			{"kick", `{"target":"conn:1","until":1}`, "until: is not allowed for a connection, because its id does not return", 400},
			{"kick", `{"target":"user:1","reason":"` + long + `"}`, "reason: must be valid UTF-8 of at most 123 bytes", 400},
			{"unban", `{"target":"conn:1"}`, `target: must begin with "user:" or "channel:"`, 400},
			{"bans", `{"limit":-1}`, "limit: must be 1 to 1000", 400},
			{"send", `{"event":"e"}`, "user: exactly one of user and conn must be set", 400},
			{"send", `{"user":"1"}`, "event: must not be empty", 400},
			{"send", `{"user":"1","event":"pushy:connect"}`, `event: "pushy:" is reserved`, 400},
			{"send", `{"user":"1","event":"e","data":"` + strings.Repeat("x", 256<<10) + `"}`, "data: has 262146 bytes, at most 262144 are allowed (Options.Limits.TriggerBytes)", 413},
		} {
			w := n.call(c.call, "x", c.body)
			code, message := errorOfAnswer(t, w)
			assert.Equal(t, c.status, w.Code, "%s %.100s", c.call, c.body)
			assert.Equal(t, fmt.Sprint(c.status), code)
			assert.Equal(t, c.message, message, "%s %.100s", c.call, c.body)
		}
	})
}

// The calls that change something do it once for each id.
func TestKickAndSendOverHTTP(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		a := connectOf(t, nodes[0].Server, "42")
		b := connectOf(t, nodes[1].Server, "42")
		other := connectOf(t, nodes[1].Server, "43")
		for i := range 3 { // on either node
			assert.JSONEq(t, `{"sent":2,"nodes":2,"silent":[]}`,
				good(t, nodes[i%2].call("send", "s1", `{"user":"42","event":"hello","data":{"a":1}}`)))
		}
		a.expect(`hello {"a":1}`)
		b.expect(`hello {"a":1}`)
		a.quiet()
		assert.JSONEq(t, `{"sent":1,"nodes":2,"silent":[]}`,
			good(t, nodes[0].call("send", "s2", `{"conn":"`+other.id+`","event":"only"}`)))
		other.expect(`only {}`)
		until := time.Now().Add(3 * time.Minute).Unix()
		body := fmt.Sprintf(`{"target":"user:42","reason":"Spam","until":%d}`, until)
		kicked := good(t, nodes[0].call("kick", "k1", body))
		assert.JSONEq(t, `{"closed":2,"nodes":2,"silent":[]}`, kicked)
		endedWith(t, a, pushy.CloseRemoved, "Spam")
		endedWith(t, b, pushy.CloseRemoved, "Spam")
		assert.JSONEq(t, fmt.Sprintf(`{"bans":[{"target":"user:42","reason":"Spam","since":%d,"until":%d}]}`, time.Now().Unix(), until),
			good(t, nodes[1].call("bans", "q", `{"prefix":"user:"}`)))
		assert.JSONEq(t, `{"lifted":true,"nodes":2,"silent":[]}`, good(t, nodes[1].call("unban", "u1", `{"target":"user:42"}`)))
		assert.JSONEq(t, `{"bans":[]}`, good(t, nodes[1].call("bans", "q", ``)))
		assert.JSONEq(t, `{"lifted":false,"nodes":2,"silent":[]}`, good(t, nodes[1].call("unban", "u2", `{"target":"user:42"}`)))
		again := connectOf(t, nodes[0].Server, "42")
		time.Sleep(10 * time.Minute) // the ban would have ended
		synctest.Wait()
		assert.Equal(t, kicked, good(t, nodes[1].call("kick", "k1", body)), "signed anew: the first answer")
		again.quiet()
		code, _ := errorOfAnswer(t, nodes[1].call("kick", "k1", `{"target":"user:43"}`))
		assert.Equal(t, "409", code)
		other.quiet()
	})
}

// api.md, acceptance test 14: a node that does not answer is named within 600 ms.
func TestSilentNodesInQueries(t *testing.T) {
	onUsers(t, 3, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		for _, n := range nodes {
			p := connectOf(t, n.Server, "42")
			p.subscribe("on-"+n.Node(), "")
		}
		mend := nodes[2].Cut()
		silent := `"nodes":2,"silent":["` + nodes[2].Node() + `"]`
		for _, c := range []struct{ call, body string }{
			{"channels", `{"count":true}`},
			{"connections", `{"user":"42"}`},
			{"send", `{"user":"42","event":"hello"}`},
			{"kick", `{"target":"user:nobody"}`},
		} {
			began := time.Now()
			got := good(t, nodes[0].call(c.call, "s-"+c.call, c.body))
			assert.Contains(t, got, silent, c.call)
			assert.LessOrEqual(t, time.Since(began), 600*time.Millisecond)
			assert.NotContains(t, got, "on-"+nodes[2].Node())
		}
		began := time.Now()
		assert.JSONEq(t, `{"members":[],"presence":false,"silent":["`+nodes[2].Node()+`"]}`,
			good(t, nodes[0].call("members", "q", `{"channel":"private-unknown"}`)))
		assert.LessOrEqual(t, time.Since(began), 600*time.Millisecond)
		// The one that is cut off knows only itself, and says that it does not know the rest.
		w := nodes[2].call("channels", "q", `{}`)
		assert.Equal(t, 503, w.Code)
		assert.Contains(t, w.Body.String(), "on-"+nodes[2].Node())
		assert.Contains(t, w.Body.String(), `"message":"Service unavailable"`)
		mend()
	})
}

// manyChannels makes n channels on each of some nodes, by one connection on each node.
func manyChannels(t testing.TB, nodes, n int) (servers []*pushy.Server, conns []*pushy.Conn) {
	cluster := newCluster()
	for i := range nodes {
		srv := startServer(t, pushy.Options{
			Broker: cluster.Broker(),
			Limits: pushy.Limits{Channels: -1, ConnBuffer: -1},
			Logger: slog.New(slog.DiscardHandler),
		})
		seam.Of(srv).SetAskTimeout(peerPatience) // on a busy machine a node can be late
		session, client := inmem.Pipe("websocket")
		ids := make(chan string, 1)
		go func() {
			for {
				text, err := client.Receive(context.Background())
				if err != nil {
					return
				}
				if f, err := parseFrame(text); err == nil && f.Event == "pushy:connect" {
					ids <- f.field("socketId")
				}
			}
		}()
		srv.ConnectAs(session, "42", "")
		id := <-ids
		var conn *pushy.Conn
		wait(t, peerPatience, "the connection", func() {
			for ok := false; !ok; conn, ok = srv.Conn(id) {
			}
		})
		servers = append(servers, srv)
		conns = append(conns, conn)
		for j := range n { // a third of them is on two nodes
			name := fmt.Sprintf("channel-%05d", (j*nodes+i)-(j%3/2))
			require.NoError(t, srv.Channels().Join(conn, name, nil))
		}
	}
	return servers, conns
}

// api.md, acceptance test 14: pages of 10,000 channels on three nodes, while 1,000 come and go, have
// each of those that stay once.
func TestPagesOfChannelsThatComeAndGo(t *testing.T) {
	t.Parallel()
	servers, conns := manyChannels(t, 3, 3_334)
	stop := make(chan struct{})
	var movers sync.WaitGroup
	defer func() {
		close(stop)
		movers.Wait()
	}()
	for i, srv := range servers {
		movers.Go(func() {
			for round := 0; ; round++ {
				for j := range 334 {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("channel-%05d-moves%d", j*30+i, i)
					if round%2 == 0 {
						assert.NoError(t, srv.Channels().Join(conns[i], name, nil))
					} else {
						assert.NoError(t, srv.Channels().Leave(conns[i], name))
					}
				}
			}
		})
	}
	stay := map[string]bool{}
	for i := range 3 {
		for j := range 3_334 {
			stay[fmt.Sprintf("channel-%05d", (j*3+i)-(j%3/2))] = true
		}
	}
	assert.Greater(t, len(stay), 8_000)
	limits := []int{1000}
	if soak {
		limits = append(limits, 333)
	}
	for _, limit := range limits {
		seen := map[string]int{}
		last := ""
		for after, more := "", true; more; {
			list, err := servers[0].ListChannels(t.Context(), pushy.ChannelQuery{
				Page: pushy.Page{
					After: after,
					Limit: limit,
				},
			})
			require.NoError(t, err)
			require.Empty(t, list.Silent)
			require.LessOrEqual(t, len(list.Channels), limit)
			for _, c := range list.Channels {
				require.Greater(t, c.Name, last)
				last = c.Name
				seen[c.Name]++
			}
			after = list.Next
			more = after != ""
		}
		for name := range stay {
			require.Equal(t, 1, seen[name], name)
		}
	}
}

// Pages of members have each member once, and are sorted, on nodes with and without the channel.
func TestPagesOfMembers(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		for i := range 25 {
			connectPeer(t, nodes[0].Server).subscribe("private-room", fmt.Sprintf(`{"name":"%d"}`, i))
		}
		for _, n := range nodes {
			var all []string
			for after, more := "", true; more; {
				list, err := n.ListMembers(t.Context(), pushy.MemberQuery{
					Channel: "private-room",
					Page: pushy.Page{
						After: after,
						Limit: 10,
					},
				})
				require.NoError(t, err)
				assert.True(t, list.Presence)
				for _, m := range list.Members {
					all = append(all, m.ID)
				}
				after = list.Next
				more = after != ""
			}
			assert.Len(t, all, 25)
			assert.True(t, slices.IsSorted(all))
			assert.Len(t, slices.Compact(all), 25)
		}
	})
}

// BenchmarkAPIChannels10000OnThreeNodes lists channels page by page: a request has 100 of 10,000
// channels, which are on three nodes of this process. The figure includes all nodes.
func BenchmarkAPIChannels10000OnThreeNodes(b *testing.B) {
	for _, limit := range []int{100, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			servers, _ := manyChannels(b, 3, 3_334)
			after := ""
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				w := signedCall{
					call: "channels",
					id:   "q",
					at:   time.Now().Unix() + 2, // not in the second in which the servers started
					body: fmt.Sprintf(`{"count":true,"limit":%d,"after":%q}`, limit, after),
				}.do(servers[0])
				var answer struct {
					Next   string
					Silent []string
				}
				if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 || len(answer.Silent) > 0 {
					b.Fatal(w.Code, w.Body)
				}
				after = answer.Next
			}
		})
	}
}
