package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
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

// kickOptions make the header "User" the user of a request.
var kickOptions = pushy.Options{
	Accept: func(r *http.Request) (any, error) { return r.Header.Get("User"), nil },
}

// onUsers is onCluster with kickOptions.
func onUsers(t *testing.T, nodes int, run func(t *testing.T, cluster *memory.Cluster, nodes []node)) {
	t.Helper()
	onNodes(t, nodes, kickOptions, run)
}

// connectOf connects a client of a user, past Options.Accept.
func connectOf(t testing.TB, srv *pushy.Server, user string) *peer {
	t.Helper()
	r := &roamer{t: t, user: user}
	return r.connect(srv).peer
}

// connects returns the status and the body of the answer to a user's request for a connection.
func connects(srv *pushy.Server, user string) (status int, body string) {
	r := httptest.NewRequest("GET", "/pushy/socket/websocket", nil)
	r.Header.Set("User", user)
	w := httptest.NewRecorder()
	if ticket, ok := seam.Of(srv).Admit(w, r); ok {
		ticket.GiveBack()
	}
	return w.Code, w.Body.String()
}

func endedWith(t *testing.T, p *peer, code int, reason string) {
	t.Helper()
	end := p.ended()
	assert.Equal(t, code, end.Code)
	assert.Equal(t, reason, end.Reason)
}

// api.md, acceptance test 11: a user is kicked on A and closed on B and C within a second, and stays
// away until the ban ends, also on D, which was cut off meanwhile, and on E, which starts later.
func TestKickUserOnOtherNodes(t *testing.T) {
	onUsers(t, 4, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		b := connectOf(t, nodes[1].Server, "42")
		c := connectOf(t, nodes[2].Server, "42")
		d := connectOf(t, nodes[3].Server, "42")
		other := connectOf(t, nodes[1].Server, "43")
		began := time.Now()
		mend := nodes[3].Cut()
		until := time.Now().Add(10 * time.Minute)
		result, err := nodes[0].Kick(t.Context(), pushy.Kick{
			Target: "user:42",
			Reason: "Spam",
			Until:  until,
		})
		require.NoError(t, err)
		assert.Equal(t, pushy.Kicked{
			Closed:   2,
			Coverage: pushy.Coverage{Nodes: 3, Silent: []string{nodes[3].Node()}},
		}, result)
		endedWith(t, b, pushy.CloseRemoved, "Spam")
		endedWith(t, c, pushy.CloseRemoved, "Spam")
		assert.Less(t, time.Since(began), time.Second)
		for i, n := range nodes[:3] {
			status, body := connects(n.Server, "42")
			assert.Equal(t, 403, status, "node %d", i)
			assert.JSONEq(t, `{"error":{"code":"403","message":"Spam"}}`, body)
			assert.Equal(t, uint64(1), n.Stats().Refused["banned"])
		}
		d.quiet() // it cannot know
		mended := time.Now()
		mend()
		endedWith(t, d, pushy.CloseRemoved, "Spam")
		assert.Less(t, time.Since(mended), 2*time.Second)
		late := startOn(t, cluster.Broker(), kickOptions)
		for _, srv := range []*pushy.Server{nodes[3].Server, late} {
			status, _ := connects(srv, "42")
			assert.Equal(t, 403, status)
			status, _ = connects(srv, "43")
			assert.Equal(t, 200, status)
		}
		other.quiet()
		time.Sleep(time.Until(until) - time.Second)
		for _, srv := range []*pushy.Server{nodes[0].Server, nodes[3].Server, late} {
			status, _ := connects(srv, "42")
			assert.Equal(t, 403, status, "a second before the end")
		}
		time.Sleep(2 * time.Second)
		for _, srv := range []*pushy.Server{nodes[0].Server, nodes[3].Server, late} {
			status, _ := connects(srv, "42")
			assert.Equal(t, 200, status, "after the end")
		}
	})
}

