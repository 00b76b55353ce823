package sockjs

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// stream is a streaming response whose connection has been taken from the http.Server. The flushers
// write to it as to a WebSocket, so that it has no handler, whose goroutine and buffers take most of
// the memory of a stream. At its end, the http.Server gets the connection back for the next request.
//
// A stream detaches from its session before the end of the response is written, because the client
// can send its next request as soon as it has read that.
type stream struct {
	renderer
	h      *Handler
	s      *httpSession
	wire   line
	server *http.Server
	detach func()
	done   chan struct{} // closed at the end

	mu     sync.Mutex // guards the fields below, and the renderer
	busy   bool       // a goroutine writes
	ended  bool
	expire bool // to be ended after what is being written
	last   bool // the end of the response is being written
	reuse  bool // the next request can use the connection; constant after done
	final  bool // the session has ended: the connection waits at most CloseTimeout for a request; constant after done
	beats  int
	timer  *time.Timer // nil without heartbeats
	frames []*fanout.Frame
}

// line is what a stream needs of a websocket.Wire.
type line interface {
	Plain() bool
	TryWrite(p []byte) (n int, err error)
	Write(p []byte, timeout time.Duration) error
	Await() error
	Idle(timeout time.Duration) error
	Release() net.Conn
	Stop()
	Close()
	Abort()
}

// leave takes the connection from the http.Server, if a stream can have it. Then the stream is the
// receiver, and the handler can return. The header and the prelude have been written.
func (rv *receiver) leave(s *httpSession, detach func()) (left bool) {
	server := rv.server
	if server == nil || rv.out.W.Header().Get("Content-Encoding") != "" { // set by middleware with the header
		return false
	}
	conn, rw, err := http.NewResponseController(rv.out.W).Hijack()
	if err != nil {
		return false // middleware can refuse: the handler writes
	}
	_ = conn.SetDeadline(time.Time{}) // middleware can have left one
	wire := websocket.NewWire()
	wire.Begin(conn)
	st := &stream{
		renderer: rv.renderer,
		h:        rv.h,
		s:        s,
		wire:     wire,
		server:   server,
		detach:   detach,
		done:     make(chan struct{}),
	}
	if rv.h.wrap != nil {
		st.wire = rv.h.wrap(wire)
	}
	_, known := rv.h.plain.Swap(server, st.wire.Plain())
	rv.h.waitingOf(server) // so that it knows of a Shutdown
	// Bytes that the http.Server has read are lost.
	st.reuse = known && st.wire.Plain() && !rv.r.Close && rw.Reader.Buffered() == 0 && !rv.closes()
	st.start()
	return true
}

// plainServer returns the http.Server of a request whose response is sent to a plain socket as it is
// written, with chunks, as far as that is known; otherwise nil. It is called before the header is written.
func (rv *receiver) plainServer() *http.Server {
	r := rv.r
	ctx := r.Context()
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.TLS != nil || !rv.h.middleware.CanHijack(rv.out.W) {
		return nil
	}
	if _, hijacker := rv.out.W.(http.Hijacker); !hijacker {
		return nil // middleware without a Hijack of its own can hold the header back
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding"} {
		if rv.out.W.Header().Get(name) != "" { // set by middleware
			return nil
		}
	}
	if _, limited := ctx.Deadline(); limited {
		return nil // the handler ends the response then
	}
	server, _ := ctx.Value(http.ServerContextKey).(*http.Server)
	if server == nil {
		return nil
	}
	plain, known := rv.h.plain.Load(server)
	switch {
	case plain == false:
		return nil
	case !known, !rv.keeps(server): // the connection is closed at the end; one that is not known may not be plain
		rv.out.W.Header().Set("Connection", "close")
	}
	return server
}

// keeps reports whether the next request can use the connection. What is left of a body would be taken
// for it, and BaseContext would get a listener that is not the host's.
func (rv *receiver) keeps(server *http.Server) bool {
	length := rv.r.Header.Get("Content-Length")
	return server.BaseContext == nil && (length == "" || length == "0") && len(rv.r.TransferEncoding) == 0
}

