package load

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Dialect is the protocol of a server's clients.
type Dialect string

const (
	Framed     Dialect = "framed"     // SockJS over WebSocket
	Streaming  Dialect = "streaming"  // SockJS over xhr_streaming
	Polling    Dialect = "polling"    // SockJS over xhr, one response for each poll
	Bare       Dialect = "bare"       // pushy's bare WebSocket
	Plain      Dialect = "plain"      // a WebSocket that is subscribed when it connects
	Centrifuge Dialect = "centrifuge" // centrifuge's JSON over WebSocket
	SocketIO   Dialect = "socketio"
	Events     Dialect = "events"   // pushy's Server-Sent Events
	Events3    Dialect = "events3"  // the same, with two more channels, which have no events
	R3labs     Dialect = "r3labs"   // the Server-Sent Events of r3labs/sse
	Pusher     Dialect = "pusher"   // the Pusher protocol
	Mixed      Dialect = "mixed"    // every tenth client is one of Pusher, the others are those of Framed
	Deflated   Dialect = "deflated" // Framed with permessage-deflate
	Halved     Dialect = "halved"   // every second client is one of Deflated, the others are those of Framed
)

// of returns the protocol of client i.
func (d Dialect) of(i int) Dialect {
	switch {
	case d == Mixed && i%10 == 9:
		return Pusher
	case d == Halved && i%2 == 1:
		return Deflated
	case d == Mixed || d == Halved:
		return Framed
	}
	return d
}

// client is one subscriber.
type client struct {
	sock *socket
	tls  *tls.Conn // nil without TLS
	http *httpBody // nil over WebSocket
	zip  *messages // nil without permessage-deflate
	path string
	id   string // of the connection, if Config.Idle

	next  uint32 // the next sequence number that it must receive
	skip  int    // bytes of a payload's padding that have not arrived
	carry [tokenLen]byte
	carn  int // number of bytes in carry, which are the beginning of a token
}

func (c *client) Read(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.sock.Read(p)
}

func (c *client) Write(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(p)
	}
	return c.sock.Write(p)
}

// clientTLS verifies nothing, because each server makes a certificate when it starts.
var clientTLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}

// open connects client i and subscribes it to channel.
func (cfg *Config) open(i int, channel string, rcvbuf int) (*client, error) {
	addr := cfg.Addr
	if cfg.Other.IsValid() && i%2 == 1 {
		addr = cfg.Other
	}
	s, err := connect(addr, source(cfg.base, i), rcvbuf)
	if err != nil {
		return nil, err
	}
	c := &client{sock: s}
	if cfg.Dialect.of(i) == Deflated {
		c.zip = newMessages(i%checkEach == 1) // of Halved, too
	}
	if err := cfg.subscribe(c, cfg.Dialect.of(i), channel); err != nil {
		s.abort()
		return nil, err
	}
	return c, nil
}

func (cfg *Config) subscribe(c *client, dialect Dialect, channel string) error {
	if cfg.TLS {
		c.tls = tls.Client(c.sock, clientTLS)
		if err := c.tls.Handshake(); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
	}
	command := fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q}}`, channel)
	framed := fmt.Sprintf(`[%q]`, command)
	session := "/pushy/socket/000/s" + randomHex()
	const success = "subscription-success"
	switch dialect {
	case Framed, Deflated:
		return cfg.webSocket(c, session+"/websocket", "pushy:connect", framed, success)
	case Bare:
		return cfg.webSocket(c, "/pushy/socket/websocket", "pushy:connect", command, success)
	case Plain:
		return cfg.webSocket(c, "/ws?channel="+channel)
	case Centrifuge:
		return cfg.webSocket(c, "/connection/websocket", "",
			`{"id":1,"connect":{}}`, `"id":1`, fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, channel), `"id":2`)
	case Pusher:
		return cfg.webSocket(c, "/app/"+PusherKey+"?protocol=7&client=js&version=8.6.0&flash=false", "connection_established",
			fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q}}`, channel), "subscription_succeeded")
	case SocketIO:
		return cfg.webSocket(c, "/socket.io/?EIO=4&transport=websocket", "0{", "40", "40")
	case Streaming:
		return cfg.stream(c, session+"/xhr_streaming", session, framed, success)
	case Polling:
		return cfg.stream(c, session+"/xhr", session, framed, success)
	case Events:
		return cfg.events(c, "/pushy/events?channel="+channel, "pushy:open")
	case Events3:
		return cfg.events(c, "/pushy/events?channel="+channel+"&channel=kept-quiet&channel=quiet", "pushy:open")
	case R3labs:
		return cfg.events(c, "/events?stream="+channel, "")
	}
	return fmt.Errorf("unknown dialect %q", dialect)
}

// webSocket upgrades, and then alternately waits for a string and sends one; it does not wait
// for "".
func (cfg *Config) webSocket(c *client, path string, turns ...string) error {
	var key [16]byte
	_, _ = rand.Read(key[:])
	extensions := ""
	if c.zip != nil {
		extensions = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nOrigin: %s\r\n%s\r\n",
		path, cfg.Addr, base64.StdEncoding.EncodeToString(key[:]), cfg.origin(), extensions); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	w := &waiter{r: c}
	if err := w.until("\r\n\r\n"); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	if !w.began("HTTP/1.1 101 ") {
		return fmt.Errorf("upgrade: got %q", w.firstLine())
	}
	head := w.from
	if c.zip != nil && !bytes.Contains(bytes.ToLower(w.seen[:head]), []byte("\r\nsec-websocket-extensions: permessage-deflate;")) {
		return fmt.Errorf("the server has not accepted permessage-deflate: %q", w.seen[:head])
	}
	if cfg.Idle {
		turns = turns[:min(len(turns), cfg.Dialect.greeting())]
	}
	for i, turn := range turns {
		switch {
		case turn == "":
		case i%2 == 0:
			if err := w.until(turn); err != nil {
				return fmt.Errorf("waiting for %q: %w", turn, err)
			}
		default:
			if _, err := c.Write(maskedText(turn)); err != nil {
				return fmt.Errorf("sending %q: %w", turn, err)
			}
		}
	}
	if c.zip != nil {
		return c.zip.pass(w.seen[head:])
	}
	if cfg.Idle && cfg.Dialect != Centrifuge {
		return c.identify(w)
	}
	return nil
}

