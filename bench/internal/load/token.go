package load

import (
	"bytes"
	"fmt"
	"strings"
)

// An event's payload is {"t":"@@00000042","p":"xxx…"}. The reader searches the bytes for the
// token, whatever the frames and batches around it are, and skips the padding. So the load
// generator needs no parsing for a delivery.
const (
	tokenMark = "@@"
	tokenLen  = len(tokenMark) + 8

	payloadHead = `{"t":"`
	payloadPad  = `","p":"`
	payloadTail = `"}`
	minPayload  = len(payloadHead) + tokenLen + len(payloadPad) + len(payloadTail)
)

// payload returns the data of an event, which has size bytes.
func payload(dst []byte, seq uint32, size int) []byte {
	dst = append(dst, payloadHead+tokenMark...)
	dst = fmt.Appendf(dst, "%08d", seq)
	dst = append(dst, payloadPad...)
	dst = append(dst, strings.Repeat("x", size-minPayload)...)
	return append(dst, payloadTail...)
}

// token finds the first token in the data of a whole message.
func token(b []byte) (seq uint32, found bool) {
	for {
		_, after, found := bytes.Cut(b, []byte(tokenMark))
		if !found || len(after) < tokenLen-len(tokenMark) {
			return 0, false
		}
		if seq, ok := number(after[:tokenLen-len(tokenMark)]); ok {
			return seq, true
		}
		b = after
	}
}

// room is the number of bytes that a buffer must have before the bytes that are read, for the
// rest of an earlier read.
const room = tokenLen

// scan finds the tokens in buf[room:] and calls got for each, in order. pad is the length of
// the padding after a token.
func (c *client) scan(buf []byte, pad int, got func(seq uint32)) {
	from := room - c.carn
	copy(buf[from:], c.carry[:c.carn])
	c.carn = 0
	b := buf[from:]
	if n := min(c.skip, len(b)); n > 0 {
		c.skip -= n
		b = b[n:]
	}
	for {
		i := bytes.Index(b, []byte(tokenMark))
		if i < 0 {
			if len(b) > 0 && b[len(b)-1] == tokenMark[0] {
				c.keep(b[len(b)-1:])
			}
			return
		}
		b = b[i:]
		if len(b) < tokenLen {
			c.keep(b)
			return
		}
		seq, ok := number(b[len(tokenMark):tokenLen])
		if !ok {
			b = b[1:]
			continue
		}
		got(seq)
		b = b[tokenLen:]
		if n := min(pad, len(b)); n > 0 {
			c.skip = pad - n
			b = b[n:]
		} else {
			c.skip = pad
		}
	}
}

func (c *client) keep(b []byte) { c.carn = copy(c.carry[:], b) }

func number(b []byte) (n uint32, ok bool) {
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + uint32(d-'0')
	}
	return n, true
}
