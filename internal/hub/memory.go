package hub

// Memory is what a Hub holds in memory for its clients, in bytes. Each part is an estimate.
type Memory struct {
	Members int64 // the members of private channels, on all nodes
	Kept    int64 // the events that channels keep, without those of the broker
	Queued  int64 // joins, leaves and gaps that are not appended yet
}

// queuedBytes is about what one entry of the backlog uses.
const queuedBytes = 512

// Memory returns what the Hub holds. It looks at each channel.
func (h *Hub) Memory() Memory {
	m := Memory{
		Kept:   h.keeper.bytes.Load(),
		Queued: int64(h.backlog.len()) * queuedBytes,
	}
	for _, ch := range h.Channels() {
		if !ch.policy.Private {
			continue
		}
		ch.fan.Lock()
		// The data of a member is in memory as the broker has delivered it, and as clients see it.
		m.Members += 2*ch.replica.bytes + int64(ch.replica.len())*memberBytes
		ch.fan.Unlock()
	}
	return m
}

// memberBytes is about what a Member uses, without its data.
const memberBytes = 400

// FreeKept frees the events that channels keep in memory. They are still in the log of the
// broker, from which clients that reconnect are served.
func (h *Hub) FreeKept() (channels int) { return h.emptyRings(0) }

// SetLowMemory makes the Hub refuse new connections, and stop to do so.
func (h *Hub) SetLowMemory(low bool) {
	a := h.admission
	a.mu.Lock()
	a.lowMemory = low
	a.mu.Unlock()
}

// Stopping reports whether Shutdown or Close has begun.
func (h *Hub) Stopping() bool { return h.stopping.Err() != nil }
