package websocket

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy/internal/session"
)

// Rules of RFC 6455 that ws.CheckHeader does not check.
var (
	errLength      = errors.New("payload length not in its shortest form or over 63 bits")
	ErrTooBig      = errors.New("message too big")
	errBinary      = errors.New("binary messages are not accepted")
	errNotUTF8     = errors.New("message is not UTF-8")
	errCloseLength = errors.New("close frame of one byte")
	errCloseCode   = errors.New("close code not allowed")
	errRSV1        = errors.New("RSV1 can only be set in the first frame of a message")
	errCloseReason = errors.New("close reason is not UTF-8")
)

func faultError(code int, err error) *session.CloseError {
	return &session.CloseError{
		Cause:  session.Fault,
		Code:   code,
		Reason: err.Error(),
		Err:    err,
	}
}

// frameReader reads the WebSocket messages of a client from the chunks of a source. Chunks
// can end anywhere. When the reader has read a chunk to its end, it keeps only copies of
// the incomplete header and of the payload that has arrived. It never allocates memory for
// a length that a client has only announced.
type frameReader struct {
	src source
	max int
	in  []byte // the rest of the last chunk

	header   [ws.MaxHeaderSize]byte
	got      uint8 // the number of bytes in header
	inFrame  bool  // the header is complete, and frame is valid
	inBatch  bool  // a data frame without FIN was read
	garbled  bool  // the boundaries of frames are lost
	gotClose bool
	deflated bool // the message is compressed
	corked   bool // the Outbox is corked
	frame    ws.Header
	left     int64 // bytes of the frame's payload that are still to be read

	message []byte  // the payloads of the data frames so far, joined
	counted int     // what Config.Reading counts for this one
	control *[]byte // the payload so far of a control frame that has arrived in parts, which is rare

	on *socket // of which this is the frameReader
}

var frameReaders = sync.Pool{New: func() any { return new(frameReader) }}

// idle reports whether everything that has arrived was returned.
func (r *frameReader) idle() bool {
	return len(r.in) == 0 && r.got == 0 && !r.inFrame && !r.inBatch && !r.garbled && !r.gotClose
}

// reader returns the frameReader of s, which has one from now on.
func (s *socket) reader() *frameReader {
	if s.frames == nil {
		limit := s.cfg.MaxMessage
		if s.cfg.Framing != nil {
			limit = s.cfg.Framing.Limit(limit)
		}
		s.frames = frameReaders.Get().(*frameReader)
		s.frames.src = s.stream.source()
		s.frames.max = limit
		s.frames.on = s
	}
	return s.frames
}

// releaseReader is called when no frame has arrived in part, or when nothing more is read.
func (s *socket) releaseReader() {
	r := s.frames
	if r == nil {
		return
	}
	s.frames = nil
	r.release()
	r.src.end()
	*r = frameReader{}
	frameReaders.Put(r)
}

// next returns the next message, which is valid until the next call. After an error, only
// discard and drain can be called.
func (r *frameReader) next() ([]byte, error) {
	r.release()
	message, err := r.read()
	if err != nil {
		r.release()
	}
	return message, err
}

// release releases the message that has arrived so far.
func (r *frameReader) release() {
	r.message = nil
	r.count()
}

// count counts the present size of the message.
func (r *frameReader) count() {
	if change := cap(r.message) - r.counted; change != 0 && r.on.cfg.Reading != nil {
		r.counted += change
		r.on.cfg.Reading.Add(int64(change))
	}
}

func (r *frameReader) read() ([]byte, error) {
	for {
		if !r.inFrame {
			if err := r.readHeader(); err != nil {
				return nil, err
			}
			if d := r.on.cfg.Dialect; d != nil && d.NoBinary && r.frame.OpCode == ws.OpBinary {
				return nil, faultError(codeBinary, errBinary)
			}
			if !r.frame.OpCode.IsControl() && r.left > int64(r.most()-len(r.message)) {
				return nil, faultError(codeTooBig, ErrTooBig)
			}
		}
		p, err := r.payload()
		if err != nil {
			return nil, err
		}
		if r.frame.OpCode.IsControl() {
			if err := r.readControl(p); err != nil {
				return nil, err
			}
			continue
		}
		if message, err := r.readData(p); message != nil || err != nil {
			return message, err
		}
	}
}

