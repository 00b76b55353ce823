package pushy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
)

// tellsOf returns the messages that concern one member, as words.
func (w *watcher) tellsOf(id string) (words []string) {
	for _, text := range w.taken() {
		f, err := parseFrame(text)
		require.NoError(w.t, err)
		var data struct{ Member map[string]any }
		require.NoError(w.t, json.Unmarshal(f.Data, &data))
		if data.Member["memberId"] != id {
			continue
		}
		word := strings.TrimPrefix(f.Event, "pushy:presence-")
		if word == "update" {
			for _, field := range []string{"subscribed", "idle", "tabs", "state"} {
				if value, ok := data.Member[field]; ok {
					word += fmt.Sprintf(" %s", field)
					if field != "subscribed" {
						word += fmt.Sprintf("=%v", value)
					}
				}
			}
		}
		words = append(words, word)
	}
	return words
}

// userID returns the id of the member that stands for a user.
func userID(t *testing.T, srv *pushy.Server, name string) string {
	t.Helper()
	for id, text := range serverSees(t, srv) {
		if strings.Contains(text, `"user":"`+name+`"`) {
			return id
		}
	}
	t.Fatal("no such user")
	return ""
}

// Recovery 25: three tabs of one user on three nodes, of which one is killed with its node,
// one updates and two are idle. The others receive one join and one leave; the user is idle
// only while all tabs are; and all nodes have the same.
func TestThreeTabsOfOneUser(t *testing.T) {
	for _, order := range [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			o := presence(pushy.PresenceOptions{PerUser: true, ClientState: true})
			onNodes(t, 3, o, func(t *testing.T, c *memory.Cluster, nodes []node) {
				list := watch(t, nodes[0].Server, `{"user":"bob"}`, "")
				diff := watch(t, nodes[0].Server, `{"user":"cyd"}`, `"diff"`)
				count := watch(t, nodes[0].Server, `{"user":7}`, `"count"`)
				time.Sleep(time.Second)
				list.taken()
				same := func(why string) {
					t.Helper()
					time.Sleep(time.Second)
					want := serverSees(t, nodes[0].Server)
					assert.Equal(t, want, list.seen(), why)
					assert.Equal(t, want, diff.seen(), why)
					assert.Equal(t, len(want), count.counted(), why)
					late := startOn(t, c.Broker(), o)
					p := watch(t, late, `{"user":"bob"}`, `"none"`)
					time.Sleep(time.Second)
					assert.Equal(t, serverSees(t, nodes[0].Server), serverSees(t, late), "a node that follows late; %s", why)
					p.Abort()
					<-p.done
					time.Sleep(time.Second)
				}
				var tabs [3]*watcher
				for i := range tabs {
					tabs[i] = watch(t, nodes[i].Server, fmt.Sprintf(`{"user":"ann","tab":%d}`, i), "")
					time.Sleep(time.Second)
				}
				ann := userID(t, nodes[0].Server, "ann")
				assert.Equal(t, []string{
					"add",
					"update subscribed idle=false tabs=2",
					"update subscribed idle=false tabs=3",
				}, list.tellsOf(ann))
				assert.Contains(t, serverSees(t, nodes[1].Server)[ann], `"tab":2,"tabs":3`)
				same("three tabs")
				list.taken()

				tabs[0].send(`{"command":"pushy:idle","data":{"idle":true}}`)
				tabs[1].send(`{"command":"pushy:idle","data":{"idle":true}}`)
				time.Sleep(time.Second)
				assert.Empty(t, list.tellsOf(ann), "one tab is not idle")
				tabs[2].send(`{"command":"pushy:idle","data":{"idle":true}}`)
				time.Sleep(time.Second)
				assert.Equal(t, []string{"update idle=true"}, list.tellsOf(ann))
				same("idle")
				list.taken()
				time.Sleep(10 * time.Second)
				tabs[2].send(`{"command":"pushy:idle","data":{"idle":false}}`)
				tabs[1].send(command("pushy:update", `"state":{"typing":true}`))
				time.Sleep(time.Second)
				assert.ElementsMatch(t, []string{"update idle=false", "update state=map[typing:true]"}, list.tellsOf(ann))
				same("an update")
				list.taken()

				for n, i := range order {
					if n == 1 && i > 0 {
						nodes[i].Cut()
						time.Sleep(memberLease + time.Second)
					} else {
						tabs[i].Abort()
						<-tabs[i].done
						time.Sleep(time.Second)
					}
					words := list.tellsOf(ann)
					require.Len(t, words, 1, "%v", words)
					if n < 2 {
						assert.True(t, strings.HasPrefix(words[0], "update "), words[0])
						assert.Contains(t, serverSees(t, nodes[0].Server)[ann], fmt.Sprintf(`"tabs":%d`, 2-n))
					} else {
						assert.Equal(t, "quit", words[0])
					}
					same("a tab is closed")
					list.taken()
				}
			})
		})
	}
}

