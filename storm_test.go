package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// storm is many clients that lose their server at the same time, and connect to another one as
// PROTOCOL.md, section 2, demands. It works in a synctest bubble.
type storm struct {
	t       *testing.T
	clients sync.WaitGroup

	mu    sync.Mutex
	told  []int           // returnIn of each client that was drained, in milliseconds
	came  []time.Time     // when each client connected again
	codes map[int]int     // how many connections ended with a code
	pipes []*inmem.Client // of the first connections
}

func newStorm(t *testing.T) *storm {
	return &storm{
		t:     t,
		codes: map[int]int{},
	}
}

// join connects n clients one after the other. When their connections end, they connect to
// other. The random numbers of each client are the same in each run.
func (s *storm) join(srv, other *pushy.Server, n int) {
	for i := range n {
		transport, client := inmem.Pipe("websocket")
		srv.Connect2(transport)
		s.pipes = append(s.pipes, client)
		random := rand.New(rand.NewPCG(1, uint64(i)))
		s.clients.Go(func() { s.follow(client, other, random) })
		if i%500 == 499 {
			time.Sleep(10 * time.Second)
		}
	}
	synctest.Wait()
}

// follow is one client.
func (s *storm) follow(client *inmem.Client, other *pushy.Server, random *rand.Rand) {
	within, in := 0, -1
	for {
		text, err := client.Receive(s.t.Context())
		if err != nil {
			s.wait(err, within, in, random)
			break
		}
		f, err := parseFrame(text)
		assert.NoError(s.t, err)
		var data struct{ ReturnWithin, ReturnIn *int }
		assert.NoError(s.t, json.Unmarshal(f.Data, &data))
		if data.ReturnWithin != nil {
			within = *data.ReturnWithin
		}
		if data.ReturnIn != nil {
			in = *data.ReturnIn
		}
	}
	transport, client := inmem.Pipe("websocket")
	other.Connect2(transport)
	_, err := client.Receive(s.t.Context())
	assert.NoError(s.t, err)
	client.Abort()
	s.mu.Lock()
	s.came = append(s.came, time.Now())
	s.mu.Unlock()
}

// wait waits as a client does after the end err.
func (s *storm) wait(err error, within, in int, random *rand.Rand) {
	var end *session.CloseError
	if !assert.ErrorAs(s.t, err, &end) {
		return
	}
	code := end.Code
	if end.Cause != session.Closed {
		code = 1006
		within = min(within, 5000)
	}
	s.mu.Lock()
	s.codes[code]++
	if in >= 0 {
		s.told = append(s.told, in)
	}
	s.mu.Unlock()
	pause := time.Duration(in) * time.Millisecond
	if in < 0 {
		pause = time.Duration(random.Int64N(int64(within) * int64(time.Millisecond)))
	}
	time.Sleep(pause)
}

// bins waits until all have returned, and counts them in each tenth of a second after began.
func (s *storm) bins(began time.Time) (bins []int) {
	s.clients.Wait()
	for _, at := range s.came {
		n := int(at.Sub(began) / (100 * time.Millisecond))
		for len(bins) <= n {
			bins = append(bins, 0)
		}
		bins[n]++
	}
	return bins
}

// After a server was killed, and after it was shut down, the others get at most twice the mean of
// the window in each tenth of a second. There are 10,000 clients in make soak, and a fifth of them
// at a fifth of the rate otherwise. (Acceptance test 7 of operations)
func TestStormOfReturningClients(t *testing.T) {
	t.Parallel()
	rate := 400
	if os.Getenv("PUSHY_SOAK") != "" {
		rate = 2000
	}
	for _, c := range []struct {
		name    string
		clients int
		window  time.Duration
		end     func(s *storm, srv *pushy.Server) error
		code    int
	}{
		{"killed", 5 * rate, 5 * time.Second, (*storm).kill, 1006},
		{"killed with a short window", 2 * rate, 2 * time.Second, (*storm).kill, 1006},
		{"shutdown", 5 * rate, 5 * time.Second, (*storm).shutdown, 3001},
		{"shutdown of a few", rate / 2, time.Second, (*storm).shutdown, 3001},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				s := newStorm(t)
				srv := startServer(t, pushy.Options{ReturnRate: rate})
				other := startServer(t, pushy.Options{ReturnRate: rate})
				s.join(srv, other, c.clients)
				began := time.Now()
				require.NoError(t, c.end(s, srv))
				bins := s.bins(began)
				// The moments are random, so a bin can have some more than the most that is expected: with
				// four standard deviations, which are the square root of that.
				most := 2 * float64(c.clients) * float64(100*time.Millisecond) / float64(c.window)
				assert.LessOrEqual(t, float64(slices.Max(bins)), most+4*math.Sqrt(most), bins)
				assert.LessOrEqual(t, len(bins), int(c.window/(100*time.Millisecond))+1, bins)
				assert.Equal(t, map[int]int{c.code: c.clients}, s.codes)
				if c.code == 1006 {
					assert.Empty(t, s.told)
				} else {
					assert.Len(t, s.told, c.clients)
				}
			})
		})
	}
}

