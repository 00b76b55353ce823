package websocket

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy/internal/session"
)

// Rules of RFC 6455 that ws.CheckHeader does not check.
var (
	errLength      = errors.New("payload length not in its shortest form or over 63 bits")
	ErrTooBig      = errors.New("message too big")
	errNotUTF8     = errors.New("message is not UTF-8")
	errCloseLength = errors.New("close frame of one byte")
	errCloseCode   = errors.New("close code not allowed")
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

// frameReader reads a client's WebSocket messages from the chunks of a source.
// Where the chunks end makes no difference. It holds nothing of a chunk that
// it has read to the end, but the part of a frame that it needs: of a header
// the bytes, of a payload what arrived, and never room for what was announced.
type frameReader struct {
	src source
	max int
	in  []byte // what is left of the last chunk

	header   [ws.MaxHeaderSize]byte
	got      uint8 // bytes of header
	inFrame  bool  // header is complete and frame valid
	inBatch  bool  // a data frame without FIN was read
	garbled  bool  // frames cannot be told apart any more
	gotClose bool
	frame    ws.Header
	left     int64 // of frame's payload

	message []byte // data frames so far, joined
	control []byte // a control frame's payload so far

	on readerEvents
}

// readerEvents is what a frameReader tells while it reads.
type readerEvents interface {
	waiting(bool)          // around each wait for bytes
	pinged(payload []byte) // must not keep payload
}

// next returns the next message, valid until the next call. After an error
// only discard may be called.
func (r *frameReader) next() ([]byte, error) {
	r.message = nil
	for {
		if !r.inFrame {
			if err := r.readHeader(); err != nil {
				return nil, err
			}
			if !r.frame.OpCode.IsControl() && r.left > int64(r.max-len(r.message)) {
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

// more waits for the next chunk. All of the last one must have been read.
func (r *frameReader) more() (err error) {
	r.in = nil // or it would keep a chunk alive that the source has let go
	r.on.waiting(true)
	r.in, err = r.src.next()
	r.on.waiting(false)
	return err
}

// readHeader reads a frame's header and checks what can be told from it.
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
		var state ws.State = ws.StateServerSide
		if r.inBatch {
			state = state.Set(ws.StateFragmented)
		}
		err = ws.CheckHeader(r.frame, state)
	}
	if err != nil {
		r.garbled = true
		return faultError(codeProtocol, err)
	}
	r.inFrame, r.left = true, r.frame.Length
	return nil
}

// headerSize tells from a header's second byte how long it is.
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
		r.frame.Length, least = int64(binary.BigEndian.Uint16(b[2:])), 126
	case 127:
		r.frame.Length, least = int64(binary.BigEndian.Uint64(b[2:])), 1<<16
	}
	if r.frame.Length < least { // so is a length over 63 bits
		return errLength
	}
	return nil
}

// payload returns what has come of the frame's payload, unmasked in place, and
// waits if that is nothing.
func (r *frameReader) payload() ([]byte, error) {
	offset := int((r.frame.Length - r.left) % 4)
	p, err := r.take()
	ws.Cipher(p, r.frame.Mask, offset)
	return p, err
}

// take is payload without the unmasking.
func (r *frameReader) take() ([]byte, error) {
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

// readData adds p to the message and returns the message, not nil, if that
// completes it.
func (r *frameReader) readData(p []byte) ([]byte, error) {
	done := r.left == 0
	whole := done && r.frame.Fin
	if !whole || len(r.message) > 0 {
		r.message = append(r.message, p...)
		p = r.message
	}
	if !done {
		return nil, nil
	}
	r.inFrame, r.inBatch = false, !r.frame.Fin
	if !whole {
		return nil, nil
	}
	if !utf8.Valid(p) {
		return nil, faultError(codeNotUTF8, errNotUTF8)
	}
	if p == nil {
		p = []byte{}
	}
	return p, nil
}

// readControl adds p to the control frame and acts on it if that completes it.
func (r *frameReader) readControl(p []byte) error {
	if r.left > 0 || len(r.control) > 0 {
		r.control = append(r.control, p...)
		p = r.control
	}
	if r.left > 0 {
		return nil
	}
	r.inFrame, r.control = false, nil
	switch r.frame.OpCode {
	case ws.OpPing:
		r.on.pinged(p)
	case ws.OpClose:
		r.gotClose = true
		return closeFrame(p)
	}
	return nil
}

// closeFrame reads a close frame's payload; it never returns nil.
func closeFrame(p []byte) *session.CloseError {
	switch len(p) {
	case 0:
		return &session.CloseError{Cause: session.Closed, Code: codeNoCode}
	case 1:
		return faultError(codeProtocol, errCloseLength)
	}
	code := int(binary.BigEndian.Uint16(p))
	switch reason := p[2:]; {
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

// closeCodeAllowed tells whether code may stand in a close frame: those of
// RFC 6455 and the registry, of libraries and of applications.
func closeCodeAllowed(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code == 1004 || code == codeNoCode || code == session.CloseLost:
		return false
	}
	return code >= 1000 && code <= 1014
}

// discard reads on without keeping anything, until the peer's close frame, its
// end, the read deadline, or bytes that are no frames: then garbled is set.
func (r *frameReader) discard() {
	r.message, r.control = nil, nil
	for !r.gotClose && !r.garbled {
		if !r.inFrame && r.readHeader() != nil {
			return
		}
		if _, err := r.take(); err != nil {
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

// drain reads on until the peer's end or the read deadline.
func (r *frameReader) drain() {
	for r.more() == nil {
	}
}
