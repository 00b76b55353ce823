package websocket

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
)

var _ fanout.Guarded = (*secureDirect)(nil)

// secureDirect is the fanout.Direct of a TLS connection. A tls.Conn cannot write a part of its bytes,
// so secureDirect only finds out whether the socket under it has room for all of them; then the
// flusher calls WriteNow. That can wait all the same: for the reader, which holds the lock of the
// tls.Conn while it answers a key update, or when the kernel is short of memory.
type secureDirect struct {
	conn *tls.Conn
	raw  syscall.RawConn // of the socket under it
	// room is a lower limit of the free bytes of the send buffer. Only the answers to key updates are
	// written without being subtracted, and drains, which begin when there is no room.
	room   int
	waited atomic.Bool // a WriteNow has waited for room
}

// newSecureDirect returns nil if conn is not a tls.Conn over TCP, or if there is no way to ask for the
// room.
func newSecureDirect(conn net.Conn) fanout.Direct {
	t, ok := conn.(*tls.Conn)
	if !ok || !canAskForRoom {
		return nil
	}
	under, ok := t.NetConn().(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := under.SyscallConn()
	if err != nil {
		return nil
	}
	return &secureDirect{
		conn: t,
		raw:  raw,
	}
}

const (
	// recordSize is the usual size of a record, and recordRoom what encryption adds to it, at most.
	recordSize = 1 << 10
	recordRoom = 64
	// packetRoom is more than the memory for the headers of a packet.
	packetRoom = 2 << 10
)

// roomFor returns how many bytes of the send buffer are needed to write n bytes. The memory for
// the headers of full packets is less than that for their content.
func roomFor(n int) int { return 2*(n+(n/recordSize+1)*recordRoom) + packetRoom }

// TryWrite writes nothing. It returns fanout.ErrGuard if there is room.
func (d *secureDirect) TryWrite(p []byte) (int, error) {
	if d.waited.Load() {
		return 0, nil // from now on, goroutines that can wait write
	}
	need := roomFor(len(p))
	if d.room < need {
		free, err := freeRoom(d.raw)
		if err != nil {
			return 0, err
		}
		if d.room = free; free < need {
			d.room = 0
			return 0, nil
		}
	}
	d.room -= need
	return 0, fanout.ErrGuard
}

// WriteNow sets no deadline: that would cost more than it is worth, because WriteNow rarely waits.
func (d *secureDirect) WriteNow(p []byte) error {
	_, err := d.conn.Write(p)
	return err
}

// Waits sets the deadline of a WriteNow that waits. It is also that of the answer to a key update for
// which WriteNow waits. If the socket is not full, the machine is only too busy.
func (d *secureDirect) Waits(timeout time.Duration) {
	if !writable(d.raw) {
		d.waited.Store(true)
	}
	_ = d.conn.SetWriteDeadline(time.Now().Add(timeout))
}

func (d *secureDirect) Waited() {
	d.room = 0
	_ = d.conn.SetWriteDeadline(time.Time{})
}
