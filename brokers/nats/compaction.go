package nats

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/internal/guard"
)

const (
	// minGarbage is how many entries a log may have beyond three for each member.
	minGarbage = 64
	// What NATS refuses when a log is tidied is tried again after tidyFirst, then
	// after twice as long each time, to tidyMost.
	tidyFirst = time.Second
	tidyMost  = time.Minute
)

// tidying is when a log that could not be tidied is tried again.
type tidying struct {
	next time.Time
	wait time.Duration
}

// tidyLocked deletes what the log no longer needs, if this node wrote last. It gives
// mu away meanwhile.
func (c *channel) tidyLocked(ctx context.Context) {
	stored := len(c.seqs)
	switch {
	case stored == 0, time.Now().Before(c.tidying.next):
		return
	case len(c.members) == 0:
		c.buried = false
		last, seqs := c.last, c.seqs
		c.seqs = nil
		c.mu.Unlock()
		err := c.p.turn(ctx, func(ctx context.Context) error {
			return c.p.stream.purge(ctx, c.subject, last+1)
		})
		c.mu.Lock()
		if err != nil && c.last == last {
			c.seqs = seqs
		}
		c.tidiedLocked(err)
		return
	case stored < minGarbage+3*len(c.members) && !c.buried:
		return
	}
	base, seqs := c.compacted(c.p.id), c.seqs
	if err := c.appendLocked(ctx, base); err != nil {
		c.again = true // the replica may be behind the log
		if !errors.Is(err, errConflict) {
			c.tidiedLocked(err)
		}
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
	err := c.p.turn(ctx, func(ctx context.Context) error { // joining and leaving wait for it
		err := c.p.stream.purge(ctx, c.subject, first)
		for _, seq := range garbage {
			if err == nil {
				err = c.p.stream.delete(ctx, seq)
			}
		}
		return err
	})
	c.mu.Lock()
	c.tidiedLocked(err)
}

// tidiedLocked takes note of what tidying came to. What it has left is deleted
// later, by this node or another.
func (c *channel) tidiedLocked(err error) {
	if err == nil {
		c.tidying = tidying{}
		return
	}
	if c.p.isDone() {
		return
	}
	c.tidying.wait = min(max(2*c.tidying.wait, tidyFirst), tidyMost)
	c.tidying.next = time.Now().Add(c.tidying.wait)
	c.p.o.notices.Warn("cannot delete old presence entries; it is tried again", c.name,
		slog.String("channel", c.name), slog.Any("error", err), slog.Duration("in", c.tidying.wait))
	time.AfterFunc(c.tidying.wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kickLocked() // nothing, if the channel is not in use any more
	})
}

// maxTurns is how many requests about logs are under way at a time: after a
// reconnect all logs are read again, and each has its time only if those before it
// do not take it.
const maxTurns = 32

// turn runs a request about a log when it is its turn, in Options.Timeout. A panic is
// an error.
func (p *presence) turn(ctx context.Context, request func(context.Context) error) error {
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.turns }()
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	return guard.Call(func() error { return request(ctx) })
}
