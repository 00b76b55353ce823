package hub

import (
	"sync"

	"github.com/gopushy/pushy/internal/fanout"
)

// Send queues an event for this connection only. It returns ErrClosed if the connection has
// ended.
func (c *Conn) Send(e *Event) error { return c.send(e, false) }

// SendNow is Send for an answer after which no other is expected soon, see fanout.Outbox.SendNow.
func (c *Conn) SendNow(e *Event) error { return c.send(e, true) }

func (c *Conn) send(e *Event, now bool) error {
	c.watchSent(e)
	if c.foreign != 0 {
		return c.sendForeign(*e)
	}
	queue := c.out.SendDirect
	if now {
		queue = c.out.SendNow
	}
	text := texts.Get().(*[]byte)
	*text = c.hub.cfg.Protocol.Append((*text)[:0], *e)
	ok := queue(*text)
	putText(text)
	if !ok {
		return ErrClosed
	}
	return nil
}

// texts has buffers for the texts of direct messages, of up to maxText bytes.
var texts = sync.Pool{New: func() any { return new([]byte) }}

const maxText = 64 << 10

func putText(text *[]byte) {
	if cap(*text) <= maxText {
		texts.Put(text)
	}
}

// Last reports whether the client has sent nothing after the message that is being handled, as far
// as is known. Only the reader calls it.
func (c *Conn) Last() bool {
	s, ok := c.session.(interface{ More() bool })
	return ok && !s.More()
}

// AwaitRoom waits until an answer of about size bytes can be queued with SendList, see
// fanout.Outbox.AwaitRoom.
func (c *Conn) AwaitRoom(size int64) (release func(), err error) {
	return c.out.AwaitRoom(&c.ctx, size)
}

// SendList is Send for an answer that can be large. It does not count towards the limit of
// the client's queued bytes; instead, its size is charged to the client's rate.
func (c *Conn) SendList(e *Event) error {
	c.watchSent(e)
	f := c.listFrame(e)
	if f == nil {
		return nil
	}
	if !c.out.Send(f) {
		return ErrClosed
	}
	c.chargeBytes(int64(len(f.Bytes(fanout.Text))), answerToken)
	return nil
}