// A node that missed a message, although it was never cut off, has the ban after 30 s.
func TestBanIsReadFromTheLedger(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		p := connectOf(t, nodes[1].Server, "42")
		foreign := cluster.Broker()
		require.NoError(t, foreign.Open(t.Context(), broker.OpenOptions{Node: "foreign", Lease: time.Hour}, nowhere{}))
		defer func() { _ = foreign.Close(context.Background()) }()
		put := func(key, answer string) {
			claim, err := foreign.Claim(t.Context(), "ban:"+key, "ban", time.Hour)
			require.NoError(t, err)
			require.Equal(t, broker.Claimed, claim.State)
			require.NoError(t, foreign.Finish(t.Context(), "ban:"+key, "ban", []byte(answer)))
		}
		now := time.Now()
		end, at := now.Add(time.Hour).Unix(), now.UnixMilli()
		for i, invalid := range []string{
			`{`,
			`null`,
			`[]`,
			fmt.Sprintf(`{"target":"conn:1","until":%d,"at":%d}`, end, at),
			fmt.Sprintf(`{"target":"everyone","until":%d,"at":%d}`, end, at),
			fmt.Sprintf(`{"target":"user:","until":%d,"at":%d}`, end, at),
			fmt.Sprintf(`{"target":"channel:a:b","until":%d,"at":%d}`, end, at),
			fmt.Sprintf(`{"target":"user:43","until":99999999999999,"at":%d}`, at),
			fmt.Sprintf(`{"target":"user:43","until":%d,"at":-1}`, end),
			fmt.Sprintf(`{"target":"user:43","until":%d,"at":%d,"reason":"%s"}`, end, at, strings.Repeat("x", 124)),
		} {
			put(fmt.Sprintf("invalid%d", i), invalid)
		}
		put("valid", fmt.Sprintf(`{"target":"user:42","until":%d,"at":%d,"reason":"Elsewhere"}`,
			now.Add(time.Hour).Unix(), now.UnixMilli()))
		endedWith(t, p, pushy.CloseRemoved, "Elsewhere")
		assert.LessOrEqual(t, time.Since(now), 30*time.Second)
		bans, err := nodes[0].Bans(t.Context())
		require.NoError(t, err)
		require.Len(t, bans, 1, "the invalid ones are skipped")
		status, _ := connects(nodes[0].Server, "43")
		assert.Equal(t, 200, status)
	})
}

// What other programs append to the channel of the nodes is validated.
func TestHostileKicks(t *testing.T) {
	onUsers(t, 1, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		p := connectOf(t, nodes[0].Server, "42")
		foreign := cluster.Broker()
		require.NoError(t, foreign.Open(t.Context(), broker.OpenOptions{Node: "foreign", Lease: time.Hour}, nowhere{}))
		defer func() { _ = foreign.Close(context.Background()) }()
		for _, name := range []string{"kick", "ban", "send", "channels", "members", "connections"} {
			for i, data := range []string{
				`null`, `1`, `{}`, `{"target":"user:"}`, `{"target":"user:42","reason":"` + strings.Repeat("x", 124) + `"}`,
				`{"target":"user:42","at":1,"until":-1}`, `{"user":"42","event":"pushy:connect","data":{}}`,
				`{"user":"42","event":"e"}`, `{"limit":-1}`, `{"limit":1000000000}`, `{"channel":"private-x","limit":0}`,
			} {
				_, err := foreign.Append(t.Context(), nodesChannel, broker.Entry{
					Kind:  broker.Event,
					Event: "ask",
					From:  "foreign",
					Data:  fmt.Appendf(nil, `{"v":1,"id":"%s%d","name":"pushy:%s","ms":500,"data":%s}`, name, i, name, data),
				})
				require.NoError(t, err)
			}
		}
		synctest.Wait()
		p.quiet()
	})
}

// Members whose client is away leave at once, on every node, and cannot return.
func TestKickHeldMembers(t *testing.T) {
	for _, target := range []string{"user", "conn", "channel"} {
		t.Run(target, func(t *testing.T) {
			onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				ann := newRoamer(t, "Ann")
				ann.user = "1"
				ann.enter(nodes[0].Server)
				bob := newRoamer(t, "Bob")
				bob.user = "42"
				bob.enter(nodes[1].Server)
				assert.Equal(t, "pushy:presence-add", ann.event())
				lost := bob.peer.id
				bob.Abort()
				time.Sleep(time.Second)
				ann.quiet()
				k := pushy.Kick{
					Target: map[string]string{"user": "user:42", "conn": "conn:" + lost, "channel": "channel:Private-Room"}[target],
				}
				began := time.Now()
				result, err := nodes[0].Kick(t.Context(), k)
				require.NoError(t, err)
				synctest.Wait()
				assert.Equal(t, 2, result.Nodes)
				if target == "channel" {
					assert.Equal(t, 1, result.Closed)
					end := ann.next()
					if end.Event == "pushy:presence-quit" { // both nodes act at the same time
						end = ann.next()
					}
					assert.Equal(t, `pushy:subscription-end {"channel":"private-room","reason":"Removed"}`, end.String())
				} else {
					assert.Zero(t, result.Closed)
					assert.Equal(t, "pushy:presence-quit", ann.event())
				}
				assert.Zero(t, time.Since(began), "not only when the grace period ends")
				assert.Zero(t, nodes[1].Entries()-nodes[0].Entries(), "the channel is not held any more")
			})
		})
	}
}

