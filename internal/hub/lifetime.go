package hub

import (
	"context"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

type lifetimeState uint8

// The states of a lifetime are idle → opening → live ⇄ lingering → closing → gone. One
// transition runs at a time, and all callers that need its result wait for it.
const (
	idle lifetimeState = iota
	opening
	live
	lingering
	closing
	gone
)

// lifetimePlan has the functions of a lifetime. They are called without a lock, one at a
// time.
type lifetimePlan struct {
	open   func() error
	close  func()
	gone   func() // called when nothing holds the lifetime any more and acquire refuses new holds
	linger time.Duration
	// run runs a transition, at once or in a new goroutine.
	run func(transition func())
}

// lifetime counts the holds of a resource. The first hold opens the resource, and it closes
// when linger has passed since the last hold was released. A lifetime that has closed does
// not open again. All methods are safe for concurrent use.
type lifetime struct {
	plan lifetimePlan

	mu     sync.Mutex
	state  lifetimeState
	change *transition // the current transition, or the last one
	holds  int
	timer  *time.Timer // ends the lingering
}

type transition struct {
	done chan struct{}
	err  error // set before done is closed
}

func newLifetime(plan lifetimePlan) *lifetime { return &lifetime{plan: plan} }

// acquire holds l. If it returns true, l is open, and release must follow. If it returns
// false without an error, l has closed, and the caller needs a new lifetime. The error is
// that of open, which all callers that waited for open receive, or that of ctx.
func (l *lifetime) acquire(ctx context.Context) (bool, error) {
	l.mu.Lock()
	switch l.state {
	case gone:
		l.mu.Unlock()
		return false, nil
	case closing:
		t := l.change
		l.mu.Unlock()
		return false, lifecycle.Wait(ctx, t.done)
	}
	l.holds++
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.state == live || l.state == lingering {
		l.state = live
		l.mu.Unlock()
		return true, nil
	}
	first := l.state == idle
	if first {
		l.beginLocked(opening)
	}
	t := l.change
	l.mu.Unlock()
	if first {
		l.plan.run(l.open)
	}
	err := lifecycle.Wait(ctx, t.done)
	if err == nil {
		err = t.err
	}
	if err != nil {
		l.release()
		return false, err
	}
	return true, nil
}

// release ends a hold.
func (l *lifetime) release() {
	l.mu.Lock()
	l.holds--
	next := l.unheldLocked(l.plan.linger)
	l.mu.Unlock()
	next()
}

// endLingerAndWait closes l now if it lingers, and waits until l has closed if it is
// closing.
func (l *lifetime) endLingerAndWait() {
	l.endLinger()
	l.mu.Lock()
	t := l.change
	wait := l.state == closing
	l.mu.Unlock()
	if wait {
		<-t.done
	}
}

func (l *lifetime) endLinger() {
	l.mu.Lock()
	next := func() {}
	if l.state == lingering {
		l.timer.Stop()
		l.timer = nil
		next = l.unheldLocked(0)
	}
	l.mu.Unlock()
	next()
}

// unheldLocked starts the next transition if nothing holds l. It returns a function that
// the caller must call without the lock.
func (l *lifetime) unheldLocked(linger time.Duration) func() {
	switch {
	case l.holds > 0:
	case l.state == idle:
		// open has failed, and all callers that waited for it have received the error.
		l.state = gone
		return l.plan.gone
	case l.state == live && linger > 0:
		l.state = lingering
		l.timer = time.AfterFunc(linger, l.endLinger)
	case l.state == live, l.state == lingering && linger == 0:
		l.beginLocked(closing)
		return func() { l.plan.run(l.close) }
	}
	return func() {}
}

func (l *lifetime) beginLocked(s lifetimeState) {
	l.state = s
	l.change = &transition{done: make(chan struct{})}
}

func (l *lifetime) open() {
	err := l.plan.open()
	l.mu.Lock()
	l.change.err = err
	l.state = live
	if err != nil {
		l.state = idle
	}
	close(l.change.done)
	next := l.unheldLocked(l.plan.linger) // all callers may have stopped waiting
	l.mu.Unlock()
	next()
}

func (l *lifetime) close() {
	l.plan.close()
	l.mu.Lock()
	l.state = gone
	t := l.change
	l.mu.Unlock()
	l.plan.gone()
	close(t.done)
}
