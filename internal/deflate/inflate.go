// Package deflate implements what a server needs of permessage-deflate (RFC 7692), the compression of
// WebSocket messages, without context takeover: each message is compressed by itself. So no memory is
// needed for a connection, and all connections can receive the same compressed bytes. Package
// deflate/compress compresses.
package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

var errInvalid = errors.New("the message is not valid DEFLATE data")

// tail is the end of the blocks of a message, which its sender removes (section 7.2.1).
const tail = "\x00\x00\xff\xff"

// window is the greatest distance to which compressed data refers.
const window = 32 << 10

// inflater decompresses one message at a time. It has the buffers of a decompressor, about 40 KiB,
// so inflaters are pooled.
type inflater struct {
	compressed bytes.Reader
	data       reader
	r          io.ReadCloser
}

var inflaters = sync.Pool{New: func() any {
	i := &inflater{}
	i.data.message = &i.compressed
	i.r = flate.NewReader(&i.data)
	return i
}}

// Inflate implements transport.Deflate.
func Inflate(payload []byte, max int) ([]byte, error) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	i.compressed.Reset(payload)
	defer i.compressed.Reset(nil)
	i.data.ended = 0
	message := make([]byte, 0, min(int64(max)+1, 4*int64(len(payload))+64))
	// A message can have several series of blocks: one ends with a block that is marked as the last
	// one (section 7.2.3.4), or with the bytes that follow the message.
	for !i.data.done() && len(message) <= max {
		if err := i.r.(flate.Resetter).Reset(&i.data, last(message, window)); err != nil {
			return nil, errInvalid
		}
		var err error
		if message, err = i.series(message, max); err != nil {
			return nil, err
		}
	}
	return message, nil
}

// last returns the last bytes of p, at most n.
func last(p []byte, n int) []byte { return p[max(0, len(p)-n):] }

// series appends the bytes of a series of blocks, until there are more than max.
func (i *inflater) series(message []byte, max int) ([]byte, error) {
	for {
		if len(message) == cap(message) {
			message = append(message, 0)[:len(message)]
		}
		n, err := i.r.Read(message[len(message):cap(message)])
		message = message[:len(message)+n]
		switch {
		case len(message) > max || err == io.EOF:
			return message, nil
		case err != nil:
			return nil, errInvalid
		}
	}
}

// ending is what follows the payload of a message: the tail that the sender has removed, and an
// empty block that is marked as the last one, so that the decompressor reports the end.
const ending = tail + "\x01\x00\x00\xff\xff"

// reader yields a message and then the ending. The decompressor reads it byte by byte, so it reads
// nothing that it does not need.
type reader struct {
	message *bytes.Reader
	ended   int // the number of bytes of ending that were read
}

// done reports whether all blocks were read. Some senders end a message with a block that is marked
// as the last one, and nothing after it.
func (r *reader) done() bool {
	return r.ended == len(ending) || r.ended == 0 && r.message.Len() == 0
}

func (r *reader) ReadByte() (byte, error) {
	if b, err := r.message.ReadByte(); err == nil {
		return b, nil
	}
	if r.ended == len(ending) {
		return 0, io.EOF
	}
	r.ended++
	return ending[r.ended-1], nil
}

// Read is for stored blocks, whose bytes are copied.
func (r *reader) Read(p []byte) (int, error) {
	if n, _ := r.message.Read(p); n > 0 {
		return n, nil
	}
	n := copy(p, ending[r.ended:])
	r.ended += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
