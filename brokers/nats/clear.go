package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/gopushy/pushy/internal/guard"
)

// clearing is the clean-up after dead nodes, under the presence's mu.
type clearing struct {
	runs bool
	due  bool // there is more to do than what is under way
}

const (
	clearFirst = time.Second
	clearMost  = 30 * time.Second
)

// clear has the members of dead nodes leave: at once where this node follows the
// channel; elsewhere if it is the first of the living. It tries until it succeeds.
func (p *presence) clear(rank int) {
	select {
	case <-time.After(time.Duration(rank) * rankDelay):
	case <-p.done:
		return
	}
	for _, c := range p.all() {
		c.mu.Lock()
		c.kickLocked()
		c.mu.Unlock()
	}
	if rank > 0 {
		return
	}
	p.mu.Lock()
	p.clearing.due = true
	runs := p.clearing.runs
	p.clearing.runs = true
	p.mu.Unlock()
	if runs {
		return // it sees what is due
	}
	for retry := clearFirst; ; {
		p.mu.Lock()
		due := p.clearing.due
		p.clearing.due, p.clearing.runs = false, due
		p.mu.Unlock()
		if !due {
			return
		}
		err := guard.Call(func() error { return p.clearOnce() })
		if err == nil {
			retry = clearFirst
			continue
		}
		p.mu.Lock()
		p.clearing.due = true
		p.mu.Unlock()
		if !p.isDone() && !errors.Is(err, errUnshared) {
			p.o.notices.Warn("cannot clear up after nodes that are gone; it is tried again", "",
				slog.Any("error", err), slog.Duration("in", retry), guard.Stack(err))
		}
		select {
		case <-time.After(retry/2 + rand.N(retry/2)):
			retry = min(2*retry, clearMost)
		case <-p.done:
			return
		}
	}
}

var errUnshared = errors.New("nats: presence is not shared")

// clearOnce has the members of all dead nodes leave, and deletes their signs of life.
func (p *presence) clearOnce() error {
	_, linked := p.link()
	ctx, cancel := context.WithTimeout(linked, time.Minute)
	defer cancel()
	err := p.clearRest(ctx)
	if linked.Err() != nil {
		return errUnshared // which is logged elsewhere
	}
	return err
}

func (p *presence) clearRest(ctx context.Context) error {
	ids, err := p.stream.nodes(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id != p.id {
			p.nodes.mentioned(id, p.o.Lease)
		}
	}
	logs, err := p.stream.fetch(ctx, p.stream.base+".p.c.*")
	if err != nil {
		return err
	}
	// What fails for one channel or node must not keep the others' members.
	var errs []error
	for subject, entries := range logs {
		channel, ok := p.stream.channel(subject)
		if !ok || !p.needsClearing(entries) {
			continue
		}
		if err := p.settle(ctx, channel); err != nil {
			errs = append(errs, fmt.Errorf("channel %q: %w", channel, err))
		}
	}
	for _, id := range ids {
		if !p.nodes.isDead(id) {
			continue
		}
		if err := p.stream.purge(ctx, p.stream.nodeSubject(id), 0); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", id, err))
		}
	}
	if len(errs) > 1 {
		return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
	}
	return errors.Join(errs...)
}

// needsClearing reports whether a log has members of dead nodes, or none at all.
func (p *presence) needsClearing(entries map[uint64]*entry) bool {
	r, ok := replay(entries, false)
	for _, m := range r.members {
		if m.node != p.id {
			p.nodes.mentioned(m.node, p.o.Lease)
		}
		if p.nodes.isDead(m.node) {
			return true
		}
	}
	return !ok || len(r.members) == 0
}

// settle has a channel's worker run once.
func (p *presence) settle(ctx context.Context, name string) error {
	c, err := p.use(name)
	if err != nil {
		return err
	}
	defer p.leave(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickLocked()
	ctx, cancel := context.WithTimeout(ctx, 3*p.o.Timeout) // others wait for their turn
	defer cancel()
	if err := c.waitLocked(ctx, func() bool { return !c.working || c.alone != nil }); err != nil {
		return err
	}
	return c.alone
}
