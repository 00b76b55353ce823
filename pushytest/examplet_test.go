package pushytest_test

import (
	"fmt"
)

// exampleT is the test of an Example: what fails panics.
type exampleT struct{ cleanups []func() }

func (*exampleT) Helper() {}

func (*exampleT) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (*exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) end() {
	for i := len(t.cleanups); i > 0; i-- {
		t.cleanups[i-1]()
	}
}
