package lifecycle

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"strings"
	"sync"
)

// Why a Door refuses by itself.
const (
	Full    = "connections"
	Crowded = "address"
	Closed  = "shutdown"
)

// Door keeps who is in, by id, and lets in no more than a limit, in all and of
// one network, and none once it is closed. A place is reserved before it is filled, so that what takes time
// in between cannot let in too many. It is safe for concurrent use.
type Door[T any] struct {
	limit, ofOne int // in all, and of one network; none if not above zero

	mu       sync.RWMutex
	in       map[string]guest[T]
	of       map[Network]int // in or reserved, if there is a limit of one
	reserved int
	closed   bool
	refused  map[string]uint64 // how often, by reason
}

type guest[T any] struct {
	v    T
	from Network
}

// NewDoor returns a Door that is open.
func NewDoor[T any](limit, ofOne int) *Door[T] {
	return &Door[T]{
		limit: limit, ofOne: ofOne,
		in: map[string]guest[T]{}, of: map[Network]int{}, refused: map[string]uint64{},
	}
}

// Network is what counts as one client's address: an IPv4 address, or the /64
// of an IPv6 address, all of which one machine can have. It is 0 for what has no
// IP address, such as a Unix socket, and is not limited then.
type Network uint64

// Unknown is a Network of its own for clients whose address is to count and is
// not known. No IP address has it.
const Unknown Network = 1

// NetworkOf returns the Network of an IP address, with a port or without.
func NetworkOf(address string) Network {
	var addr netip.Addr
	if at, err := netip.ParseAddrPort(address); err == nil {
		addr = at.Addr()
	} else if bare, ok := strings.CutPrefix(address, "["); ok && strings.HasSuffix(bare, "]") {
		addr, _ = netip.ParseAddr(strings.TrimSuffix(bare, "]"))
	} else {
		addr, _ = netip.ParseAddr(address)
	}
	if !addr.IsValid() {
		return 0
	}
	if addr = addr.Unmap(); addr.Is4() {
		b := addr.As4()
		return Network(binary.BigEndian.Uint32(b[:])) | 1<<32 // no IPv6 network begins with 0:1
	}
	b := addr.As16()
	return max(Unknown+1, Network(binary.BigEndian.Uint64(b[:]))) // ::1 is one, too
}

// Prefix returns an IPv6 network as "2001:db8::/64", and "" for what is none.
func (n Network) Prefix() string {
	switch {
	case n == 0, n == Unknown, n>>32 == 1:
		return ""
	case n == Unknown+1:
		n = 0 // ::1's
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return netip.PrefixFrom(netip.AddrFrom16(b), 64).String()
}

// Reserve takes a place for one from that network: Enter or GiveBack must
// follow. If there is none it counts a refusal and returns its reason, else "".
func (d *Door[T]) Reserve(from Network) (refused string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		refused = Closed
	case d.limit > 0 && len(d.in)+d.reserved >= d.limit:
		refused = Full
	case d.ofOne > 0 && from != 0 && d.of[from] >= d.ofOne:
		refused = Crowded
	default:
		d.reserved++
		d.countLocked(from, 1)
		return ""
	}
	d.refused[refused]++
	return refused
}

func (d *Door[T]) countLocked(from Network, n int) {
	if d.ofOne <= 0 || from == 0 {
		return
	}
	if d.of[from] += n; d.of[from] == 0 {
		delete(d.of, from)
	}
}

// GiveBack returns a reserved place.
func (d *Door[T]) GiveBack(from Network) {
	d.mu.Lock()
	d.reserved--
	d.countLocked(from, -1)
	d.mu.Unlock()
}

// Enter fills a reserved place, unless the Door was closed meanwhile, which
// counts as a refusal. start runs before anybody can find v; false is a refusal, too.
func (d *Door[T]) Enter(id string, v T, from Network, start func() bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved--
	if d.closed || !start() {
		d.refused[Closed]++
		d.countLocked(from, -1)
		return false
	}
	d.in[id] = guest[T]{v, from}
	return true
}

// Leave takes id out.
func (d *Door[T]) Leave(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g, ok := d.in[id]; ok {
		delete(d.in, id)
		d.countLocked(g.from, -1)
	}
}

// Find returns who is in by that id.
func (d *Door[T]) Find(id string) (v T, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	g, ok := d.in[id]
	return g.v, ok
}

// All returns who is in, in no order.
func (d *Door[T]) All() []T {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]T, 0, len(d.in))
	for _, g := range d.in {
		all = append(all, g.v)
	}
	return all
}

// Len returns how many are in.
func (d *Door[T]) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.in)
}

// Close lets nobody in any more. It reports whether it was open.
func (d *Door[T]) Close() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.closed
	d.closed = true
	return first
}

// Refuse counts a refusal for a reason of the caller's.
func (d *Door[T]) Refuse(reason string) {
	d.mu.Lock()
	d.refused[reason]++
	d.mu.Unlock()
}

// Refused returns how many were refused, by reason.
func (d *Door[T]) Refused() map[string]uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.refused)
}
