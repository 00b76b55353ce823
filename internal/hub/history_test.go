package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// A node that was not there when the epoch changed tells a restart from another log.
func TestReasonOfANewEpoch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ was, now, reason string }{
		{"store-run1", "store-run2", PastRestarted},
		{"store-run1", "other-run1", PastEpoch},
		{"one", "other", PastEpoch},
		{"random_a1", "random_a2", PastEpoch},
		{"", "other", PastEpoch},
	} {
		assert.Equal(t, c.reason, newEpoch(c.was, c.now), "%s → %s", c.was, c.now)
	}
}

// The ring has the run of the newest events within each of its limits, and knows whether the
// log can have more.
func TestRing(t *testing.T) {
	t.Parallel()
	start := time.Now()
	event := func(text, data int) pastEvent {
		return pastEvent{
			text: make([]byte, text),
			data: data,
			time: start,
		}
	}
	for _, c := range []struct {
		name       string
		keep       broker.Keep
		text, data int
		pushes     int
		first      uint64
		complete   bool
	}{
		{"all", broker.Keep{Size: 100}, 10, 5, 90, 11, true},
		{"size", broker.Keep{Size: 30}, 10, 5, 90, 71, true},
		{"bytes", broker.Keep{Size: 100, Bytes: 99}, 10, 5, 90, 82, true},
		{"most", broker.Keep{Size: 10_000}, 10, 5, 5000, 4511, false},
		{"text", broker.Keep{Size: 10_000}, maxRingText / 4, 5, 90, 97, false},
	} {
		var r ring
		r.reset(10)
		r.complete = true
		for range c.pushes {
			r.push(event(c.text, c.data), c.keep)
		}
		assert.Equal(t, c.first, r.first(), c.name)
		assert.Equal(t, uint64(10+c.pushes), r.last, c.name)
		assert.Equal(t, c.complete, r.complete, c.name)
		assert.Equal(t, int64(r.len()*(c.text+pastOverhead)), r.bytes, c.name)
		assert.Equal(t, r.len()*c.data, r.data, c.name)
		before := r.bytes
		r.frame(r.first())
		r.frame(r.last)
		assert.Greater(t, r.bytes, before, c.name)
		r.dropFrames()
		assert.Equal(t, before, r.bytes, c.name)
		r.frame(r.first())
		r.expire(broker.Keep{TTL: time.Second}, start.Add(time.Second))
		assert.Zero(t, r.len(), c.name)
		assert.Zero(t, r.bytes, c.name)
		assert.Zero(t, r.text, c.name)
	}
	var r ring
	r.reset(10)
	r.prepend([]pastEvent{event(1, 1), event(2, 1)}, broker.Keep{Size: 3})
	assert.Equal(t, uint64(9), r.first())
	assert.Len(t, r.at(9).text, 1)
	r.push(event(3, 1), broker.Keep{Size: 3})
	r.push(event(4, 1), broker.Keep{Size: 3})
	assert.Equal(t, uint64(10), r.first())
	assert.Len(t, r.at(12).text, 4)
}

// A client receives the same bytes whether events are replayed as runs or one by one, and what
// is not for it is left out. The bytes of the ring are those of what it has.
func TestRuns(t *testing.T) {
	t.Parallel()
	keep := broker.Keep{Size: 100}
	var r ring
	r.reset(0)
	for n := 1; n <= 250; n++ {
		p := pastEvent{text: fmt.Appendf(nil, `{"n":%d}`, n)}
		switch {
		case n%50 == 7:
			p.except = []string{"publisher"}
		case n >= 200 && n < 208:
			p.text = append(p.text, make([]byte, maxRunText/4)...)
		}
		r.push(p, keep)
		if n%10 != 0 {
			continue
		}
		from := r.first() + uint64(n%37)
		tail := n%20 == 0
		if tail {
			r.askTail(from)
			assert.Nil(t, r.tailFrom(from), "for one client")
			r.askTail(from)
		}
		for _, form := range []fanout.Form{fanout.Text, fanout.Bare, fanout.Framed} {
			for _, id := range []string{"publisher", "other"} {
				p := &pastRequest{
					ids:  []string{id},
					form: form,
				}
				var got, want []byte
				frames := 0
				for run, f := range r.replay(from, p) {
					if run != nil {
						f = r.runFrame(run, form)
					}
					got = append(got, f.Bytes(form)...)
					frames++
				}
				events := 0
				for offset := from; offset <= r.last; offset++ {
					if e := r.at(offset); !p.excepted(e.except) {
						want = append(want, fanout.NewFrame(e.text).Bytes(form)...)
						events++
					}
				}
				require.Equal(t, string(want), string(got), "%d events, from %d, form %d", n, from, form)
				switch {
				case form == fanout.Text:
					require.Equal(t, events, frames)
				case tail && n < 200 && events > 1 && id == "other":
					require.Equal(t, 1, frames)
				case n == 110 && id == "other":
					require.Less(t, frames, events/2)
				}
			}
		}
	}
	with := r.bytes
	r.dropFrames()
	assert.Less(t, r.bytes, with)
	assert.Equal(t, int64(r.text+r.len()*pastOverhead), r.bytes)
	for run := range r.replay(r.first(), &pastRequest{form: fanout.Bare}) {
		_ = run
	}
	assert.Greater(t, r.bytes, int64(r.text+r.len()*pastOverhead))
	for r.len() > 0 {
		r.pop()
	}
	assert.Zero(t, r.bytes)
	assert.Empty(t, r.runs)
	assert.Empty(t, r.tail)
}

// The ring is a queue in a circular buffer, which is not larger than its limits need.
func TestRingWraps(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(13, 1))
	for range 200 {
		keep := broker.Keep{Size: 1 + random.IntN(40)}
		var r ring
		r.reset(1000)
		want := []int{} // the sizes of the data
		for range 300 {
			switch size := random.IntN(1000); random.IntN(8) {
			case 0:
				if r.len() > 0 {
					r.pop()
					want = want[1:]
				}
			case 1:
				if r.len() < keep.Size {
					r.prepend([]pastEvent{{data: size}}, keep)
					want = append([]int{size}, want...)
				}
			default:
				r.push(pastEvent{data: size}, keep)
				want = append(want, size)
				want = want[max(0, len(want)-keep.Size):]
			}
			got := []int{}
			for offset := r.first(); offset <= r.last; offset++ {
				got = append(got, r.at(offset).data)
			}
			if !slices.Equal(want, got) {
				require.Equal(t, want, got)
			}
			require.LessOrEqual(t, len(r.events), max(8, keep.Size+1))
		}
	}
}