// A kick ends a user's memberships at once, although its client wants to keep them.
func TestKickedMembersAreNotHeld(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann := newRoamer(t, "Ann")
		ann.enter(nodes[0].Server)
		bob := newRoamer(t, "Bob")
		bob.user = "42"
		bob.enter(nodes[1].Server)
		assert.Equal(t, "pushy:presence-add", ann.event())
		result, err := nodes[0].Kick(t.Context(), pushy.Kick{Target: "user:42"})
		require.NoError(t, err)
		assert.Equal(t, pushy.Kicked{Closed: 1, Coverage: pushy.Coverage{Nodes: 2}}, result)
		endedWith(t, bob.peer, pushy.CloseRemoved, "Removed")
		synctest.Wait()
		assert.Equal(t, "pushy:presence-quit", ann.event())
		again := newRoamer(t, "Bob")
		again.user = "42"
		again.enter(nodes[1].Server)
		assert.Equal(t, "pushy:presence-add", ann.event(), "without a ban it can return at once")
	})
}

// A channel is emptied on all nodes, and nobody can subscribe to it until the ban ends.
func TestKickChannel(t *testing.T) {
	for _, channel := range []string{"news", "private-room"} {
		t.Run(channel, func(t *testing.T) {
			onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				var all []*peer
				for i := range 6 {
					p := connectPeer(t, nodes[i%2].Server)
					p.subscribe(channel, "")
					p.subscribe("elsewhere", "")
					all = append(all, p)
				}
				until := time.Now().Add(time.Minute)
				result, err := nodes[1].Kick(t.Context(), pushy.Kick{
					Target: "channel:" + strings.ToUpper(channel),
					Reason: "Closed for today",
					Until:  until,
				})
				require.NoError(t, err)
				assert.Equal(t, pushy.Kicked{Closed: 6, Coverage: pushy.Coverage{Nodes: 2}}, result)
				for i, p := range all {
					p.expect(`pushy:subscription-end {"channel":"` + channel + `","reason":"Closed for today"}`)
					failed := p.ask(subscribeText(t, p.id, channel, ""))
					assert.Equal(t, "pushy:subscription-failed", failed.Event)
					assert.Equal(t, "Closed for today", failed.field("reason"))
					assert.Equal(t, "403", failed.field("code"))
					var refused *pushy.JoinError
					err := nodes[i%2].Channels().Join(p.conn(nodes[i%2].Server), channel, nil)
					require.ErrorAs(t, err, &refused)
					assert.Equal(t, "Closed for today", refused.Reason)
				}
				time.Sleep(time.Minute)
				for _, p := range all {
					p.subscribe(channel, "")
				}
				require.NoError(t, nodes[0].Publish(t.Context(), "elsewhere", "said", 1))
				all[5].expect("said elsewhere 1")
			})
		})
	}
}