// closes reports whether the header says that the connection is closed.
func (rv *receiver) closes() bool {
	return strings.Contains(strings.ToLower(strings.Join(rv.out.W.Header()["Connection"], ",")), "close")
}

// start makes the stream write.
func (st *stream) start() {
	st.mu.Lock()
	if every := st.h.cfg.Heartbeat; every > 0 {
		st.timer = time.AfterFunc(every, st.tick)
	}
	st.s.stream.Store(st)
	if st.s.open(&st.renderer) {
		st.begin()
		st.plain('o')
	}
	err := st.pushLocked()
	st.mu.Unlock()
	st.check(err)
	select {
	case <-st.s.dead: // before the session had the stream
		st.over()
	default:
	}
	go st.watch()
}

// watch waits for the end of the response, or of the connection, whose client has nothing to send
// before.
func (st *stream) watch() {
	if err := st.wire.Await(); err != nil {
		st.lost()
	}
	<-st.done
	if !st.reuse {
		st.wire.Close()
		return
	}
	// A Server that got the connection now would apply ReadHeaderTimeout to the time until the next
	// request, not IdleTimeout, and its Shutdown would wait for that request.
	timeout := idleTime(st.server)
	if st.final {
		timeout = min(timeout, st.h.cfg.CloseTimeout)
	}
	if !st.h.waitingOf(st.server).wait(st.wire, timeout) {
		st.wire.Close()
		return
	}
	if conn := st.wire.Release(); conn != nil {
		giveBack(st.server, conn)
	}
}

// lost ends the session if the response has not ended. If its end is being written, the client may have
// read that already.
func (st *stream) lost() {
	st.mu.Lock()
	err := error(nil)
	if !st.ended && !(st.busy && st.last) {
		err = errAborted
		st.failLocked()
	}
	st.mu.Unlock()
	st.check(err)
}

// check ends the session after an error, and detaches from it. The next receiver must not have the session
// before it has ended.
func (st *stream) check(err error) {
	if err != nil {
		st.s.failed(err)
		st.leaveSession()
	}
}

func (st *stream) leaveSession() {
	st.detach()
	st.s.responseDone()
}

// tick sends a heartbeat, and the next time it ends the stream: the client of a stream can disappear
// without notice; then the session ends because no new request arrives.
func (st *stream) tick() {
	st.mu.Lock()
	err := st.tickLocked()
	st.mu.Unlock()
	st.check(err)
}

func (st *stream) tickLocked() error {
	if st.ended {
		return nil
	}
	st.beats++
	if st.beats == 1 {
		st.timer.Reset(st.h.cfg.Heartbeat)
	} else {
		st.expire = true
	}
	if st.busy {
		return nil
	}
	if st.beats == 1 {
		st.begin()
		st.plain('h')
	}
	return st.pushLocked()
}

// push writes what is queued. It reports false if the response has ended, or its end is being written.
func (st *stream) push() bool {
	st.mu.Lock()
	if st.ended || st.last { // the next receiver writes it
		st.mu.Unlock()
		return false
	}
	err := st.pushLocked()
	st.mu.Unlock()
	st.check(err)
	return true
}

// pushLocked writes what is queued as far as the socket accepts it at once. A goroutine writes the
// rest.
func (st *stream) pushLocked() error {
	for !st.ended && !st.busy {
		p := st.takeLocked()
		if len(p) == 0 {
			return nil
		}
		n, err := st.wire.TryWrite(p)
		switch {
		case err != nil:
			st.failLocked()
			return err
		case n < len(p):
			st.busy = true
			go st.drain(p[n:])
		default:
			st.wroteLocked()
		}
	}
	return nil
}

// writeBytes is the most that is written within one timeout.
const writeBytes = 256 << 10

