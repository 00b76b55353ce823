package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/untrusted"
)

// What a message on a subscription is, by its first byte.
const (
	kindEvent    = 'e'
	kindPresence = 'p'
)

// Whoever may use Redis may write to pushy's keys and channels, so nothing that
// comes from it is trusted. The Server checks names and sizes of what is passed on;
// these bounds keep what is looked at in proportion.
const (
	maxMessage  = 64 << 20
	maxRevision = 1 << 53 // scripts count in doubles
	maxID       = 64
)

// encode gives a message as it goes over the wire: kind, sequence, the lengths of
// node, event and except, and these and the data.
func encode(m pushy.Message) string {
	b := make([]byte, 0, 1+4*binary.MaxVarintLen64+len(m.Node)+len(m.Event)+len(m.Except)+len(m.Data))
	b = append(b, kindEvent)
	b = binary.AppendUvarint(b, m.Seq)
	for _, field := range []string{m.Node, m.Event, m.Except} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	return rueidis.BinaryString(append(b, m.Data...))
}

// decode reads what encode gave. The message has its own copy of the bytes.
func decode(text string) (m pushy.Message, err error) {
	if len(text) == 0 || text[0] != kindEvent || len(text) > maxMessage {
		return m, errFormat
	}
	rest := []byte(text[1:])
	number := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err = errFormat
			return 0
		}
		rest = rest[n:]
		return v
	}
	m.Seq = number()
	for _, field := range []*string{&m.Node, &m.Event, &m.Except} {
		n := number()
		if err != nil || n > uint64(len(rest)) {
			return pushy.Message{}, errFormat
		}
		if !utf8.Valid(rest[:n]) {
			return pushy.Message{}, untrusted.ErrUTF8
		}
		*field, rest = string(rest[:n]), rest[n:]
	}
	if err := untrusted.JSON(rest); err != nil {
		return pushy.Message{}, err
	}
	m.Data = rest
	return m, nil
}

// body is a member as the log has it.
func body(m pushy.Member) string {
	if m.HasData {
		return " 1 " + string(m.JSON)
	}
	return " 0 " + string(m.JSON)
}

// parseMember reads an id and what body gave, without the first blank.
func parseMember(id, hasData, text string) (pushy.Member, error) {
	switch {
	case id == "" || len(id) > maxID || !utf8.ValidString(id):
		return pushy.Member{}, errors.New("an id that is not 1 to 64 bytes of UTF-8")
	case hasData != "0" && hasData != "1":
		return pushy.Member{}, errFormat
	}
	m := pushy.Member{ID: id, HasData: hasData == "1", JSON: []byte(text)}
	if err := untrusted.JSON(m.JSON); err != nil {
		return pushy.Member{}, err
	}
	return m, nil
}

func parseRevision(text string) (uint64, error) {
	revision, err := strconv.ParseUint(text, 10, 64)
	if err != nil || revision >= maxRevision {
		return 0, fmt.Errorf("revision %.30q: %w", text, errFormat)
	}
	return revision, nil
}

// change is one entry as Redis sends it.
type change struct {
	last  uint64 // the revision before; 0 if the log was empty
	count int    // members after
	pushy.Change
}

// parseChange reads what the scripts' tell sends.
func parseChange(text string) (c change, err error) {
	if len(text) < 2 || len(text) > maxMessage || text[0] != kindPresence || text[1] != '+' && text[1] != '-' {
		return c, errFormat
	}
	c.Left = text[1] == '-'
	parts := strings.SplitN(text[2:], " ", 6)
	if len(parts) < 4 || !c.Left && len(parts) != 6 || c.Left && len(parts) != 4 {
		return change{}, errFormat
	}
	var errs [3]error
	c.last, errs[0] = parseRevision(parts[0])
	c.Revision, errs[1] = parseRevision(parts[1])
	c.count, errs[2] = strconv.Atoi(parts[2])
	if err := errors.Join(errs[:]...); err != nil || c.count < 0 || c.Revision == 0 {
		return change{}, errFormat
	}
	if c.Left {
		c.Member.ID = parts[3]
		return c, nil
	}
	if c.Member, err = parseMember(parts[3], parts[4], parts[5]); err != nil {
		return change{}, err
	}
	return c, nil
}

// snapshot reads a channel's hash. It leaves out the members that are broken, and
// returns why the first of them is; other fields are not pushy's and mean nothing.
func snapshot(fields map[string]string) (snap pushy.Snapshot, skipped error) {
	snap.On = fields["o"] == "1"
	if r, ok := fields["r"]; ok {
		revision, err := parseRevision(r)
		if err != nil {
			skipped = err // the next change of the channel gives it a new one
		}
		snap.Revision = revision
	}
	revisions := map[string]uint64{}
	for name, value := range fields {
		id, is := strings.CutPrefix(name, "m")
		if !is {
			continue
		}
		m, revision, err := parseField(id, value)
		if err != nil {
			skipped = fmt.Errorf("member %.70q: %w", id, err)
			continue
		}
		snap.Members = append(snap.Members, m)
		revisions[id] = revision
	}
	slices.SortFunc(snap.Members, func(a, b pushy.Member) int {
		switch ra, rb := revisions[a.ID], revisions[b.ID]; {
		case ra < rb:
			return -1
		case ra > rb:
			return 1
		}
		return strings.Compare(a.ID, b.ID)
	})
	return snap, skipped
}

// parseField reads a member's field: revision, node and body.
func parseField(id, value string) (m pushy.Member, revision uint64, err error) {
	parts := strings.SplitN(value, " ", 4)
	if len(parts) != 4 || parts[1] == "" {
		return m, 0, errFormat
	}
	if revision, err = parseRevision(parts[0]); err != nil {
		return m, 0, err
	}
	m, err = parseMember(id, parts[2], parts[3])
	return m, revision, err
}
