package storetest

import (
	"strconv"
	"sync"
	"testing"
)

// prefixes has the prefixes of the tests that are running.
var prefixes struct {
	sync.Mutex
	made int
	of   map[string]string // by the test's name
}

// Prefix returns the same prefix during one run of a test, so that its nodes act as one. Each
// run has another prefix, so that with -count=2 the second does not find the data of the first.
func Prefix(t testing.TB) string {
	prefixes.Lock()
	defer prefixes.Unlock()
	name := t.Name()
	if prefixes.of == nil {
		prefixes.of = map[string]string{}
	}
	if prefixes.of[name] == "" {
		prefixes.made++
		prefixes.of[name] = "test" + strconv.Itoa(prefixes.made)
		t.Cleanup(func() {
			prefixes.Lock()
			delete(prefixes.of, name)
			prefixes.Unlock()
		})
	}
	return prefixes.of[name]
}