// most returns the largest number of bytes of the payloads of the message. The worst compressors make
// what cannot be compressed an eighth larger, with the fixed Huffman code.
func (r *frameReader) most() int {
	if r.deflated {
		return int(min(int64(r.max)+int64(r.max)/8+64, math.MaxInt))
	}
	return r.max
}

// more waits for the next chunk. The last one must have been read to its end.
func (r *frameReader) more() (err error) {
	r.in = nil // otherwise it would refer to a chunk that the source has released
	r.on.uncork()
	r.on.waiting(true)
	r.in, err = r.src.next()
	r.on.waiting(false)
	return err
}

// readHeader reads and validates the header of a frame.
func (r *frameReader) readHeader() error {
	for need := 2; ; {
		n := copy(r.header[r.got:need], r.in)
		r.in = r.in[n:]
		r.got += uint8(n)
		if int(r.got) < need {
			if err := r.more(); err != nil {
				return err
			}
		} else if need == headerSize(r.header[1]) {
			break
		} else {
			need = headerSize(r.header[1])
		}
	}
	r.got = 0
	err := r.parseHeader()
	if err == nil {
		r.beginMessage()
		var state ws.State = ws.StateServerSide
		if r.inBatch {
			state = state.Set(ws.StateFragmented)
		}
		err = ws.CheckHeader(r.frame, state)
		if r.frame.Rsv == rsv1 && r.on.cfg.deflates {
			err = errRSV1
		}
	}
	if err != nil {
		r.garbled = true
		return faultError(codeProtocol, err)
	}
	r.inFrame = true
	r.left = r.frame.Length
	return nil
}

// rsv1 is the bit in ws.Header.Rsv that marks a compressed message.
const rsv1 = 4

// beginMessage notes whether the message is compressed, if the frame is the first one of a message. The
// bit for that, RSV1, is an error in all other frames (RFC 7692, section 6.1).
func (r *frameReader) beginMessage() {
	if r.inBatch || r.frame.OpCode != ws.OpText && r.frame.OpCode != ws.OpBinary {
		return
	}
	r.deflated = r.on.cfg.deflates && r.frame.Rsv == rsv1
	if r.deflated {
		r.frame.Rsv = 0
	}
}

// headerSize returns the length of a header, which its second byte determines.
func headerSize(b byte) int {
	n := 2
	switch b & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b&0x80 != 0 {
		n += 4
	}
	return n
}

func (r *frameReader) parseHeader() error {
	b := r.header[:headerSize(r.header[1])]
	r.frame = ws.Header{
		Fin:    b[0]&0x80 != 0,
		Rsv:    b[0] >> 4 & 7,
		OpCode: ws.OpCode(b[0] & 15),
		Masked: b[1]&0x80 != 0,
		Length: int64(b[1] & 0x7f),
	}
	if r.frame.Masked {
		b = b[:len(b)-copy(r.frame.Mask[:], b[len(b)-4:])]
	}
	var least int64
	switch r.frame.Length {
	case 126:
		r.frame.Length = int64(binary.BigEndian.Uint16(b[2:]))
		least = 126
	case 127:
		r.frame.Length = int64(binary.BigEndian.Uint64(b[2:]))
		least = 1 << 16
	}
	if r.frame.Length < least { // includes lengths over 63 bits, which are negative here
		return errLength
	}
	return nil
}

// payload returns the part of the frame's payload that has arrived, unmasked in place. If
// nothing has arrived, it waits.
func (r *frameReader) payload() ([]byte, error) {
	offset := int((r.frame.Length - r.left) % 4)
	p, err := r.maskedPayload()
	ws.Cipher(p, r.frame.Mask, offset)
	return p, err
}

