package limit

import "time"

// Default gives an option that was left out its value.
func Default[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Or gives a limit that is off its largest value.
func Or[T int | int64 | time.Duration](limit, off T) T {
	if limit < 0 {
		return off
	}
	return limit
}
