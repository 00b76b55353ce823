package hub

import (
	"sync"

	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/tally"
)

// Reasons for which an Admission itself refuses a connection.
const (
	RefusedFull    = "connections" // Limits.Connections is reached
	RefusedAddress = "address"     // Limits.PerAddress is reached
	RefusedMemory  = "memory"      // Hub.SetLowMemory was called
	RefusedClosed  = "shutdown"
)

// Reasons of others, which call Refuse.
const (
	RefusedOrigin     = "origin"
	RefusedByAccept   = "accept"
	RefusedBanned     = "banned"
	RefusedRate       = "connectRate"
	RefusedAcceptRate = "acceptRate"
	RefusedSlowBody   = "slow body"  // of SockJS
	RefusedLargeBody  = "large body" // of SockJS
)

// Admission has the connections by id. It admits no more connections than its limits allow,
// in total and from one network, and none after it is closed. A place is reserved before
// the connection exists, so that requests that are handled at the same time cannot exceed a
// limit. All methods are safe for concurrent use.
type Admission struct {
	limit      int // of connections; none if not above zero
	perNetwork int // of those from one network; none if not above zero

	mu       sync.RWMutex
	conns    map[string]*Conn
	users    map[string]*Conn      // the first connection of each user, see user.next; nil at first
	networks map[limit.Network]int // connections and reserved places, if there is a limit
	reserved int
	held     int                   // connections that have ended, and whose members are held
	heldFrom map[limit.Network]int // of these, if there is a limit
	closed   bool
	// lowMemory means that no connection is admitted until there is memory again.
	lowMemory bool
	refused   *tally.Names // how often, by reason
	opened    uint64       // connections that were added
}

func newAdmission(limits Limits) *Admission {
	return &Admission{
		limit:      limits.Connections,
		perNetwork: limits.PerNetwork,
		conns:      map[string]*Conn{},
		networks:   map[limit.Network]int{},
		heldFrom:   map[limit.Network]int{},
		refused: tally.NewNames(RefusedFull, RefusedAddress, RefusedMemory, RefusedClosed, RefusedOrigin, RefusedByAccept,
			RefusedBanned, RefusedRate, RefusedAcceptRate, RefusedSlowBody, RefusedLargeBody),
	}
}

// Reserve reserves a place for a connection from that network. Hub.Connect or GiveBack must
// follow. If there is no place, Reserve counts a refusal and returns its reason; otherwise
// it returns "".
func (a *Admission) Reserve(from limit.Network) (refused string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		refused = RefusedClosed
	case a.lowMemory:
		refused = RefusedMemory
	case a.limit > 0 && len(a.conns)+a.reserved >= a.limit:
		refused = RefusedFull
	case a.perNetwork > 0 && from != 0 && a.networks[from] >= a.perNetwork:
		refused = RefusedAddress
	default:
		a.reserved++
		a.countLocked(from, 1)
		return ""
	}
	a.refused.Add(refused)
	return refused
}

func (a *Admission) countLocked(from limit.Network, n int) {
	if a.perNetwork <= 0 || from == 0 {
		return
	}
	a.networks[from] += n
	if a.networks[from] == 0 {
		delete(a.networks, from)
	}
}

// GiveBack returns a reserved place.
func (a *Admission) GiveBack(from limit.Network) {
	a.mu.Lock()
	a.reserved--
	a.countLocked(from, -1)
	a.mu.Unlock()
}

// add registers c in a reserved place, and reports whether it did. It refuses c if the
// Admission has been closed since, or if start returns false; both count as a refusal. start
// is called before find can return c.
func (a *Admission) add(c *Conn, start func() bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved--
	if a.closed || !start() {
		a.refused.Add(RefusedClosed)
		a.countLocked(c.network, -1)
		return false
	}
	a.conns[c.id] = c
	a.opened++
	a.linkLocked(c)
	return true
}

// linkLocked adds c to the connections of its user.
func (a *Admission) linkLocked(c *Conn) {
	if c.UserID() == "" {
		return
	}
	if a.users == nil {
		a.users = map[string]*Conn{}
	}
	u := c.user.Load()
	first := a.users[u.id]
	u.next = first
	if first != nil {
		first.user.Load().prev = c
	}
	a.users[u.id] = c
}

func (a *Admission) unlinkLocked(c *Conn) {
	if c.UserID() == "" {
		return
	}
	u := c.user.Load()
	if u.next != nil {
		u.next.user.Load().prev = u.prev
	}
	switch {
	case u.prev != nil:
		u.prev.user.Load().next = u.next
	case u.next != nil:
		a.users[u.id] = u.next
	default:
		delete(a.users, u.id)
	}
	u.next = nil
	u.prev = nil
}

// setUser gives c a user id, unless it has another one.
func (a *Admission) setUser(c *Conn, id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if has := c.UserID(); has != "" {
		return has == id
	}
	c.user.Store(&user{
		value: c.User(),
		id:    id,
	})
	if a.conns[c.id] == c {
		a.linkLocked(c)
	}
	return true
}

// ofUser returns the connections of a user, newest first.
func (a *Admission) ofUser(user string) (conns []*Conn) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for c := a.users[user]; c != nil; c = c.user.Load().next {
		conns = append(conns, c)
	}
	return conns
}

func (a *Admission) remove(c *Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns[c.id] == c {
		delete(a.conns, c.id)
		a.unlinkLocked(c)
		a.countLocked(c.network, -1)
	}
}

// holdPlace counts a connection that has ended, and whose members are to be held. It returns
// false if the connections and those that can still return are more than may be connected:
// a client that connects again and again must not fill channels with members. The connection
// itself still counts as connected.
func (a *Admission) holdPlace(from limit.Network) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.limit > 0 && a.held+len(a.conns) > a.limit {
		return false
	}
	if a.perNetwork > 0 && from != 0 {
		if a.heldFrom[from]+a.networks[from] > a.perNetwork {
			return false
		}
		a.heldFrom[from]++
	}
	a.held++
	return true
}

// giveBackPlace is called when no member of such a connection is held any more.
func (a *Admission) giveBackPlace(from limit.Network) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held--
	if a.perNetwork <= 0 || from == 0 {
		return
	}
	a.heldFrom[from]--
	if a.heldFrom[from] == 0 {
		delete(a.heldFrom, from)
	}
}

func (a *Admission) find(id string) *Conn {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.conns[id]
}

// all returns the connections, in no order.
func (a *Admission) all() []*Conn {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]*Conn, 0, len(a.conns))
	for _, c := range a.conns {
		all = append(all, c)
	}
	return all
}

// Len returns the number of connections.
func (a *Admission) Len() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.conns)
}

// close makes Reserve and add refuse all connections. It reports whether this was the first
// call.
func (a *Admission) close() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.closed
	a.closed = true
	return first
}

// Refuse counts a refusal for a reason of the caller.
func (a *Admission) Refuse(reason string) { a.refused.Add(reason) }

// Opened returns how many connections were added.
func (a *Admission) Opened() uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.opened
}

// Refused returns how many connections were refused, by reason. It has each reason, also if there was
// no such refusal.
func (a *Admission) Refused() map[string]uint64 { return a.refused.Load() }
