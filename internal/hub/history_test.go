package hub

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/broker"
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
