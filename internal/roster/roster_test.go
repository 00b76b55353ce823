package roster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/roster"
)

func TestRosterAgainstASlice(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var roll roster.Roster[int]
	var want []int
	on := false
	for step := range 20_000 {
		id := r.IntN(200)
		at := slices.Index(want, id)
		if (step/1000)%2 == 0 && r.IntN(3) > 0 {
			turn := r.IntN(50) == 0
			assert.Equal(t, at < 0, roll.Add(strconv.Itoa(id), id, turn))
			if at < 0 {
				want = append(want, id)
				on = on || turn
			}
		} else {
			value, ok := roll.Remove(strconv.Itoa(id))
			require.Equal(t, at >= 0, ok)
			if ok {
				assert.Equal(t, id, value)
				want = slices.Delete(want, at, at+1)
			}
			on = on && len(want) > 0
		}
		require.Equal(t, len(want), roll.Len())
		require.Equal(t, on, roll.On())
		if step%100 == 0 {
			require.True(t, slices.Equal(want, roll.Values()))
		}
	}
}

// Every watcher's snapshot and entries amount to the same list.
func TestLogsOneOrder(t *testing.T) {
	t.Parallel()
	var logs roster.Logs[string]
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	lists := map[uint64]string{} // the list at a revision, as first seen
	agree := func(revision uint64, list []string) {
		mu.Lock()
		defer mu.Unlock()
		now := fmt.Sprint(list)
		if seen, known := lists[revision]; known {
			assert.Equal(t, seen, now, "at revision %d", revision)
		}
		lists[revision] = now
	}
	keep := "keeps the log"
	require.NoError(t, logs.Join("x", keep, keep, false))
	for n := range 8 {
		all.Go(func() {
			for i := range 100 {
				id := fmt.Sprint(n, "-", i)
				assert.NoError(t, logs.Join("x", id, id, i%10 == 0))
				if i%10 == 3 {
					var mine sync.Mutex
					var list []string
					var last uint64
					mine.Lock()
					values, _, revision, err := logs.Watch(ctx, "x", func(e roster.Entry[string]) {
						mine.Lock()
						defer mine.Unlock()
						assert.Equal(t, last+1, e.Revision)
						last = e.Revision
						if e.Left {
							list = slices.DeleteFunc(slices.Clone(list), func(v string) bool { return v == e.ID })
						} else {
							list = append(list, e.Value)
						}
						agree(last, list)
					})
					assert.NoError(t, err)
					list, last = slices.Clone(values), revision
					agree(last, list)
					mine.Unlock()
				}
				assert.NoError(t, logs.Leave("x", id))
			}
		})
	}
	all.Wait()
	assert.Equal(t, "["+keep+"]", lists[uint64(1+2*800)])
	cancel()
	require.NoError(t, logs.Close())
	assert.ErrorIs(t, logs.Join("x", "late", "", false), roster.ErrClosed)
	assert.ErrorIs(t, logs.Leave("x", keep), roster.ErrClosed)
	_, _, _, err := logs.Watch(ctx, "x", func(roster.Entry[string]) {})
	assert.ErrorIs(t, err, roster.ErrClosed)
}
