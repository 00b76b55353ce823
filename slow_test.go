package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/ordercheck"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// prices is a channel with presence whose clients read only when a test says so, in a bubble.
type prices struct {
	t      *testing.T
	r      *rand.Rand
	srv    *pushy.Server
	stream ordercheck.Stream
	events int
	joins  int
}

const pricesChannel = "private-prices"

// slowReader is a client of prices.
type slowReader struct {
	*peer
	reader  *ordercheck.Reader // of the present subscription, or nil
	leaving *ordercheck.Reader // of one whose end the client has not read yet, or nil
	name    string             // as the others see it
}

// connect connects a client. With direct, its socket accepts a random number of bytes at once.
func (p *prices) connect(direct bool) *slowReader {
	session, client := inmem.Pipe("websocket")
	if direct {
		r := rand.New(rand.NewPCG(p.r.Uint64(), 3)) // only the writer uses it
		session, client = inmem.FullPipe("websocket", func(n int) int {
			if r.IntN(3) > 0 {
				return n
			}
			return r.IntN(n + 1)
		})
	}
	p.srv.Connect(session, nil)
	s := &slowReader{peer: &peer{
		t:      p.t,
		Client: client,
	}}
	s.id = s.next().field("socketId")
	return s
}

func (p *prices) join(s *slowReader) {
	p.joins++
	s.name = fmt.Sprint("member", p.joins)
	data, err := json.Marshal(map[string]string{"name": s.name})
	require.NoError(p.t, err)
	require.NoError(p.t, p.srv.Channels().Join(s.conn(p.srv), pricesChannel, data))
	synctest.Wait()
	require.NoError(p.t, p.stream.Sent("presence-add "+s.name, "", false))
	s.reader = p.stream.Reader()
}

func (p *prices) leave(s *slowReader) {
	s.reader.Leave()
	require.NoError(p.t, p.stream.Sent("presence-quit "+s.name, "", false))
	require.NoError(p.t, p.srv.Channels().Leave(s.conn(p.srv), pricesChannel))
	synctest.Wait()
	s.leaving = s.reader
	s.reader = nil
}

// publish publishes an event of random properties. One in must is neither Latest nor Droppable.
func (p *prices) publish(keys, must int) {
	p.events++
	e := pushy.Event{
		Channel: pricesChannel,
		Name:    "price",
		Data:    fmt.Sprint("event", p.events, strings.Repeat("x", p.r.IntN(200))),
	}
	switch n := p.r.IntN(must * 6); {
	case n < 6:
	case n%6 == 0:
		e.Droppable = true
	case n%6 == 1:
		e.Droppable = true
		e.Latest = fmt.Sprint("key", p.r.IntN(keys))
	default:
		e.Latest = fmt.Sprint("key", p.r.IntN(keys))
	}
	require.NoError(p.t, p.stream.Sent(e.Data.(string), e.Latest, e.Droppable))
	_, err := p.srv.PublishEvent(p.t.Context(), e)
	require.NoError(p.t, err)
}

// read reads up to most messages that have arrived, and checks them.
func (s *slowReader) read(most int) (n int) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for ; n < most; n++ {
		synctest.Wait()
		text, err := s.Receive(ctx)
		if err != nil {
			require.ErrorIs(s.t, err, context.Canceled)
			return n
		}
		f, err := parseFrame(text)
		require.NoError(s.t, err)
		require.NoError(s.t, s.message(f), "%s", f)
	}
	return n
}

func (s *slowReader) message(f frame) error {
	reader := s.reader
	if s.leaving != nil {
		reader = s.leaving
	}
	var data struct{ Member struct{ Name string } }
	switch name := strings.TrimPrefix(f.Event, "pushy:"); name {
	case "subscription-success":
		return reader.Success()
	case "subscription-end":
		if err := reader.End(); err != nil {
			return err
		}
		s.leaving = nil
		return reader.Complete()
	case "dropped":
		return reader.Dropped(f.Data)
	case "presence-add", "presence-quit":
		if err := json.Unmarshal(f.Data, &data); err != nil {
			return err
		}
		return reader.Message(name + " " + data.Member.Name)
	case "price":
		var text string
		if err := json.Unmarshal(f.Data, &text); err != nil {
			return err
		}
		return reader.Message(text)
	}
	return fmt.Errorf("unexpected")
}

