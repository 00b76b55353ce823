package redis

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
)

// Other programs can write to pushy's keys and channels, so data from Redis is untrusted:
// invalid data is skipped. The Server validates names and JSON.
const (
	maxEntry  = 4 << 20 // Redis disconnects subscribers that have 8 MiB queued for a minute
	maxNumber = 1 << 53 // scripts store numbers as doubles
)

// message is one message on a channel's subscription.
type message struct {
	entry  broker.Entry
	forget bool // the kept events were removed, or the members were lost
}

// parseMessage decodes a message. Its first byte is "e" for an event that is not kept, "n"
// for an entry with a number, "x" for the Leave of a member of a node whose lease has
// expired, and "f" for History.Forget.
func parseMessage(text string) (m message, err error) {
	switch {
	case text == "f":
		return message{forget: true}, nil
	case text == "" || len(text) > maxEntry+1024:
		return m, errFormat
	case text[0] == 'e':
		m.entry, err = broker.ParseEntry([]byte(text[1:]))
		if err == nil && m.entry.Kind != broker.Event {
			err = errFormat
		}
		return m, err
	}
	m.entry, err = parseNumbered(text)
	return m, err
}

// headBytes is the length of the part before the epoch.
const headBytes = 1 + 4*8 + 1

// parseNumbered decodes an entry with a number. append.lua defines the format.
func parseNumbered(text string) (e broker.Entry, err error) {
	if len(text) < headBytes {
		return e, errFormat
	}
	var numbers [4]uint64 // the entry's number, the time of the append, the expiry time, a length
	rest := text[1:]
	for i := range numbers {
		var ok bool
		if numbers[i], rest, ok = cutNumber(rest); !ok {
			return e, errFormat
		}
	}
	length := int(rest[0])
	rest = rest[1:]
	if length > len(rest) || !broker.ValidEpoch(rest[:length]) || numbers[0] == 0 {
		return e, errFormat
	}
	epoch, rest := rest[:length], rest[length:]
	switch text[0] {
	case 'n':
		e, err = broker.ParseEntry([]byte(rest))
	case 'x':
		if numbers[3] > uint64(len(rest)) {
			return e, errFormat
		}
		e = broker.Entry{Kind: broker.Leave, Member: rest[:numbers[3]], Owner: rest[numbers[3]:]}
	default:
		err = errFormat
	}
	if err != nil || e.Kind != broker.Event && e.Member == "" {
		return broker.Entry{}, cmp.Or(err, errFormat)
	}
	e.At = broker.Position{Epoch: epoch, Offset: numbers[0]}
	e.Prev = numbers[0] - 1
	e.Time = time.UnixMilli(int64(numbers[1]))
	return e, nil
}

// parseKept decodes an element of the list of a channel's kept events. Events that were
// appended before the server restarted get the current epoch.
func parseKept(top broker.Position, text string) (broker.Entry, error) {
	e, err := parseNumbered(text)
	switch {
	case err != nil:
		return broker.Entry{}, err
	case e.Kind != broker.Event, e.At.Offset > top.Offset, resetReason(e.At.Epoch, top.Epoch) == broker.ResetEpoch:
		return broker.Entry{}, errFormat
	}
	e.At.Epoch = top.Epoch
	return e, nil
}

// cutNumber decodes a number from 0 to 2^53 - 1, which scripts write as a double.
func cutNumber(text string) (n uint64, rest string, ok bool) {
	if len(text) < 8 {
		return 0, "", false
	}
	f := math.Float64frombits(binary.BigEndian.Uint64([]byte(text[:8])))
	ok = f >= 0 && f < maxNumber && f == math.Trunc(f)
	if ok {
		n = uint64(f)
	}
	return n, text[8:], ok
}

// position checks a position that a script returned.
func position(epoch string, offset int64) (broker.Position, error) {
	if !broker.ValidEpoch(epoch) || offset < 0 || offset >= maxNumber {
		return broker.Position{}, fmt.Errorf("position %.40q: %w", epoch, errFormat)
	}
	return broker.Position{Epoch: epoch, Offset: uint64(offset)}, nil
}

// resetReason returns the reason for a change of the epoch. The part of an epoch after the
// hyphen changes when the server restarts.
func resetReason(was, now string) string {
	switch {
	case was == now:
		return broker.ResetGap
	case strings.Split(was, "-")[0] == strings.Split(now, "-")[0]:
		return broker.ResetRestarted
	}
	return broker.ResetEpoch
}

// parseTop decodes the position of a channel's last kept event. event.lua defines the
// format of meta. A meta that is missing or invalid is treated as that of a channel to which
// nothing was appended.
func parseTop(run, base, meta string) broker.Position {
	const numbers = 6 * 8
	if last, _, ok := cutNumber(meta); ok && len(meta) > numbers && broker.ValidEpoch(meta[numbers:]+"-"+run) {
		return broker.Position{Epoch: meta[numbers:] + "-" + run, Offset: last}
	}
	return broker.Position{Epoch: base + "-" + run}
}

// parseState decodes a channel's state. It skips invalid members, and returns the error of
// one of them. Other fields are not pushy's and are ignored.
func parseState(run, base, meta string, fields map[string]string) (s broker.State, skipped error) {
	s.At = parseTop(run, base, meta)
	s.Revision = broker.Position{Epoch: base + "-" + run}
	revision, err := strconv.ParseUint(fields["r"], 10, 53)
	if begins := fields["b"]; err == nil && begins != "" && broker.ValidEpoch(begins+"-"+run) {
		s.Revision = broker.Position{Epoch: begins + "-" + run, Offset: revision}
	}
	for name, value := range fields {
		id, isMember := strings.CutPrefix(name, "m")
		if !isMember {
			continue
		}
		m, err := parseMember(id, value)
		if err != nil {
			skipped = fmt.Errorf("member %.70q: %w", id, err)
			continue
		}
		s.Members = append(s.Members, m)
	}
	slices.SortFunc(s.Members, func(a, b broker.Member) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.ID, b.ID))
	})
	s.On = fields["o"] == "1" && len(s.Members) > 0
	return s, skipped
}

// parseMember decodes a member's field. members.lua defines the format.
func parseMember(id, value string) (m broker.Member, err error) {
	since, rest, ok := cutNumber(value)
	joined, rest, ok2 := cutNumber(rest)
	if !ok || !ok2 || len(rest) < 3*4 || id == "" {
		return m, errFormat
	}
	lengths, rest := rest[:3*4], rest[3*4:]
	var texts [3]string // node, owner, user
	for i := range texts {
		length := int64(binary.BigEndian.Uint32([]byte(lengths[4*i:])))
		if length > int64(len(rest)) {
			return m, errFormat
		}
		texts[i], rest = rest[:length], rest[length:]
	}
	e, err := broker.ParseEntry([]byte(rest))
	if err != nil {
		return m, err
	}
	m = broker.Member{
		ID:    id,
		Node:  texts[0],
		Owner: texts[1],
		User:  texts[2],
		Data:  e.Data,
		State: e.State,
		Since: since,
	}
	if joined > 0 {
		m.Joined = time.UnixMilli(int64(joined))
	}
	return m, nil
}
