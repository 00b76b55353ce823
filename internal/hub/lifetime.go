package hub

import (
	"context"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

type lifetimeState uint8

// A lifetime goes idle → opening → live ⇄ lingering → closing → gone. One
// transition runs at a time, and everybody who needs its outcome waits for it.
const (
	idle lifetimeState = iota
	opening
	live
	lingering
	closing
	gone
)

// lifetimePlan is what a lifetime does. Its funcs are called without a lock, one at a time.
type lifetimePlan struct {
	open   func() error
	close  func()
	gone   func() // nothing holds it any more, nor ever will
	linger time.Duration
	// run runs a transition, at once or in a goroutine of its own.
	run func(transition func())
}

// lifetime is shared by those that hold it: the first hold opens it, and some time
// after the last is given back it closes. Then it is gone for good. All methods
// are safe for concurrent use.
type lifetime struct {
	plan lifetimePlan

	mu     sync.Mutex
	state  lifetimeState
	change *transition // the one that runs, or ran last
	holds  int
	timer  *time.Timer // ends the lingering
}

type transition struct {
	done chan struct{}
	err  error // set before done is closed
}

func newLifetime(plan lifetimePlan) *lifetime { return &lifetime{plan: plan} }

// acquire holds l, which is open when it returns true: release gives the hold
// back. False without an error means that l is gone or going; there will have
// to be a new one. The error is open's, for all who waited for it, or ctx's.
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

// release gives a hold back.
func (l *lifetime) release() {
	l.mu.Lock()
	l.holds--
	next := l.unheldLocked(l.plan.linger)
	l.mu.Unlock()
	next()
}

// endLingerAndWait closes l now if it lingers, and waits for it if it is closing.
func (l *lifetime) endLingerAndWait() {
	l.endLinger()
	l.mu.Lock()
	t, wait := l.change, l.state == closing
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

// unheldLocked begins what a lifetime does when nothing holds it, if nothing does.
// It returns what is to be done without the lock.
func (l *lifetime) unheldLocked(linger time.Duration) func() {
	switch {
	case l.holds > 0:
	case l.state == idle:
		// Open failed, and all who waited for it have seen that.
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
	next := l.unheldLocked(l.plan.linger) // they may all have given up
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
