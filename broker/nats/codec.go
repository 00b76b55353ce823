package nats

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/gopushy/pushy/broker"
)

// The first byte of a message on a channel's subject is its kind.
const (
	formPlain = 'e' // an event that is not kept: its encoding follows
	formKept  = 'k' // a message of a log
)

// formMark is the first byte of a message without content, whose existence matters.
const formMark = 'x'

// Limits of messages.
const (
	maxTail    = 16 // sequences in a message of a log
	maxVersion = 8  // messages of one member that the stream keeps
	maxAdopted = 16 // adoptions in a member's message
	maxText    = 1024
	maxNumber  = 1<<53 - 1
	maxLease   = 24 * time.Hour
)

var errBroken = errors.New("nats: the message is invalid, or was not sent by pushy")

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendNumbers(b []byte, list []uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, n := range list {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// millis encodes a time in milliseconds; the zero time is 0.
func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixMilli(), 0))
}

// cutter decodes the fields of a message. After a field that is missing or invalid, bad is
// set and all fields are zero.
type cutter struct {
	rest []byte
	bad  bool
}

// cut returns a cutter for a message whose first byte must be first.
func cut(data []byte, first byte) *cutter {
	if len(data) == 0 || data[0] != first {
		return &cutter{bad: true}
	}
	return &cutter{rest: data[1:]}
}

