package pusher_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/pusher"
)

func newCluster() *memory.Cluster {
	return memory.NewCluster(memory.Options{Logger: slog.New(slog.DiscardHandler)})
}

func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{Limits: pushy.Limits{ConnBuffer: 64 << 10, TriggerBytes: 16 << 10}})
	c := n.dial()
	c.join("news")
	for range 20 {
		require.NoError(t, n.srv.Publish(t.Context(), "news", "e", strings.Repeat("x", 10<<10)))
	}
	code, reason := c.closed()
	assert.Equal(t, 4100, code)
	assert.Equal(t, "slow consumer", reason)
}

// failing is a broker whose calls fail for a while.
type failing struct {
	broker.Broker
	fails chan struct{} // closed when they succeed
}

func (b *failing) Follow(ctx context.Context, channel string) (broker.State, error) {
	select {
	case <-b.fails:
		return b.Broker.Follow(ctx, channel)
	default:
		if strings.HasPrefix(channel, "news") {
			return broker.State{}, errors.New("the store fails")
		}
		return b.Broker.Follow(ctx, channel)
	}
}

// A failure that can pass is not answered with an error, because clients never try again.
func TestTemporaryFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &failing{
			Broker: newCluster().Broker(),
			fails:  make(chan struct{}),
		}
		n := serve(t, pushy.Options{Broker: b})
		c, d := n.dial(), n.dial()
		began := time.Now()
		c.ask("news")
		code, _ := c.closed()
		assert.Equal(t, 4100, code)
		assert.InDelta(t, 10, time.Since(began).Seconds(), 2)
		d.ask("news")
		time.Sleep(3 * time.Second)
		close(b.fails)
		d.expect("pusher_internal:subscription_succeeded")
	})
}

// A host's rule that fails is temporary, too.
func TestAuthorizerThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := 0
		n := serve(t, pushy.Options{Authorizer: authorizer(func(pushy.AuthRequest) error {
			failed++
			if failed < 5 {
				panic("the database is gone")
			}
			return nil
		})})
		n.dial().join("news")
		assert.Equal(t, 5, failed)
	})
}

// Clients whose events may have been lost connect again, which is the only sign that their pages have.
func TestGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		b := &resets{Broker: cluster.Broker()}
		n := serve(t, pushy.Options{Broker: b})
		var in, out []*peer
		for range 20 {
			c := n.dial()
			c.join("news")
			in = append(in, c)
			d := n.dial()
			d.join("other")
			out = append(out, d)
		}
		b.sink.Reset("news", broker.State{}, broker.ResetGap)
		for _, c := range in {
			code, reason := c.closed()
			assert.Equal(t, 4100, code)
			assert.Equal(t, "events may have been lost", reason)
		}
		for _, c := range out {
			c.sync()
		}
	})
}

// A node that was cut off from its broker learns who has come and gone meanwhile: its clients receive the
// difference, before those whose events may have been lost are disconnected.
func TestMembersAfterAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		b := &resets{Broker: cluster.Broker()}
		n := serve(t, pushy.Options{Broker: b})
		other := serve(t, pushy.Options{Broker: cluster.Broker()})
		c := n.dial()
		c.list("presence-room", channelData("1"))
		other.dial().list("presence-room", channelData("2"))
		c.joined()
		both, err := b.Follow(t.Context(), "presence-room")
		require.NoError(t, err)
		require.Len(t, both.Members, 2)
		alone := both
		alone.Members = slices.DeleteFunc(slices.Clone(both.Members), func(m broker.Member) bool { return m.Node != both.Members[0].Node })
		require.Len(t, alone.Members, 1)
		b.sink.Reset("presence-room", alone, "")
		assert.Equal(t, "2", c.left())
		b.sink.Reset("presence-room", both, broker.ResetGap)
		id, info := c.joined()
		assert.Equal(t, "2", id)
		assert.JSONEq(t, `{"name":"N2"}`, info)
		code, _ := c.closed()
		assert.Equal(t, 4100, code)
	})
}

type resets struct {
	broker.Broker
	sink broker.Sink
}

func (b *resets) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	b.sink = sink
	return b.Broker.Open(ctx, o, sink)
}

// The host ends a subscription: the protocol has no message for that but the error.
func TestRemoved(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	c.join("private-x")
	channel, found := n.srv.Channels().Lookup("private-x")
	require.True(t, found)
	conn, found := n.srv.Conn(c.id)
	require.True(t, found)
	require.NoError(t, channel.Remove(conn, "You were removed"))
	g := c.expect("pusher:subscription_error")
	assert.Equal(t, "private-x", g.Channel)
	assert.JSONEq(t, `{"type":"AuthError","error":"You were removed","status":403}`, g.content(t))
	c.join("private-x")
}

