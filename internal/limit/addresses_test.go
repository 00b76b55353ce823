package limit_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/limit"
)

func network64(i int) limit.Network {
	return limit.NetworkOf(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff))
}

func TestAddressesAreApart(t *testing.T) {
	t.Parallel()
	a := limit.NewAddresses(10, 50)
	now := time.Unix(1700000000, 0)
	one, two := network64(1), network64(2)
	for range 50 {
		_, ok := a.Take(now, one)
		assert.True(t, ok)
	}
	wait, ok := a.Take(now, one)
	assert.False(t, ok)
	assert.Equal(t, 100*time.Millisecond, wait)
	_, ok = a.Take(now, two)
	assert.True(t, ok, "another network is not concerned")
	_, ok = a.Take(now.Add(wait), one)
	assert.True(t, ok)
	_, ok = a.Take(now.Add(-time.Hour), one)
	assert.False(t, ok, "a clock that goes back adds nothing")
	for range 1000 {
		_, ok = a.Take(now, 0)
		assert.True(t, ok, "clients without an address are not limited")
	}
}

// Acceptance test 15 of the signed API's page: the memory has a bound, and a client that has
// used up its tokens does not get new ones because many others come.
func TestAddressesAreBounded(t *testing.T) {
	a := limit.NewAddresses(10, 50)
	now := time.Unix(1700000000, 0)
	abuser := limit.NetworkOf("192.0.2.1")
	for range 50 {
		a.Take(now, abuser)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 1_000_000 {
		if _, ok := a.Take(now, network64(i)); !ok {
			require.FailNow(t, "a client that comes for the first time is refused", "network %d", i)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.LessOrEqual(t, a.Len(), limit.MaxAddresses)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	assert.Less(t, grown, int64(6<<20))
	_, ok := a.Take(now, abuser)
	assert.False(t, ok, "it is not forgotten")
	t.Logf("%d addresses in %d bytes", a.Len(), grown)
	runtime.KeepAlive(a)
}

func TestAddressesConcurrently(t *testing.T) {
	t.Parallel()
	a := limit.NewAddresses(1, 100)
	now := time.Unix(1700000000, 0)
	var all sync.WaitGroup
	var mu sync.Mutex
	allowed := 0
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, ok := a.Take(now, network64(7)); ok {
					mu.Lock()
					allowed++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	assert.Equal(t, 100, allowed)
}

func BenchmarkConnectRate(b *testing.B) {
	a := limit.NewAddresses(10, 50)
	now := time.Unix(1700000000, 0)
	networks := make([]limit.Network, 1<<17)
	for i := range networks {
		networks[i] = network64(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		a.Take(now, networks[i&(1<<17-1)])
		i++
	}
}
