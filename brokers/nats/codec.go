package nats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/untrusted"
)

// Messages begin with the version of their form, so that nodes of two releases
// can tell that they do not understand each other.
const codecVersion = 1

var errCodec = errors.New("nats: a message of another version, or of no node of ours")

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// cutter takes fields off a message. After one that is not there all are zero.
type cutter struct {
	rest []byte
	bad  bool
}

func cut(data []byte) *cutter {
	c := &cutter{rest: data}
	c.bad = c.octet() != codecVersion
	return c
}

func (c *cutter) octet() byte {
	if c.bad || len(c.rest) == 0 {
		c.bad = true
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

func (c *cutter) number() uint64 {
	n, size := binary.Uvarint(c.rest)
	if c.bad || size <= 0 {
		c.bad = true
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

// text aliases the message, which nobody changes.
func (c *cutter) text() []byte {
	n := c.number()
	if c.bad || n > uint64(len(c.rest)) {
		c.bad = true
		return nil
	}
	text := c.rest[:n:n]
	c.rest = c.rest[n:]
	return text
}

// encodeEvent is a channel event on its way.
func encodeEvent(m pushy.Message) []byte {
	b := make([]byte, 0, 32+len(m.Node)+len(m.Except)+len(m.Event)+len(m.Data))
	b = append(b, codecVersion)
	b = binary.AppendUvarint(b, m.Seq)
	b = appendText(b, m.Node)
	b = appendText(b, m.Except)
	b = appendText(b, m.Event)
	return append(b, m.Data...)
}

// maxField bounds the names and ids of a message.
const maxField = 256

// decodeEvent reads what encodeEvent gave, or what others have sent.
func decodeEvent(data []byte) (m pushy.Message, err error) {
	c := cut(data)
	m.Seq = c.number()
	node, except, event := c.text(), c.text(), c.text()
	switch {
	case c.bad:
		return m, errCodec
	case len(node) > maxField || len(except) > maxField:
		return m, errors.New("nats: a message with an id that is too long")
	case !utf8.Valid(node) || !utf8.Valid(except):
		return m, untrusted.ErrUTF8
	}
	m.Node, m.Except, m.Event = string(node), string(except), string(event)
	if m.Event != pushy.EventResync {
		if err := names.Event(m.Event); err != nil {
			return m, fmt.Errorf("nats: a message whose event name %w", err)
		}
	}
	m.Data = c.rest
	return m, untrusted.JSON(m.Data)
}

// checkMember checks a member of a presence log. The Server checks what its JSON
// holds.
func checkMember(m pushy.Member) error {
	if !names.IsToken(m.ID) {
		return fmt.Errorf("nats: a member whose id is not 1 to 64 of A-Z a-z 0-9 _ -: %.70q", m.ID)
	}
	return untrusted.JSON(m.JSON)
}
