package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

func now() int64 { return time.Now().Unix() }

// api.md, acceptance test 2: the same request again.
func TestSameRequestAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		one := startOn(t, cluster.Broker(), keeping(10, time.Hour))
		two := startOn(t, cluster.Broker(), keeping(10, time.Hour))
		p := connectPeer(t, one)
		p.subscribe("room", "")
		body := `{"events":[{"channels":["room"],"event":"e","data":1},{"channels":["room","none"],"event":"f","id":"own"}],"count":true}`
		first := signedCall{body: body, at: now()}.do(one)
		require.Equal(t, 200, first.Code, first.Body)
		assert.Contains(t, first.Body.String(), `"subscribers":1`)
		assert.Equal(t, "e", p.next().Event)
		assert.Equal(t, "f", p.next().Event)

		same := func(srv *pushy.Server, when string) {
			t.Helper()
			again := signedCall{body: body, at: now()}.do(srv)
			assert.Equal(t, 200, again.Code, when)
			assert.Equal(t, first.Body.String(), again.Body.String(), when)
			p.quiet()
		}
		same(one, "on the same node")
		same(two, "on another node")
		require.NoError(t, two.Close())
		same(startOn(t, cluster.Broker(), keeping(10, time.Hour)), "after a restart")

		w := signedCall{body: body + " ", at: now()}.do(one)
		_, message := errorOfAnswer(t, w)
		assert.Equal(t, 409, w.Code)
		assert.Equal(t, "Id id-1 was used with another path or body", message)
		p.quiet()

		time.Sleep(10 * time.Minute)
		same(one, "signed anew after 10 minutes")
		time.Sleep(19 * time.Minute)
		same(one, "19 minutes after the last use")
		time.Sleep(20*time.Minute + time.Second)
		assert.Equal(t, 200, signedCall{body: body, at: now()}.do(one).Code)
		assert.Equal(t, "e", p.next().Event, "after Options.RepeatWindow it is a new request")
	})
}

// api.md, acceptance test 2: without a Ledger that outlives the process, no request of the
// process before is carried out again. The time of a request has no fractions, so one of the
// second of the start may be older than it; a publisher signs it anew after the 503.
func TestRequestsFromBeforeTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(500 * time.Millisecond)
		before := startServer(t, pushy.Options{})
		time.Sleep(time.Second)
		old := signedCall{body: helloBody, at: now()}
		require.Equal(t, 200, old.do(before).Code)
		require.NoError(t, before.Close())

		srv := startServer(t, pushy.Options{})
		p := connectPeer(t, srv)
		p.subscribe("room", "")
		refused := func(c signedCall, status int, code, says string) *httptest.ResponseRecorder {
			t.Helper()
			w := c.do(srv)
			gotCode, message := errorOfAnswer(t, w)
			assert.Equal(t, status, w.Code)
			assert.Equal(t, code, gotCode)
			assert.Equal(t, says, message)
			p.quiet()
			return w
		}
		const inItsSecond = "Signed in the second in which this server started: sign it anew"
		const tooOld = "Signed before this server started, which may have answered it: sign it anew"
		for range 2 { // in that second, and in the next one
			w := refused(old, 503, "503", inItsSecond)
			assert.Equal(t, "1", w.Header().Get("Retry-After"))
			w = refused(signedCall{body: helloBody, at: old.at - 1, id: "b"}, 403, "501", tooOld)
			assert.Equal(t, time.Now().UTC().Format(http.TimeFormat), w.Header().Get("Date"))
			assert.Empty(t, w.Header().Get("Retry-After"))
			time.Sleep(time.Second)
		}
		assert.Equal(t, 200, signedCall{body: helloBody, at: old.at + 1}.do(srv).Code, "signed anew")
		assert.Equal(t, "news", p.next().Event)
		refused(old, 503, "503", inItsSecond)
	})
	for name, c := range map[string]struct {
		broker   broker.Broker
		accepted bool // a request that is two seconds older than the Server
	}{
		"noBroker":      {nil, false},
		"memory":        {newCluster().Broker(), false},
		"noLedger":      {struct{ broker.Broker }{newCluster().Broker()}, false},
		"lastingLedger": {lasting(newCluster().Broker()), true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t, pushy.Options{Broker: c.broker})
			srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
			status := 403
			if c.accepted {
				status = 200
			}
			assert.Equal(t, status, signedCall{body: helloBody, at: triggerNow - 2}.do(srv).Code)
			assert.Equal(t, 200, signedCall{body: helloBody, at: triggerNow}.do(srv).Code)
		})
	}
}

