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
	"github.com/gopushy/pushy/internal/transport/inmem"
)

const room = "private-room"

// admission is what a client that keeps its membership receives when it subscribes.
type admission struct {
	MemberID string
	Key      string
	Resumed  *bool
	Settling int
	Members  memberPage // with diffs
	Presence []json.RawMessage
}

// roamer is a client that keeps its membership of one channel, as the browser client does.
type roamer struct {
	t       testing.TB
	channel string
	data    string // presence data
	user    string // the UserID of its connections
	address string
	diffs   bool // it receives the members with the mode "diff"
	*peer
	in admission // of its last subscription
}

func newRoamer(t testing.TB, name string) *roamer {
	return &roamer{
		t:       t,
		channel: room,
		data:    `{"name":"` + name + `"}`,
	}
}

// connect opens a new connection.
func (r *roamer) connect(srv *pushy.Server) *roamer {
	r.t.Helper()
	session, client := inmem.Pipe("websocket")
	srv.ConnectAs(session, r.user, r.address)
	r.peer = &peer{t: r.t, Client: client}
	hello := r.next()
	require.Equal(r.t, "pushy:connect", hello.Event)
	r.peer.id = hello.field("socketId")
	return r
}

// command returns the command that subscribes, with the membership of the last subscription.
func (r *roamer) command() string {
	r.t.Helper()
	text := subscribeText(r.t, r.peer.id, r.channel, r.data)
	more := `,"hold":true`
	if r.in.Key != "" {
		more += fmt.Sprintf(`,"member":{"id":%q,"key":%q}`, r.in.MemberID, r.in.Key)
	}
	if r.diffs {
		mode := `{"mode":"diff","limit":500}`
		if r.in.Members.Revision != "" {
			mode = fmt.Sprintf(`{"mode":"diff","since":%q}`, r.in.Members.Revision)
		}
		more += `,"presence":` + mode
	}
	return strings.TrimSuffix(text, "}}") + more + "}}"
}

// enter connects and subscribes, and reports whether the client has its membership again.
func (r *roamer) enter(srv *pushy.Server) (resumed bool) {
	r.t.Helper()
	r.connect(srv)
	return r.subscribeAgain()
}

func (r *roamer) subscribeAgain() (resumed bool) {
	r.t.Helper()
	r.send(r.command())
	f := r.next()
	require.Equal(r.t, "pushy:subscription-success", f.Event, "%s", f)
	return r.admitted(f)
}

func (r *roamer) admitted(f frame) (resumed bool) {
	r.t.Helper()
	asked := r.in.Key != ""
	r.in = admission{}
	require.NoError(r.t, json.Unmarshal(f.Data, &r.in))
	require.Equal(r.t, asked, r.in.Resumed != nil, "%s", f)
	return asked && *r.in.Resumed
}

// away waits until the server has noticed that the connection has ended.
func (r *roamer) away() {
	r.t.Helper()
	wait(r.t, peerPatience, "the end of the connection", func() { <-r.Done() })
}

// drop loses the connection.
func (r *roamer) drop() {
	r.Abort()
	r.away()
}

// A client that loses its connection and returns within 15 s has its membership again, with
// the same memberId. The other members receive nothing, and of the hooks only Resume is
// called. When it has left for good, the channel closes.
func TestAReturningClientIsInvisible(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{Hooks: seen.graceHooks()})
		ann := newRoamer(t, "Ann")
		bob := newRoamer(t, "Bob")
		ann.enter(srv)
		bob.enter(srv)
		assert.Len(t, bob.in.Key, 22)
		assert.Equal(t, "pushy:presence-add", ann.event())
		first := bob.in
		synctest.Wait()
		seen.take()
		for range 3 {
			old := bob.peer.id
			bob.drop()
			time.Sleep(14 * time.Second)
			assert.True(t, bob.enter(srv))
			assert.Equal(t, first.MemberID, bob.in.MemberID)
			assert.Equal(t, first.Key, bob.in.Key)
			assert.Equal(t, []string{"Ann", "Bob"}, names(t, bob.in.Presence))
			synctest.Wait()
			assert.Equal(t, []string{
				"disconnect " + old,
				"connect " + bob.peer.id,
				"resume " + bob.peer.id + " of " + old,
			}, seen.take())
		}
		ann.quiet()
		require.NoError(t, srv.Publish(t.Context(), room, "said", 1))
		bob.expect("said private-room 1")
		ann.expect("said private-room 1")
		bob.quiet()
		ann.Close(1000, "")
		ann.away()
		seen.take()
		bob.drop()
		time.Sleep(15*time.Second - time.Millisecond)
		assert.Equal(t, []string{"Bob"}, membersOf(t, srv, room))
		time.Sleep(2 * time.Millisecond)
		assert.Equal(t, []string{"disconnect " + bob.peer.id, "unsubscribe " + bob.peer.id, "vacated"}, seen.take())
		assert.Zero(t, srv.Entries())
		assert.False(t, bob.enter(srv), "15 s have passed")
		assert.NotEqual(t, first.MemberID, bob.in.MemberID)
	})
}