// A ban can be made longer and shorter, and it can be lifted, also while a node does not hear it.
func TestBanIsReplacedAndLifted(t *testing.T) {
	onUsers(t, 3, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		began := time.Now()
		ban := func(n int, life time.Duration, reason string) {
			t.Helper()
			result, err := nodes[n].Kick(t.Context(), pushy.Kick{
				Target: "user:42",
				Reason: reason,
				Until:  time.Now().Add(life),
			})
			require.NoError(t, err)
			assert.Equal(t, 3, result.Nodes)
		}
		stands := func(reason string, want bool) {
			t.Helper()
			late := startOn(t, cluster.Broker(), kickOptions)
			for _, srv := range []*pushy.Server{nodes[0].Server, nodes[1].Server, nodes[2].Server, late} {
				status, body := connects(srv, "42")
				if want {
					assert.Equal(t, 403, status)
					assert.Contains(t, body, reason)
				} else {
					assert.Equal(t, 200, status)
				}
			}
			require.NoError(t, late.Close())
			bans, err := nodes[1].Bans(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, len(bans) == 1)
		}
		for i := range 20 { // one record for all of these
			ban(i%3, time.Hour-time.Duration(i)*time.Minute, fmt.Sprint("shorter ", i))
		}
		records, err := nodes[0].List(t.Context(), "ban:")
		require.NoError(t, err)
		assert.Len(t, records, 1)
		ban(1, 2*time.Hour, "longer")
		ban(2, time.Minute, "shortest")
		stands("shortest", true)
		time.Sleep(2 * time.Minute)
		stands("", false)
		ban(0, time.Hour, "again")
		stands("again", true)
		mend := nodes[2].Cut()
		result, lifted, err := nodes[1].Unban(t.Context(), "user:42")
		require.NoError(t, err)
		assert.True(t, lifted)
		assert.Equal(t, []string{nodes[2].Node()}, result.Silent)
		status, _ := connects(nodes[2].Server, "42")
		assert.Equal(t, 403, status, "it cannot know")
		mend()
		time.Sleep(2 * time.Second)
		stands("", false)
		_, lifted, err = nodes[1].Unban(t.Context(), "user:42")
		require.NoError(t, err)
		assert.False(t, lifted)
		time.Sleep(time.Until(began.Add(3 * time.Hour)))
		stands("", false)
		records, err = nodes[0].List(t.Context(), "ban:")
		require.NoError(t, err)
		assert.Empty(t, records)
	})
}

// While a ban stands, a token of the user is refused, also on a connection without a user.
func TestTokensOfABannedUser(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	_, err := srv.Kick(t.Context(), pushy.Kick{
		Target: "user:42",
		Until:  time.Now().Add(time.Hour),
	})
	require.NoError(t, err)
	p := connectPeer(t, srv)
	for _, data := range []string{`{"user":"42"}`, `{"user":42}`, `{ "name":"x", "user" : "\u0034\u0032" }`} {
		failed := p.ask(subscribeText(t, p.id, "private-room", data))
		assert.Equal(t, "pushy:subscription-failed", failed.Event, data)
		assert.Equal(t, "Removed", failed.field("reason"))
	}
	signed, err := pushy.SignToken(peerKey, pushy.Token{
		Channels: []string{"private-room"},
		Conn:     p.id,
		Data:     map[string]string{"user": "42"},
	})
	require.NoError(t, err)
	failed := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-room","auth":%q}}`, signed))
	assert.Equal(t, "pushy:subscription-failed", failed.Event)
	p.subscribe("private-room", `{"user":"43"}`)
	_, lifted, err := srv.Unban(t.Context(), "user:42")
	require.NoError(t, err)
	assert.True(t, lifted)
	q := connectPeer(t, srv)
	q.subscribe("private-room", `{"user":"42"}`)
}

// A banned user cannot write the data of a token of version 1, which is valid for all spellings of
// its value, so that it seems to name another user.
func TestBannedUserIsFoundInEverySpelling(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	_, err := srv.Kick(t.Context(), pushy.Kick{
		Target: "user:42",
		Until:  time.Now().Add(time.Hour),
	})
	require.NoError(t, err)
	p := connectPeer(t, srv)
	for data, signed := range map[string]string{
		`{"user":42.0}`:                          `{"user":42}`,
		`{"user":4.2e1}`:                         `{"user":42}`,
		`{"user":420E-1}`:                        `{"user":42}`,
		`{"\u0075ser":42}`:                       `{"user":42}`,
		`{"user":7,"user":42}`:                   `{"user":42}`,
		`"{\"user\":42}"`:                        `"{\"user\":42}"`,
		`"{\"user\":\"42\"}"`:                    `"{\"user\":\"42\"}"`,
		`"{\"user\":42.0}"`:                      `"{\"user\":42.0}"`,
		`"\u007b\u0022user\u0022:\u00342\u007d"`: `"{\"user\":42}"`,
	} {
		f := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-room","auth":%q,"data":%s}}`,
			ownToken(p.id, "private-room", signed), data))
		assert.Equal(t, `pushy:subscription-failed {"channel":"private-room","reason":"Removed","code":"403"}`, f.String(), data)
		if f.Event == "pushy:subscription-success" {
			p.ask(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
		}
	}
}

