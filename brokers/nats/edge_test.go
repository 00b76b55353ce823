package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

const testPatience = 30 * time.Second

// heard is what a Broker delivers.
func heard(t testing.TB, b *nats.Broker) <-chan pushy.Message {
	t.Helper()
	c := make(chan pushy.Message, 1000)
	require.NoError(t, b.Open(t.Context(), func(_ string, m pushy.Message) { c <- m }))
	return c
}

func next[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testPatience):
		t.Fatal("nothing came")
	}
	return v
}

func event(name string) pushy.Message {
	return pushy.Message{Event: name, Data: json.RawMessage("{}"), Node: "n", Seq: 1}
}

func member(id string) pushy.Member {
	return pushy.Member{ID: id, HasData: true, JSON: []byte(`{"memberId":"` + id + `"}`)}
}

// watched has what a node is told of a channel's presence.
func watched(t testing.TB, b *nats.Broker, channel string) (pushy.Snapshot, <-chan pushy.Change) {
	t.Helper()
	c := make(chan pushy.Change, 1000)
	snap, err := b.Watch(t.Context(), channel, func(change pushy.Change) { c <- change })
	require.NoError(t, err)
	return snap, c
}

func short(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	assert.Eventually(t, true, testPatience, 20*time.Millisecond, what)
}

func TestPrefixesKeepApart(t *testing.T) {
	t.Parallel()
	a, err := nats.New(t.Context(), nats.Options{URL: shared.url, Prefix: "apart", Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Close() })
	b, err := nats.New(t.Context(), nats.Options{URL: shared.url, Prefix: "apart2", Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	heardA, heardB := heard(t, a), heard(t, b)
	for _, channel := range []string{"news", "2news", "e.news", "private-room"} {
		require.NoError(t, a.Subscribe(t.Context(), channel))
		received, err := b.Publish(t.Context(), channel, event("nobody"))
		require.NoError(t, err)
		assert.Equal(t, pushy.None, received)
		require.NoError(t, b.Subscribe(t.Context(), channel))
		for of, is := range map[*nats.Broker]string{a: "a", b: "b"} {
			_, err = of.Publish(t.Context(), channel, event(is))
			require.NoError(t, err)
		}
		assert.Equal(t, "a", next(t, heardA).Event)
		assert.Equal(t, "b", next(t, heardB).Event)
	}
	require.NoError(t, a.Join(t.Context(), "private-room", member("1")))
	snap, _ := watched(t, b, "private-room")
	assert.Empty(t, snap.Members)
	assert.Empty(t, heardA)
	assert.Empty(t, heardB)
}

// An event costs one message to the server, and one from it for each node with the
// channel; a node subscribes to what its clients are in and to nothing else.
func TestOneMessageForAnEvent(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	// Without presence, whose signs of life are messages too.
	a := open(t, nats.Options{URL: s.url, EventsOnly: true})
	b := open(t, nats.Options{URL: s.url, EventsOnly: true})
	heardA, _ := heard(t, a), heard(t, b)
	count := func() (in, out int) {
		var v struct {
			In  int `json:"in_msgs"`
			Out int `json:"out_msgs"`
		}
		s.monitored(t, "/varz", &v)
		return v.In, v.Out
	}
	subscribed := func() (all []string) {
		var v struct {
			Connections []struct {
				List []string `json:"subscriptions_list"`
			}
		}
		s.monitored(t, "/connz?subs=1", &v)
		for _, c := range v.Connections {
			for _, subject := range c.List {
				if !strings.HasPrefix(subject, "_INBOX.") {
					all = append(all, subject)
				}
			}
		}
		return all
	}
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	require.NoError(t, b.Subscribe(t.Context(), "other"))
	assert.ElementsMatch(t, []string{prefix(t) + ".e.news", prefix(t) + ".e.other"}, subscribed())
	in, out := count()
	for range 100 {
		_, err := a.Publish(t.Context(), "news", event("said"))
		require.NoError(t, err)
		next(t, heardA)
	}
	in2, out2 := count()
	assert.Equal(t, []int{100, 100}, []int{in2 - in, out2 - out}, "messages in and out")
	require.NoError(t, a.Unsubscribe(t.Context(), "news"))
	require.NoError(t, b.Unsubscribe(t.Context(), "other"))
	eventually(t, "no subscription is left", func() bool { return len(subscribed()) == 0 })
}

func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	s.stop()
	_, err := nats.New(t.Context(), nats.Options{URL: s.url, RequireAtStart: true, Logger: testLogger(t)})
	require.ErrorContains(t, err, "nats: Options.URL: "+s.url+": ")

	o := nats.Options{URL: s.url, Prefix: "late", Lease: 2 * time.Second, Logger: testLogger(t)}
	b, err := nats.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	require.ErrorContains(t, b.Away(), "Options.URL")
	heardB := heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "news"))
	_, err = b.Publish(t.Context(), "news", event("alone"))
	require.NoError(t, err)
	assert.Equal(t, "alone", next(t, heardB).Event)
	snap, changes := watched(t, b, "private-room")
	assert.Empty(t, snap.Members)
	require.NoError(t, b.Join(t.Context(), "private-room", member("1")))
	assert.Equal(t, "1", next(t, changes).Member.ID)

	require.NoError(t, s.start())
	assert.Equal(t, pushy.EventResync, next(t, heardB).Event)
	state := next(t, changes).State
	require.NotNil(t, state)
	assert.Equal(t, []pushy.Member{member("1")}, state.Members)
	eventually(t, "it is not away", func() bool { return b.Away() == nil })
	other, err := nats.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	_, err = other.Publish(t.Context(), "news", event("other"))
	require.NoError(t, err)
	assert.Equal(t, "other", next(t, heardB).Event)
	snap, _ = watched(t, other, "private-room")
	assert.Equal(t, []pushy.Member{member("1")}, snap.Members)
}

