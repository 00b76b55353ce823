package nats

import "context"

// tidyLocked deletes what the log no longer needs, if this node wrote last.
func (c *channel) tidyLocked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.p.o.Timeout) // joining and leaving wait for it
	defer cancel()
	stored := len(c.seqs)
	switch {
	case stored == 0:
		return
	case len(c.members) == 0:
		c.buried = false
		last := c.last
		c.seqs = nil
		c.mu.Unlock()
		c.tidied(c.p.stream.purge(ctx, c.subject, last+1))
		c.mu.Lock()
		return
	case stored < minGarbage+3*len(c.members) && !c.buried:
		return
	}
	base, seqs := c.compacted(c.p.id), c.seqs
	if err := c.appendLocked(ctx, base); err != nil {
		c.again = true
		return
	}
	c.buried = false
	keep := map[uint64]bool{base.seq: true}
	first := base.seq
	for _, rev := range base.live {
		keep[rev/maxChanges] = true
		first = min(first, rev/maxChanges)
	}
	var garbage []uint64
	for _, seq := range seqs {
		if seq > first && !keep[seq] {
			garbage = append(garbage, seq)
		}
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	err := c.p.stream.purge(ctx, c.subject, first)
	for _, seq := range garbage {
		if err == nil {
			err = c.p.stream.delete(ctx, seq)
		}
	}
	c.tidied(err)
}

// tidied takes note of what a deletion came to. What it has left is deleted by
// whoever tidies next.
func (c *channel) tidied(err error) {
	if err != nil && !c.p.isDone() {
		c.p.o.Logger.Debug("cannot delete old presence entries", "channel", c.name, "error", err)
	}
}

// minGarbage is how many entries a log may have beyond three for each member.
const minGarbage = 64
