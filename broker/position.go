package broker

import (
	"errors"
	"strconv"
	"strings"
)

// Position is a place in a channel's log: that of a kept event, or, as a revision, that of
// a member entry. Only positions of the same epoch can be compared.
type Position struct {
	Epoch  string
	Offset uint64
}

// maxOffset is the largest offset that a JavaScript number represents exactly.
const maxOffset = 1<<53 - 1

// maxEpoch is how many bytes an epoch may have.
const maxEpoch = 64

// String returns the position in the form "epoch.offset", or "" for the zero
// Position.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return p.Epoch + "." + strconv.FormatUint(p.Offset, 10)
}

var errPosition = errors.New(`broker: a position has the form "epoch.offset"`)

// ParsePosition is the inverse of String. An epoch consists of 1 to 64 letters,
// digits, "-" and "_"; an offset is a decimal number below 2^53 without leading
// zeros. The empty string is the zero Position.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	epoch, number, ok := strings.Cut(s, ".")
	if !ok || !ValidEpoch(epoch) || len(number) > 1 && number[0] == '0' {
		return Position{}, errPosition
	}
	offset, err := strconv.ParseUint(number, 10, 64)
	if err != nil || offset > maxOffset {
		return Position{}, errPosition
	}
	return Position{Epoch: epoch, Offset: offset}, nil
}

// ValidEpoch reports whether s can be an epoch.
func ValidEpoch(s string) bool {
	if s == "" || len(s) > maxEpoch {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