// trigger posts a signed trigger.
func trigger(t testing.TB, srv *pushy.Server, key, channel string) *httptest.ResponseRecorder {
	t.Helper()
	return triggerBody(t, srv, key, channel, `{"n":1}`)
}

func triggerBody(t testing.TB, srv *pushy.Server, key, channel, body string) *httptest.ResponseRecorder {
	t.Helper()
	now := time.Now().Unix()
	sign, err := pushy.SignTrigger(key, channel, "said", now, []byte(body))
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodPost, "/pushy/channel/"+channel+"/trigger?event=said&timestamp="+strconv.FormatInt(now, 10)+"&auth_key="+sign, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w
}

// A server that answers nothing, and a network that carries nothing: publishing
// ends with its context, a trigger may be sent again, and it is noticed.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"server", "network"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			p := newProxy(t, s)
			b := open(t, nats.Options{URL: p.url})
			const key = "a secret of the test"
			srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: b, Presence: b, Logger: testLogger(t)})
			require.NoError(t, err)
			t.Cleanup(func() { _ = srv.Close() })
			assert.Equal(t, http.StatusOK, trigger(t, srv, key, "news").Code)
			mend := func() { require.NoError(t, s.resume()) }
			if how == "server" {
				require.NoError(t, s.pause())
			} else {
				mend = p.Hole()
			}
			// A process that is told to stop may answer once more.
			eventually(t, "publishing ends with its context", func() bool {
				_, err := b.Publish(short(t, 100*time.Millisecond), "news", event("lost"))
				return errors.Is(err, context.DeadlineExceeded)
			})
			answer := trigger(t, srv, key, "news")
			assert.Equal(t, http.StatusServiceUnavailable, answer.Code, answer.Body)
			assert.NotEmpty(t, answer.Header().Get("Retry-After"))
			eventually(t, "the node says that it is alone", func() bool { return srv.Stats().Away != nil })
			eventually(t, "it serves its own", func() bool {
				_, err := b.Publish(short(t, time.Second), "news", event("alone"))
				return err == nil
			})
			mend()
			eventually(t, "it is back", func() bool {
				return srv.Stats().Away == nil && trigger(t, srv, key, "news").Code == http.StatusOK
			})
		})
	}
}

