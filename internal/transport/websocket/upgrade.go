package websocket

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

// Upgrade completes the handshake of a request that CheckHandshake has accepted, with the
// key that it returned. The error is for the log: after an error, the request has been
// answered. The Session does not keep w or r, so the caller's handler can return
// while the Session is in use. It keeps cfg, which must not change any more.
func Upgrade(w http.ResponseWriter, r *http.Request, key string, cfg *Config) (session.Session, error) {
	extensions := ""
	if cfg.deflated != nil && r.URL.Query().Get("deflate") != "0" {
		extensions = cfg.Deflate.Negotiate(r.Header)
		if extensions != "" {
			cfg = cfg.deflated
		}
	}
	conn, rw, err := hijack(w)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, fmt.Errorf("websocket handshake: %w", err)
	}
	_ = conn.SetDeadline(time.Time{}) // middleware can have left one
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	early = append([]byte(nil), early...) // slices.Clone of an empty slice would keep the server's buffer
	s := newSocket(conn, early, cfg)
	response := accepted(key, extensions)
	if !cfg.RespondFirst {
		s.response = &response
		return s, nil
	}
	if err := s.stream.write(response, cfg.WriteTimeout); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("websocket handshake: %w", err)
	}
	return s, nil
}

// accepted returns the response to a handshake with a key, which accepts extensions; "" is none.
func accepted(key, extensions string) []byte {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455, section 1.3
	const head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
	var buf [64]byte
	sum := sha1.Sum(append(append(buf[:0], key...), guid...))
	b := make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(sum))+len("\r\n\r\n"))
	b = append(b, head...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if extensions != "" {
		b = append(b, "\r\nSec-WebSocket-Extensions: "...)
		b = append(b, extensions...)
	}
	return append(b, "\r\n\r\n"...)
}

// hijack hijacks the connection of a ResponseWriter, also through wrappers.
func hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		err = errors.New("WebSockets do not work here: the server's ResponseWriter cannot be hijacked " +
			"(HTTP/2, http.TimeoutHandler, or middleware without Unwrap)")
	}
	return conn, rw, err
}

// CheckHandshake checks the requirements of RFC 6455, section 4.2.1, for a request, and
// returns its key. It does not check the origin.
func CheckHandshake(r *http.Request) (key string, refused *transport.Refusal) {
	switch {
	case r.Method != http.MethodGet:
		return "", &transport.Refusal{
			Status: http.StatusMethodNotAllowed,
			Plain:  true,
			Header: [2]string{"Allow", http.MethodGet},
		}
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return "", bad(`Can "Upgrade" only to "WebSocket".`) // the SockJS protocol prescribes this text
	case !hasToken(r.Header, "Connection", "upgrade"):
		return "", bad(`"Connection" must be "Upgrade".`) // and this one
	case !slices.Equal(r.Header["Sec-Websocket-Version"], []string{"13"}):
		return "", &transport.Refusal{
			Status: http.StatusUpgradeRequired,
			Text:   `"Sec-WebSocket-Version" must be 13.`,
			Plain:  true,
			Header: [2]string{"Sec-WebSocket-Version", "13"},
		}
	case !r.ProtoAtLeast(1, 1):
		return "", bad("HTTP/1.1 is needed.")
	case r.ContentLength != 0:
		return "", bad("No body is allowed.") // the bytes of a body would be read as frames
	}
	if keys := r.Header["Sec-Websocket-Key"]; len(keys) == 1 {
		key = keys[0]
	}
	if nonce, err := base64.StdEncoding.DecodeString(key); err != nil || len(nonce) != 16 || len(key) != 24 {
		return "", bad(`"Sec-WebSocket-Key" must be 16 bytes in base64.`)
	}
	return key, nil
}

func bad(text string) *transport.Refusal {
	return &transport.Refusal{
		Status: http.StatusBadRequest,
		Text:   text,
		Plain:  true,
	}
}

// hasToken reports whether a header, which is a list of tokens in any number of lines,
// contains token. Tokens are case-insensitive.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h[name] {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}
