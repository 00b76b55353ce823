package fanout

import (
	"runtime"
	"syscall"
	"time"
)

// shortestPause returns about the shortest time that pause can take. A sleep of Go's runtime takes a
// millisecond or more if there is nothing else to do, because the runtime waits with epoll in
// milliseconds. A thread can wait for less, but it keeps its processor until the runtime takes that
// away, so there must be another one, on which the next event is received.
func shortestPause() time.Duration {
	if runtime.GOMAXPROCS(0) == 1 {
		return time.Millisecond
	}
	return 0
}

// pause is time.Sleep, and exact to a fraction of a millisecond if shortestPause is 0.
func pause(d time.Duration) {
	if shortestPause() > 0 {
		time.Sleep(d)
		return
	}
	began := time.Now()
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // it is no fault if a signal ends it
	if time.Now().Equal(began) {
		time.Sleep(d) // the clock is that of a synctest bubble, in which only Go's timers pass time
	}
}
