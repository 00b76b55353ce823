package websocket

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

// Upgrade completes the handshake of a request that CheckHandshake has accepted, with the
// key that it returned. The error is for the log: after an error, the request has been
// answered. The Session does not keep w or its request, so the caller's handler can return
// while the Session is in use. It keeps cfg, which must not change any more.
func Upgrade(w http.ResponseWriter, key string, cfg *Config) (session.Session, error) {
	// A request with the validated headers only, without extensions or subprotocols.
	plain := &http.Request{
		Method:     http.MethodGet,
		ProtoMajor: 1,
		ProtoMinor: 1,
		Host:       "checked",
		Header: http.Header{
			"Upgrade":               {"websocket"},
			"Connection":            {"Upgrade"},
			"Sec-Websocket-Key":     {key},
			"Sec-Websocket-Version": {"13"},
		},
	}
	conn, rw, _, uerr := ws.HTTPUpgrader{Timeout: cfg.WriteTimeout}.Upgrade(plain, hijacker{w})
	if uerr != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, fmt.Errorf("websocket handshake: %w", uerr)
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	early = append([]byte(nil), early...) // slices.Clone of an empty slice would keep the server's buffer
	return newSocket(conn, early, cfg), nil
}

// hijacker hijacks the connection of a ResponseWriter, also through wrappers.
type hijacker struct{ http.ResponseWriter }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
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
