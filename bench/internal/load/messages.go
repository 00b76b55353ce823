package load

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// checkEach is the number of clients with permessage-deflate of which one inflates what it receives,
// and checks that it receives every event once and in order. The others count messages: to inflate all
// of them would take more CPU time than the server has for a delivery.
const checkEach = 50

// messages splits the bytes that a client with permessage-deflate receives into the frames of
// WebSockets, of which each is a whole message.
type messages struct {
	head    []byte // the bytes of a header that have arrived
	left    int    // bytes of the payload that have not arrived
	payload []byte // those that have arrived, if the client inflates
	check   bool   // it does
	inflate io.ReadCloser
}

func newMessages(check bool) *messages { return &messages{check: check} }

// The first bytes of the frames that the reader counts, and of those that must be short: heartbeats.
const (
	textFrame     = 0x81
	deflatedFrame = 0xc1
)

// longestPlain is the most bytes of a message that the server sends uncompressed while events are
// published.
const longestPlain = 200

// maxHead is the size of the longest header of a frame that is not masked.
const maxHead = 10

// pass reads what has arrived before the first event.
func (m *messages) pass(p []byte) error {
	return m.frames(p, func(byte, int) error { return nil })
}

// read calls got for each compressed message, with what it inflates to, or with nil if this client
// only counts.
func (m *messages) read(p []byte, got func(message []byte) error) error {
	return m.frames(p, func(first byte, size int) error {
		switch {
		case first == deflatedFrame && m.check:
			message, err := m.inflated()
			if err != nil {
				return err
			}
			return got(message)
		case first == deflatedFrame:
			return got(nil)
		case first == textFrame && size > longestPlain:
			return fmt.Errorf("a message of %d bytes is not compressed", size)
		}
		return nil
	})
}

// frames calls each for every frame that p completes.
func (m *messages) frames(p []byte, each func(first byte, size int) error) error {
	for {
		n, size := frameHead(m.head)
		if n == 0 {
			if len(p) == 0 {
				return nil
			}
			m.head = append(m.head, p[0])
			p = p[1:]
			if n, size = frameHead(m.head); n > 0 {
				m.left = size
				m.payload = m.payload[:0]
			}
			continue
		}
		part := min(m.left, len(p))
		if m.check {
			m.payload = append(m.payload, p[:part]...)
		}
		m.left -= part
		p = p[part:]
		if m.left > 0 {
			return nil
		}
		first := m.head[0]
		m.head = m.head[:0]
		if err := each(first, size); err != nil {
			return err
		}
	}
}

// frameHead returns the sizes of a header and of its payload. That of the header is 0 while it is
// incomplete.
func frameHead(head []byte) (n, size int) {
	if len(head) < 2 {
		return 0, 0
	}
	n = 2
	switch head[1] {
	case 126:
		n = 4
	case 127:
		n = maxHead
	default:
		return n, int(head[1])
	}
	if len(head) < n {
		return 0, 0
	}
	if n == 4 {
		return n, int(binary.BigEndian.Uint16(head[2:]))
	}
	return n, int(binary.BigEndian.Uint64(head[2:]))
}

// inflated returns the message of the payload (RFC 7692, section 7.2.2).
func (m *messages) inflated() ([]byte, error) {
	src := io.MultiReader(bytes.NewReader(m.payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))
	if m.inflate == nil {
		m.inflate = flate.NewReader(src)
	} else if err := m.inflate.(flate.Resetter).Reset(src, nil); err != nil {
		return nil, err
	}
	message, err := io.ReadAll(m.inflate)
	if err != nil {
		return nil, fmt.Errorf("a message that cannot be inflated: %w", err)
	}
	return message, nil
}
