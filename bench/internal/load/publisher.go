package load

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Publishing is the way in which events are published.
type Publishing string

const (
	Trigger Publishing = "trigger" // pushy's signed URL
	Post    Publishing = "post"    // POST /publish, which the peers have
)

const (
	// Secret is the secret key of pushy.
	Secret = "the benchmark's secret key"
	// PusherKey is the key of the application with the Pusher protocol.
	PusherKey = "bench"
)

// publisher publishes over one keep-alive connection, one request after
// another.
type publisher struct {
	cfg  *Config
	sock *socket
	conn net.Conn
	body []byte
	req  []byte
	in   []byte
	pad  []byte // of a payload of JSON
}

func newPublisher(cfg *Config) (*publisher, error) {
	s, err := connect(cfg.Addr, source(cfg.base+2, 0), 0)
	if err != nil {
		return nil, err
	}
	p := &publisher{cfg: cfg, sock: s, conn: s, in: make([]byte, 0, 4096)}
	if cfg.TLS {
		p.conn = tls.Client(s, clientTLS)
	}
	return p, nil
}

func (p *publisher) publish(channel string, seq uint32, l Load) error {
	if l.JSON {
		p.body = p.jsonPayload(p.body[:0], seq, l.Size)
	} else {
		p.body = payload(p.body[:0], seq, l.Size)
	}
	return p.send(channel)
}

// send posts p.body to a channel and waits for the answer.
func (p *publisher) send(channel string) error {
	p.req = request(p.req[:0], p.cfg, channel, p.body, time.Now())
	if _, err := p.conn.Write(p.req); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return p.answer()
}

func request(dst []byte, cfg *Config, channel string, body []byte, now time.Time) []byte {
	if cfg.Publishing == Trigger {
		timestamp := strconv.FormatInt(now.Unix(), 10)
		h := sha256.New()
		fmt.Fprintf(h, "%s:m:%s:%s:%s", channel, timestamp, body, Secret)
		dst = fmt.Appendf(dst, "POST /pushy/channel/%s/trigger?event=m&timestamp=%s&auth_key=%s", channel, timestamp, hex.EncodeToString(h.Sum(nil)))
	} else {
		dst = fmt.Appendf(dst, "POST /publish?channel=%s", channel)
	}
	dst = fmt.Appendf(dst, " HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", cfg.Addr, len(body))
	return append(dst, body...)
}

func (p *publisher) answer() error {
	p.in = p.in[:0]
	for {
		n, err := p.conn.Read(p.in[len(p.in):cap(p.in)])
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		p.in = p.in[:len(p.in)+n]
		whole, err := complete(p.in)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if whole {
			return nil
		}
		if len(p.in) == cap(p.in) {
			return errors.New("publish: the answer is too long")
		}
	}
}

// complete reports whether in contains a whole answer. The error is not nil if the status is
// not a success.
func complete(in []byte) (bool, error) {
	head, body, whole := bytes.Cut(in, []byte("\r\n\r\n"))
	if !whole {
		return false, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 2")) {
		return false, fmt.Errorf("got %.300q", in)
	}
	const length = "\r\nContent-Length: "
	i := bytes.Index(head, []byte(length))
	if i < 0 {
		if bytes.HasPrefix(head, []byte("HTTP/1.1 204 ")) {
			return true, nil
		}
		return false, fmt.Errorf("an answer without a length: %.300q", in)
	}
	value, _, _ := bytes.Cut(head[i+len(length):], []byte("\r\n"))
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return false, fmt.Errorf("an answer's length: %w", err)
	}
	return len(body) >= n, nil
}
