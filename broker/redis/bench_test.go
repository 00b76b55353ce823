package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/redistest"
)

// redisCPU is the time for which Redis ran a command, and how often it did. A script's
// time is in that of EVALSHA, without what its commands take to be read and answered.
func redisCPU(t testing.TB, s *redistest.Server, command string) (total time.Duration, calls int) {
	stats, err := s.Command("INFO", "commandstats")
	require.NoError(t, err)
	for line := range strings.Lines(stats) {
		rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":")
		if !ok {
			continue
		}
		for field := range strings.SplitSeq(strings.TrimSpace(rest), ",") {
			name, value, _ := strings.Cut(field, "=")
			n, _ := strconv.Atoi(value)
			switch name {
			case "calls":
				calls = n
			case "usec":
				total = time.Duration(n) * time.Microsecond
			}
		}
	}
	return total, calls
}

// BenchmarkAppend measures what an append costs; "redis-µs/call" is the time that Redis
// ran its command. Another node follows the channel.
func BenchmarkAppend(b *testing.B) {
	s := ownServer(b)
	data := []byte(`{"text":"` + strings.Repeat("x", 240) + `"}`)
	keep := broker.Keep{Size: 100, TTL: 5 * time.Minute, Bytes: 256 << 10}
	var members atomic.Int64
	for name, c := range map[string]struct {
		command string
		entries func(i int) []broker.Entry
		check   bool
	}{
		"plain": {"publish", func(int) []broker.Entry { return []broker.Entry{{Kind: broker.Event, Event: "said", Data: data}} }, false},
		"kept": {"evalsha", func(int) []broker.Entry {
			return []broker.Entry{{Kind: broker.Event, Event: "said", Data: data, Keep: keep}}
		}, false},
		"keptCheck": {"evalsha", func(int) []broker.Entry {
			return []broker.Entry{{Kind: broker.Event, Event: "said", Data: data, Keep: keep}}
		}, true},
		"keptOnce": {"evalsha", func(i int) []broker.Entry {
			return []broker.Entry{{Kind: broker.Event, Event: "said", Data: data, Keep: keep, ID: fmt.Sprint(i, time.Now().UnixNano())}}
		}, false},
		"join": {"evalsha", func(int) []broker.Entry {
			id := strconv.FormatInt(members.Add(1), 10)
			return []broker.Entry{{Kind: broker.Join, Member: id, Owner: id, Data: data}}
		}, false},
		"joinAndLeave": {"evalsha", func(int) []broker.Entry {
			id := strconv.FormatInt(members.Add(1), 10)
			return []broker.Entry{
				{Kind: broker.Join, Member: id, Owner: id, Data: data},
				{Kind: broker.Leave, Member: id, Owner: id},
			}
		}, false},
	} {
		b.Run(name, func(b *testing.B) {
			o := options(b, s)
			o.CheckEveryAppend = c.check
			a, other := open(b, o), open(b, o)
			other.follow("news")
			_, err := s.Command("CONFIG", "RESETSTAT")
			require.NoError(b, err)
			i := 0
			for b.Loop() {
				for _, e := range c.entries(i) {
					if _, err := a.Append(b.Context(), "news", e); err != nil {
						b.Fatal(err)
					}
				}
				i++
			}
			total, calls := redisCPU(b, s, c.command)
			b.ReportMetric(float64(total.Nanoseconds())/1000/float64(max(calls, 1)), "redis-µs/call")
		})
	}
}
