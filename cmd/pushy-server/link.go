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
	// silence is how long nothing may come before the server is asked whether it
	// is there, and then has as long again to say so.
	silence = 40 * time.Second
)

// link is a bare WebSocket to a server, for one goroutine.
type link struct {
	net.Conn
	early io.Reader // what came with the handshake, before all else
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

// Read asks after a silent server once.
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

// receive returns the next message, and answers pings meanwhile. A close code
// that says not to come back is a refusal.
func (l *link) receive() ([]byte, error) {
	text, err := wsutil.ReadServerText(l)
	var closed wsutil.ClosedError
	if !errors.As(err, &closed) {
		if err != nil {
			err = fmt.Errorf("the connection is lost: %w", err)
		}
		return text, err
	}
	err = fmt.Errorf("the server closes: %d %s", closed.Code, closed.Reason)
	switch code := closed.Code; {
	case code == 1002, code == 1003, code >= 1007 && code <= 1009, code >= 3500 && code < 4000:
		return nil, refusal{err}
	}
	return nil, err
}

func (l *link) send(command any) error {
	text, err := json.Marshal(command)
	if err != nil {
		return refusal{err}
	}
	return wsutil.WriteClientText(l, text)
}
