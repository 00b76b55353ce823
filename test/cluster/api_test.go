package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/testproc"
)

// eventBroker is a broker with a func that is called before each event is appended.
type eventBroker struct {
	broker.Broker
	broker.Health
	broker.History
	broker.Ledger
	broker.Cluster
	broker.Leaser
	before func(channel string)
}

func beforeEvents(b broker.Broker, before func(channel string)) broker.Broker {
	return &eventBroker{
		Broker:  b,
		Health:  b.(broker.Health),
		History: b.(broker.History),
		Ledger:  b.(broker.Ledger),
		Cluster: b.(broker.Cluster),
		Leaser:  b.(broker.Leaser),
		before:  before,
	}
}

func (b *eventBroker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if e.Kind == broker.Event {
		b.before(channel)
	}
	return b.Broker.Append(ctx, channel, e)
}

// signedPublish sends a request that is signed now.
func signedPublish(base, id, body string) (status int, answer string, err error) {
	now, kid := time.Now().Unix(), sign.KeyID(secretKey)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/pushy/api/publish", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Pushy-Signature", fmt.Sprintf("v2 %s %d %s %s", kid, now, id,
		sign.Request(secretKey, kid, now, id, "/api/publish", []byte(body))))
	resp, err := httpClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func publishSigned(t testing.TB, base, id, body string) (status int, answer string) {
	t.Helper()
	status, answer, err := signedPublish(base, id, body)
	require.NoError(t, err)
	return status, answer
}

// publishAgain sends the same request until it succeeds.
func publishAgain(t testing.TB, base, id, body string) (answer string) {
	t.Helper()
	soon(t, 2*patience, "the same request succeeds", func() bool {
		var status int
		status, answer = publishSigned(t, base, id, body)
		if status != http.StatusOK {
			require.Equal(t, http.StatusServiceUnavailable, status, answer)
		}
		return status == http.StatusOK
	})
	return answer
}

// events subscribes to channels. It returns the names of the events that arrive.
func events(t testing.TB, base string, channels ...string) <-chan string {
	t.Helper()
	got := make(chan string, 1000)
	subscribed := make(chan struct{}, len(channels))
	l, err := dial(base, "rawwebsocket", func(text []byte) {
		var m struct{ Event string }
		switch _ = json.Unmarshal(text, &m); {
		case m.Event == "pushy:subscription-success":
			subscribed <- struct{}{}
		case m.Event != "" && !strings.HasPrefix(m.Event, "pushy:"):
			got <- m.Event
		}
	}, func(error) {})
	require.NoError(t, err)
	t.Cleanup(l.close)
	for i, channel := range channels {
		require.NoError(t, l.send(fmt.Sprintf(`{"command":"subscribe","id":"%d","data":{"channel":%q}}`, i, channel)))
		select {
		case <-subscribed:
		case <-time.After(patience):
			t.Fatal("not subscribed to " + channel)
		}
	}
	return got
}

// expectEvents receives these events, and no other ones before the event that publishes the end.
func expectEvents(t testing.TB, got <-chan string, base, channel string, want ...string) {
	t.Helper()
	end := "end-" + strconv.FormatInt(sessions.Add(1), 10)
	status, answer := publishSigned(t, base, end, `{"events":[{"channels":["`+channel+`"],"event":"`+end+`"}]}`)
	require.Equal(t, http.StatusOK, status, answer)
	var all []string
	for {
		select {
		case event := <-got:
			if event == end {
				assert.Equal(t, want, all)
				return
			}
			all = append(all, event)
		case <-time.After(patience):
			t.Fatalf("received %q, and not the end", all)
		}
	}
}

// api.md, acceptance test 2, with processes: the same request on two nodes, on one that starts
// later, and on one whose process was killed and started again.
func TestSameRequestOnSeveralNodes(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		here := s.start(t, 1)[0]
		there := s.child(t)
		got := events(t, here.url, "room", "kept-room")
		const body = `{"events":[{"channels":["room","kept-room"],"event":"a"},{"channels":["kept-room"],"event":"b"}]}`
		status, first := publishSigned(t, there.url, "order-17", body)
		require.Equal(t, http.StatusOK, status, first)
		assert.Equal(t, 2, strings.Count(first, `"position"`))
		same := func(base, when string) {
			t.Helper()
			status, answer := publishSigned(t, base, "order-17", body)
			assert.Equal(t, http.StatusOK, status, when)
			assert.Equal(t, first, answer, when)
			status, _ = publishSigned(t, base, "order-17", body+" ")
			assert.Equal(t, http.StatusConflict, status, when)
		}
		same(there.url, "on the same node")
		same(here.url, "on another node")
		there.kill()
		same(s.child(t).url, "on a process that has just started")
		names := map[string]int{}
		for range 3 {
			select {
			case name := <-got:
				names[name]++
			case <-time.After(patience):
				t.Fatal("an event is missing")
			}
		}
		assert.Equal(t, map[string]int{"a": 2, "b": 1}, names)
		expectEvents(t, got, here.url, "kept-room")
	})
}

