package limit

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	addressSets = 8192 // a power of two
	addressWays = 8
	// MaxAddresses is the number of networks that an Addresses remembers.
	MaxAddresses = addressSets * addressWays
)

// Addresses limits how often something happens for each Network. It remembers at most
// MaxAddresses networks, in about 3 MiB, however many there are. Each network belongs to one of
// many small sets, and a client cannot find out which. In a set that is full, the network that
// has the most tokens is forgotten, because that gives it the least: one that has used up its
// tokens is forgotten only if all others of its set have used up more. It is safe for concurrent
// use.
type Addresses struct {
	rate, burst int
	seed        maphash.Seed

	mu    sync.Mutex
	sets  [addressSets]*addressSet // nil until the first network of the set
	count int
}

type addressSet [addressWays]addressBudget

type addressBudget struct {
	network Network // 0 if the place is free
	budget  Bucket
}

// NewAddresses returns an Addresses that allows rate events a second of each network, and burst
// at once after a pause. Both must be positive.
func NewAddresses(rate, burst int) *Addresses {
	return &Addresses{
		rate:  rate,
		burst: burst,
		seed:  maphash.MakeSeed(),
	}
}

// Take counts an event of a network at the time now. If the network has had too many, Take
// returns the time after which the next one is allowed. The network 0 is not limited.
func (a *Addresses) Take(now time.Time, n Network) (wait time.Duration, ok bool) {
	if n == 0 {
		return 0, true
	}
	at := maphash.Comparable(a.seed, n) % addressSets
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.sets[at]
	if set == nil {
		set = new(addressSet)
		a.sets[at] = set
	}
	return a.placeLocked(set, now, n).Take(now, 1, a.rate, a.burst)
}

// placeLocked returns the budget of a network, for which it forgets another one if it must.
func (a *Addresses) placeLocked(set *addressSet, now time.Time, n Network) *Bucket {
	var fullest *addressBudget
	least := 0.0
	for i := range set {
		place := &set[i]
		switch missing := place.budget.Missing(now, a.rate); {
		case place.network == n:
			return &place.budget
		case place.network == 0:
			place.network = n
			a.count++
			return &place.budget
		case fullest == nil || missing < least:
			fullest = place
			least = missing
		}
	}
	*fullest = addressBudget{network: n}
	return &fullest.budget
}

// Len returns how many networks are remembered.
func (a *Addresses) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}