// A connection that is being accepted while the user is banned does not remain.
func TestKickWhileUsersConnect(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"user:42", "channel:room"} {
		srv := startServer(t, pushy.Options{})
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				for range 50 {
					session, client := inmem.Pipe("websocket")
					srv.ConnectAs(session, "42", "")
					_ = client.Send(`{"command":"subscribe","data":{"channel":"room"}}`)
					go func() {
						for {
							if _, err := client.Receive(context.Background()); err != nil {
								return
							}
						}
					}()
				}
			})
		}
		close(start)
		_, err := srv.Kick(t.Context(), pushy.Kick{
			Target: target,
			Until:  time.Now().Add(time.Hour),
		})
		require.NoError(t, err)
		wg.Wait()
		wait(t, peerPatience, "nobody remains", func() {
			for target == "user:42" && srv.Stats().Connections > 0 || srv.Stats().Channels > 0 {
				runtime.Gosched()
			}
		})
		require.NoError(t, srv.Close())
	}
}

// slowAuthorizer allows everything when it is released.
type slowAuthorizer struct{ asked, release chan struct{} }

func (a slowAuthorizer) Authorize(context.Context, pushy.AuthRequest) error {
	a.asked <- struct{}{}
	<-a.release
	return nil
}

// A subscription that was allowed before its channel was banned does not remain.
func TestBanDuringAJoin(t *testing.T) {
	for _, channel := range []string{"room", "private-room"} {
		t.Run(channel, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				slow := slowAuthorizer{make(chan struct{}), make(chan struct{})}
				srv := startOn(t, newCluster().Broker(), pushy.Options{Authorizer: slow})
				p := connectPeer(t, srv)
				p.send(subscribeText(t, p.id, channel, ""))
				<-slow.asked
				_, err := srv.Kick(t.Context(), pushy.Kick{
					Target: "channel:" + channel,
					Until:  time.Now().Add(time.Hour),
				})
				require.NoError(t, err)
				close(slow.release)
				assert.Equal(t, "pushy:subscription-success", p.event())
				p.expect(`pushy:subscription-end {"channel":"` + channel + `","reason":"Removed"}`)
				p.quiet()
				assert.Empty(t, p.conn(srv).Channels())
			})
		})
	}
}

func TestKickRefuses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	now := time.Now()
	for _, c := range []struct {
		kick pushy.Kick
		says string
	}{
		{pushy.Kick{}, `pushy: kick: target: must begin with "user:", "conn:" or "channel:"`},
		{pushy.Kick{Target: "42"}, `pushy: kick: target: must begin with`},
		{pushy.Kick{Target: "user:"}, `pushy: kick: target: must have 1 to 128 bytes of UTF-8 after "user:"`},
		{pushy.Kick{Target: "user:" + strings.Repeat("x", 129)}, "pushy: kick: target: must have 1 to 128 bytes"},
		{pushy.Kick{Target: "user:\xff"}, "pushy: kick: target: must have 1 to 128 bytes"},
		{pushy.Kick{Target: "channel:a:b"}, "pushy: kick: target: must not contain :"},
		{pushy.Kick{Target: "user:1", Reason: strings.Repeat("é", 62)}, "pushy: kick: reason: must be valid UTF-8 of at most 123 bytes"},
		{pushy.Kick{Target: "user:1", Until: now}, "pushy: kick: until: must be in the future"},
		{pushy.Kick{Target: "user:1", Until: time.Unix(0, 0)}, "pushy: kick: until: must be in the future"},
		{pushy.Kick{Target: "user:1", Until: time.Unix(-1, 0)}, "pushy: kick: until: must be in the future"},
		{pushy.Kick{Target: "user:1", Until: now.Add(367 * 24 * time.Hour)}, "pushy: kick: until: must be at most 366 days"},
		{pushy.Kick{Target: "conn:1", Until: now.Add(time.Hour)}, "pushy: kick: until: is not allowed for a connection"},
	} {
		_, err := srv.Kick(t.Context(), c.kick)
		require.ErrorContains(t, err, c.says)
	}
	_, _, err := srv.Unban(t.Context(), "conn:1")
	require.ErrorContains(t, err, `pushy: unban: target: must begin with "user:" or "channel:"`)
	assert.Panics(t, func() { srv.HandleAsk("pushy:kick", nil) })
	_, err = srv.Ask(t.Context(), "pushy:kick", nil)
	require.ErrorContains(t, err, "reserved")
	require.NoError(t, srv.Close())
	_, err = srv.Kick(t.Context(), pushy.Kick{Target: "user:1"})
	require.ErrorIs(t, err, pushy.ErrClosed)
}