// With users, the success tells the client which member it is, if it can understand that.
func TestOwnMemberOfAUser(t *testing.T) {
	onNodes(t, 1, presence(pushy.PresenceOptions{PerUser: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		srv := nodes[0].Server
		p := connectPeer(t, srv)
		p.send(withKey(subscribeText(t, p.id, "private-room", `{"user":"ann"}`), "presence", `"diff"`))
		first := p.next()
		self := first.field("self")
		require.NotEmpty(t, self)
		assert.Equal(t, userID(t, srv, "ann"), self)
		old := watch(t, srv, `{"user":"ann"}`, "")
		assert.Equal(t, []string{self}, old.ids(), "it is the same user")
		nobody := connectPeer(t, srv)
		nobody.send(withKey(subscribeText(t, nobody.id, "private-room", `{}`), "presence", `"diff"`))
		f := nobody.next()
		assert.Empty(t, f.field("self"), "a client without a user is its own member: %s", f)
	})
}

// The field "user" counts only if a token has signed it.
func TestUnsignedUserIsNoUser(t *testing.T) {
	o := presence(pushy.PresenceOptions{PerUser: true})
	o.Authorizer = allowAll{}
	onNodes(t, 1, o, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		watch(t, nodes[0].Server, `{"user":"ann"}`, "")
		w := watch(t, nodes[0].Server, `{"user":"ann"}`, "")
		assert.Len(t, w.ids(), 2)
	})
}

func TestMembersOfUsers(t *testing.T) {
	for _, perUser := range []bool{false, true} {
		t.Run(fmt.Sprint(perUser), func(t *testing.T) {
			o := presence(pushy.PresenceOptions{PerUser: perUser})
			onNodes(t, 1, o, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				for _, user := range []string{`"u7"`, `"u7"`, `"u8"`, `9`} {
					watch(t, nodes[0].Server, `{"user":`+user+`}`, "")
				}
				w := watch(t, nodes[0].Server, `{}`, `"none"`)
				w.send(command("pushy:members", `"users":["u7","u1","9"]`))
				w.send(command("pushy:members", `"users":["u1"]`))
				synctest.Wait()
				answers := w.answers()
				require.Len(t, answers, 2)
				var reply struct {
					Data struct {
						Count int
						Users map[string][]map[string]any
					}
				}
				require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(answers[0], "pushy:reply ")), &reply))
				assert.Equal(t, []string{"9", "u7"}, sortedKeys(reply.Data.Users))
				if perUser {
					assert.Len(t, reply.Data.Users["u7"], 1)
					assert.EqualValues(t, 2, reply.Data.Users["u7"][0]["tabs"])
					assert.Equal(t, 4, reply.Data.Count)
				} else {
					assert.Len(t, reply.Data.Users["u7"], 2)
					assert.Equal(t, 5, reply.Data.Count)
				}
				assert.Contains(t, answers[1], `"users":{}`)
			})
		})
	}
}

// Clients set a state where the host allows it, four times a second.
func TestStateOfAMember(t *testing.T) {
	o := presence(pushy.PresenceOptions{ClientState: true})
	onNodes(t, 2, o, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann := watch(t, nodes[0].Server, `{"name":"Ann"}`, "")
		bob := watch(t, nodes[1].Server, `{"name":"Bob"}`, "")
		synctest.Wait()
		ann.taken()
		bob.taken()
		ann.send(command("pushy:update", `"state":{"typing":true}`))
		synctest.Wait()
		assert.Equal(t, []string{`pushy:reply {"id":1,"data":{}}`}, ann.answers())
		assert.Empty(t, ann.taken(), "the others receive it")
		assert.Equal(t, []string{`{"event":"pushy:presence-update","channel":"private-room","data":{"member":{"memberId":"` +
			ann.own + `","state":{"typing":true}}}}`}, bob.taken())
		cyd := watch(t, nodes[1].Server, "", "")
		assert.Contains(t, cyd.seen()[ann.own], `"state":{"typing":true}`)

		for range 4 {
			ann.send(command("pushy:update", `"state":null`))
		}
		synctest.Wait()
		assert.Equal(t, []string{
			`pushy:reply {"id":1,"data":{}}`,
			`pushy:reply {"id":1,"data":{}}`,
			`pushy:reply {"id":1,"data":{}}`,
			`pushy:error {"message":"Too many requests","code":"429","id":1}`,
		}, ann.answers())
		assert.Contains(t, strings.Join(bob.taken(), ""), `"state":null`)
		assert.NotContains(t, bob.seen()[ann.own], "state")
		time.Sleep(time.Second)

		conn := ann.conn(nodes[0].Server)
		ch, ok := nodes[0].Channels().Lookup("private-room")
		require.True(t, ok)
		require.NoError(t, ch.Update(conn, map[string]int{"score": 3}))
		synctest.Wait()
		assert.Contains(t, bob.seen()[ann.own], `"state":{"score":3}`)
		require.NoError(t, ch.Update(conn, nil))
		synctest.Wait()
		assert.NotContains(t, bob.seen()[ann.own], "state")
		for _, invalid := range []any{1, "x", []int{1}, func() {}, map[string]string{"a": strings.Repeat("x", 5000)}} {
			require.Error(t, ch.Update(conn, invalid))
		}
		require.ErrorIs(t, ch.Update(connectPeer(t, nodes[0].Server).conn(nodes[0].Server), nil), pushy.ErrNotMember)
	})
}