// The ids of a memory Cluster last as long as one of its nodes is open.
func TestIdsOfAMemoryCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(500 * time.Millisecond)
		cluster := newCluster()
		one := startOn(t, cluster.Broker(), pushy.Options{})
		time.Sleep(time.Second)
		c := signedCall{body: helloBody, at: now()}
		assert.Equal(t, 200, c.do(one).Code)
		time.Sleep(2 * time.Second)
		two := startOn(t, cluster.Broker(), pushy.Options{})
		require.NoError(t, one.Close())
		assert.Equal(t, 200, c.do(two).Code, "signed before this node started")
		assert.Equal(t, 200, signedCall{body: helloBody, at: c.at, id: "another"}.do(two).Code)
		require.NoError(t, two.Close())
		three := startOn(t, cluster.Broker(), pushy.Options{})
		assert.Equal(t, 403, c.do(three).Code, "the last node was closed")
	})
}

// api.md, acceptance test 6: the server's clock goes back 60 s just when an id might be forgotten.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{RepeatWindow: 11 * time.Minute, Broker: newCluster().Broker()})
		p := connectPeer(t, srv)
		p.subscribe("room", "")
		var back atomic.Int64
		srv.SetClock(func() time.Time { return time.Now().Add(-time.Duration(back.Load())) })
		replay := signedCall{body: helloBody, at: now() + 300}
		require.Equal(t, 200, replay.do(srv).Code)
		assert.Equal(t, "news", p.next().Event)
		back.Store(int64(time.Minute))
		for range 11*60 - 1 { // every second of the life of the signature, and more
			time.Sleep(time.Second)
			code := replay.do(srv).Code
			require.Contains(t, []int{200, 403}, code)
			p.quiet()
		}
		time.Sleep(2 * time.Second)
		assert.Equal(t, 403, replay.do(srv).Code, "not valid any more when the id is forgotten")
	})
}

// api.md, acceptance test 2: a request that is signed anew shortly before its id would be
// forgotten is not carried out again while that signature is valid.
func TestSignedAnewBeforeTheIdIsForgotten(t *testing.T) {
	t.Parallel()
	brokers := map[string]func() broker.Broker{
		"noBroker": func() broker.Broker { return nil },
		"ledger":   func() broker.Broker { return newCluster().Broker() },
		"noLedger": func() broker.Broker { return struct{ broker.Broker }{newCluster().Broker()} },
	}
	for name, open := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const window = 20 * time.Minute // also that for which the IDs of entries are remembered
				srv := startServer(t, pushy.Options{Broker: open()})
				p := connectPeer(t, srv)
				p.subscribe("room", "")
				first := signedCall{body: helloBody, at: now()}.do(srv)
				require.Equal(t, 200, first.Code)
				assert.Equal(t, "news", p.next().Event)
				time.Sleep(window - time.Second)
				anew := signedCall{body: helloBody, at: now() + 300}
				for range 4 {
					again := anew.do(srv)
					assert.Equal(t, 200, again.Code)
					assert.Equal(t, first.Body.String(), again.Body.String())
					p.quiet()
					time.Sleep(199 * time.Second)
				}
				assert.Equal(t, 403, anew.do(srv).Code)
				time.Sleep(window)
				assert.Equal(t, 200, signedCall{body: helloBody, at: now()}.do(srv).Code)
				assert.Equal(t, "news", p.next().Event, "its life ends, too")
			})
		})
	}
}

