package calls

import (
	"encoding/binary"

	"github.com/gopushy/pushy/broker"
)

const shortVersion = 1

// Bits of a receipt in the short form of an answer.
const (
	shortReceived = 1 << iota
	shortDuplicate
	shortPosition
	shortEpoch // the epoch follows; otherwise it is that of the channel's last position
)

// Shorten encodes an answer without faults, and without what the body of the request has, for the
// records of a broker.Ledger, which are small. The form is private to this package: a node with
// another version does not understand it, and runs the request again.
func (a *PublishAnswer) Shorten() []byte {
	out := []byte{shortVersion, 0} // and whether there are counts
	if a.Counted {
		out[1] = 1
		out = binary.AppendUvarint(out, uint64(len(a.Silent)))
		for _, node := range a.Silent {
			out = appendText(out, node)
		}
	}
	epochs := map[string]string{}
	n := 0
	for _, e := range a.Events {
		for _, channel := range e.Channels {
			r := &a.Receipts[n]
			n++
			bits := byte(0)
			if r.Received {
				bits |= shortReceived
			}
			if r.Duplicate {
				bits |= shortDuplicate
			}
			if r.Position != (Position{}) {
				bits |= shortPosition
				if epochs[channel] != r.Position.Epoch {
					bits |= shortEpoch
					epochs[channel] = r.Position.Epoch
				}
			}
			out = append(out, bits)
			if bits&shortEpoch != 0 {
				out = appendText(out, r.Position.Epoch)
			}
			if bits&shortPosition != 0 {
				out = binary.AppendUvarint(out, r.Position.Offset)
			}
			if a.Counted {
				out = binary.AppendUvarint(out, r.Subscribers)
			}
		}
	}
	return out
}

func appendText(out []byte, text string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

// Lengthen decodes what Shorten has encoded into an answer with the same Events. It returns false
// if short is invalid, because other programs can write to the store of a Ledger.
func (a *PublishAnswer) Lengthen(short []byte) bool {
	r := shortReader{rest: short}
	if r.byte() != shortVersion {
		return false
	}
	if a.Counted = r.byte() == 1; a.Counted {
		for n := r.number(); n > 0 && !r.bad; n-- {
			a.Silent = append(a.Silent, r.text())
		}
	}
	epochs := map[string]string{}
	for _, e := range a.Events {
		for _, channel := range e.Channels {
			bits := r.byte()
			receipt := Receipt{
				Received:  bits&shortReceived != 0,
				Duplicate: bits&shortDuplicate != 0,
			}
			if bits&shortEpoch != 0 {
				epochs[channel] = r.text()
			}
			if bits&shortPosition != 0 {
				receipt.Position = Position(broker.Position{Epoch: epochs[channel], Offset: r.number()})
			}
			if a.Counted {
				receipt.Subscribers = r.number()
			}
			a.Receipts = append(a.Receipts, receipt)
		}
	}
	return !r.bad && len(r.rest) == 0
}

// shortReader reads the parts of a short form. bad is set if one is missing.
type shortReader struct {
	rest []byte
	bad  bool
}

func (r *shortReader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *shortReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *shortReader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}
