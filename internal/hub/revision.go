package hub

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/broker"
)

// Revision stands for what clients see of the members of a channel at one moment: the revision
// of the last entry in the log and, for clients with PresenceDiff, a digest of the members.
//
// A node that has not followed the channel for long does not know which entries followed a
// revision. With the digest of the members that a client has, the node finds out whether these
// are its own, also if adoptions have increased the revision since.
type Revision struct {
	broker.Position
	Digested bool
	Digest   uint64
}

// String returns the revision in the form "epoch.number" or "epoch.number.digest", or "" for
// the zero Revision.
func (r Revision) String() string {
	text := r.Position.String()
	if r.Digested && text != "" {
		text += "." + strconv.FormatUint(r.Digest, digestBase)
	}
	return text
}

const digestBase = 36

var errRevision = errors.New("the digest of a revision is not valid")

// ParseRevision is the inverse of String.
func ParseRevision(s string) (r Revision, err error) {
	position := s
	epoch, rest, _ := strings.Cut(s, ".")
	if number, digest, digested := strings.Cut(rest, "."); digested {
		position = epoch + "." + number
		r.Digested = true
		r.Digest, err = strconv.ParseUint(digest, digestBase, 64)
		if err != nil || strconv.FormatUint(r.Digest, digestBase) != digest {
			return Revision{}, errRevision
		}
	}
	if r.Position, err = broker.ParsePosition(position); err != nil {
		return Revision{}, err
	}
	return r, nil
}

// digest has the sum of the digests of the members that clients see. It is kept up to date
// after a client has needed it.
type digest struct {
	of  func(data []byte) uint64 // Config.Digest
	on  bool
	sum uint64
}

func (d *digest) add(m *Member) {
	if d.on {
		m.digest = d.of(m.appendShown(make([]byte, 0, 256)))
		d.sum += m.digest
	}
}

func (d *digest) remove(m *Member) {
	if d.on {
		d.sum -= m.digest
	}
}

func (d *digest) change(m *Member) {
	d.remove(m)
	d.add(m)
}

// appendShown appends what clients see of a member, for a digest. It does not depend on the
// node.
func (m *Member) appendShown(text []byte) []byte {
	var flags byte
	if m.Idle {
		flags |= 1
	}
	if m.Data != nil {
		flags |= 2
	}
	text = append(text, flags)
	text = binary.AppendUvarint(text, uint64(m.Tabs))
	text = binary.AppendVarint(text, m.Joined.UnixMilli())
	for _, part := range [][]byte{[]byte(m.ID), m.State, m.Data} {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	return text
}

// digested returns the digest of the members that clients see.
func (r *replica) digested() uint64 {
	if !r.digest.on {
		r.digest.on = true
		for _, m := range r.shown().values() {
			r.digest.add(m)
		}
	}
	return r.digest.sum
}

// since returns the changes of the members after a revision that a client has. It returns nil
// if they are not known: it knows only members that have joined.
func (r *replica) since(at Revision) *Changes {
	if !at.Digested || at.Epoch == "" || at.Epoch != r.revision.Epoch {
		return nil
	}
	sum := r.digested()
	if sum == at.Digest {
		return &Changes{}
	}
	joined, more := r.shown().after(at.Offset, maxReturn)
	if more {
		return nil
	}
	for _, m := range joined {
		sum -= m.digest
	}
	if sum != at.Digest {
		return nil
	}
	return &Changes{Add: joined}
}
