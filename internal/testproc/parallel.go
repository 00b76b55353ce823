package testproc

import (
	"flag"
	"runtime"
	"strconv"
)

// Parallel makes at least n tests of this process run at the same time, unless -test.parallel is
// set. It is for tests that mostly wait. TestMain calls it.
func Parallel(n int) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if runtime.GOMAXPROCS(0) < n && !set {
		_ = flag.Set("test.parallel", strconv.Itoa(n)) // every test binary has the flag
	}
}
