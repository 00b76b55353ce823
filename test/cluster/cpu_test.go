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

// cpuOfADelivery compares the CPU time of a delivery on a node that shares a store with that
// on a node without one, at 1,000 subscribers on the node that publishes. The nodes take
// turns, so that other load of the machine affects both. Both publish at the same rate,
// because events that are published at once share writes, and only the node without a store
// can publish that fast. The limit of the ratio is 1.15 in strict runs. Others only log it: on a
// busy machine one of the nodes can share writes, because it is late, and the other not.
func cpuOfADelivery(t *testing.T, s *store) {
	const most = 1.15
	const subscribers = 1000
	rounds, events := 3, 50
	if strict {
		rounds, events = 10, 300
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
			soon(t, patience, "all events have arrived", func() bool { return s.got.Load() >= want })
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
	if strict && ratio > most {
		t.Errorf("a delivery costs %.3f times the CPU of one without a store; the limit is %.2f", ratio, most)
	}
}

// subscribe connects bare WebSockets that count the events that they receive, with as little
// CPU as possible.
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
				case texts < 2: // pushy:connect and pushy:subscription-success
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
