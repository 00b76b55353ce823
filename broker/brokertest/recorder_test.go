package brokertest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// recorder is a testing.TB that remembers failures and passes none on.
type recorder struct {
	testing.TB // for the methods that the suite does not use

	mu       sync.Mutex
	failed   []string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Context() context.Context { return context.Background() }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
	r.mu.Unlock()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.FailNow()
}

func (r *recorder) FailNow() {
	r.mu.Lock()
	if len(r.failed) == 0 {
		r.failed = append(r.failed, "FailNow")
	}
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	r.cleanups = append(r.cleanups, f)
	r.mu.Unlock()
}

// run runs check and the cleanups, and returns what failed.
func (r *recorder) run(check func(t testing.TB)) []string {
	apart := func(f func()) {
		done := make(chan struct{})
		go func() { // it may end by Goexit
			defer close(done)
			f()
		}()
		<-done
	}
	apart(func() { check(r) })
	for f := r.lastCleanup(); f != nil; f = r.lastCleanup() {
		apart(f)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failed)
}

// lastCleanup removes and returns the cleanup that is to run next, or nil.
func (r *recorder) lastCleanup() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cleanups) == 0 {
		return nil
	}
	last := len(r.cleanups) - 1
	f := r.cleanups[last]
	r.cleanups = r.cleanups[:last]
	return f
}
