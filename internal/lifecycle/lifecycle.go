// Package lifecycle keeps what must begin before it is used and end after its
// last use: a shared thing's life, and the goroutines a server waits for.
package lifecycle

import (
	"context"
	"sync"
	"time"
)

type state uint8

// A Life goes idle → opening → live ⇄ lingering → closing → gone. One
// transition runs at a time, and all who need its outcome wait for it.
const (
	idle state = iota
	opening
	live
	lingering
	closing
	gone
)

// Plan is what a Life does. Its funcs are called without a lock, one at a time.
type Plan struct {
	Open   func() error
	Close  func()
	Gone   func() // nothing holds it any more, nor ever will
	Linger time.Duration
	// Run runs a transition, at once or in a goroutine of its own.
	Run func(transition func())
}

// Life is shared by those that hold it: the first hold opens it, and some time
// after the last is given back it closes. Then it is gone for good. All methods
// are safe for concurrent use.
type Life struct {
	plan Plan

	mu     sync.Mutex
	state  state
	change *transition // the one that runs, or ran last
	holds  int
	timer  *time.Timer // ends the lingering
}

type transition struct {
	done chan struct{}
	err  error // set before done is closed
}

// New returns an idle Life.
func New(plan Plan) *Life { return &Life{plan: plan} }

// Acquire holds l, which is open when it returns true: Release gives the hold
// back. False without an error means that l is gone or going; there will have
// to be a new one. The error is Open's, for all who waited for it, or ctx's.
func (l *Life) Acquire(ctx context.Context) (bool, error) {
	l.mu.Lock()
	switch l.state {
	case gone:
		l.mu.Unlock()
		return false, nil
	case closing:
		t := l.change
		l.mu.Unlock()
		return false, Wait(ctx, t.done)
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
		l.plan.Run(l.open)
	}
	err := Wait(ctx, t.done)
	if err == nil {
		err = t.err
	}
	if err != nil {
		l.Release()
		return false, err
	}
	return true, nil
}

// Wait waits for done, as long as ctx allows.
func Wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done: // even if ctx has ended too
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives a hold back.
func (l *Life) Release() {
	l.mu.Lock()
	l.holds--
	next := l.unheldLocked(l.plan.Linger)
	l.mu.Unlock()
	next()
}

// EndLinger closes l now if it lingers, and waits for it if it is closing.
func (l *Life) EndLinger() {
	l.endLinger()
	l.mu.Lock()
	t, wait := l.change, l.state == closing
	l.mu.Unlock()
	if wait {
		<-t.done
	}
}

func (l *Life) endLinger() {
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

// unheldLocked begins what a Life does when nothing holds it, if nothing does.
// It returns what is to be done without the lock.
func (l *Life) unheldLocked(linger time.Duration) func() {
	switch {
	case l.holds > 0:
	case l.state == idle:
		// Open failed, and all who waited for it have seen that.
		l.state = gone
		return l.plan.Gone
	case l.state == live && linger > 0:
		l.state = lingering
		l.timer = time.AfterFunc(linger, l.endLinger)
	case l.state == live, l.state == lingering && linger == 0:
		l.beginLocked(closing)
		return func() { l.plan.Run(l.close) }
	}
	return func() {}
}

func (l *Life) beginLocked(s state) {
	l.state = s
	l.change = &transition{done: make(chan struct{})}
}

func (l *Life) open() {
	err := l.plan.Open()
	l.mu.Lock()
	l.change.err = err
	l.state = live
	if err != nil {
		l.state = idle
	}
	close(l.change.done)
	next := l.unheldLocked(l.plan.Linger) // they may all have given up
	l.mu.Unlock()
	next()
}

func (l *Life) close() {
	l.plan.Close()
	l.mu.Lock()
	l.state = gone
	t := l.change
	l.mu.Unlock()
	l.plan.Gone()
	close(t.done)
}