// graceHooks records the hooks with the ids of the connections. Those that are marked have a
// star.
func (e *events) graceHooks() pushy.Hooks {
	add := func(word string, c *pushy.Conn) {
		if c.Resumed() {
			word += "*"
		}
		e.add("%s %s", word, c.ID())
	}
	return pushy.Hooks{
		Connect:     func(c *pushy.Conn) { add("connect", c) },
		Disconnect:  func(c *pushy.Conn, _ int, _ string) { add("disconnect", c) },
		Subscribe:   func(c *pushy.Conn, _ *pushy.Channel) { add("subscribe", c) },
		Unsubscribe: func(c *pushy.Conn, _ *pushy.Channel) { add("unsubscribe", c) },
		Resume: func(c *pushy.Conn, _ *pushy.Channel, old string) {
			e.add("resume %s of %s", c.ID(), old)
		},
		ChannelOccupied: func(*pushy.Channel) { e.add("occupied") },
		ChannelVacated:  func(*pushy.Channel) { e.add("vacated") },
	}
}

// take returns the words since the last call.
func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	words := e.words
	e.words = nil
	return words
}

// A member leaves at once after the ends that have no grace, and 15 s after the others if its
// client has asked for that.
func TestEndsWithAndWithoutGrace(t *testing.T) {
	t.Parallel()
	closed := func(code int) func(*testing.T, *pushy.Server, *roamer) {
		return func(_ *testing.T, _ *pushy.Server, r *roamer) { r.Close(code, "") }
	}
	closes := func(code int) func(*testing.T, *pushy.Server, *roamer) {
		return func(t *testing.T, srv *pushy.Server, r *roamer) {
			require.NoError(t, r.conn(srv).Close(code, ""))
			assert.Equal(t, code, r.ended().Code)
		}
	}
	for name, c := range map[string]struct {
		end   func(t *testing.T, srv *pushy.Server, r *roamer)
		grace bool
	}{
		"lost":              {func(_ *testing.T, _ *pushy.Server, r *roamer) { r.Abort() }, true},
		"client 1000":       {closed(1000), false},
		"client 1001":       {closed(1001), true},
		"client 1005":       {closed(1005), true},
		"client 1008":       {closed(1008), false},
		"client 3499":       {closed(3499), true},
		"client 3500":       {closed(3500), false},
		"client 3999":       {closed(3999), false},
		"client 4001":       {closed(4001), true},
		"host 1000":         {closes(1000), false},
		"host 1001":         {closes(1001), true},
		"host 1008":         {closes(1008), false},
		"host 1011":         {closes(1011), true},
		"host 1012":         {closes(1012), true},
		"host 1013":         {closes(1013), true},
		"host 3001":         {closes(3001), true},
		"host CloseRemoved": {closes(pushy.CloseRemoved), false},
		"host 3501":         {closes(3501), false},
		"host 4000":         {closes(4000), true},
		"unsubscribe": {func(t *testing.T, _ *pushy.Server, r *roamer) {
			r.send(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
			assert.Equal(t, "pushy:subscription-end", r.event())
		}, false},
		"Channel.Remove": {func(t *testing.T, srv *pushy.Server, r *roamer) {
			ch, ok := srv.Channels().Lookup(room)
			require.True(t, ok)
			require.NoError(t, ch.Remove(r.conn(srv), ""))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				srv := startServer(t, pushy.Options{})
				ann := connectPeer(t, srv)
				ann.subscribe(room, `{"name":"Ann"}`)
				bob := newRoamer(t, "Bob")
				bob.enter(srv)
				assert.Equal(t, "pushy:presence-add", ann.event())
				c.end(t, srv, bob)
				time.Sleep(10 * time.Second) // also for an answer of the client
				if c.grace {
					ann.quiet()
					time.Sleep(10 * time.Second)
				}
				assert.Equal(t, "pushy:presence-quit", ann.event())
				time.Sleep(time.Minute)
				ann.quiet()
				bob.Abort()
			})
		})
	}
}

