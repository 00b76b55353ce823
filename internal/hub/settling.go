package hub

import (
	"sync"
	"time"
)

// settling returns for how long this node may still lack members, because it serves alone
// and has begun a moment ago; clients that were connected to its predecessor are returning.
func (h *Hub) settling() time.Duration {
	if !h.cfg.Local {
		return 0
	}
	return max(0, h.cfg.Lease-time.Since(h.began))
}

// issued has the ids of the members of a node that is settling. A member that another process
// had can return to it with the id that the other clients still have. A member of this process
// that has left cannot.
type issued struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

// add reports whether the id is new.
func (i *issued) add(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ids == nil {
		i.ids = map[string]struct{}{}
	}
	_, known := i.ids[id]
	i.ids[id] = struct{}{}
	return !known
}

// clear frees the ids.
func (i *issued) clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ids = nil
}

// newMemberID returns the id of a new member.
func (h *Hub) newMemberID() string {
	id := h.cfg.NewMemberID()
	switch {
	case h.settling() > 0:
		h.issued.add(id)
	case h.settled.CompareAndSwap(false, true):
		h.issued.clear()
	}
	return id
}

// restoreID gives m the id of a member that left with an earlier process, if this node is
// settling and has not given the id to a member. The key has proved that the client had it, and
// as the same user.
func (h *Hub) restoreID(m *membership, id string) {
	if id == "" || h.settling() == 0 || !h.issued.add(id) {
		return
	}
	m.id = id
	m.entrance = moved
}
