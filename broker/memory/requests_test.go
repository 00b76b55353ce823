package memory_test

import (
	"bytes"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// The records of requests are released and expire, and others use their room: none gets the answer
// of another one, whatever the lengths of the answers.
func TestRecordsOfRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 3000
		b, _ := opened(t, memory.NewCluster(memory.Options{MaxRecords: n}), "a", nil)
		claim := func(key string) broker.Claim {
			c, err := b.Claim(t.Context(), key, "d", time.Minute)
			require.NoError(t, err)
			return c
		}
		answer := func(key int) []byte { return bytes.Repeat([]byte{byte(key)}, key%100) }
		for round := range 3 {
			for i := range n {
				key := "id:" + strconv.Itoa(round*n+i)
				require.Equal(t, broker.Claimed, claim(key).State)
				if i%3 == 0 {
					require.NoError(t, b.Release(t.Context(), key, "d"))
					require.Equal(t, broker.Claimed, claim(key).State)
				}
				require.NoError(t, b.Finish(t.Context(), key, "d", answer(i)))
			}
			_, err := b.Claim(t.Context(), "id:more", "d", time.Minute)
			require.ErrorIs(t, err, broker.ErrBusy)
			for i := range n {
				c := claim("id:" + strconv.Itoa(round*n+i))
				require.Equal(t, broker.Finished, c.State)
				require.Equal(t, string(answer(i)), string(c.Answer))
			}
			time.Sleep(time.Minute)
		}
		assert.Equal(t, broker.Claimed, claim("id:0").State)
	})
}
