package pushy_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
)

// forgetting is a node of a cluster that records which IDs it is told to forget. Events in the
// channel "large" are too large.
type forgetting struct {
	*memory.Broker
	finish func(key string) error // can be nil

	mu  sync.Mutex
	ids []broker.EntryID
}

func (f *forgetting) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if f.finish != nil {
		if err := f.finish(key); err != nil {
			return err
		}
	}
	return f.Broker.Finish(ctx, key, digest, answer)
}

func (f *forgetting) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if channel == "large" && e.Kind == broker.Event {
		return broker.Appended{}, broker.ErrTooLarge
	}
	return f.Broker.Append(ctx, channel, e)
}

func (f *forgetting) ForgetIDs(ctx context.Context, ids []broker.EntryID) error {
	f.mu.Lock()
	f.ids = append(f.ids, ids...)
	f.mu.Unlock()
	return f.Broker.ForgetIDs(ctx, ids)
}

// forgotten returns the channels of the IDs that were forgotten since the last call.
func (f *forgetting) forgotten() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var channels []string
	for _, id := range f.ids {
		channels = append(channels, id.Channel)
	}
	f.ids = nil
	return channels
}

// eventsTo returns the body of a publish to n channels, in events of 100 channels.
func eventsTo(n int) string {
	var events []string
	for i := 0; i < n; i += 100 {
		var channels []string
		for j := range min(100, n-i) {
			channels = append(channels, strconv.Quote(fmt.Sprint("c", i+j)))
		}
		events = append(events, `{"channels":[`+strings.Join(channels, ",")+`],"event":"e"}`)
	}
	return `{"events":[` + strings.Join(events, ",") + `]}`
}

// A broker forgets the IDs of the events of a request a minute after the answer is stored. The
// answer to a repetition remains, and nothing is published again.
func TestIDsOfFinishedRequestsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &forgetting{Broker: newCluster().Broker()}
		srv := startOn(t, b, pushy.Options{})
		time.Sleep(time.Second)
		p := connectPeer(t, srv)
		p.subscribe("room", "")
		c := signedCall{
			at: now(),
			body: `{"events":[{"channels":["room","Other"],"event":"a"},` +
				`{"channels":["room"],"event":"b","id":"own"}]}`,
		}
		first := c.do(srv)
		require.Equal(t, 200, first.Code, first.Body)
		assert.Equal(t, "a", p.next().Event)
		assert.Equal(t, "b", p.next().Event)
		time.Sleep(59 * time.Second)
		assert.Empty(t, b.forgotten(), "an earlier attempt may still arrive")
		time.Sleep(2 * time.Second)
		assert.Equal(t, []string{"room", "other"}, b.forgotten(), "not the ID which the publisher has given")
		for _, wait := range []time.Duration{time.Second, 16 * time.Minute} {
			time.Sleep(wait)
			c.at = now()
			again := c.do(srv)
			assert.Equal(t, 200, again.Code)
			assert.Equal(t, first.Body.String(), again.Body.String())
		}
		p.quiet()
		time.Sleep(2 * time.Minute)
		assert.Empty(t, b.forgotten(), "a repetition has none")
	})
}

// The IDs remain for their whole time if a request can still be run again.
func TestIDsThatAreNeededAreNotForgotten(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b *forgetting) (body string, code int){
		"answerNotStored": func(b *forgetting) (string, int) {
			b.finish = func(key string) error {
				if strings.HasPrefix(key, "id:") {
					return errors.New("broken")
				}
				return nil
			}
			return helloBody, 200
		},
		"largeAnswer": func(*forgetting) (string, int) { return eventsTo(1000), 200 },
		"tooLarge":    func(*forgetting) (string, int) { return `{"events":[{"channels":["large"],"event":"a"}]}`, 413 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &forgetting{Broker: newCluster().Broker()}
				body, code := change(b)
				srv := startOn(t, b, keeping(10, time.Hour))
				time.Sleep(time.Second)
				w := signedCall{body: body, at: now()}.do(srv)
				require.Equal(t, code, w.Code)
				time.Sleep(5 * time.Minute)
				assert.Empty(t, b.forgotten())
				w = signedCall{body: body, at: now()}.do(srv)
				assert.Equal(t, code, w.Code)
			})
		})
	}
	t.Run("takenOver", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cluster := newCluster()
			h := holding(cluster)
			b := &forgetting{Broker: cluster.Broker()}
			one, two := startOn(t, h, pushy.Options{}), startOn(t, b, pushy.Options{})
			time.Sleep(time.Second)
			p := connectPeer(t, two)
			p.subscribe("room", "")
			c := signedCall{body: helloBody, at: now()}
			first := later(c, one)
			<-h.begun
			time.Sleep(31 * time.Second)
			require.Equal(t, 200, c.do(two).Code)
			assert.Equal(t, "news", p.next().Event)
			time.Sleep(10 * time.Minute)
			assert.Empty(t, b.forgotten())
			close(h.goOn)
			assert.Equal(t, 200, (<-first).Code)
			p.quiet()
		})
	})
}

// Nodes whose Broker has no Ledger do not share answers. A copy of a request that reaches another
// node publishes nothing because of the IDs.
func TestIDsWithoutASharedLedger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		unshared := func() broker.Broker {
			b := cluster.Broker()
			return struct {
				broker.Broker
				broker.IDForgetter
			}{b, b}
		}
		one, two := startOn(t, unshared(), pushy.Options{}), startOn(t, unshared(), pushy.Options{})
		time.Sleep(time.Second)
		p := connectPeer(t, two)
		p.subscribe("room", "")
		c := signedCall{body: helloBody, at: now()}
		require.Equal(t, 200, c.do(one).Code)
		assert.Equal(t, "news", p.next().Event)
		time.Sleep(2 * time.Minute)
		require.Equal(t, 200, c.do(two).Code)
		p.quiet()
	})
}

// A broker that remembers 12,000 IDs at most has room for 190 events a second in the long run, and
// not only for 10, as many as there are in its whole window.
func TestManyEventsInTheLongRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{MaxIDs: 12_000})
		srv := startOn(t, cluster.Broker(), pushy.Options{})
		time.Sleep(time.Second)
		body := eventsTo(190)
		for i := range 5 * 60 {
			w := signedCall{body: body, at: now(), id: strconv.Itoa(i)}.do(srv)
			require.Equal(t, 200, w.Code, "second %d: %s", i, w.Body)
			time.Sleep(time.Second)
		}
	})
}