// api.md, acceptance test 2: a process is killed between the claim of an id and the publish. Another
// node takes the request over after 30 s.
func TestKilledBetweenClaimAndPublish(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		here := s.start(t, 1)[0]
		s.Hangs = "room"
		hangs := s.child(t)
		got := events(t, here.url, "room")
		const body = `{"events":[{"channels":["room"],"event":"paid"}]}`
		failed := make(chan error, 1)
		go func() {
			_, _, err := signedPublish(hangs.url, "order-17", body)
			failed <- err
		}()
		ledger := s.brokers[0].(broker.Ledger)
		soon(t, patience, "the id is claimed", func() bool {
			list, err := ledger.List(t.Context(), "id:")
			return err == nil && len(list) == 1
		})
		began := time.Now()
		hangs.kill()
		assert.Error(t, <-failed)
		status, answer := publishSigned(t, here.url, "order-17", body)
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.Contains(t, answer, "The same request is still under way")
		publishAgain(t, here.url, "order-17", body)
		t.Logf("taken over after %v", time.Since(began))
		expectEvents(t, got, here.url, "room", "paid")
	})
}

// api.md, acceptance test 13: a node loses its store after event 3 of 10. The answer says so. The
// same request publishes the others, and each is delivered once.
func TestStoreFailsWithinARequest(t *testing.T) {
	t.Parallel()
	for _, channel := range []string{"room", "kept-room"} {
		t.Run(channel, func(t *testing.T) {
			t.Parallel()
			on(t, everyStore, func(t *testing.T, s *store) {
				s.failing().proxied = true
				appended := 0
				cut := beforeEvents(s.join(t), func(to string) {
					if to == channel {
						appended++
						if appended == 4 {
							s.proxies[0].Refuse()
						}
					}
				})
				breaks := serve(t, cut, s.Lease)
				other := s.start(t, 1)[0]
				got := events(t, other.url, channel)
				var list, names []string
				for i := range 10 {
					names = append(names, "e"+strconv.Itoa(i))
					list = append(list, `{"channels":["`+channel+`"],"event":"`+names[i]+`"}`)
				}
				body := `{"events":[` + strings.Join(list, ",") + `]}`
				status, answer := publishSigned(t, breaks.url, "order-17", body)
				assert.Equal(t, http.StatusServiceUnavailable, status)
				assert.Contains(t, answer, "Published 3 of 10 events to channels; the same request publishes the rest")
				assert.Equal(t, 3, strings.Count(answer, `"received":true`))
				s.proxies[0].Mend()
				began := time.Now()
				answer = publishAgain(t, breaks.url, "order-17", body)
				t.Logf("published after %v", time.Since(began))
				assert.Equal(t, 10, strings.Count(answer, `"received":true`))
				expectEvents(t, got, other.url, channel, names...)
			})
		})
	}
}

// api.md, acceptance test 14: count while a node is stopped. The answer names the node as silent. It
// is to come within 600 ms, which cannot be asserted on a busy machine.
func TestCountWithAStoppedNode(t *testing.T) {
	t.Parallel()
	on(t, everyStore, func(t *testing.T, s *store) {
		nodes := s.start(t, 2)
		stopped := s.child(t)
		soon(t, patience, "all nodes answer", func() bool { return s.alive(t) == 3 })
		for _, base := range []string{nodes[0].url, nodes[1].url, stopped.url} {
			events(t, base, "room")
		}
		const body = `{"events":[{"channels":["room"],"event":"e"}],"count":true}`
		// On a busy machine another node can take longer than 500 ms, too.
		try := 0
		counts := func(what, pattern string) {
			soon(t, patience, what, func() bool {
				try++
				began := time.Now()
				status, answer := publishSigned(t, nodes[0].url, fmt.Sprintf("count-%d", try), body)
				t.Logf("publish with count, %s, took %v: %d %s", what, time.Since(began), status, answer)
				return status == http.StatusOK && regexp.MustCompile(pattern).MatchString(answer)
			})
		}
		counts("all nodes run", `"subscribers":3.*"silent":\[\]`)
		require.NoError(t, testproc.Pause(stopped.cmd.Process))
		counts("a node is stopped", `"subscribers":2.*"silent":\["[0-9a-f]{16}"\]`)
		require.NoError(t, testproc.Resume(stopped.cmd.Process))
	})
}
