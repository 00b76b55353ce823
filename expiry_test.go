package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
)

// All tests of this file that sleep run in a bubble of testing/synctest, which provides fake time.

// expiring returns a token for a connection that ends after that time. data is JSON or "".
func (p *peer) expiring(channel string, life time.Duration, data string) string {
	p.t.Helper()
	token := pushy.Token{
		Channels: []string{channel},
		Conn:     p.id,
		Expires:  time.Now().Add(life),
	}
	if data != "" {
		token.Data = json.RawMessage(data)
	}
	signed, err := pushy.SignToken(peerKey, token)
	require.NoError(p.t, err)
	return signed
}

// refresh sends pushy:refresh and returns the answer.
func (p *peer) refresh(channel, auth string) frame {
	p.t.Helper()
	return p.ask(fmt.Sprintf(`{"command":"pushy:refresh","data":{"channel":%q,"auth":%q},"id":"7"}`, channel, auth))
}

// Acceptance test 9 of the signed API, without a refresh.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var ends atomic.Int64
		srv := startServer(t, pushy.Options{Hooks: pushy.Hooks{
			Unsubscribe: func(*pushy.Conn, *pushy.Channel) { ends.Add(1) },
		}})
		bob, _ := enter(t, srv, "Bob")
		ann := connectUser(t, srv, "")
		end := time.Now().Add(2 * time.Second)
		f := ann.subscribeWith(room, ann.expiring(room, 2*time.Second, `{"name":"Ann"}`), "")
		require.Equal(t, "pushy:subscription-success", f.Event, "%s", f)
		assert.Contains(t, string(f.Data), fmt.Sprintf(`"expires":%d`, end.UnixMilli()))
		assert.Equal(t, "pushy:presence-add", bob.event())
		ann.subscribe("news", "")

		time.Sleep(time.Until(end.Add(25*time.Second)) - time.Millisecond)
		ann.quiet()
		bob.quiet()
		time.Sleep(time.Millisecond)
		ann.expect(`pushy:subscription-end {"channel":"private-room","reason":"Expired","again":true}`)
		assert.Equal(t, "pushy:presence-quit", bob.event())
		assert.EqualValues(t, 1, ends.Load())
		time.Sleep(time.Hour)
		require.NoError(t, srv.Publish(t.Context(), room, "said", nil))
		require.NoError(t, srv.Publish(t.Context(), "news", "said", nil))
		ann.expect("said news null")
		ann.quiet()

		f = ann.subscribeWith(room, ann.expiring(room, 2*time.Second, `{"name":"Ann"}`), "")
		require.Equal(t, "pushy:subscription-success", f.Event, "it may subscribe anew: %s", f)
	})
}

// A client that does not say that it knows version 2 receives no new keys.
func TestTokenExpiresForOldClients(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		p := connectPeer(t, srv)
		f := p.subscribeWith(room, p.expiring(room, time.Second, ""), "")
		assert.NotContains(t, f.String(), "expires")
		time.Sleep(26 * time.Second)
		p.expect(`pushy:subscription-end {"channel":"private-room","reason":"Expired"}`)
	})
}

// Acceptance test 9 of the signed API, with a refresh.
func TestRefresh(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		bob, _ := enter(t, srv, "Bob")
		ann := connectUser(t, srv, "")
		first := ann.subscribeWith(room, ann.expiring(room, 2*time.Second, `{"name":"Ann"}`), "")
		assert.Equal(t, "pushy:presence-add", bob.event())
		for range 100 {
			time.Sleep(1500 * time.Millisecond)
			auth := ann.expiring(room, 2*time.Second, `{"name":"Ann"}`)
			end := time.Now().Add(2*time.Second).Unix() * 1000
			require.Equal(t, fmt.Sprintf(`pushy:reply {"id":"7","data":{"expires":%d}}`, end), ann.refresh(room, auth).String())
		}
		bob.quiet()
		require.NoError(t, srv.Publish(t.Context(), room, "said", nil))
		ann.expect("said private-room null")
		bob.expect("said private-room null")

		// Other data is an update, not a second join.
		ann.refresh(room, ann.expiring(room, 2*time.Second, `{"name":"Anne"}`))
		news := bob.next()
		assert.Equal(t, "pushy:presence-update", news.Event)
		assert.Contains(t, string(news.Data), `"name":"Anne"`)
		assert.Contains(t, string(news.Data), first.field("memberId"))

		// The renewed token ends, too, and one without an end never does.
		assert.Equal(t, `pushy:reply {"id":"7","data":{}}`,
			ann.refresh(room, sign(t, pushy.Token{Channels: []string{room}, Conn: ann.id})).String())
		time.Sleep(48 * time.Hour)
		assert.Contains(t, ann.refresh(room, ann.expiring(room, time.Second, "")).String(), "expires")
		ann.quiet()
		time.Sleep(26 * time.Second)
		ann.expect(`pushy:subscription-end {"channel":"private-room","reason":"Expired","again":true}`)
	})
}

