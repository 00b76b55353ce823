package pushy_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// counting is a node of a memory cluster that counts the entries that are read from logs.
type counting struct {
	*memory.Broker
	reads, entries atomic.Int64
}

func (c *counting) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	page, err := c.Broker.Read(ctx, channel, r)
	c.reads.Add(1)
	c.entries.Add(int64(len(page.Entries)))
	return page, err
}

// A client that is five events behind is sent these five, and what the node reads for that
// does not depend on the length of the log. (Acceptance test 4 of issue 13)
func TestResumeFromALongLog(t *testing.T) {
	t.Parallel()
	var entries []int64
	for _, length := range []uint64{600, 12_000} {
		fakeTime(t, func(t *testing.T) {
			cluster := newCluster()
			writer := startOn(t, cluster.Broker(), keeping(12_000, time.Hour))
			publishNumbers(t, writer, "news", 1, length)
			top, err := writer.Position(t.Context(), "news")
			require.NoError(t, err)
			b := &counting{Broker: cluster.Broker()}
			srv := startOn(t, b, keeping(12_000, time.Hour))
			since := broker.Position{Epoch: top.Epoch, Offset: length - 5}
			for range 3 { // the first opens the channel
				p := connect2(t, srv)
				got := p.resume("news", since, "")
				assert.True(t, *got.Recovered)
				assert.Equal(t, 5, *got.Replay)
				p.events("news", length-4, length)
				p.quiet()
			}
			assert.LessOrEqual(t, b.reads.Load(), int64(2))
			entries = append(entries, b.entries.Load())
		})
	}
	assert.Equal(t, entries[0], entries[1], "entries that are read for 600 and for 12,000 events")
	assert.LessOrEqual(t, entries[1], int64(500))
}
