package sockjs

import (
	"bytes"
	"strconv"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/transport"
)

// renderer appends SockJS frames to a buffer, as the transport of a response writes them.
type renderer struct {
	framing
	buf     *[]byte // the bytes of the next write, or nil
	limit   int     // of written: then the response ends
	written int     // the number of bytes of frames so far
}

// formQuoted is the form of a message as a JSON string, which the responses of all clients share.
var formQuoted = fanout.NewFamily(func(text []byte) fanout.Encoding { return &quotation{text: text} })

// quotation implements fanout.Encoding.
type quotation struct {
	text []byte
	done atomic.Pointer[[]byte]
}

func (q *quotation) Has(fanout.Form) bool { return q.done.Load() != nil }

func (q *quotation) Size() int {
	if p := q.done.Load(); p != nil {
		return len(*p)
	}
	return 0
}

func (q *quotation) Bytes(fanout.Form) []byte {
	if p := q.done.Load(); p != nil {
		return *p
	}
	b := jsvalue.AppendQuoteSockJS(make([]byte, 0, len(q.text)+len(q.text)/4+len(`""`)), q.text)
	q.done.Store(&b)
	return b
}

// frame adds one SockJS frame, which put appends.
func (r *renderer) frame(put func([]byte) []byte) {
	if r.buf == nil {
		r.buf = transport.Buffer()
	}
	b := append(*r.buf, r.before...)
	from := len(b)
	b = put(b)
	if r.decoded {
		b = escapePercent(b, from)
	}
	if r.quoted {
		text := string(b[from:])
		b = appendScriptText(b[:from], text)
	}
	r.written += len(b) - from
	*r.buf = append(b, r.after...)
}

// plain adds a frame of one letter, which does not count towards ResponseLimit.
func (r *renderer) plain(letter byte) {
	before := r.written
	r.frame(func(b []byte) []byte { return append(b, letter) })
	r.written = before
}

func (r *renderer) messages(frames []*fanout.Frame) {
	r.frame(func(b []byte) []byte {
		b = append(b, 'a', '[')
		for i, f := range frames {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, f.Encoding(formQuoted).Bytes(formQuoted)...)
		}
		return append(b, ']')
	})
}

func (r *renderer) closeFrame(end *fanout.CloseFrame) {
	reason := jsvalue.AppendQuoteSockJS(nil, []byte(end.Reason)) // with the same escapes as messages
	r.frame(func(b []byte) []byte { return appendCloseFrame(b, end.Code, reason) })
}

// appendCloseFrame appends SockJS's close frame; reason is a JSON string.
func appendCloseFrame(b []byte, code int, reason []byte) []byte {
	b = append(b, "c["...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, ',')
	b = append(b, reason...)
	return append(b, ']')
}

// escapePercent replaces each % in b, from the index from on, with its JSON escape. In a
// frame each % is inside a JSON string, so the meaning of the frame does not change.
func escapePercent(b []byte, from int) []byte {
	frame := b[from:]
	if bytes.IndexByte(frame, '%') < 0 {
		return b
	}
	return append(b[:from], bytes.ReplaceAll(frame, []byte{'%'}, []byte(`\u0025`))...)
}