func sign(t testing.TB, token pushy.Token) string {
	t.Helper()
	signed, err := pushy.SignToken(peerKey, token)
	require.NoError(t, err)
	return signed
}

// A refresh that is refused changes nothing.
func TestRefreshIsRefused(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		bob, _ := enter(t, srv, "Bob")
		ann := connectUser(t, srv, "")
		eve := connectUser(t, srv, "")
		ann.subscribeWith(room, ann.expiring(room, 60*time.Second, `{"name":"Ann","user":7}`), "")
		assert.Equal(t, "pushy:presence-add", bob.event())
		denied := `pushy:error {"message":"Invalid credentials","code":"403","id":"7"}`
		short := ann.expiring(room, 2*time.Second, `{"name":"Ann"}`)
		time.Sleep(3 * time.Second)
		for auth, want := range map[string]string{
			"":                                     `pushy:error {"message":"Authorization needed","code":"401","id":"7"}`,
			short:                                  `pushy:error {"message":"Expired","code":"401","id":"7"}`,
			eve.expiring(room, time.Minute, ""):    denied,
			ann.expiring("other", time.Minute, ""): denied,
			ann.expiring(room, time.Minute, "") + ".":                    denied,
			ann.expiring(room, time.Minute, `{"name":"A","user":8}`):     `pushy:error {"message":"The token is for another user","code":"403","id":"7"}`,
			ann.expiring(room, time.Minute, `{"name":"A","user":7}`)[1:]: denied,
		} {
			assert.Equal(t, want, ann.refresh(room, auth).String())
		}
		for data, want := range map[string]string{
			`{"channel":"private-room"}`:           `"code":"401"`,
			`{"channel":"private-room","auth":7}`:  `"message":"auth: must be a string, not a number","code":"400"`,
			`{"channel":"private-room","token":7}`: `"message":"token: unknown field","code":"400"`,
			`{"auth":"x"}`:                         `"code":"300"`,
			`{"channel":"a:b","auth":"x"}`:         `"code":"301"`,
			`{"channel":"nobody","auth":"x"}`:      `"message":"Channel not found","code":"404"`,
		} {
			assert.Contains(t, ann.ask(`{"command":"pushy:refresh","id":1,"data":`+data+`}`).String(), want, data)
		}
		assert.Contains(t, eve.refresh(room, eve.expiring(room, time.Minute, "")).String(), "Not subscribed")
		bob.quiet()
		time.Sleep(82*time.Second - time.Millisecond)
		ann.quiet()
		time.Sleep(time.Millisecond)
		ann.expect(`pushy:subscription-end {"channel":"private-room","reason":"Expired","again":true}`)
	})
}

