package cluster_test

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

// cpuOfADelivery compares what a delivery costs a node that shares a store with one that
// does not, at 1,000 subscribers on the node that publishes: the CPU time of its process.
// The two take turns, so that what else the machine does affects both. Both publish at one
// pace: what is published all at once shares writes, and only the one alone can do that. The
// bound of the ratio is 1.15; most is that of a run beside other tests, which says less.
func cpuOfADelivery(t *testing.T, s *store, most float64) {
	const subscribers = 1000
	rounds, events := 3, 50
	if strict {
		rounds, events, most = 10, 300, 1.15
	}
	type side struct {
		*child
		got   *atomic.Int64
		spent []time.Duration
	}
	var sides []*side
	alone, err := startChild("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(alone.kill)
	for _, c := range []*child{alone, s.child(t)} {
		s := &side{child: c, got: &atomic.Int64{}}
		subscribe(t, c.url, subscribers, s.got)
		sides = append(sides, s)
	}
	for range rounds {
		for _, s := range sides {
			want := s.got.Load() + subscribers*int64(events)
			before, err := s.cpu()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.publish("news", events); err != nil {
				t.Fatal(err)
			}
			soon(t, patience, "all events are there", func() bool { return s.got.Load() >= want })
			after, err := s.cpu()
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
	single, shared := best(sides[0]), best(sides[1])
	ratio := float64(shared) / float64(single)
	t.Logf("CPU a delivery: %v alone, %v shared, ratio %.3f", single, shared, ratio)
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
