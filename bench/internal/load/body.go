package load

import (
	"bytes"
	"fmt"
)

// httpBody decodes the HTTP responses of one connection, which are chunked or have a length, as their
// bytes arrive.
type httpBody struct {
	head  []byte // the bytes that have arrived of a header, or of the line with a chunk's length
	left  int    // bytes of the chunk, including its line end, that have not arrived
	state bodyState
	ended bool // a response has ended; the reader requests the next one
	last  bool // the server closes the connection after this response
}

type bodyState uint8

const (
	inHead bodyState = iota
	inLength
	inChunk
	inTrailer
	inBody // of a response that has a length
)

// decode moves the bytes of the body to the beginning of p, and returns them.
func (h *httpBody) decode(p []byte) ([]byte, error) {
	out := p[:0]
	for len(p) > 0 {
		switch h.state {
		case inHead:
			head, rest, whole := h.upTo(p, "\r\n\r\n")
			p = rest
			if !whole {
				continue
			}
			lower := bytes.ToLower(head)
			length, chunked := h.length(lower)
			if !bytes.HasPrefix(lower, []byte("http/1.1 200 ")) || !chunked && length <= 0 {
				return nil, fmt.Errorf("not a response with frames: %.200q", head)
			}
			h.last = bytes.Contains(lower, []byte("\r\nconnection: close\r\n"))
			h.head, h.state = h.head[:0], inLength
			if !chunked {
				h.left, h.state = length, inBody
			}
		case inLength:
			line, rest, whole := h.upTo(p, "\r\n")
			p = rest
			if !whole {
				continue
			}
			n := 0
			for _, b := range line[:len(line)-2] {
				switch {
				case b >= '0' && b <= '9':
					n = n<<4 | int(b-'0')
				case b|0x20 >= 'a' && b|0x20 <= 'f':
					n = n<<4 | int(b|0x20-'a'+10)
				default:
					return nil, fmt.Errorf("not a chunk's length: %q", line)
				}
			}
			h.head = h.head[:0]
			h.left, h.state = n+2, inChunk
			if n == 0 {
				h.state = inTrailer
			}
		case inChunk:
			n := min(h.left, len(p))
			if data := min(n, h.left-2); data > 0 {
				out = append(out, p[:data]...)
			}
			h.left -= n
			p = p[n:]
			if h.left == 0 {
				h.state = inLength
			}
		case inBody:
			n := min(h.left, len(p))
			out = append(out, p[:n]...)
			h.left -= n
			p = p[n:]
			if h.left == 0 {
				h.state, h.ended = inHead, true
			}
		case inTrailer:
			n := min(h.left, len(p))
			h.left -= n
			p = p[n:]
			if h.left == 0 {
				h.state, h.ended = inHead, true
			}
		}
	}
	return out, nil
}

// length returns the length of a body, or whether it is chunked.
func (h *httpBody) length(lowerHead []byte) (n int, chunked bool) {
	if bytes.Contains(lowerHead, []byte("\r\ntransfer-encoding: chunked\r\n")) {
		return 0, true
	}
	if _, value, has := bytes.Cut(lowerHead, []byte("\r\ncontent-length: ")); has {
		_, _ = fmt.Sscan(string(value), &n)
	}
	return n, false
}

// upTo collects bytes until end has arrived.
func (h *httpBody) upTo(p []byte, end string) (all, rest []byte, whole bool) {
	for i, b := range p {
		h.head = append(h.head, b)
		if b == '\n' && bytes.HasSuffix(h.head, []byte(end)) {
			return h.head, p[i+1:], true
		}
	}
	return nil, nil, false
}