// drain writes until nothing is queued.
func (st *stream) drain(p []byte) {
	for len(p) > 0 {
		var err error
		for err == nil && len(p) > 0 {
			n := min(len(p), writeBytes)
			err = st.wire.Write(p[:n], st.h.cfg.WriteTimeout)
			p = p[n:]
		}
		st.mu.Lock()
		st.busy = false
		switch {
		case st.ended: // meanwhile
			st.release()
			err = nil
		case err != nil:
			st.failLocked()
		default:
			st.wroteLocked()
			if !st.ended {
				p = st.takeLocked()
				st.busy = len(p) > 0
			}
		}
		st.mu.Unlock()
		st.check(err)
	}
}

// chunkRoom is the place of a chunk's length.
const chunkRoom = len("7fffffff\r\n")

// begin begins a chunk.
func (st *stream) begin() {
	if st.buf == nil {
		st.buf = transport.Buffer()
		*st.buf = append(*st.buf, "00000000\r\n"...)
	}
}

// takeLocked returns the bytes of the next write, which has what is queued, or nil if there is nothing
// to write. The stream detaches from the session before the end of the response is written.
func (st *stream) takeLocked() []byte {
	frames, end := st.s.out.Take(st.frames[:0], max(1, st.limit-st.written))
	switch {
	case end != nil:
		st.begin()
		st.closeFrame(end)
		st.s.closeFrameSent(end)
		st.last = true
		st.final = true
	case len(frames) > 0:
		st.begin()
		st.messages(frames)
		clear(frames)
		st.frames = frames
		st.last = st.written >= st.limit
	}
	st.last = st.last || st.expire
	if st.buf == nil && !st.last {
		return nil
	}
	if st.last {
		st.detach()
	}
	if st.buf == nil {
		return lastChunk
	}
	return chunk(st.buf, st.last)
}

// lastChunk ends a response.
var lastChunk = []byte("0\r\n\r\n")

// chunk returns the chunk in a buffer, after chunkRoom bytes.
func chunk(buf *[]byte, last bool) []byte {
	b := append(*buf, '\r', '\n')
	if last {
		b = append(b, lastChunk...)
	}
	size := uint64(len(*buf) - chunkRoom)
	*buf = b
	var digits [16]byte
	length := strconv.AppendUint(digits[:0], size, 16)
	b = b[chunkRoom-len("\r\n")-len(length):]
	copy(b, length)
	return b
}

// wroteLocked is called when all bytes of takeLocked have been written.
func (st *stream) wroteLocked() {
	st.s.out.Written()
	if st.last {
		st.endLocked()
		return
	}
	st.release()
}

func (st *stream) release() {
	if st.buf != nil {
		transport.Release(st.buf)
		st.buf = nil
	}
}

// endLocked ends the stream, which has been written. Whether the connection is used again, depends on reuse.
func (st *stream) endLocked() {
	st.stopLocked()
	st.leaveSession()
}

// stopLocked ends the stream, except for its session.
func (st *stream) stopLocked() {
	st.ended = true
	if !st.busy {
		st.release()
	}
	if st.timer != nil {
		st.timer.Stop()
	}
	st.s.stream.CompareAndSwap(st, nil)
	if st.reuse {
		st.wire.Stop()
	}
	close(st.done)
	if !st.reuse {
		st.wire.Close()
	}
}

// failLocked ends the stream without the end of the response. The caller must then call check, or
// leaveSession if the session has ended.
func (st *stream) failLocked() {
	st.reuse = false
	st.wire.Abort()
	st.stopLocked()
}

// over ends the response of a session that has ended without a close frame.
func (st *stream) over() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return
	}
	if st.busy {
		if !st.last { // otherwise it ends within WriteTimeout
			st.failLocked()
			st.leaveSession()
		}
		return
	}
	st.final = true
	n, err := st.wire.TryWrite(lastChunk)
	st.reuse = st.reuse && err == nil && n == len(lastChunk)
	st.endLocked()
}
