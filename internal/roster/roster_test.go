package roster_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/roster"
)

func TestSmallAgainstAMap(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var small roster.Small[int]
	want := map[string]int{}
	most := 5
	for step := 1; step <= 20_000; step++ {
		if step%1000 == 0 {
			most = 1 + r.IntN(60)
		}
		name := strconv.Itoa(r.IntN(80))
		assert.Equal(t, want[name], small.Get(name))
		if _, in := want[name]; in || len(want) >= most {
			small.Remove(name)
			delete(want, name)
		} else {
			small.Add(name, step)
			want[name] = step
		}
		require.Equal(t, len(want), small.Len())
		require.ElementsMatch(t, slices.Collect(maps.Values(want)), small.Values())
	}
}

func TestSlotsAgainstASet(t *testing.T) {
	t.Parallel()
	type member struct{ place int }
	r := rand.New(rand.NewPCG(1, 2))
	var slots roster.Slots[member]
	in := map[*member]bool{}
	for step := range 20_000 {
		switch n := r.IntN(10); {
		case n < 5 && (step/2000)%2 == 0 || n < 2:
			m := &member{}
			m.place = slots.Add(m)
			in[m] = true
		case n < 9:
			for m := range in {
				slots.Remove(m, m.place)
				slots.Remove(m, m.place) // does nothing
				delete(in, m)
				break
			}
		default:
			slots.Compact(func(m *member, place int) { m.place = place })
		}
		require.Equal(t, len(in), slots.Len())
	}
	seen := map[*member]bool{}
	var chunk [7]*member
	for from := 0; ; from += len(chunk) {
		n := slots.Copy(chunk[:], from)
		if n == 0 {
			break
		}
		for i, m := range chunk[:n] {
			if m != nil {
				assert.False(t, seen[m])
				assert.Equal(t, from+i, m.place)
				seen[m] = true
			}
		}
	}
	assert.Equal(t, in, seen)
}

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
