package pushy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// held is a node of a cluster whose appends of events in "room" wait until the test continues
// them. Like a process that is stopped, it does not end a call with its context.
type held struct {
	*altered
	begun chan struct{} // gets an element for each append that waits
	goOn  chan struct{}
}

func holding(cluster *memory.Cluster) *held {
	h := &held{
		altered: &altered{Broker: cluster.Broker()},
		begun:   make(chan struct{}, 10),
		goOn:    make(chan struct{}),
	}
	h.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if e.Kind == broker.Event && channel == "room" {
			h.begun <- struct{}{}
			<-h.goOn
			ctx = context.WithoutCancel(ctx)
		}
		return h.Broker.Append(ctx, channel, e)
	}
	return h
}

// later makes a request in another goroutine.
func later(c signedCall, srv http.Handler) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- c.do(srv) }()
	return answer
}

// api.md, acceptance test 2: a copy that arrives while the first request runs, on the same node
// and on another one.
func TestCopyWhileTheFirstRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		h := holding(cluster)
		one, two := startOn(t, h, pushy.Options{}), startOn(t, cluster.Broker(), pushy.Options{})
		p := connectPeer(t, two)
		p.subscribe("room", "")
		c := signedCall{body: helloBody, at: now()}
		first := later(c, one)
		<-h.begun
		began := time.Now()
		impatient := later(c, one)
		w := <-impatient
		_, message := errorOfAnswer(t, w)
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "The same request is still under way", message)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		assert.Equal(t, 10*time.Second, time.Since(began))
		other := c
		other.body += " "
		assert.Equal(t, 409, other.do(two).Code)
		here, there := later(c, one), later(c, two)
		time.Sleep(5 * time.Second)
		p.quiet()
		close(h.goOn)
		want := <-first
		require.Equal(t, 200, want.Code, want.Body)
		for _, answer := range []<-chan *httptest.ResponseRecorder{here, there} {
			w := <-answer
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, want.Body.String(), w.Body.String())
		}
		assert.Less(t, time.Since(began), 16*time.Second)
		assert.Equal(t, "news", p.next().Event)
		p.quiet()
	})
}

// api.md, acceptance test 2: a node stops between the claim of an id and the publish. Another one
// takes the request over after 30 s. If the first one continues later, it publishes nothing.
func TestNodeStopsBetweenClaimAndPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		h := holding(cluster)
		one, two := startOn(t, h, pushy.Options{}), startOn(t, cluster.Broker(), pushy.Options{})
		p := connectPeer(t, two)
		p.subscribe("room", "")
		c := signedCall{body: helloBody, at: now()}
		first := later(c, one)
		<-h.begun
		began := time.Now()
		want := ""
		for tries := 1; want == ""; tries++ {
			anew := c
			anew.at = now()
			w := anew.do(two)
			if w.Code == 200 {
				assert.Equal(t, 3, tries)
				want = w.Body.String()
				continue
			}
			require.Equal(t, 503, w.Code, w.Body)
			require.Less(t, tries, 10)
			p.quiet()
			time.Sleep(time.Second)
		}
		assert.InDelta(t, 30, time.Since(began).Seconds(), 1)
		assert.Equal(t, "news", p.next().Event)
		close(h.goOn)
		assert.Equal(t, 200, (<-first).Code)
		p.quiet()
		assert.Equal(t, want, c.do(two).Body.String())
		p.quiet()
	})
}

// api.md, acceptance test 3: another id, time or path, or one bit of the body.
func TestEveryPartIsSigned(t *testing.T) {
	t.Parallel()
	srv := triggerServer(t, pushy.Options{})
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	refused := func(r *http.Request, what string) {
		t.Helper()
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		_, message := errorOfAnswer(t, w)
		assert.Equal(t, 403, w.Code, what)
		assert.Equal(t, "Wrong signature with key "+kid, message, what)
	}
	good := signedCall{body: helloBody}.request()
	header := good.Header.Get("Pushy-Signature")
	for i, part := range map[int]string{2: strconv.Itoa(triggerNow + 1), 3: "id-2"} {
		parts := strings.Split(header, " ")
		parts[i] = part
		refused(signedCall{body: helloBody, header: strings.Join(parts, " ")}.request(), part)
	}
	for _, name := range []string{"kick", "channels", "history", "send"} {
		refused(signedCall{call: name, body: helloBody, header: header}.request(), name)
	}
	for i := range 8 * len(helloBody) {
		body := []byte(helloBody)
		body[i/8] ^= 1 << (i % 8)
		refused(signedCall{body: string(body), header: header}.request(), string(body))
	}
	refused(signedCall{body: helloBody[:len(helloBody)-1], header: header}.request(), "shorter")
	refused(signedCall{header: header}.request(), "empty")
	p.quiet()
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, good)
	assert.Equal(t, 200, w.Code, w.Body)
	assert.Equal(t, "news", p.next().Event)
}

