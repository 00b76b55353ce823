package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The encoding of an Entry is its format version, one byte, and then fields in
// any order: a tag and the length of the value as unsigned varints, and the
// value. A field that is zero is left out, one that is not known is skipped, so
// that nodes of a newer release of the same format can add fields.
const (
	tagKind = iota + 1
	tagEvent
	tagExcept // once for each
	tagFrom
	tagLatest
	tagDroppable
	tagKeepSize
	tagKeepTTL
	tagKeepBytes
	tagMember
	tagOwner
	tagOldOwner
	tagData
	tagID
	tagUser
	tagJoined // Unix time in milliseconds
	tagState
)

// maxExcept bounds how many connections an Entry may leave out.
const maxExcept = 64

// AppendEntry appends the encoding of e to dst. The encoding does not contain At, Prev and
// Time: a broker stores them beside the entry.
func AppendEntry(dst []byte, e Entry) []byte {
	dst = append(dst, FormatVersion)
	dst = appendNumber(dst, tagKind, uint64(e.Kind))
	dst = appendString(dst, tagEvent, e.Event)
	for _, id := range e.Except {
		dst = appendString(dst, tagExcept, id)
	}
	dst = appendString(dst, tagFrom, e.From)
	dst = appendString(dst, tagLatest, e.Latest)
	if e.Droppable {
		dst = appendNumber(dst, tagDroppable, 1)
	}
	dst = appendNumber(dst, tagKeepSize, uint64(min(max(e.Keep.Size, 0), maxNumber-1)))
	dst = appendNumber(dst, tagKeepTTL, milliseconds(e.Keep.TTL))
	dst = appendNumber(dst, tagKeepBytes, uint64(min(max(e.Keep.Bytes, 0), maxNumber-1)))
	dst = appendString(dst, tagMember, e.Member)
	dst = appendString(dst, tagOwner, e.Owner)
	dst = appendString(dst, tagOldOwner, e.OldOwner)
	dst = appendString(dst, tagUser, e.User)
	if !e.Joined.IsZero() {
		dst = appendNumber(dst, tagJoined, uint64(max(e.Joined.UnixMilli(), 0)))
	}
	if e.Data != nil {
		dst = appendHead(dst, tagData, len(e.Data))
		dst = append(dst, e.Data...)
	}
	if e.State != nil {
		dst = appendHead(dst, tagState, len(e.State))
		dst = append(dst, e.State...)
	}
	return appendString(dst, tagID, e.ID)
}

func appendHead(dst []byte, tag uint64, length int) []byte {
	dst = binary.AppendUvarint(dst, tag)
	return binary.AppendUvarint(dst, uint64(length))
}

func appendString(dst []byte, tag uint64, s string) []byte {
	if s == "" {
		return dst
	}
	dst = appendHead(dst, tag, len(s))
	return append(dst, s...)
}

func appendNumber(dst []byte, tag, n uint64) []byte {
	if n == 0 {
		return dst
	}
	var buf [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(buf[:], n)
	dst = appendHead(dst, tag, size)
	return append(dst, buf[:size]...)
}

// milliseconds rounds up what is positive, because a TTL of 0 is none.
func milliseconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64(max(d.Milliseconds(), 1))
}

var errBroken = errors.New("broker: broken entry")

// ParseEntry decodes what AppendEntry encoded. The result shares no memory with b. The
// error for an entry of another format wraps ErrVersion. ParseEntry does not validate the
// strings and Data: the node that receives the entry does.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if len(b) == 0 {
		return e, errBroken
	}
	if b[0] != FormatVersion {
		return e, fmt.Errorf("%w: %d, this node writes %d", ErrVersion, b[0], FormatVersion)
	}
	b = b[1:]
	for len(b) > 0 {
		var tag uint64
		var value []byte
		var err error
		if tag, value, b, err = cutField(b); err != nil {
			return Entry{}, err
		}
		if err := e.set(tag, value); err != nil {
			return Entry{}, err
		}
	}
	if e.Kind < Event || e.Kind > Adopt {
		return Entry{}, errBroken
	}
	return e, nil
}

func cutField(b []byte) (tag uint64, value, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, errBroken
	}
	b = b[n:]
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return 0, nil, nil, errBroken
	}
	b = b[n:]
	return tag, b[:length], b[length:], nil
}

func (e *Entry) set(tag uint64, value []byte) error {
	switch tag {
	case tagEvent:
		e.Event = string(value)
	case tagExcept:
		if len(value) == 0 || len(e.Except) >= maxExcept {
			return errBroken
		}
		e.Except = append(e.Except, string(value))
	case tagFrom:
		e.From = string(value)
	case tagLatest:
		e.Latest = string(value)
	case tagMember:
		e.Member = string(value)
	case tagOwner:
		e.Owner = string(value)
	case tagOldOwner:
		e.OldOwner = string(value)
	case tagUser:
		e.User = string(value)
	case tagID:
		e.ID = string(value)
	case tagData:
		e.Data = append(make([]byte, 0, len(value)), value...)
	case tagState:
		e.State = append(make([]byte, 0, len(value)), value...)
	case tagJoined:
		milliseconds, n := binary.Uvarint(value)
		if n != len(value) || milliseconds > maxOffset {
			return errBroken
		}
		if milliseconds > 0 {
			e.Joined = time.UnixMilli(int64(milliseconds))
		}
	case tagKeepTTL:
		milliseconds, n := binary.Uvarint(value)
		if n != len(value) || milliseconds > maxTTL {
			return errBroken
		}
		e.Keep.TTL = time.Duration(milliseconds) * time.Millisecond
	case tagKind, tagDroppable, tagKeepSize, tagKeepBytes:
		return e.setNumber(tag, value)
	}
	return nil
}

const (
	maxNumber = 1 << 31                                  // keeps numbers within an int
	maxTTL    = uint64(math.MaxInt64 / time.Millisecond) // milliseconds in a Duration
)

func (e *Entry) setNumber(tag uint64, value []byte) error {
	number, n := binary.Uvarint(value)
	if n != len(value) || number >= maxNumber {
		return errBroken
	}
	switch tag {
	case tagKind:
		if number > uint64(Adopt) {
			return errBroken
		}
		e.Kind = Kind(number)
	case tagDroppable:
		e.Droppable = number != 0
	case tagKeepSize:
		e.Keep.Size = int(number)
	case tagKeepBytes:
		e.Keep.Bytes = int(number)
	}
	return nil
}