// Only private channels with presence hold, and only members whose client asks for it.
func TestWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		var seen events
		srv := startServer(t, pushy.Options{
			Hooks: seen.graceHooks(),
			Channel: func(name string) pushy.ChannelOptions {
				return pushy.ChannelOptions{Presence: pushy.PresenceOptions{Off: name == "private-off"}}
			},
		})
		for _, channel := range []string{"news", "private-off"} {
			bob := newRoamer(t, "Bob")
			bob.channel = channel
			bob.enter(srv)
			assert.Empty(t, bob.in.Key)
			bob.in.MemberID = "m1"
			bob.in.Key = "a key of whatever form"
			bob.drop()
			assert.False(t, bob.enter(srv))
			bob.drop()
			assert.Zero(t, srv.Entries())
		}
		bob := connectPeer(t, srv)
		bob.subscribe(room, `{"name":"Bob"}`)
		bob.Abort()
		synctest.Wait()
		assert.Zero(t, srv.Entries())
	})
}

// A key that does not fit, or the id of a member that has left, is no error: the client
// becomes a new member, and the membership that it names is not touched.
func TestKeysThatDoNotFit(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		ann := newRoamer(t, "Ann")
		ann.enter(srv)
		bob := newRoamer(t, "Bob")
		bob.enter(srv)
		assert.Equal(t, "pushy:presence-add", ann.event())
		bob.drop()
		right := bob.in
		elsewhere := newRoamer(t, "Bob")
		elsewhere.channel = "private-elsewhere"
		elsewhere.enter(srv)
		for name, wrong := range map[string]admission{
			"another key":          {MemberID: right.MemberID, Key: strings.Repeat("A", 22)},
			"longer":               {MemberID: right.MemberID, Key: right.Key + "A"},
			"shorter":              {MemberID: right.MemberID, Key: right.Key[:21]},
			"of another member":    {MemberID: right.MemberID, Key: ann.in.Key},
			"of another channel":   {MemberID: right.MemberID, Key: elsewhere.in.Key},
			"of no member":         {MemberID: "nobody", Key: right.Key},
			"of a former member":   {MemberID: elsewhere.in.MemberID, Key: elsewhere.in.Key},
			"an id with a channel": {MemberID: room + ":" + right.MemberID, Key: right.Key},
		} {
			cyd := newRoamer(t, "Cyd")
			cyd.in = wrong
			assert.False(t, cyd.enter(srv), name)
			assert.NotEqual(t, wrong.MemberID, cyd.in.MemberID, name)
			assert.Equal(t, "pushy:presence-add", ann.event(), name)
			cyd.Close(1000, "")
			cyd.away()
			assert.Equal(t, "pushy:presence-quit", ann.event(), name)
		}
		assert.True(t, bob.enter(srv))
		ann.quiet()
	})
}

// The keys are made with the secret key; those of old secret keys are accepted. Without a
// secret key, a client can return within the same process.
func TestMemberKeysAndSecrets(t *testing.T) {
	t.Parallel()
	const old = "an old secret of sixteen bytes"
	for name, c := range map[string]struct {
		first, second pushy.Options
		resumed       bool
	}{
		"the same":     {pushy.Options{}, pushy.Options{}, true},
		"rotated":      {pushy.Options{SecretKey: old}, pushy.Options{OldSecretKeys: []string{old}}, true},
		"rotated back": {pushy.Options{OldSecretKeys: []string{old}}, pushy.Options{SecretKey: old}, false},
		"none": {
			pushy.Options{DisableTrigger: true, Authorizer: allowAll{}},
			pushy.Options{DisableTrigger: true, Authorizer: allowAll{}},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				c.first.Authorizer = allowAll{}
				c.second.Authorizer = allowAll{}
				cluster := newCluster()
				first := startOn(t, cluster.Broker(), c.first)
				second := startOn(t, cluster.Broker(), c.second)
				bob := newRoamer(t, "Bob")
				bob.enter(first)
				bob.drop()
				assert.Equal(t, c.resumed, bob.enter(second))
			})
		})
	}
}