// greeting returns the number of turns of webSocket before the subscription.
func (d Dialect) greeting() int {
	if d == Centrifuge {
		return 3
	}
	return 1
}

// identify reads the id of a connection to pushy, which members sign.
func (c *client) identify(w *waiter) error {
	from := 0
	for _, before := range []string{"socketId", ":", `"`, `"`} {
		from = w.from
		if err := w.until(before); err != nil {
			return fmt.Errorf("waiting for the id: %w", err)
		}
	}
	c.id = strings.Trim(string(w.seen[from:w.from]), `\"`)
	return nil
}

// stream requests frames from a path, and subscribes by xhr_send, over a connection that ends with
// it.
func (cfg *Config) stream(c *client, path, session, command, success string) error {
	c.path, c.http = path, &httpBody{}
	if err := cfg.poll(c); err != nil {
		return err
	}
	w := &waiter{r: c, body: c.http, again: func() error { return cfg.poll(c) }}
	if err := w.until("pushy:connect"); err != nil {
		return fmt.Errorf("waiting for the stream: %w", err)
	}
	s, err := connect(cfg.Addr, source(cfg.base+1, 0), 0)
	if err != nil {
		return err
	}
	defer s.abort()
	var conn net.Conn = s
	if cfg.TLS {
		conn = tls.Client(s, clientTLS)
	}
	if _, err := fmt.Fprintf(conn, "POST %s/xhr_send HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
		session, cfg.Addr, cfg.origin(), len(command), command); err != nil {
		return fmt.Errorf("xhr_send: %w", err)
	}
	answer := &waiter{r: conn}
	if err := answer.until("\r\n\r\n"); err != nil {
		return fmt.Errorf("xhr_send: %w", err)
	}
	if !answer.began("HTTP/1.1 204 ") {
		return fmt.Errorf("xhr_send: got %q", answer.firstLine())
	}
	if err := w.until(success); err != nil {
		return fmt.Errorf("waiting for %q: %w", success, err)
	}
	return nil
}

// events opens a stream of Server-Sent Events, and waits until it has begun with a string, or with "" until
// the server has answered.
func (cfg *Config) events(c *client, path, first string) error {
	c.http = &httpBody{}
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nAccept: text/event-stream\r\n\r\n",
		path, cfg.Addr, cfg.origin())
	if err != nil {
		return err
	}
	w := &waiter{r: c, body: c.http}
	if first == "" {
		w.body = nil
		first = "\r\n\r\n"
		c.http.state = inLength
	}
	if err := w.until(first); err != nil {
		return fmt.Errorf("waiting for the stream: %w", err)
	}
	if w.body == nil && !w.began("HTTP/1.1 200 ") {
		return fmt.Errorf("not a stream: %q", w.firstLine())
	}
	return nil
}

// poll requests a response with frames.
func (cfg *Config) poll(c *client) error {
	_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Length: 0\r\n\r\n", c.path, cfg.Addr, cfg.origin())
	return err
}

func (cfg *Config) origin() string {
	if cfg.TLS {
		return "https://" + cfg.Addr.String()
	}
	return "http://" + cfg.Addr.String()
}

// waiter reads until a string has arrived. The bytes after it in the same read are not lost,
// because the next call of until searches them, and no event is published yet.
type waiter struct {
	r     io.Reader
	body  *httpBody    // decodes chunks; nil over WebSocket
	again func() error // requests the next response
	seen  []byte
	from  int
}

func (w *waiter) until(text string) error {
	var buf [4096]byte
	for {
		if i := bytes.Index(w.seen[w.from:], []byte(text)); i >= 0 {
			w.from += i + len(text)
			return nil
		}
		if len(w.seen) > 1<<20 {
			return errors.New("it does not come")
		}
		n, err := w.r.Read(buf[:])
		if err != nil {
			return fmt.Errorf("%w, after %.200q", err, w.seen[w.from:])
		}
		p := buf[:n]
		if w.body != nil {
			if p, err = w.body.decode(p); err != nil {
				return err
			}
			if w.body.ended && w.again != nil {
				w.body.ended = false
				if err := w.again(); err != nil {
					return err
				}
			}
		}
		w.seen = append(w.seen, p...)
	}
}

func (w *waiter) began(text string) bool { return bytes.HasPrefix(w.seen, []byte(text)) }

func (w *waiter) firstLine() string {
	line, _, _ := strings.Cut(string(w.seen), "\r\n")
	return line
}

// maskedText returns a client's text frame, with a mask of zeros.
func maskedText(s string) []byte {
	b := []byte{0x81}
	if len(s) < 126 {
		b = append(b, 0x80|byte(len(s)))
	} else {
		b = append(b, 0x80|126, byte(len(s)>>8), byte(len(s)))
	}
	return append(append(b, 0, 0, 0, 0), s...)
}

func randomHex() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
