package clustertest

import (
	"bufio"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// CPU compares what a delivery costs a node that shares with one that does not,
// at 1,000 subscribers on the node that publishes: CPU of its process, the two taking
// turns so that what else the machine does hits both. Both publish at one pace: what
// is published all at once shares writes, and only the one alone can do that. how is what the shared one's
// Serve is told. The ratio's bound is 1.15; most is that of a run beside other tests, which says less.
func CPU(t *testing.T, how string, most float64) {
	const subscribers = 1000
	rounds, events := 3, 50
	if strict {
		rounds, events, most = 10, 300, 1.15
	}
	type side struct {
		*Child
		got   *atomic.Int64
		spent []time.Duration
	}
	var sides []*side
	for _, h := range []string{"", how} {
		c, err := Start(h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Kill)
		s := &side{Child: c, got: &atomic.Int64{}}
		subscribe(t, c.URL, subscribers, s.got)
		sides = append(sides, s)
	}
	for range rounds {
		for _, s := range sides {
			want := s.got.Load() + subscribers*int64(events)
			before, err := s.CPU()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Publish("news", events); err != nil {
				t.Fatal(err)
			}
			soon(t, patience, "all events are there", func() bool { return s.got.Load() >= want })
			after, err := s.CPU()
			if err != nil {
				t.Fatal(err)
			}
			s.spent = append(s.spent, after-before)
		}
	}
	best := func(s *side) time.Duration {
		least := s.spent[0]
		for _, d := range s.spent {
			least = min(least, d)
		}
		return least / time.Duration(subscribers*events)
	}
	alone, shared := best(sides[0]), best(sides[1])
	ratio := float64(shared) / float64(alone)
	t.Logf("CPU a delivery: %v alone, %v shared, ratio %.3f", alone, shared, ratio)
	if ratio > most {
		t.Errorf("a delivery costs %.3f of what it costs alone, at most %.2f is allowed", ratio, most)
	}
}

// subscribe connects bare WebSockets that count the events they get, as cheaply as
// that can be done.
func subscribe(t *testing.T, url string, n int, got *atomic.Int64) {
	t.Helper()
	var ready sync.WaitGroup
	for range n {
		conn, early, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"/pushy/socket/websocket")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if early == nil {
			early = bufio.NewReaderSize(conn, 4096)
		}
		if err := wsutil.WriteClientText(conn, []byte(`{"command":"subscribe","data":{"channel":"news"}}`)); err != nil {
			t.Fatal(err)
		}
		ready.Add(1)
		go func() {
			for texts := 0; ; {
				h, err := ws.ReadHeader(early)
				if err != nil {
					return
				}
				if _, err := early.Discard(int(h.Length)); err != nil {
					return
				}
				switch {
				case h.OpCode == ws.OpPing:
					_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewPongFrame(nil)))
				case h.OpCode != ws.OpText:
				case texts < 2: // hello and success
					if texts++; texts == 2 {
						ready.Done()
					}
				default:
					got.Add(1)
				}
			}
		}()
	}
	ready.Wait()
}