// When JetStream has no room left events go on, private channels are served by
// each node alone, nobody is taken for dead, and all is well when there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "small.conf")
	require.NoError(t, os.WriteFile(config, []byte("jetstream { max_file_store: 64KB, max_memory_store: 64KB }\n"), 0o600))
	s := ownNATS(t, "-c", config)
	a := open(t, nats.Options{URL: s.url})
	b := open(t, nats.Options{URL: s.url})
	heardB := heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "private-room"))
	_, changes := watched(t, b, "private-room")
	require.NoError(t, a.Join(t.Context(), "private-room", member("1")))
	assert.Equal(t, "1", next(t, changes).Member.ID)
	nc, err := natsgo.Connect(s.url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "others", Subjects: []string{"others"}})
	require.NoError(t, err)
	for err == nil {
		_, err = js.Publish(t.Context(), "others", make([]byte, 4<<10))
	}

	require.NoError(t, a.Join(t.Context(), "private-room", member("2")), "it serves its own")
	require.ErrorContains(t, a.Away(), "insufficient resources")
	_, err = a.Publish(t.Context(), "private-room", event("said"))
	require.NoError(t, err)
	assert.Equal(t, "said", next(t, heardB).Event)
	<-time.After(2 * a.Lease())
	assert.Empty(t, changes, "member 1 is still there")
	require.NoError(t, js.DeleteStream(t.Context(), "others"))
	eventually(t, "all is shared", func() bool { return a.Away() == nil && b.Away() == nil })
	for in := 0; in < 2; {
		c := next(t, changes)
		require.False(t, c.Left)
		if c.State != nil {
			in = len(c.State.Members)
		} else if assert.Equal(t, "2", c.Member.ID) {
			in++
		}
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	secured := ownNATS(t, "--user", "app", "--pass", "right")
	token := ownNATS(t, "--auth", "right")
	dir := t.TempDir()
	plain, err := startNATS(dir)
	require.NoError(t, err)
	t.Cleanup(plain.stop)
	for _, c := range []struct {
		name, setting, says string
		o                   nats.Options
	}{
		{"wrongPassword", "Password", "refuses it", nats.Options{URL: secured.url, User: "app", Password: "wrong"}},
		{"noPassword", "Password", "refuses it", nats.Options{URL: secured.url}},
		{"wrongToken", "Token", "refuses it", nats.Options{URL: token.url, Token: "wrong"}},
		{"noJetStream", "URL", "has no JetStream", nats.Options{URL: plain.url}},
		{"nobodyThere", "URL", "nats://127.0.0.1:1: ", nats.Options{URL: "nats://127.0.0.1:1", RequireAtStart: true}},
		{"noScheme", "URL", "not like nats://", nats.Options{URL: "127.0.0.1"}},
		{"otherScheme", "URL", "neither nats nor tls", nats.Options{URL: "redis://127.0.0.1:6379"}},
		{"noFile", "Credentials", "no such file", nats.Options{URL: shared.url, Credentials: "/nowhere.creds"}},
		{"dottedPrefix", "Prefix", `"a.b"`, nats.Options{URL: shared.url, Prefix: "a.b"}},
		{"shortLease", "Lease", "under 500ms", nats.Options{URL: shared.url, Lease: time.Millisecond}},
		{"manyReplicas", "Replicas", "3", nats.Options{URL: shared.url, Prefix: "replicas", Replicas: 3}},
		{"passwordWithoutUser", "User", "Password is not", nats.Options{URL: shared.url, Password: "x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Logger = testLogger(t)
			b, err := nats.New(t.Context(), c.o)
			if err == nil {
				_ = b.Close()
			}
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting, err)
			assert.Contains(t, err.Error(), c.says)
			assert.NotContains(t, err.Error(), "\n")
			if c.o.Password != "" {
				assert.NotContains(t, err.Error(), "right")
			}
		})
	}
	b, err := nats.New(t.Context(), nats.Options{URL: plain.url, EventsOnly: true, Logger: testLogger(t)})
	require.NoError(t, err, "without presence no JetStream is needed")
	require.Error(t, b.Join(t.Context(), "private-room", member("1")))
	require.NoError(t, b.Close())
}

// A log stays short however many come and go, a reader meanwhile never sees a list
// that was not, and it is gone when the channel is empty.
func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	patient := nats.Options{URL: shared.url, Timeout: 20 * time.Second, Lease: time.Minute} // nobody is to be alone
	a, b := open(t, patient), open(t, patient)
	const channel, rounds = "private-room", 400
	watched(t, a, channel)
	require.NoError(t, a.Join(t.Context(), channel, member("switch")))
	for _, id := range []string{"first", "second"} {
		stays := member(id)
		stays.HasData = false
		require.NoError(t, a.Join(t.Context(), channel, stays))
	}
	require.NoError(t, a.Leave(t.Context(), channel, "switch"))
	ctx, stop := context.WithCancel(t.Context())
	read := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			watch, cancel := context.WithCancel(t.Context())
			snap, err := b.Watch(watch, channel, func(pushy.Change) {})
			cancel()
			if !assert.NoError(t, err) || !assert.True(t, snap.On, "somebody brought data") {
				break
			}
			if assert.GreaterOrEqual(t, len(snap.Members), 2) && assert.LessOrEqual(t, len(snap.Members), 3) {
				assert.Equal(t, []string{"first", "second"}, []string{snap.Members[0].ID, snap.Members[1].ID})
			}
		}
		read <- n
	}()
	for i := range rounds {
		id := fmt.Sprint("guest", i)
		require.NoError(t, a.Join(t.Context(), channel, member(id)))
		require.NoError(t, a.Leave(t.Context(), channel, id))
	}
	stop()
	t.Logf("%d entries written, %d times read", 2*rounds, <-read)
	n, err := a.Entries(t.Context(), channel)
	require.NoError(t, err)
	assert.Less(t, n, 100)
	require.NoError(t, a.Leave(t.Context(), channel, "first"))
	require.NoError(t, a.Leave(t.Context(), channel, "second"))
	eventually(t, "nothing is left", func() bool {
		n, err := a.Entries(t.Context(), channel)
		return err == nil && n == 0
	})
	snap, _ := watched(t, b, channel)
	assert.False(t, snap.On)
}
