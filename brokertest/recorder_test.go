package brokertest_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// recorder is a testing.TB that notes failures and passes none on.
type recorder struct {
	testing.TB // for what the suites do not use

	mu       sync.Mutex
	failed   []string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Log(...any)               {}
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Context() context.Context { return context.Background() }

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failed) > 0
}

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

// run returns what is broken after check.
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
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		apart(f)
	}
	return r.failed
}