// An answer that is too large for the Ledger is made by running the request again, but only while
// the broker surely remembers the IDs of its entries.
func TestLargeAnswersAreNotStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startOn(t, newCluster().Broker(), keeping(10, time.Hour))
		p := connectPeer(t, srv)
		p.subscribe("room0-0", "")
		var events []string
		for i := range 10 {
			var channels []string
			for j := range 100 {
				channels = append(channels, fmt.Sprintf(`"room%d-%d"`, i, j))
			}
			events = append(events, `{"channels":[`+strings.Join(channels, ",")+`],"event":"e"}`)
		}
		body := `{"events":[` + strings.Join(events, ",") + `]}`
		first := signedCall{body: body, at: now()}.do(srv)
		require.Equal(t, 200, first.Code)
		require.Equal(t, 1000, strings.Count(first.Body.String(), `"position"`))
		assert.Equal(t, "e", p.next().Event)
		time.Sleep(15*time.Minute - time.Second)
		again := signedCall{body: body, at: now()}.do(srv)
		assert.Equal(t, 200, again.Code)
		assert.True(t, first.Body.String() == again.Body.String(), "the first answer") // it is too large to be printed
		for range 3 {
			time.Sleep(10 * time.Minute)
			w := signedCall{body: body, at: now()}.do(srv)
			_, message := errorOfAnswer(t, w)
			assert.Equal(t, 409, w.Code)
			assert.Equal(t, "Id id-1 was used, and its answer is not stored", message)
			p.quiet()
		}
	})
}

// api.md, acceptance test 7.
func TestIdsAreBounded(t *testing.T) {
	t.Parallel()
	unsigned, most := soakSize(20_000), soakSize(2_000)
	b := memory.NewCluster(memory.Options{MaxRecords: most}).Broker()
	srv := startOn(t, b, pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	for i := range unsigned {
		w := signedCall{body: helloBody, signed: "x", id: strconv.Itoa(i)}.do(srv)
		require.Equal(t, 403, w.Code)
	}
	for i, body := range []string{"{", `{"events":[]}`, strings.Replace(helloBody, "Room", "a:b", 1)} {
		require.Equal(t, 400, signedCall{body: body, id: "bad" + strconv.Itoa(i)}.do(srv).Code)
	}
	for i := range most {
		w := signedCall{body: oneBody, id: strconv.Itoa(i)}.do(srv)
		require.Equal(t, 200, w.Code, w.Body)
	}
	// Neither the unsigned ones nor those with an error have used any of the room.
	w := signedCall{body: oneBody, id: "one-more"}.do(srv)
	_, message := errorOfAnswer(t, w)
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "Too many ids are remembered", message)
	assert.Equal(t, "10", w.Header().Get("Retry-After"))
	assert.Equal(t, 200, signedCall{body: oneBody, id: "0"}.do(srv).Code, "a repeated one has its answer")
}

// oneBody publishes one event in one channel.
const oneBody = `{"events":[{"channels":["Room"],"event":"news","data":{"a":1}}]}`

// soakSize returns the size of a test, which is a million with PUSHY_SOAK.
func soakSize(otherwise int) int {
	if os.Getenv("PUSHY_SOAK") != "" {
		return 1_000_000
	}
	return otherwise
}

// The memory for ids without a Broker: that of requests that publish nothing, and of those that
// publish one event, for which the ID of its entry is remembered, too.
func TestMemoryOfIds(t *testing.T) { // not parallel: it measures the process
	for _, c := range []struct {
		call, body string
		most       int64 // bytes of an id
	}{
		{"kick", `{"target":"user:nobody"}`, 180},
		{"publish", oneBody, 500},
	} {
		srv := startServer(t, pushy.Options{})
		srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
		n := soakSize(20_000)
		before := liveHeap()
		for i := range n {
			// As long as the ids of package backend.
			w := signedCall{call: c.call, body: c.body, id: fmt.Sprintf("%032d", i)}.do(srv)
			require.Equal(t, 200, w.Code, w.Body)
		}
		each := (liveHeap() - before) / int64(n)
		t.Logf("%s: %d ids use %d bytes each", c.call, n, each)
		assert.LessOrEqual(t, each, c.most)
		require.NoError(t, srv.Close())
	}
}

