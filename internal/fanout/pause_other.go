//go:build !linux

package fanout

import "time"

// shortestPause returns about the shortest time that pause can take.
func shortestPause() time.Duration { return time.Millisecond }

// pause is time.Sleep.
func pause(d time.Duration) { time.Sleep(d) }