// Without the Broker, a ban is refused and changes nothing, and a kick without one reaches this
// node and says so.
func TestKickWhileTheBrokerIsAway(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		a := connectOf(t, nodes[0].Server, "42")
		b := connectOf(t, nodes[1].Server, "42")
		mend := nodes[0].Cut()
		_, err := nodes[0].Kick(t.Context(), pushy.Kick{Target: "user:42", Until: time.Now().Add(time.Hour)})
		require.ErrorIs(t, err, broker.ErrAway)
		a.quiet()
		result, err := nodes[0].Kick(t.Context(), pushy.Kick{Target: "user:42"})
		require.ErrorIs(t, err, broker.ErrAway)
		assert.Equal(t, pushy.Kicked{Closed: 1, Coverage: pushy.Coverage{Nodes: 1}}, result)
		endedWith(t, a, pushy.CloseRemoved, "Removed")
		b.quiet()
		mend()
	})
}

// The number of bans is limited, because a Ledger lists no more of them. Bans that exist can still
// be replaced and lifted.
func TestTooManyBans(t *testing.T) {
	onUsers(t, 1, func(t *testing.T, cluster *memory.Cluster, nodes []node) {
		foreign := cluster.Broker()
		require.NoError(t, foreign.Open(t.Context(), broker.OpenOptions{Node: "foreign", Lease: time.Hour}, nowhere{}))
		defer func() { _ = foreign.Close(context.Background()) }()
		end := time.Now().Add(time.Hour)
		for i := range 9_900 {
			key := fmt.Sprintf("ban:%05d", i)
			_, err := foreign.Claim(t.Context(), key, "ban", time.Hour)
			require.NoError(t, err)
			require.NoError(t, foreign.Finish(t.Context(), key, "ban", fmt.Appendf(nil, `{"target":"user:%d","until":%d,"at":%d}`,
				i, end.Unix(), time.Now().UnixMilli())))
		}
		k := pushy.Kick{
			Target: "user:new",
			Until:  end,
		}
		_, err := nodes[0].Kick(t.Context(), k)
		require.ErrorIs(t, err, pushy.ErrTooManyBans)
		w := nodes[0].call("kick", "k", fmt.Sprintf(`{"target":"user:new","until":%d}`, end.Unix()))
		assert.Equal(t, 503, w.Code)
		assert.Contains(t, w.Body.String(), "There are too many bans")
		status, _ := connects(nodes[0].Server, "new")
		assert.Equal(t, 200, status, "nothing was done")
		k.Target = "user:7"
		_, err = nodes[0].Kick(t.Context(), k)
		require.NoError(t, err)
		_, lifted, err := nodes[0].Unban(t.Context(), "user:8")
		require.NoError(t, err)
		assert.True(t, lifted)
		bans, err := nodes[0].Bans(t.Context())
		require.NoError(t, err)
		assert.Len(t, bans, 9_899)
		time.Sleep(31 * time.Second)
		status, _ = connects(nodes[0].Server, "9898")
		assert.Equal(t, 403, status)
		status, _ = connects(nodes[0].Server, "8")
		assert.Equal(t, 200, status)
	})
}

// withoutLedger hides the Ledger of a broker.
type withoutLedger struct{ broker.Broker }

func TestBanWithoutALedger(t *testing.T) {
	t.Parallel()
	srv := startOn(t, withoutLedger{newCluster().Broker()}, pushy.Options{})
	_, err := srv.Kick(t.Context(), pushy.Kick{Target: "user:42", Until: time.Now().Add(time.Hour)})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = srv.Kick(t.Context(), pushy.Kick{Target: "user:42"})
	require.NoError(t, err)
}
