package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/broker"
)

const (
	cursorPause  = 250 * time.Millisecond // between two writes, if nothing was sent
	cursorRetry  = time.Second
	cursorWatch  = 5 * time.Second // between two reads of a node that does not send
	cursorLife   = 7 * 24 * time.Hour
	cursorRenew  = time.Hour
	cursorDigest = "webhook"
)

// cursor is the position in the log up to which all events were sent. It is in the Ledger, so
// that another node can continue there. Only run uses it.
type cursor struct {
	s       *Sender
	key     string
	taken   bool // this node sends
	saved   broker.Position
	savedAt time.Time
	claimed time.Time // when the record was made to last for cursorLife
	read    time.Time
}

// take makes this node the one that sends, from the position at which the last one has stopped.
// It returns false if the broker cannot tell it now.
func (c *cursor) take() bool {
	s := c.s
	if s.local || c.taken {
		return true
	}
	ctx, cancel := context.WithTimeout(s.ctx, appendTimeout)
	defer cancel()
	claim, err := s.ledger.Claim(ctx, c.key, cursorDigest, cursorLife)
	if err != nil {
		c.failed(err)
		return false
	}
	c.claimed = time.Now()
	c.taken = true
	if claim.State != broker.Finished {
		return true // nothing was sent yet
	}
	sent, err := broker.ParsePosition(string(claim.Answer))
	if err != nil {
		c.failed(err)
		return true
	}
	c.saved = sent
	s.queue.dropSent(sent)
	if !s.view.covers(sent) {
		s.queue.pushFront(s.lostEvent(0, reasonHandover))
	}
	return true
}

// follow removes the events that another node has sent.
func (c *cursor) follow() (wait time.Duration) {
	c.taken = false
	s := c.s
	watch := cursorWatch
	switch n := s.queue.len(); {
	case n == 0:
		return forever
	case n > maxQueued/8:
		watch = cursorPause // so that the queue does not overflow with events that were sent
	}
	if rest := watch - time.Since(c.read); rest > 0 {
		return rest
	}
	c.read = time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, appendTimeout)
	defer cancel()
	records, err := s.ledger.List(ctx, c.key)
	if err != nil {
		c.failed(err)
		return watch
	}
	for _, r := range records {
		if sent, err := broker.ParsePosition(string(r.Answer)); r.Key == c.key && err == nil {
			s.queue.dropSent(sent)
		}
	}
	return watch
}

// save writes the position. It returns how long to wait before the next write, if there is
// something to write.
func (c *cursor) save() (wait time.Duration) {
	s := c.s
	if s.local || !c.taken {
		return forever
	}
	position, ok := s.view.settled()
	if first, waits := s.queue.first(position.Epoch); waits && first <= position.Offset {
		ok = ok && first > 0 // nothing is before the beginning of an epoch
		position.Offset = first - 1
	}
	if !ok || position == c.saved {
		return forever
	}
	if rest := cursorPause - time.Since(c.savedAt); rest > 0 && !s.phase.hurries() {
		return rest
	}
	c.savedAt = time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, appendTimeout)
	defer cancel()
	err := c.write(ctx, position)
	if err != nil {
		c.failed(err)
		if s.hub.Stopping() {
			return forever // the broker may be closed
		}
		return cursorRetry
	}
	c.saved = position
	return forever
}

func (c *cursor) write(ctx context.Context, p broker.Position) error {
	ledger := c.s.ledger
	claim := time.Since(c.claimed) >= cursorRenew
	for {
		if claim {
			if _, err := ledger.Claim(ctx, c.key, cursorDigest, cursorLife); err != nil {
				return err
			}
			c.claimed = time.Now()
		}
		err := ledger.Finish(ctx, c.key, cursorDigest, []byte(p.String()))
		if err == nil || claim || !errors.Is(err, broker.ErrNotOwner) {
			return err
		}
		claim = true // the store was emptied
	}
}

func (c *cursor) failed(err error) {
	if c.s.ctx.Err() == nil && !errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrClosed) {
		c.s.notices.Warn("cannot use the cursor of webhooks; pushy retries", c.s.opts.Name, slog.Any("error", err))
	}
}