// TestSlowReaders is acceptance 6 of slow consumers, with random events, members and stalls.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { stallAtRandom(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func stallAtRandom(t *testing.T, r *rand.Rand) {
	srv := startServer(t, pushy.Options{
		WriteTimeout: time.Hour,
		Limits: pushy.Limits{
			ConnBuffer:   32 << 10,
			TriggerBytes: 8 << 10,
			MessageBytes: 8 << 10,
		},
	})
	p := &prices{
		t:   t,
		r:   r,
		srv: srv,
	}
	keys := r.IntN(30) + 1
	readers := []*slowReader{p.connect(false), p.connect(true), p.connect(true)}
	for _, s := range readers {
		p.join(s)
		s.read(1000)
	}
	for range 120 {
		s := readers[r.IntN(len(readers))]
		switch r.IntN(12) {
		case 0:
			if s.leaving == nil {
				p.leave(s)
				p.join(s)
			}
		case 1:
			s.read(1000)
		case 2, 3:
			s.read(r.IntN(30))
		case 4:
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		default:
			for range r.IntN(25) {
				p.publish(keys, 15)
			}
			if r.IntN(2) == 0 {
				synctest.Wait()
			}
		}
	}
	told := 0
	for _, s := range readers {
		time.Sleep(time.Second) // since the last notice
		for s.read(1000) > 0 {
			time.Sleep(time.Second)
		}
		require.NoError(t, s.reader.Complete())
		told += s.reader.Told
	}
	assert.Positive(t, told, "nobody was slow")
	stats := srv.Stats()
	assert.GreaterOrEqual(t, stats.Dropped, uint64(told))
	assert.Zero(t, stats.Buffered)
}

// stalledServer is a Server of which one client, that has read its success, reads nothing more.
func stalledServer(t *testing.T, o pushy.Options) (*pushy.Server, *peer) {
	o.WriteTimeout = time.Hour
	srv := startServer(t, o)
	ann := connectPeer(t, srv)
	ann.subscribe("prices", "")
	for range 40 { // these fill the socket, and a write waits
		require.NoError(t, srv.Publish(t.Context(), "prices", "filler", strings.Repeat("x", 4<<10)))
	}
	synctest.Wait()
	return srv, ann
}

func publishPrice(t *testing.T, srv *pushy.Server, key string, price int) {
	t.Helper()
	_, err := srv.PublishEvent(t.Context(), pushy.Event{
		Channel: "prices",
		Name:    "price",
		Data:    price,
		Latest:  key,
	})
	require.NoError(t, err)
}

// Stalled for 100,000 events, a client has at most one of each key queued, is not disconnected, and
// hears the exact number that it has not received.
func TestLatestKeepsAStalledClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, ann := stalledServer(t, pushy.Options{})
		before := srv.Stats().Buffered
		for i := range 100_000 {
			publishPrice(t, srv, fmt.Sprint(i%10), i)
		}
		assert.Less(t, srv.Stats().Buffered-before, int64(10*100))
		assert.Equal(t, uint64(99_990), srv.Stats().Dropped)
		for range 40 {
			assert.Equal(t, "filler", ann.next().Event)
		}
		for i := 99_990; i < 100_000; i++ {
			ann.expect(fmt.Sprint("price prices ", i))
		}
		text, err := ann.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `{"event":"pushy:dropped","channel":"prices","data":{"count":99990}}`, text)
		assert.Zero(t, srv.Stats().Buffered)
		ann.quiet()
	})
}

