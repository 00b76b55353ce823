package limit

import (
	"reflect"
	"time"
)

// Default gives an option that was left out its value.
func Default[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// IfNil gives a func that was left out one that does nothing.
func IfNil[F any](field *F, nothing F) {
	if reflect.ValueOf(field).Elem().IsNil() {
		*field = nothing
	}
}

// Or gives a limit that is off its largest value.
func Or[T int | int64 | time.Duration](limit, off T) T {
	if limit < 0 {
		return off
	}
	return limit
}
