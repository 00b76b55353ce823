package hub

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMembershipsAgainstAMap(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var small memberships
	want := map[string]*membership{}
	most := 5
	for step := 1; step <= 20_000; step++ {
		if step%1000 == 0 {
			most = 1 + r.IntN(60)
		}
		name := strconv.Itoa(r.IntN(80))
		assert.Equal(t, want[name], small.get(name))
		if _, in := want[name]; in || len(want) >= most {
			small.remove(name)
			delete(want, name)
		} else {
			want[name] = &membership{name: name, slot: step}
			small.add(want[name])
		}
		require.Equal(t, len(want), small.len())
		got := map[string]*membership{}
		for _, m := range small.values() {
			got[m.name] = m
		}
		if !maps.Equal(want, got) || len(got) != len(small.values()) {
			require.ElementsMatch(t, slices.Collect(maps.Values(want)), small.values())
		}
	}
}

func TestSlotsAgainstASet(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var places slots
	in := map[*membership]bool{}
	for step := range 20_000 {
		switch n := r.IntN(10); {
		case n < 5 && (step/2000)%2 == 0 || n < 2:
			m := &membership{}
			m.slot = places.add(m)
			in[m] = true
		case n < 9:
			for m := range in {
				places.remove(m, m.slot)
				places.remove(m, m.slot) // does nothing
				delete(in, m)
				break
			}
		default:
			places.compact()
		}
		require.Equal(t, len(in), places.live)
	}
	seen := map[*membership]bool{}
	var chunk [7]*membership
	for from := 0; ; from += len(chunk) {
		n := places.copyTo(chunk[:], from)
		if n == 0 {
			break
		}
		for i, m := range chunk[:n] {
			if m != nil {
				assert.False(t, seen[m])
				assert.Equal(t, from+i, m.slot)
				seen[m] = true
			}
		}
	}
	assert.Equal(t, in, seen)
}

func TestReplicaAgainstASlice(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	roll := replica{channel: &Channel{hub: &Hub{}}}
	var want []int
	on := false
	for step := range 20_000 {
		id := r.IntN(200)
		at := slices.Index(want, id)
		if (step/1000)%2 == 0 && r.IntN(3) > 0 {
			turn := r.IntN(50) == 0
			if at < 0 {
				m := &Member{ID: strconv.Itoa(id)}
				if turn {
					m.Data = []byte("{}")
				}
				roll.add(m)
				want = append(want, id)
				on = on || turn
			}
		} else {
			m, _ := roll.remove(strconv.Itoa(id))
			require.Equal(t, at >= 0, m != nil)
			if m != nil {
				assert.Equal(t, strconv.Itoa(id), m.ID)
				want = slices.Delete(want, at, at+1)
			}
			on = on && len(want) > 0
		}
		require.Equal(t, len(want), roll.len())
		require.Equal(t, on, roll.on)
		if step%100 == 0 {
			var ids []int
			var size int64
			for _, m := range roll.shown().values() {
				id, err := strconv.Atoi(m.ID)
				require.NoError(t, err)
				ids = append(ids, id)
				size += m.size()
			}
			require.True(t, slices.Equal(want, ids))
			require.Equal(t, size, roll.bytes)
		}
	}
}