// api.md, acceptance test 6: the clock of a publisher.
func TestClockOfAPublisher(t *testing.T) {
	t.Parallel()
	srv := startOn(t, lasting(newCluster().Broker()), pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	for skew, message := range map[int64]string{
		-734: "Clock 734 s behind, at most 300",
		-301: "Clock 301 s behind, at most 300",
		-300: "",
		-299: "",
		299:  "",
		300:  "",
		301:  "Clock 301 s ahead, at most 300",
		734:  "Clock 734 s ahead, at most 300",
	} {
		w := signedCall{body: helloBody, at: triggerNow + skew, id: "skew" + strconv.FormatInt(skew, 10)}.do(srv)
		if message == "" {
			assert.Equal(t, 200, w.Code, skew)
			continue
		}
		code, said := errorOfAnswer(t, w)
		assert.Equal(t, 403, w.Code)
		assert.Equal(t, "501", code)
		assert.Equal(t, message, said)
		assert.Equal(t, "Tue, 14 Nov 2023 22:13:20 GMT", w.Header().Get("Date"))
	}
}

// Limits.PublishRate counts the pairs of events and channels of a call. A call over it publishes
// nothing, and succeeds under the same id when the time in Retry-After has passed.
func TestPublishRateOfSignedRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{Limits: pushy.Limits{PublishRate: 4}})
		p := connectPeer(t, srv)
		p.subscribe("room", "")
		body := func(event string) string {
			return `{"events":[{"channels":["room","b","c"],"event":"` + event + `"}]}`
		}
		send := func(event string) *httptest.ResponseRecorder {
			return signedCall{body: body(event), id: event, at: now()}.do(srv)
		}
		require.Equal(t, 200, send("one").Code)
		require.Equal(t, 200, send("two").Code)
		assert.Equal(t, "one", p.next().Event)
		assert.Equal(t, "two", p.next().Event)
		w := send("three")
		require.Equal(t, 429, w.Code)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		assert.JSONEq(t, `{"error":{"code":"429","message":"Too many events"}}`, w.Body.String())
		p.quiet()
		assert.Equal(t, 200, send("one").Code, "a repeated request publishes nothing")
		time.Sleep(time.Second)
		require.Equal(t, 200, send("three").Code)
		assert.Equal(t, "three", p.next().Event)
		p.quiet()
	})
}

// api.md, acceptance test 14: count names the nodes that do not answer.
func TestCountWithASilentNode(t *testing.T) {
	onUsers(t, 3, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		for _, n := range nodes {
			connectOf(t, n.Server, "42").subscribe("room", "")
		}
		const body = `{"events":[{"channels":["room","empty"],"event":"e"}],"count":true}`
		answer := func(subscribers, silent string) string {
			return `{"events":[{"channels":{"room":{"received":true,"subscribers":` + subscribers + `},
				"empty":{"received":false,"subscribers":0}}}],"silent":[` + silent + `]}`
		}
		assert.JSONEq(t, answer("3", ""), good(t, nodes[0].call("publish", "all", body)))
		mend := nodes[2].Cut()
		began := time.Now()
		want := answer("2", `"`+nodes[2].Node()+`"`)
		assert.JSONEq(t, want, good(t, nodes[0].call("publish", "two", body)))
		assert.LessOrEqual(t, time.Since(began), 600*time.Millisecond)
		mend()
		assert.JSONEq(t, want, good(t, nodes[1].call("publish", "two", body)), "the first answer")
	})
}

// A broker has a limit for the IDs of entries. The answer says so, and when to try again.
func TestTooManyIDsOfEvents(t *testing.T) {
	t.Parallel()
	b := publishing(nil)
	b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
		if e.Kind == broker.Event && channel == "other" {
			return broker.Appended{}, broker.ErrBusy
		}
		return b.Broker.Append(ctx, channel, e)
	}
	srv := startOn(t, b, pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	w := signedCall{body: `{"events":[{"channels":["room"],"event":"a"},{"channels":["other"],"event":"b"}]}`}.do(srv)
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "10", w.Header().Get("Retry-After"))
	assert.Contains(t, w.Body.String(), `"other":{"error":{"code":"503","message":"Too many ids are remembered"}}`)
}