// kill is kill -9 of the server.
func (s *storm) kill(*pushy.Server) error {
	for _, p := range s.pipes {
		p.Abort()
	}
	return nil
}

func (s *storm) shutdown(srv *pushy.Server) error { return srv.Shutdown(deadline(s.t)) }

// Each client is told its own moment, counted from its own end, and nothing else comes between
// that and the close frame. Clients that were not told a time to return within are not told a
// moment.
func TestDrainTellsEachClientItsMoment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate     int
		clients  int
		deadline time.Duration
		last     time.Duration // the last moment; negative if none is told
		closing  time.Duration // the last end
	}{
		"one client":             {0, 1, time.Hour, 0, 0},
		"one batch":              {10, 100, time.Hour, 9900 * time.Millisecond, 0},
		"closed over the window": {100, 300, time.Hour, 2990 * time.Millisecond, 2 * time.Second},
		"closed over 5 s":        {20, 400, time.Hour, 19_950 * time.Millisecond, 3750 * time.Millisecond},
		"a window of 60 s":       {1, 400, time.Hour, 59_850 * time.Millisecond, 3750 * time.Millisecond},
		"little time":            {20, 400, time.Second, 19_950 * time.Millisecond, 375 * time.Millisecond},
		"no limit":               {-1, 400, time.Hour, -1, 3750 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fakeTime(t, func(t *testing.T) {
				srv := startServer(t, pushy.Options{ReturnRate: c.rate})
				var clients, old []*peer
				for i := range c.clients {
					transport, client := inmem.Pipe("websocket")
					p := &peer{t: t, Client: client}
					if i%2 == 0 {
						srv.Connect2(transport)
						clients = append(clients, p)
					} else {
						srv.Connect(transport, nil)
						old = append(old, p)
					}
				}
				synctest.Wait()
				began := time.Now()
				var mu sync.Mutex
				var moments []time.Duration
				closed := time.Duration(0)
				var all sync.WaitGroup
				for _, p := range clients {
					all.Go(func() {
						events, end := p.rest()
						assert.Equal(t, 3001, end.Code)
						mu.Lock()
						defer mu.Unlock()
						closed = max(closed, time.Since(began))
						last := events[len(events)-1]
						if last.Event != "pushy:drain" {
							return
						}
						var data struct{ ReturnIn time.Duration }
						assert.NoError(t, json.Unmarshal(last.Data, &data))
						moments = append(moments, time.Since(began)+data.ReturnIn*time.Millisecond)
					})
				}
				for _, p := range old {
					all.Go(func() {
						events, _ := p.rest()
						assert.Len(t, events, 1, "pushy:connect only: %v", events)
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				require.NoError(t, srv.Shutdown(ctx))
				all.Wait()
				assert.InDelta(t, c.closing.Seconds(), closed.Seconds(), 0.001)
				if c.last < 0 {
					assert.Empty(t, moments)
					return
				}
				require.Len(t, moments, len(clients))
				slices.Sort(moments)
				if c.clients == 1 {
					assert.Equal(t, []time.Duration{0}, moments)
					return
				}
				// Which half of the moments these clients have is random: at each time, about
				// half of those before it.
				step := c.last / time.Duration(c.clients-1)
				for i, at := range moments {
					assert.GreaterOrEqual(t, at, time.Duration(i)*step-time.Millisecond)
					assert.InDelta(t, float64(at)/float64(c.last), float64(i)/float64(len(moments)), 0.25)
					if i > 0 {
						assert.GreaterOrEqual(t, at-moments[i-1], step-2*time.Millisecond, "two have one moment")
					}
				}
				assert.LessOrEqual(t, moments[len(moments)-1], c.last+time.Millisecond)
			})
		})
	}
}

// rest returns all messages that a client still receives, and how its connection ends.
func (p *peer) rest() (events []frame, end *session.CloseError) {
	for {
		text, err := p.Receive(p.t.Context())
		if errors.As(err, &end) {
			return events, end
		}
		f, err := parseFrame(text)
		if err != nil {
			panic(fmt.Sprint(text, err))
		}
		events = append(events, f)
	}
}

// Clients that connected to a small server are told a longer time when it has grown, and
// again when it has grown after it had become small.
func TestReturnWithinGrows(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{ReturnRate: 10})
		first := newRoamer(t, "Ann").connect(srv)
		old := connectPeer(t, srv)
		grow := func(n int) (all []*roamer) {
			for range n {
				all = append(all, newRoamer(t, "x").connect(srv))
			}
			time.Sleep(time.Minute)
			return all
		}
		told := func() string {
			f := first.next()
			return f.String()
		}
		crowd := grow(12) // 14 connections
		first.quiet()
		crowd = append(crowd, grow(1)...)
		assert.Equal(t, `pushy:return {"returnWithin":1500}`, told())
		crowd = append(crowd, grow(20)...)
		assert.Equal(t, `pushy:return {"returnWithin":2300}`, told())
		assert.Equal(t, `pushy:return {"returnWithin":3500}`, told())
		first.quiet()
		for _, c := range crowd {
			c.drop()
		}
		grow(51)
		assert.Equal(t, `pushy:return {"returnWithin":5300}`, told(), "nothing that is shorter than before")
		first.quiet()
		old.quiet()
	})
}
