package limit

import (
	"fmt"
	"time"
)

// longest is the largest duration of an option. Longer ones are mistakes, and their sums
// could overflow.
const longest = 366 * 24 * time.Hour

// Range is the range of an option that is a duration. It detects numbers without a unit,
// such as 25 for 25 s.
type Range struct {
	Min, Max time.Duration // if Max is zero, longest is the limit
	Unit     time.Duration // the most likely unit of a number without a unit
}

// Check returns an error if d is not in the range. Negative durations are valid, because they
// turn an option off.
func (r Range) Check(d time.Duration) error {
	most := r.Max
	if most == 0 {
		most = longest
	}
	switch {
	case d < 0:
		return nil
	case d > most:
		return fmt.Errorf("is %v, must be at most %v", d, most)
	case d >= r.Min:
		return nil
	}
	unit := r.Unit
	if d >= time.Microsecond && unit == time.Second {
		unit = time.Millisecond // 25000 was probably meant as 25 s
	}
	err := fmt.Errorf("is %v, must be at least %v", d, r.Min)
	if meant := d * unit; d < time.Millisecond && meant/unit == d && meant >= r.Min && meant <= most {
		err = fmt.Errorf("%w; did you mean %d*time.%s?", err, int64(d), unitNames[unit])
	}
	return err
}

var unitNames = map[time.Duration]string{time.Second: "Second", time.Millisecond: "Millisecond"}
