package nats

import "time"

// Kill ends a node's presence as a killed process does.
func (b *Broker) Kill() {
	b.presence.mu.Lock()
	b.presence.closing = true
	b.presence.mu.Unlock()
	b.presence.stop()
}

// Lease returns how long it may be silent.
func (b *Broker) Lease() time.Duration { return b.presence.o.Lease }