func (c *cutter) number() uint64 {
	n, size := binary.Uvarint(c.rest)
	if c.bad || size <= 0 || n > maxNumber {
		c.bad = true
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

func (c *cutter) bytes() []byte {
	n := c.number()
	if c.bad || n > uint64(len(c.rest)) {
		c.bad = true
		return nil
	}
	text := c.rest[:n]
	c.rest = c.rest[n:]
	return text
}

func (c *cutter) text() string {
	text := c.bytes()
	if len(text) > maxText {
		c.bad = true
		return ""
	}
	return string(text)
}

func (c *cutter) numbers(most int) []uint64 {
	n := c.number()
	if n > uint64(most) {
		c.bad = true
	}
	var list []uint64
	for i := uint64(0); i < n && !c.bad; i++ {
		list = append(list, c.number())
	}
	return list
}

func (c *cutter) time() time.Time {
	if n := c.number(); n > 0 {
		return time.UnixMilli(int64(n))
	}
	return time.Time{}
}

// kept is a message of a channel's log. A message without an event means that the log
// continues in another stream, if moved is set, and otherwise that it was emptied.
type kept struct {
	at    broker.Position
	time  time.Time
	moved bool
	sum   uint64        // the bytes of the data of all events of the epoch, up to this one
	tail  []uint64      // sequences of the previous messages, newest first
	entry *broker.Entry // nil without an event
}

func (m kept) encode() []byte {
	b := []byte{formKept}
	b = appendText(b, m.at.Epoch)
	b = binary.AppendUvarint(b, m.at.Offset)
	b = binary.AppendUvarint(b, millis(m.time))
	b = append(b, flag(m.moved))
	b = binary.AppendUvarint(b, m.sum)
	b = appendNumbers(b, m.tail)
	if m.entry != nil {
		b = broker.AppendEntry(b, *m.entry)
	}
	return b
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func decodeKept(data []byte) (kept, error) {
	c := cut(data, formKept)
	m := kept{
		at:    broker.Position{Epoch: c.text(), Offset: c.number()},
		time:  c.time(),
		moved: c.number() != 0,
		sum:   c.number(),
		tail:  c.numbers(maxTail),
	}
	if c.bad || !broker.ValidEpoch(m.at.Epoch) {
		return kept{}, errBroken
	}
	if len(c.rest) == 0 {
		return m, nil
	}
	e, err := broker.ParseEntry(c.rest)
	if err != nil {
		return kept{}, err
	}
	if e.Kind != broker.Event || m.at.Offset == 0 || m.moved {
		return kept{}, errBroken
	}
	e.At = m.at
	e.Prev = m.at.Offset - 1
	e.Time = m.time
	m.entry = &e
	return m, nil
}

// record is the last message of a member's subject. It has the whole state of the member.
type record struct {
	kind           broker.Kind // of the entry that the message appended
	oldOwner       string      // of an Adopt
	member         broker.Member
	joinedWithData bool   // its Join had data
	onAt           uint64 // a sequence before the Join at which State.On was set, or 0
	past           past   // the previous membership with the same id
	adopted        []adoption
	tail           []uint64 // sequences of the older messages of the subject, oldest first

	seq   uint64    // the sequence of the message
	taken time.Time // when this node received it
}

// past is a membership that has ended. since and left are the sequences of its Join and Leave.
type past struct {
	since, left    uint64
	joinedWithData bool
}

// adoption records the owner from which a member was adopted.
type adoption struct {
	owner string
	until time.Time
}

func (r *record) left() bool { return r.kind == broker.Leave }

// remembers reports whether the record has an adoption that has not expired.
func (r *record) remembers(t time.Time) bool {
	return slices.ContainsFunc(r.adopted, func(a adoption) bool { return t.Before(a.until) })
}

// expects returns the owner that the member had before.
func (r *record) expects() string {
	if r.kind == broker.Adopt {
		return r.oldOwner
	}
	return r.member.Owner
}

const formRecord = 'm'

func (r *record) encode() []byte {
	b := []byte{formRecord, flag(r.joinedWithData)}
	for _, n := range []uint64{r.member.Since, r.onAt, r.past.since, r.past.left, uint64(flag(r.past.joinedWithData))} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendText(b, r.member.Node)
	b = appendNumbers(b, r.tail)
	b = binary.AppendUvarint(b, uint64(len(r.adopted)))
	for _, a := range r.adopted {
		b = appendText(b, a.owner)
		b = binary.AppendUvarint(b, millis(a.until))
	}
	return broker.AppendEntry(b, broker.Entry{
		Kind:     r.kind,
		Member:   r.member.ID,
		Owner:    r.member.Owner,
		OldOwner: r.oldOwner,
		User:     r.member.User,
		Joined:   r.member.Joined,
		Data:     r.member.Data,
		State:    r.member.State,
	})
}

// decodeRecord decodes the message of a member's subject that has the sequence seq.
func decodeRecord(data []byte, member string, seq uint64) (*record, error) {
	c := cut(data, formRecord)
	r := &record{seq: seq, joinedWithData: c.number() != 0}
	r.member.Since, r.onAt = c.number(), c.number()
	r.past = past{
		since:          c.number(),
		left:           c.number(),
		joinedWithData: c.number() != 0,
	}
	r.member.Node = c.text()
	r.tail = c.numbers(maxVersion)
	adopted := c.number()
	if c.bad || adopted > maxAdopted {
		return nil, errBroken
	}
	for range adopted {
		r.adopted = append(r.adopted, adoption{owner: c.text(), until: c.time()})
	}
	if c.bad {
		return nil, errBroken
	}
	e, err := broker.ParseEntry(c.rest)
	if err != nil {
		return nil, err
	}
	isNew := r.member.Since == 0
	if e.Kind == broker.Event || e.Member != member || r.member.Since >= seq || isNew != (e.Kind == broker.Join) {
		return nil, errBroken
	}
	if e.Kind == broker.Join {
		r.member.Since = seq
	}
	if r.onAt > r.member.Since || r.past.left > r.member.Since || r.past.since > r.past.left || !older(r.tail, seq) {
		return nil, errBroken
	}
	r.kind = e.Kind
	r.oldOwner = e.OldOwner
	r.member.ID = e.Member
	r.member.Owner = e.Owner
	r.member.User = e.User
	r.member.Joined = e.Joined
	r.member.Data = e.Data
	r.member.State = e.State
	return r, nil
}

// older reports whether the sequences are in ascending order and all below seq.
func older(list []uint64, seq uint64) bool {
	return slices.IsSorted(list) && (len(list) == 0 || list[len(list)-1] < seq)
}

// heartbeat is the message by which a node renews its lease. A lease of 0 means that another
// node has declared the node dead. A decoder skips what follows the fields that it knows, and
// fields at the end can be missing.
type heartbeat struct {
	lease    time.Duration
	settings map[string]string
	closed   bool // the node was closed; its members remain until the lease has expired
}

const formHeartbeat = 'n'

func (s heartbeat) encode() []byte {
	b := binary.AppendUvarint([]byte{formHeartbeat}, uint64(s.lease.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(len(s.settings)))
	for name, value := range s.settings {
		b = appendText(appendText(b, name), value)
	}
	if s.closed {
		b = append(b, flag(s.closed))
	}
	return b
}

// maxSettings is the maximum number of settings of a node.
const maxSettings = 256

func decodeHeartbeat(data []byte) (heartbeat, error) {
	c := cut(data, formHeartbeat)
	lease, count := c.number(), c.number()
	if c.bad || lease > uint64(maxLease.Milliseconds()) || count > maxSettings {
		return heartbeat{}, errBroken
	}
	s := heartbeat{lease: time.Duration(lease) * time.Millisecond, settings: map[string]string{}}
	for range count {
		name, value := c.text(), c.text()
		s.settings[name] = value
	}
	if len(c.rest) > 0 {
		s.closed = c.number() != 0
	}
	if c.bad {
		return heartbeat{}, errBroken
	}
	return s, nil
}

// claim is a record of the Ledger, or of an entry's ID.
type claim struct {
	key, digest string
	until       time.Time
	answered    bool
	answer      []byte
}

const formClaim = 'c'

func (r claim) encode() []byte {
	b := appendText(appendText([]byte{formClaim}, r.key), r.digest)
	b = binary.AppendUvarint(b, millis(r.until))
	return append(append(b, flag(r.answered)), r.answer...)
}

func decodeClaim(data []byte) (claim, error) {
	c := cut(data, formClaim)
	r := claim{
		key:      c.text(),
		digest:   c.text(),
		until:    c.time(),
		answered: c.number() != 0,
	}
	if c.bad || !r.answered && len(c.rest) > 0 {
		return claim{}, errBroken
	}
	if r.answered {
		r.answer = append([]byte{}, c.rest...)
	}
	return r, nil
}

// encodeResult encodes an Appended as the answer in the record of an entry's ID.
func encodeResult(a broker.Appended) []byte {
	return append([]byte{byte(a.Receivers)}, a.At.String()...)
}

func decodeResult(answer []byte) (broker.Appended, error) {
	if len(answer) == 0 || answer[0] > byte(broker.Some) {
		return broker.Appended{}, errBroken
	}
	at, err := broker.ParsePosition(string(answer[1:]))
	return broker.Appended{At: at, Duplicate: true, Receivers: broker.Receivers(answer[0])}, err
}
