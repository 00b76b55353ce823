package triggerhttp

import (
	"context"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

// Repeats remembers the answers of triggers that came with an id, so that a
// publisher may try again without delivering twice. Its zero value is ready.
type Repeats struct {
	mu    sync.Mutex
	known map[string]*repeat
	order []*repeat // oldest first
}

type repeat struct {
	key  string
	at   time.Time
	done chan struct{}
	got  *Answer // nil if it was not delivered; set before done is closed
}

const (
	repeatFor  = 2 * Window // then the timestamp refuses it
	maxRepeats = 65_536
)

// Once calls publish unless a request of the same key was answered within
// repeatFor, whose answer it returns. One that failed is forgotten.
func (rs *Repeats) Once(ctx context.Context, key string, now time.Time, publish func() *Answer) *Answer {
	for {
		rs.mu.Lock()
		rs.expireLocked(now)
		first := rs.known[key]
		if first == nil {
			break
		}
		rs.mu.Unlock()
		if lifecycle.Wait(ctx, first.done) != nil {
			return Unavailable()
		}
		if first.got != nil {
			return first.got
		}
	}
	mine := &repeat{key: key, at: now, done: make(chan struct{})}
	if rs.known == nil {
		rs.known = map[string]*repeat{}
	}
	rs.known[key] = mine
	rs.order = append(rs.order, mine)
	rs.mu.Unlock()

	defer func() { // also if publish panics
		rs.mu.Lock()
		if mine.got == nil && rs.known[key] == mine {
			delete(rs.known, key)
		}
		rs.mu.Unlock()
		close(mine.done)
	}()
	got := publish()
	if got.Delivered() {
		mine.got = got
	}
	return got
}

func (rs *Repeats) expireLocked(now time.Time) {
	for len(rs.order) > 0 && (len(rs.order) >= maxRepeats || now.Sub(rs.order[0].at) >= repeatFor) {
		old := rs.order[0]
		rs.order[0] = nil
		rs.order = rs.order[1:]
		if rs.known[old.key] == old {
			delete(rs.known, old.key)
		}
	}
}
