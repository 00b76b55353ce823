package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

const (
	dialTimeout = 10 * time.Second
	// silence is the time without a message after which the server is sent a ping. If
	// nothing arrives for the same time again, the connection is lost.
	silence = 40 * time.Second
)

// link is a bare WebSocket to a server, for use by one goroutine.
type link struct {
	net.Conn
	early io.Reader // bytes that arrived with the handshake, which are read first
}

func dialLink(ctx context.Context, url string) (*link, error) {
	conn, early, _, err := ws.Dialer{Timeout: dialTimeout}.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: conn}
	if early != nil {
		l.early = io.LimitReader(early, int64(early.Buffered()))
	}
	return l, nil
}

// Read sends one ping to a server from which nothing arrives.
func (l *link) Read(p []byte) (int, error) {
	if l.early != nil {
		if n, err := l.early.Read(p); err == nil {
			return n, nil
		}
		l.early = nil
	}
	for asked := false; ; asked = true {
		if err := l.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return 0, err
		}
		n, err := l.Conn.Read(p)
		if n > 0 || asked || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := ws.WriteFrame(l, ws.MaskFrame(ws.NewPingFrame(nil))); err != nil {
			return 0, err
		}
	}
}

func (l *link) Write(p []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return 0, err
	}
	return l.Conn.Write(p)
}

// closed is the close frame that ended a connection. wsutil has such an error, too, but it
// reports codes that it does not know as protocol errors of the server.
type closed struct {
	code   ws.StatusCode
	reason string
}

func (c closed) Error() string {
	return fmt.Sprintf("the server closed the connection: %d %s", c.code, c.reason)
}

// receive returns the next message, and answers pings until then. If the server closed the
// connection with a code after which a client does not reconnect (PROTOCOL.md, section 3), the
// error is a refusal.
func (l *link) receive() ([]byte, error) {
	text, err := l.nextText()
	var end closed
	switch {
	case err == nil:
		return text, nil
	case !errors.As(err, &end):
		return nil, fmt.Errorf("the connection was lost: %w", err)
	}
	switch code := end.code; {
	case code == 1002, code == 1003, code == 1007, code == 1008, code == 1010, code >= 3500 && code < 4000:
		return nil, refusal{end}
	}
	return nil, end
}

func (l *link) nextText() ([]byte, error) {
	r := &wsutil.Reader{
		Source:         l,
		State:          ws.StateClientSide,
		CheckUTF8:      true,
		OnIntermediate: l.control,
	}
	for {
		h, err := r.NextFrame()
		if err != nil {
			return nil, err
		}
		switch {
		case h.OpCode.IsControl():
			err = l.control(h, r)
		case h.OpCode == ws.OpText:
			return io.ReadAll(r)
		default:
			err = r.Discard()
		}
		if err != nil {
			return nil, err
		}
	}
}

// control answers a ping. A close frame is answered and returned as an error.
func (l *link) control(h ws.Header, r io.Reader) error {
	payload, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpPing:
		return ws.WriteFrame(l, ws.MaskFrame(ws.NewPongFrame(payload)))
	case ws.OpClose:
		end := closed{code: ws.StatusNoStatusRcvd}
		if len(payload) >= 2 {
			end.code, end.reason = ws.ParseCloseFrameData(payload)
			payload = payload[:2]
		} else {
			payload = nil
		}
		_ = ws.WriteFrame(l, ws.MaskFrame(ws.NewCloseFrame(payload))) // the connection ends in any case
		return end
	}
	return nil
}

func (l *link) send(command any) error {
	text, err := json.Marshal(command)
	if err != nil {
		return refusal{err}
	}
	return wsutil.WriteClientText(l, text)
}
