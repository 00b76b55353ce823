package subscriber

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

const (
	dialTimeout = 10 * time.Second // to the first message
	// writeTimeout is longer than a command by default can take, while which a server does not read.
	writeTimeout = time.Minute
	closeTimeout = 2 * time.Second // for the server's close frame
	// maxMessage limits a message of the server.
	maxMessage = 16 << 20
)

// link is a WebSocket. One goroutine reads, and its own goroutine writes what is queued.
type link struct {
	net.Conn
	early     *bufio.Reader // has bytes that arrived with the handshake
	r         *bufio.Reader
	heartbeat time.Duration
	written   chan struct{} // closed when nothing more is written

	mu      sync.Mutex
	out     [][]byte  // frames
	over    bool      // the last one is a close frame, or a write has failed
	closeAt time.Time // when the link is closed if the server sends no close frame; zero before close
	wake    chan struct{}
}

// dialLink connects to a server. Its error is a *CloseError if the server answers with a status.
func (c *Client) dialLink(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var refused *CloseError
	d := ws.Dialer{
		Header:        ws.HandshakeHeaderHTTP(c.o.Header),
		NetDial:       c.o.NetDial,
		TLSConfig:     c.o.TLSConfig,
		OnStatusError: func(_ int, _ []byte, r io.Reader) { refused = readRefusal(r) },
	}
	conn, early, _, err := d.Dial(ctx, c.url)
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, fmt.Errorf("subscriber: connect: %w", err)
	}
	l := &link{
		Conn:      conn,
		early:     early,
		heartbeat: c.o.Heartbeat,
		written:   make(chan struct{}),
		wake:      make(chan struct{}, 1),
	}
	l.r = bufio.NewReader(readerFunc(l.readBytes))
	go l.write()
	return l, nil
}

// readRefusal reads the answer of a server that refuses the handshake.
func readRefusal(r io.Reader) *CloseError {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	e := &CloseError{Status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.retryAfter = time.Duration(min(s, 60)) * time.Second
	}
	var body struct{ Error struct{ Message string } }
	if resp.Header.Get("Content-Type") != "" && resp.ContentLength >= 0 {
		_ = json.NewDecoder(io.LimitReader(resp.Body, 4<<10)).Decode(&body)
	}
	e.Reason = body.Error.Message
	return e
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// readBytes reads, and sends a ping to a server from which nothing arrives.
func (l *link) readBytes(p []byte) (int, error) {
	if l.early != nil {
		if l.early.Buffered() > 0 {
			return l.early.Read(p[:min(len(p), l.early.Buffered())])
		}
		ws.PutReader(l.early)
		l.early = nil
	}
	for pinged := false; ; pinged = true {
		if err := l.setReadDeadline(); err != nil {
			return 0, err
		}
		n, err := l.Conn.Read(p)
		if n > 0 || pinged || !errors.Is(err, os.ErrDeadlineExceeded) || l.closing() {
			return n, err
		}
		l.send(ws.NewPingFrame(nil))
	}
}

func (l *link) setReadDeadline() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now().Add(l.heartbeat)
	if !l.closeAt.IsZero() && l.closeAt.Before(at) {
		at = l.closeAt
	}
	return l.SetReadDeadline(at)
}

func (l *link) closing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closeAt.IsZero()
}

// send queues a frame.
func (l *link) send(f ws.Frame) {
	text, err := ws.CompileFrame(ws.MaskFrameInPlace(f))
	if err != nil {
		panic(err) // it is written to memory
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	const enough = 16 // pongs, for a server that sends pings and does not read
	if l.over || f.Header.OpCode == ws.OpPong && len(l.out) >= enough {
		return
	}
	l.over = f.Header.OpCode == ws.OpClose
	l.out = append(l.out, text)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close queues a close frame, and limits the time until the link ends.
func (l *link) close(code ws.StatusCode) {
	var payload []byte
	if code != ws.StatusNoStatusRcvd {
		payload = ws.NewCloseFrameBody(code, "")
	}
	l.send(ws.NewCloseFrame(payload))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
}

// expireLocked limits the time until the link ends.
func (l *link) expireLocked() {
	if l.closeAt.IsZero() {
		l.closeAt = time.Now().Add(closeTimeout)
		_ = l.SetReadDeadline(l.closeAt)
	}
}

// write writes what is queued, until a close frame was written or a write has failed.
func (l *link) write() {
	defer close(l.written)
	for range l.wake {
		l.mu.Lock()
		out := net.Buffers(l.out)
		over := l.over
		l.out = nil
		l.mu.Unlock()
		err := l.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = out.WriteTo(l.Conn)
		}
		if err != nil {
			l.mu.Lock()
			l.over = true
			l.out = nil
			l.expireLocked() // the server may have sent why it does not read
			l.mu.Unlock()
			return
		}
		if over {
			return
		}
	}
}

// end closes the link. With flush, what is queued, a close frame at last, is written before.
func (l *link) end(flush bool) {
	if flush {
		timer := time.NewTimer(closeTimeout)
		defer timer.Stop()
		select {
		case <-l.written:
		case <-timer.C:
		}
	}
	_ = l.Conn.Close()
	l.mu.Lock()
	l.over = true
	l.out = nil
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-l.written
}

// receive returns the next message. The error is a *CloseError after a close frame, or wraps
// ErrProtocol.
func (l *link) receive() ([]byte, error) {
	var text []byte
	state := ws.StateClientSide
	for {
		h, err := ws.ReadHeader(l.r)
		if err != nil {
			return nil, err
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return nil, l.broken(ws.StatusProtocolError, err.Error())
		}
		if h.Length > maxMessage-int64(len(text)) {
			return nil, l.broken(ws.StatusMessageTooBig, fmt.Sprintf("a message has over %d bytes", maxMessage))
		}
		var payload bytes.Buffer // grows with what arrives, whatever the header says
		if _, err := io.CopyN(&payload, l.r, h.Length); err != nil {
			return nil, err
		}
		if h.OpCode.IsControl() {
			if err := l.control(h.OpCode, payload.Bytes()); err != nil {
				return nil, err
			}
			continue
		}
		text = append(text, payload.Bytes()...)
		if !h.Fin {
			state = state.Set(ws.StateFragmented)
			continue
		}
		if !utf8.Valid(text) {
			return nil, l.broken(ws.StatusInvalidFramePayloadData, "a message is not UTF-8")
		}
		return text, nil
	}
}

// broken closes the link to a server that broke the protocol.
func (l *link) broken(code ws.StatusCode, what string) error {
	l.close(code)
	return fmt.Errorf("%w: %s", ErrProtocol, what)
}

// control handles a control frame.
func (l *link) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		l.send(ws.NewPongFrame(payload))
	case ws.OpClose:
		e := &CloseError{Code: int(ws.StatusNoStatusRcvd)}
		if len(payload) >= 2 {
			code, reason := ws.ParseCloseFrameData(payload)
			e.Code, e.Reason = int(code), reason
		}
		l.close(ws.StatusCode(e.Code))
		return e
	}
	return nil
}