// maskedPayload is payload without the unmasking.
func (r *frameReader) maskedPayload() ([]byte, error) {
	if len(r.in) == 0 && r.left > 0 {
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	n := min(r.left, int64(len(r.in)))
	p := r.in[:n]
	r.in = r.in[n:]
	r.left -= n
	return p, nil
}

// readData adds p to the message. If the message is complete, readData returns it, and the
// result is not nil.
func (r *frameReader) readData(p []byte) ([]byte, error) {
	done := r.left == 0
	whole := done && r.frame.Fin
	if !whole || len(r.message) > 0 {
		r.message = append(r.message, p...)
		r.count()
		p = r.message
	}
	if !done {
		return nil, nil
	}
	r.inFrame = false
	r.inBatch = !r.frame.Fin
	if !whole {
		return nil, nil
	}
	if r.deflated {
		var err error
		if p, err = r.inflate(p); err != nil {
			return nil, err
		}
	}
	if !utf8.Valid(p) {
		return nil, faultError(codeNotUTF8, errNotUTF8)
	}
	if p == nil {
		p = []byte{}
	}
	return p, nil
}

// inflate decompresses a message.
func (r *frameReader) inflate(p []byte) ([]byte, error) {
	message, err := r.on.cfg.Deflate.Inflate(p, r.max)
	switch {
	case err != nil:
		return nil, faultError(codeNotUTF8, err)
	case len(message) > r.max:
		return nil, faultError(codeTooBig, ErrTooBig)
	}
	r.message = message
	r.count()
	return message, nil
}

// readControl adds p to the control frame, and handles the frame if it is complete.
func (r *frameReader) readControl(p []byte) error {
	if r.left > 0 || r.control != nil {
		if r.control == nil {
			r.control = new([]byte)
		}
		*r.control = append(*r.control, p...)
		p = *r.control
	}
	if r.left > 0 {
		return nil
	}
	r.inFrame = false
	r.control = nil
	switch r.frame.OpCode {
	case ws.OpPing:
		r.on.pinged(p)
	case ws.OpClose:
		r.gotClose = true
		return closeFrame(p)
	}
	return nil
}

// closeFrame parses the payload of a close frame. The result is never nil.
func closeFrame(p []byte) *session.CloseError {
	switch len(p) {
	case 0:
		return &session.CloseError{Cause: session.Closed, Code: codeNoCode}
	case 1:
		return faultError(codeProtocol, errCloseLength)
	}
	code := int(binary.BigEndian.Uint16(p))
	reason := p[2:]
	switch {
	case !closeCodeAllowed(code):
		return faultError(codeProtocol, errCloseCode)
	case !utf8.Valid(reason):
		return faultError(codeNotUTF8, errCloseReason)
	default:
		return &session.CloseError{
			Cause:  session.Closed,
			Code:   code,
			Reason: string(reason),
		}
	}
}

// closeCodeAllowed reports whether a close frame can have the code: those of RFC 6455 and
// its registry, of libraries (3000 to 3999) and of applications (4000 to 4999).
func closeCodeAllowed(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code == 1004 || code == codeNoCode || code == session.CloseLost:
		return false
	}
	return code >= 1000 && code <= 1014
}

// truncateReason makes reason valid UTF-8 and truncates it, between two runes, to the size that a
// close frame can have.
func truncateReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxCloseReason {
		return reason
	}
	n := maxCloseReason
	for !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}

// discard reads and drops frames until the close frame of the peer, the end of the
// connection, the read deadline, or invalid bytes, which set garbled.
func (r *frameReader) discard() {
	r.release()
	r.control = nil
	for !r.gotClose && !r.garbled {
		if !r.inFrame && r.readHeader() != nil {
			return
		}
		if _, err := r.maskedPayload(); err != nil {
			return
		}
		if r.left > 0 {
			continue
		}
		r.inFrame = false
		if !r.frame.OpCode.IsControl() {
			r.inBatch = !r.frame.Fin
		}
		r.gotClose = r.frame.OpCode == ws.OpClose
	}
}

// drain reads and drops bytes until the end of the connection or the read deadline.
func (r *frameReader) drain() {
	for r.more() == nil {
	}
}