// What is wrong with a command is answered, and nothing else happens.
func TestCommandsOfMembersAreRefused(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		in := watch(t, nodes[0].Server, `{}`, "")
		public := connectPeer(t, nodes[0].Server)
		public.subscribe("news", "")
		public.subscribe("private-quiet", "")
		large := strings.Repeat("x", 1025)
		for _, c := range []struct{ name, data, code, message string }{
			{"pushy:update", `{"channel":"private-room","state":{}}`, "403", "Clients cannot set a state in this channel"},
			{"pushy:update", `{"channel":"private-room"}`, "400", "state: is missing"},
			{"pushy:update", `{"channel":"private-room","state":1}`, "400", "state: must be an object or null, not a number"},
			{"pushy:update", `{"channel":"private-room","state":"` + large + `"}`, "400", "state: must have at most 1024 bytes"},
			{"pushy:update", `{"channel":1,"state":{}}`, "400", "channel: must be a string, not a number"},
			{"pushy:update", `{"state":{}}`, "300", "No channel specified"},
			{"pushy:update", `{"channel":"` + strings.Repeat("x", 300) + `","state":{}}`, "301", "Invalid channel name"},
			{"pushy:update", `{"channel":"private-other","state":{}}`, "404", "Channel not found"},
			{"pushy:update", `{"channel":"news","state":{}}`, "403", "Not subscribed to this channel"},
			{"pushy:members", `{"channel":"private-room","limit":0}`, "400", "limit: must be from 1 to 500"},
			{"pushy:members", `{"channel":"private-room","limit":501}`, "400", "limit: must be from 1 to 500"},
			{"pushy:members", `{"channel":"private-room","after":"x"}`, "400", "after: must be the value of next of the previous page"},
			{"pushy:members", `{"channel":"private-room","users":[]}`, "400", "users: must have 1 to 100 ids"},
			{"pushy:members", `{"channel":"private-room","users":[""]}`, "400", "users[0]: must have 1 to 128 bytes"},
			{"pushy:members", `{"channel":"private-room","users":["a"],"limit":1}`, "400", "users: must not be combined with limit"},
			{"pushy:members", `{"channel":"private-room","extra":1}`, "400", "extra: unknown field"},
			{"pushy:members", `{"channel":"news"}`, "403", "Not subscribed to this channel"},
			{"pushy:members", `{"channel":"private-other"}`, "404", "Channel not found"},
			{"pushy:idle", `{}`, "400", "idle: is missing"},
			{"pushy:idle", `{"idle":1}`, "400", "idle: must be true or false, not a number"},
		} {
			in.send(fmt.Sprintf(`{"command":%q,"data":%s,"id":1}`, c.name, c.data))
			synctest.Wait()
			want := fmt.Sprintf(`pushy:error {"message":%q,"code":%q,"id":1}`, c.message, c.code)
			assert.Equal(t, []string{want}, in.answers(), "%s %s", c.name, c.data)
		}
		public.send(`{"command":"pushy:members","data":{"channel":"news"},"id":1}`)
		public.expect(`pushy:error {"message":"The channel has no presence","code":"404","id":1}`)
		public.send(`{"command":"pushy:members","data":{"channel":"private-quiet"},"id":1}`)
		public.expect(`pushy:error {"message":"The channel has no presence","code":"404","id":1}`)
		public.send(`{"command":"pushy:members","data":{"channel":"news"}}`)
		public.expect(`pushy:error {"message":"id is missing: the answer could not be recognized","code":"400"}`)
		assert.Empty(t, in.taken())
	})
}

