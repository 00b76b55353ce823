package limit

import "time"

// Default sets an option that is zero to its default.
func Default[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Or returns limit, or off if limit is negative, that is, turned off.
func Or[T int | int64 | time.Duration](limit, off T) T {
	if limit < 0 {
		return off
	}
	return limit
}