// A client that returns with a token that has expired keeps its member until it has another.
func TestReturnWithAnExpiredToken(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		one := startOn(t, cluster.Broker(), pushy.Options{})
		two := startOn(t, cluster.Broker(), pushy.Options{})
		bob, _ := enter(t, one, "Bob")
		user := func(life time.Duration) string {
			return sign(t, pushy.Token{
				Channels: []string{room},
				User:     "42",
				Expires:  time.Now().Add(life),
				Data:     map[string]string{"name": "Ann"},
			})
		}
		old := user(2 * time.Second)
		subscribe := func(p *peer, auth, more string) frame {
			return p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q,"auth":%q,"hold":true%s}}`, room, auth, more))
		}
		ann := connectUser(t, one, "42")
		f := subscribe(ann, old, "")
		require.Equal(t, "pushy:subscription-success", f.Event, "%s", f)
		member := fmt.Sprintf(`,"member":{"id":%q,"key":%q}`, f.field("memberId"), f.field("key"))
		assert.Equal(t, "pushy:presence-add", bob.event())
		ann.Abort()
		time.Sleep(3 * time.Second)
		ann = connectUser(t, two, "42")
		again := subscribe(ann, old, member)
		assert.Equal(t, `pushy:subscription-needauth {"channel":"private-room","reason":"Expired"}`, again.String())
		again = subscribe(ann, user(2*time.Second), member)
		assert.Equal(t, f.field("memberId"), again.field("memberId"))
		assert.Contains(t, again.String(), `"resumed":true`)
		bob.quiet()
		time.Sleep(27 * time.Second)
		ann.expect(`pushy:subscription-end {"channel":"private-room","reason":"Expired","again":true}`)
		assert.Equal(t, "pushy:presence-quit", bob.event())
	})
}

// A clock that is set forward or back ends a subscription by the new time, and none is forgotten.
func TestExpiryWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"forward": 3 * time.Hour, "back": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				var set atomic.Int64
				srv := startServer(t, pushy.Options{})
				srv.SetClock(func() time.Time { return time.Now().Add(time.Duration(set.Load())) })
				p := connectUser(t, srv, "")
				long := p.expiring("private-a", 2*time.Hour, "")
				require.Contains(t, p.subscribeWith("private-a", long, "").Event, "success")
				time.Sleep(time.Minute)
				set.Store(int64(step))
				if step > 0 {
					time.Sleep(time.Second)
					assert.Contains(t, p.next().String(), "Expired")
					return
				}
				// A subscription that begins after the change ends by the new time, too.
				clock := time.Now().Add(step)
				late := ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["private-b"],"conn":%q,"iat":%d,"exp":%d}`,
					p.id, clock.Unix(), clock.Unix()+2))
				require.Contains(t, p.subscribeWith("private-b", late, "").Event, "success")
				time.Sleep(28 * time.Second)
				assert.Equal(t, "private-b", p.next().field("channel"))
				p.quiet()
				time.Sleep(5 * time.Hour)
				assert.Contains(t, p.next().String(), "Expired")
			})
		})
	}
}

// Refreshes, leaves, returns and expiries of the same subscriptions at once.
func TestRefreshRaces(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				channel := fmt.Sprintf("private-%d", i%4)
				for range 5 {
					p := connectUser(t, srv, "")
					go func() {
						for err := error(nil); err == nil; {
							_, err = p.Receive(context.Background())
						}
					}()
					p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q,"auth":%q}}`, channel, p.expiring(channel, time.Second, `{"n":1}`)))
					for round := range 3 {
						p.send(fmt.Sprintf(`{"command":"pushy:refresh","data":{"channel":%q,"auth":%q}}`,
							channel, p.expiring(channel, time.Second, fmt.Sprintf(`{"n":%d}`, round))))
						time.Sleep(time.Duration(i%3*13) * time.Second)
					}
					if i%2 == 0 {
						go func() {
							if conn, ok := srv.Conn(p.id); ok {
								_ = srv.Channels().Leave(conn, channel)
							}
						}()
						p.send(fmt.Sprintf(`{"command":"pushy:refresh","data":{"channel":%q,"auth":%q}}`, channel, p.expiring(channel, time.Second, `{"n":9}`)))
					}
					if i%5 == 0 {
						p.Abort()
					}
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range 4 {
			_, in := srv.Channels().Lookup(fmt.Sprintf("private-%d", i))
			assert.False(t, in, "everybody's permission has expired")
		}
	})
}

// An Authorizer can let a permission end, and decides about each refresh.
func TestAuthorizerExpiry(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Authorizer: granting(func(r pushy.AuthRequest) {
			if strings.HasPrefix(r.Channel, "private-") {
				r.Grant.Expires = time.Now().Add(500 * time.Millisecond)
			}
		})})
		p := connectUser(t, srv, "")
		p.subscribe("news", "")
		require.Contains(t, p.subscribeWith(room, "", "").String(), `"expires":`)
		time.Sleep(20 * time.Second)
		assert.Contains(t, p.refresh(room, "").String(), `"expires":`)
		time.Sleep(25*time.Second + 500*time.Millisecond)
		assert.Contains(t, p.next().String(), "Expired")
		time.Sleep(time.Hour)
		p.quiet()
	})
}
