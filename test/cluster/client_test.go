package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// transports are all transports of a Server, including those for old browsers.
var transports = []string{"websocket", "rawwebsocket", "xhr", "xhr_streaming", "eventsource", "htmlfile", "jsonp"}

// link is one client's connection, over any transport.
type link struct {
	send  func(text string) error
	close func()
}

var sessions atomic.Int64

// patience is the longest time that a test waits for something that must happen.
const patience = 60 * time.Second

// dial connects to the Server at base. It calls got with each message of the protocol, one at
// a time, and ended once, after the last message.
func dial(base, transport string, got func(text []byte), ended func(error)) (*link, error) {
	return dialQuery(base, transport, "", got, ended)
}

// dialQuery connects with a query, which is empty or begins with "?".
func dialQuery(base, transport, query string, got func(text []byte), ended func(error)) (*link, error) {
	session := "000/s" + strconv.FormatInt(sessions.Add(1), 10)
	switch transport {
	case "websocket":
		return dialWebSocket(base, "/pushy/socket/"+session+"/websocket"+query, true, got, ended)
	case "rawwebsocket":
		return dialWebSocket(base, "/pushy/socket/websocket"+query, false, got, ended)
	}
	return dialHTTP(base+"/pushy/socket/"+session+"/", transport, query, got, ended)
}

func dialWebSocket(base, path string, framed bool, got func([]byte), ended func(error)) (*link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, early, _, err := ws.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+path)
	if err != nil {
		return nil, err
	}
	var in io.Reader = conn
	if early != nil {
		in = early
	}
	var writing sync.Mutex
	write := func(f ws.Frame) error {
		text, err := ws.CompileFrame(ws.MaskFrameInPlace(f))
		if err != nil {
			return err
		}
		writing.Lock()
		defer writing.Unlock()
		if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err = conn.Write(text)
		return err
	}
	read := func() error {
		f, err := ws.ReadFrame(in)
		switch {
		case err != nil:
			return err
		case f.Header.OpCode == ws.OpPing:
			return write(ws.NewPongFrame(f.Payload))
		case f.Header.OpCode == ws.OpClose:
			return fmt.Errorf("%w: %q", errClosedByServer, f.Payload)
		case f.Header.OpCode != ws.OpText:
		case framed:
			return frame(f.Payload, got)
		default:
			got(f.Payload)
		}
		return nil
	}
	go func() {
		defer conn.Close()
		for {
			if err := read(); err != nil {
				ended(err)
				return
			}
		}
	}()
	return &link{
		send: func(text string) error {
			if framed {
				quoted, _ := json.Marshal([]string{text})
				text = string(quoted)
			}
			return write(ws.NewTextFrame([]byte(text)))
		},
		close: func() { _ = conn.Close() },
	}, nil
}

var errClosedByServer = errors.New("the server closed the connection")

// frame handles one SockJS frame.
func frame(text []byte, got func([]byte)) error {
	if len(text) == 0 {
		return errors.New("an empty frame")
	}
	switch text[0] {
	case 'o', 'h':
		return nil
	case 'c':
		return fmt.Errorf("%w: %s", errClosedByServer, text)
	case 'a':
		var messages []string
		if err := json.Unmarshal(text[1:], &messages); err != nil {
			return fmt.Errorf("frame %s: %w", text, err)
		}
		for _, m := range messages {
			got([]byte(m))
		}
		return nil
	}
	return fmt.Errorf("frame %s", text)
}

var httpClient = &http.Client{Transport: &http.Transport{
	MaxIdleConnsPerHost: 1000,
	DialContext:         (&net.Dialer{Timeout: patience}).DialContext,
}}

// dialHTTP receives with consecutive requests, and sends with other requests.
func dialHTTP(session, transport, query string, got func([]byte), ended func(error)) (*link, error) {
	ctx, cancel := context.WithCancel(context.Background())
	method := http.MethodGet
	if strings.HasPrefix(transport, "xhr") {
		method = http.MethodPost
	}
	if transport == "jsonp" || transport == "htmlfile" {
		query = "?c=cb"
	}
	opened := false
	receive := func() error {
		r, err := http.NewRequestWithContext(ctx, method, session+transport+query, nil)
		if err != nil {
			return err
		}
		answer, err := httpClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s is answered with %s", transport, answer.Status)
		}
		lines := bufio.NewReader(answer.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err == io.EOF {
				return nil // the response is complete: send the next request
			}
			if err != nil {
				return err
			}
			if text, ok := unwrap(transport, strings.TrimRight(string(line), "\r\n")); ok {
				if text == "o" && opened {
					return errors.New("the session was lost, and another has begun")
				}
				opened = opened || text == "o"
				if err := frame([]byte(text), got); err != nil {
					return err
				}
			}
		}
	}
	go func() {
		defer cancel()
		for {
			if err := receive(); err != nil {
				ended(err)
				return
			}
		}
	}()
	post := session + "xhr_send"
	if transport == "jsonp" {
		post = session + "jsonp_send"
	}
	return &link{
		send: func(text string) error {
			quoted, _ := json.Marshal([]string{text})
			bounded, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			r, err := http.NewRequestWithContext(bounded, http.MethodPost, post, strings.NewReader(string(quoted)))
			if err != nil {
				return err
			}
			r.Header.Set("Content-Type", "text/plain")
			answer, err := httpClient.Do(r)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			_, _ = io.Copy(io.Discard, answer.Body)
			if answer.StatusCode >= 300 {
				return fmt.Errorf("sending is answered with %s", answer.Status)
			}
			return nil
		},
		close: cancel,
	}, nil
}

// unwrap returns the frame in a line of a transport.
func unwrap(transport, line string) (text string, ok bool) {
	var before, after string
	quoted := false
	switch transport {
	case "eventsource":
		before = "data: "
	case "htmlfile":
		before, after, quoted = "p(", ");", true
	case "jsonp":
		before, after, quoted = "/**/cb(", ");", true
	}
	text, ok = strings.CutPrefix(line, before)
	if !ok || text == "" {
		return "", false
	}
	text, ok = strings.CutSuffix(text, after)
	if quoted && ok {
		ok = json.Unmarshal([]byte(text), &text) == nil
	}
	return text, ok && text != strings.Repeat("h", 2048)
}