// Idle concerns all channels of a connection, also those that it joins later, and changes at
// most every 10 s.
func TestIdle(t *testing.T) {
	onNodes(t, 2, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		bob := watch(t, nodes[1].Server, `{"name":"Bob"}`, "")
		ann := watch(t, nodes[0].Server, `{"name":"Ann"}`, "")
		synctest.Wait()
		bob.taken()
		ann.send(`{"command":"pushy:idle","data":{"idle":true},"id":1}`)
		ann.send(`{"command":"pushy:idle","data":{"idle":false},"id":2}`)
		synctest.Wait()
		assert.Equal(t, []string{
			`pushy:reply {"id":1,"data":{}}`,
			`pushy:error {"message":"Too many requests","code":"429","id":2}`,
		}, ann.answers())
		assert.Equal(t, []string{`{"event":"pushy:presence-update","channel":"private-room","data":{"member":{"memberId":"` +
			ann.own + `","idle":true}}}`}, bob.taken())
		ann.send(subscribeText(t, ann.id, "private-other", `{}`))
		synctest.Wait()
		assert.Contains(t, ann.answers()[0], `"idle":true`)
		time.Sleep(10 * time.Second)
		ann.send(`{"command":"pushy:idle","data":{"idle":false}}`)
		synctest.Wait()
		assert.Contains(t, bob.seen()[ann.own], `"idle":false`)
	})
}

// A state that is set before presence is turned on, or while the broker is away, reaches the
// other nodes later.
func TestStateReachesOtherNodesLater(t *testing.T) {
	o := presence(pushy.PresenceOptions{ClientState: true})
	onNodes(t, 2, o, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		ann := watch(t, nodes[0].Server, "", "")
		ann.send(command("pushy:update", `"state":{"early":true}`))
		synctest.Wait()
		bob := watch(t, nodes[1].Server, `{"name":"Bob"}`, "")
		time.Sleep(time.Second)
		assert.Contains(t, bob.seen()[ann.own], `"state":{"early":true}`)

		here := watch(t, nodes[0].Server, "", "")
		mend := nodes[0].Cut()
		ann.send(command("pushy:update", `"state":{"alone":true}`))
		synctest.Wait()
		assert.Contains(t, here.seen()[ann.own], `"state":{"alone":true}`, "the members on this node")
		time.Sleep(5 * time.Second)
		mend()
		time.Sleep(10 * time.Second)
		for _, w := range []*watcher{bob, here} {
			assert.Contains(t, w.seen()[ann.own], `"state":{"alone":true}`)
		}
		mend = nodes[0].Cut()
		time.Sleep(2 * memberLease)
		mend()
		time.Sleep(10 * time.Second)
		for _, w := range []*watcher{bob, here} {
			assert.Contains(t, w.seen()[ann.own], `"state":{"alone":true}`, "after the member has joined again")
		}
	})
}

// A client that receives the whole list can join up to Members, others up to PagedMembers.
func TestLimitsOfModes(t *testing.T) {
	o := pushy.Options{Limits: pushy.Limits{Members: 2, PagedMembers: 4}}
	onNodes(t, 1, o, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		g.join("m1", `{}`)
		g.join("m2", `{}`)
		for _, join := range []struct{ mode, want string }{
			{"", "pushy:subscription-failed"},
			{`"list"`, "pushy:subscription-failed"},
			{`"diff"`, "pushy:subscription-success"},
			{`"none"`, "pushy:subscription-success"},
			{`"count"`, "pushy:subscription-failed"},
		} {
			p := connectPeer(t, nodes[0].Server)
			p.send(withKey(subscribeText(t, p.id, "private-room", ""), "presence", join.mode))
			assert.Equal(t, join.want, p.next().Event, join.mode)
		}
	})
}

// Presence that is turned on in a channel with members is a batch with all of them.
func TestPresenceIsTurnedOnForAllModes(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		list := watch(t, nodes[0].Server, "", "")
		diff := watch(t, nodes[0].Server, "", `"diff"`)
		count := watch(t, nodes[0].Server, "", `"count"`)
		assert.Nil(t, diff.answer)
		watch(t, nodes[0].Server, `{"name":"Ann"}`, `"none"`)
		time.Sleep(time.Second)
		want := serverSees(t, nodes[0].Server)
		assert.Len(t, want, 4)
		assert.Equal(t, want, list.seen())
		assert.Equal(t, want, diff.seen())
		assert.Equal(t, 4, count.counted())
	})
}