func TestCapitalsAreLogged(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	n := serve(t, pushy.Options{Logger: log.Logger()})
	require.NoError(t, n.srv.Publish(t.Context(), "News", "e", 1))
	assert.Contains(t, log.String(), "was brought to lower case")
	c := n.dial()
	c.refused(map[string]any{"channel": "private-x", "auth": sign("1.1:private-x")})
	assert.Contains(t, log.String(), "a signature was refused")
	assert.NotContains(t, log.String(), sign("1.1:private-x"))
}

func TestAuthHandler(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{Origins: []string{"https://friend.example"}})
	handler := n.p.AuthHandler(func(r *http.Request, channel string) (*pusher.Member, error) {
		switch {
		case channel == "private-login":
			return nil, pushy.ErrNeedAuth
		case channel == "private-no":
			return nil, pushy.ErrDenied
		case channel == "private-word":
			return nil, &pushy.Error{Message: "not today"}
		case channel == "private-broken":
			return nil, errors.New("secret detail")
		case channel == "private-panic":
			panic("x")
		}
		return &pusher.Member{ID: "42", Info: map[string]string{"name": "Ann"}}, nil
	})
	post := func(form url.Values, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pushy.test/auth", strings.NewReader(form.Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := newRecorder()
		handler.ServeHTTP(w, r)
		return w.status, w.body.String()
	}
	c := n.dial()
	status, body := post(url.Values{"socket_id": {c.id}, "channel_name": {"private-x"}})
	require.Equal(t, 200, status)
	assert.JSONEq(t, `{"auth":"`+sign(c.id+":private-x")+`"}`, body)
	status, body = post(url.Values{"socket_id": {c.id}, "channel_name": {"presence-x"}}, "Origin", "https://friend.example")
	require.Equal(t, 200, status)
	var answer map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	answer["channel"] = "presence-x"
	c.send("pusher:subscribe", "", answer)
	assert.Contains(t, c.expect("pusher_internal:subscription_succeeded").content(t), `"ids":["42"]`)
	for _, bad := range []struct {
		form   url.Values
		status int
	}{
		{url.Values{}, 400},
		{url.Values{"socket_id": {c.id}}, 400},
		{url.Values{"socket_id": {c.id, c.id}, "channel_name": {"private-x"}}, 400},
		{url.Values{"socket_id": {"1.1:private-x"}, "channel_name": {"private-x"}}, 400},
		{url.Values{"socket_id": {"1"}, "channel_name": {"private-x"}}, 400},
		{url.Values{"socket_id": {c.id}, "channel_name": {":user:{}"}}, 400},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-x:{}"}}, 400},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-login"}}, 401},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-no"}}, 403},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-word"}}, 403},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-broken"}}, 500},
		{url.Values{"socket_id": {c.id}, "channel_name": {"private-panic"}}, 500},
		{url.Values{"socket_id": {c.id}, "channel_name": {strings.Repeat("x", 70<<10)}}, 400},
	} {
		status, body := post(bad.form)
		assert.Equal(t, bad.status, status, bad.form)
		assert.NotContains(t, body, "secret")
		assert.NotContains(t, body, "auth\":")
	}
	status, _ = post(url.Values{"socket_id": {c.id}, "channel_name": {"private-x"}}, "Origin", "https://evil.example")
	assert.Equal(t, 403, status)
	status, _ = post(url.Values{"socket_id": {c.id}, "channel_name": {"private-x"}}, "Content-Type", "text/plain")
	assert.Equal(t, 400, status)
	handler = n.p.UserAuthHandler(func(*http.Request) (pusher.Member, error) { return pusher.Member{ID: "42"}, nil })
	status, body = post(url.Values{"socket_id": {c.id}})
	require.Equal(t, 200, status)
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	delete(answer, "channel")
	c.send("pusher:signin", "", answer)
	c.expect("pusher:signin_success")
	status, _ = post(url.Values{"socket_id": {"1.1::user::{}"}})
	assert.Equal(t, 400, status)
}

// recorder is a ResponseWriter. Those of package httptest do not support deadlines, either.
type recorder struct {
	head   http.Header
	status int
	body   strings.Builder
}

func newRecorder() *recorder { return &recorder{head: http.Header{}} }

func (r *recorder) Header() http.Header { return r.head }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(200)
	return r.body.Write(p)
}

// sockudo/sockudo#51 and #56: after a burst over the limit, and after all clients have disconnected at
// once, new connections are accepted, and none is counted any more.
func TestBurstAndMassDisconnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 20
		n := serve(t, pushy.Options{Limits: pushy.Limits{Connections: limit}})
		for range 3 {
			var clients []*peer
			for range limit {
				c := n.dial()
				c.join("presence-room", channelData(c.id))
				clients = append(clients, c)
			}
			for range limit {
				code, _ := n.open("/app/" + appKey).closed()
				assert.Equal(t, 4100, code)
			}
			assert.Equal(t, limit, n.srv.Stats().Connections)
			for _, c := range clients {
				_ = c.conn.Close()
			}
			time.Sleep(20 * time.Second) // longer than Options.Grace
			assert.Zero(t, n.srv.Stats().Connections)
			assert.Zero(t, n.srv.Stats().Channels)
		}
	})
}