// liveHeap returns the number of bytes that are in use.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools have kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// api.md, acceptance test 13: the broker fails after event 3 of 10. The same request publishes
// the others, each once.
func TestBrokerFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, channelOf := range map[string]func(i int) string{
		"oneChannel":      func(int) string { return "room" },
		"severalChannels": func(i int) string { return "room" + strconv.Itoa(i%3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			left := 3
			b := publishing(nil)
			b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
				if e.Kind != broker.Event || !strings.HasPrefix(channel, "room") {
					return b.Broker.Append(ctx, channel, e)
				}
				mu.Lock()
				left--
				fails := left < 0
				mu.Unlock()
				if fails {
					return broker.Appended{}, errBroker
				}
				return b.Broker.Append(ctx, channel, e)
			}
			srv := startOn(t, b, pushy.Options{})
			srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
			p := connectPeer(t, srv)
			var events []string
			for i := range 10 {
				events = append(events, fmt.Sprintf(`{"channels":["%s"],"event":"e%d"}`, channelOf(i), i))
				if i < 3 {
					p.ask(`{"command":"subscribe","data":{"channel":"` + channelOf(i) + `"},"id":"` + strconv.Itoa(i) + `"}`)
				}
			}
			c := signedCall{body: `{"events":[` + strings.Join(events, ",") + `]}`}
			w := c.do(srv)
			_, message := errorOfAnswer(t, w)
			assert.Equal(t, 503, w.Code)
			assert.Equal(t, "1", w.Header().Get("Retry-After"))
			assert.Equal(t, "Published 3 of 10 events to channels; the same request publishes the rest", message)
			assert.Equal(t, 3, strings.Count(w.Body.String(), `"received":true`))
			assert.Equal(t, 7, strings.Count(w.Body.String(), `{"error":{"code":"503"`))
			assert.NotContains(t, w.Body.String(), errBroker.Error())
			mu.Lock()
			left = 1000
			mu.Unlock()
			w = c.do(srv)
			require.Equal(t, 200, w.Code, w.Body)
			assert.Equal(t, 10, strings.Count(w.Body.String(), `"received":true`))
			got := map[string][]string{}
			for range 10 {
				f := p.next()
				got[f.Channel] = append(got[f.Channel], f.Event)
			}
			p.quiet()
			want := map[string][]string{}
			for i := range 10 {
				want[channelOf(i)] = append(want[channelOf(i)], "e"+strconv.Itoa(i))
			}
			assert.Equal(t, want, got, "each once, and in order in each channel")
		})
	}
}

// After a failure, another request with the same id is not confused with the first one.
func TestOtherContentAfterAFailure(t *testing.T) {
	t.Parallel()
	fails := true
	appended := make(chan struct{}, 10) // after the failure, nothing more is begun
	b := publishing(nil)
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if e.Kind == broker.Event && channel == "broken" && fails {
			<-appended
			return broker.Appended{}, errors.New("away")
		}
		if e.Kind == broker.Event && channel == "room" {
			defer func() { appended <- struct{}{} }()
		}
		return b.Broker.Append(ctx, channel, e)
	}
	srv := startOn(t, b, pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	send := func(event string) int {
		return signedCall{body: `{"events":[{"channels":["room"],"event":"` + event + `"},{"channels":["broken"],"event":"x"}]}`}.do(srv).Code
	}
	assert.Equal(t, 503, send("a"))
	assert.Equal(t, "a", p.next().Event)
	fails = false
	assert.Equal(t, 200, send("b"))
	assert.Equal(t, "b", p.next().Event)
}
