package lifecycle

import (
	"runtime"
	"strings"
)

// CalledFrom reports whether a function whose full name ends with one of names
// is on the caller's stack.
func CalledFrom(names ...string) bool {
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		for _, name := range names {
			if strings.HasSuffix(frame.Function, name) {
				return true
			}
		}
		if !more {
			return false
		}
	}
}
