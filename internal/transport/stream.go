package transport

import (
	"errors"
	"net/http"
	"os"
	"sync"
	"time"
)

// A Stream is a response that waits for frames. Each write has its own deadline, because those
// of the http.Server would end a response that waits, and because without one a client that
// does not read would block its handler forever.
type Stream struct {
	W       http.ResponseWriter
	timeout time.Duration // of one write
	rc      *http.ResponseController
}

// NewStream returns a Stream, each write of which may take timeout.
func NewStream(w http.ResponseWriter, timeout time.Duration) Stream {
	return Stream{
		W:       w,
		timeout: timeout,
		rc:      http.NewResponseController(w),
	}
}

// Wait clears the deadline for writing. It must be called before the response waits. The error is
// http.ErrNotSupported if middleware hides the server's ResponseWriter, or that of a connection
// that is closed.
func (s *Stream) Wait() error { return s.rc.SetWriteDeadline(time.Time{}) }

// WaitForEnd clears the deadline for reading. The body must have been read, because otherwise
// the server does not detect that the client has disconnected.
func (s *Stream) WaitForEnd() { _ = s.rc.SetReadDeadline(time.Time{}) }

// Header sets the header fields of a response that is streamed.
func (s *Stream) Header() {
	s.W.Header().Set("X-Accel-Buffering", "no") // otherwise nginx buffers frames
}

// Flush sends what was written.
func (s *Stream) Flush() error { return s.rc.Flush() }

// Do calls write, which writes to the response, within the timeout. If last is set, the deadline
// remains, for the end of the response, which the server writes. If the time is over, the error
// is an os.ErrDeadlineExceeded.
func (s *Stream) Do(last bool, write func() error) error {
	began := time.Now()
	s.Limit()
	err := write()
	if err != nil && time.Since(began) >= s.timeout {
		err = errors.Join(err, os.ErrDeadlineExceeded) // HTTP/2 returns another error
	}
	if !last {
		_ = s.rc.SetWriteDeadline(time.Time{})
	}
	return err
}

// Limit gives the server the timeout for what it writes from now on.
func (s *Stream) Limit() { _ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout)) }

// buffers has buffers in which frames are joined, with a capacity of at most keptBuffer.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const keptBuffer = 64 << 10

// Buffer returns an empty buffer, in which the frames of the next write are joined.
func Buffer() *[]byte { return buffers.Get().(*[]byte) }

// Release returns a buffer whose content has been written.
func Release(buf *[]byte) {
	*buf = (*buf)[:0]
	if cap(*buf) <= keptBuffer {
		buffers.Put(buf)
	}
}