// A client that is slow again and again is told at most once a second, separately of each channel.
func TestDroppedIsSentOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, ann := stalledServer(t, pushy.Options{})
		require.NoError(t, srv.Channels().Join(ann.conn(srv), "other", nil))
		began := time.Now()
		count := 0
		told := map[string]int{}
		var last time.Time
		for round := range 30 {
			for range 40 {
				require.NoError(t, srv.Publish(t.Context(), "prices", "filler", strings.Repeat("x", 4<<10)))
			}
			for i := range 11 {
				publishPrice(t, srv, "key", i)
			}
			count += 10
			if round == 7 {
				for range 3 {
					_, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: "other", Name: "x", Latest: "a"})
					require.NoError(t, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			for {
				text, err := ann.Receive(ctx)
				if err != nil {
					break
				}
				if f, _ := parseFrame(text); f.Event == "pushy:dropped" {
					var data struct{ Count int }
					require.NoError(t, json.Unmarshal(f.Data, &data))
					told[f.Channel] += data.Count
					if f.Channel == "prices" {
						assert.GreaterOrEqual(t, time.Since(last), time.Second)
						last = time.Now()
					}
				}
			}
			cancel()
		}
		time.Sleep(time.Second)
		for count > told["prices"] {
			f := ann.next()
			require.Equal(t, "pushy:dropped", f.Event)
			var data struct{ Count int }
			require.NoError(t, json.Unmarshal(f.Data, &data))
			told["prices"] += data.Count
		}
		assert.Equal(t, map[string]int{"prices": count, "other": 2}, told)
		assert.Less(t, time.Since(began), 12*time.Second)
		ann.quiet()
	})
}

// What is neither Latest nor Droppable still disconnects a client that is too slow.
func TestSlowConsumerIsStillDisconnected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, ann := stalledServer(t, pushy.Options{})
		for range 300 {
			publishPrice(t, srv, "key", 1)
			_, err := srv.PublishEvent(t.Context(), pushy.Event{
				Channel:   "prices",
				Name:      "move",
				Data:      strings.Repeat("x", 4<<10),
				Droppable: true,
			})
			require.NoError(t, err)
		}
		buffered := srv.Stats().Buffered
		assert.Greater(t, buffered, int64(256<<10), "up to a quarter of ConnBuffer is queued")
		assert.Less(t, buffered, int64(512<<10))
		dropped := srv.Stats().Dropped
		for range 300 {
			require.NoError(t, srv.Publish(t.Context(), "prices", "filler", strings.Repeat("x", 4<<10)))
		}
		end := ann.ended()
		assert.Equal(t, pushy.CloseSlowConsumer, end.Code)
		assert.Equal(t, dropped, srv.Stats().Dropped, "what a disconnected client loses does not count")
		assert.Zero(t, srv.Stats().Buffered)
	})
}

// The properties of an event apply on the nodes that it reaches through a broker, too.
func TestLatestOnOtherNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster()
		publisher := startOn(t, cluster.Broker(), pushy.Options{})
		srv := startOn(t, cluster.Broker(), pushy.Options{WriteTimeout: time.Hour})
		ann := connectPeer(t, srv)
		ann.subscribe("prices", "")
		for range 40 {
			require.NoError(t, publisher.Publish(t.Context(), "prices", "filler", strings.Repeat("x", 4<<10)))
		}
		synctest.Wait()
		for i := range 18 {
			publishPrice(t, publisher, "key", i)
		}
		synctest.Wait()
		for range 40 {
			assert.Equal(t, "filler", ann.next().Event)
		}
		ann.expect("price prices 17")
		text, err := ann.Receive(t.Context())
		require.NoError(t, err)
		assert.Contains(t, protocolSection(t, "### Events that the server sends"), "`"+text+"`")
		ann.quiet()
		assert.Equal(t, uint64(17), srv.Stats().Dropped)
		assert.Zero(t, publisher.Stats().Dropped)
	})
}
