package limit

import (
	"fmt"
	"time"
)

// longest is the longest that a duration may be: longer ones are mistakes, and
// sums of them overflow.
const longest = 366 * 24 * time.Hour

// Range is what a duration must be to be taken for what its writer meant.
type Range struct {
	Min, Max time.Duration // longest if Max is zero
	Unit     time.Duration // that a bare number most likely was meant in
}

// Check returns what is wrong with d, or nil. Negative ones are off, and right.
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
		unit = time.Millisecond // 25000 for 25 s
	}
	err := fmt.Errorf("is %v, must be at least %v", d, r.Min)
	if meant := d * unit; d < time.Millisecond && meant/unit == d && meant >= r.Min && meant <= most {
		err = fmt.Errorf("%w; did you mean %d*time.%s?", err, int64(d), unitNames[unit])
	}
	return err
}

var unitNames = map[time.Duration]string{time.Second: "Second", time.Millisecond: "Millisecond"}
