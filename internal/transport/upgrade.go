package transport

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

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/session"
)

// handshakeError is a request that is answered with an HTTP error.
type handshakeError struct {
	status int
	text   string
	plain  bool // SockJS's own words, and those about a handshake: the text alone is the body
}

func (e *handshakeError) Error() string {
	return fmt.Sprintf("websocket handshake: %d %s", e.status, e.text)
}

// UpgradeWebSocket turns a request into a Session. It checks all of the handshake but the origin. If it fails it has
// answered the request, and the error is for the log. The Session keeps
// nothing of w and r, so the caller's handler may return while it lives; cfg it
// keeps, which must not change any more.
func UpgradeWebSocket(w http.ResponseWriter, r *http.Request, cfg *WebSocketConfig) (session.Session, error) {
	key, err := checkHandshake(r)
	if err != nil {
		refuse(w, err)
		return nil, err
	}
	return upgrade(w, key, cfg)
}

// upgrade is UpgradeWebSocket for a handshake that was right; key is its key.
func upgrade(w http.ResponseWriter, key string, cfg *WebSocketConfig) (session.Session, error) {
	// What was checked, and no offer of extensions or subprotocols.
	plain := &http.Request{
		Method: http.MethodGet, ProtoMajor: 1, ProtoMinor: 1, Host: "checked",
		Header: http.Header{
			"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
			"Sec-Websocket-Key": {key}, "Sec-Websocket-Version": {"13"},
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
	early = append([]byte(nil), early...) // slices.Clone of nothing keeps the server's buffer
	return newWebSocket(conn, early, cfg), nil
}

// hijacker gives a ResponseWriter's connection away, also from under wrappers.
type hijacker struct{ http.ResponseWriter }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		err = errors.New("WebSockets do not work here: the server's ResponseWriter cannot be hijacked " +
			"(HTTP/2, http.TimeoutHandler, or middleware without Unwrap)")
	}
	return conn, rw, err
}

// checkHandshake checks what RFC 6455, section 4.2.1, asks of a request, and
// returns its key. The first two texts are SockJS's.
func checkHandshake(r *http.Request) (key string, err *handshakeError) {
	switch {
	case r.Method != http.MethodGet:
		return "", &handshakeError{status: http.StatusMethodNotAllowed, plain: true}
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return "", &handshakeError{http.StatusBadRequest, `Can "Upgrade" only to "WebSocket".`, true}
	case !hasToken(r.Header, "Connection", "upgrade"):
		return "", &handshakeError{http.StatusBadRequest, `"Connection" must be "Upgrade".`, true}
	case !slices.Equal(r.Header["Sec-Websocket-Version"], []string{"13"}):
		return "", &handshakeError{http.StatusUpgradeRequired, `"Sec-WebSocket-Version" must be 13.`, true}
	case !r.ProtoAtLeast(1, 1):
		return "", &handshakeError{status: http.StatusBadRequest, text: "HTTP/1.1 is needed.", plain: true}
	case r.ContentLength != 0:
		// Its bytes would be taken for frames.
		return "", &handshakeError{status: http.StatusBadRequest, text: "No body is allowed.", plain: true}
	}
	if keys := r.Header["Sec-Websocket-Key"]; len(keys) == 1 {
		key = keys[0]
	}
	if nonce, err := base64.StdEncoding.DecodeString(key); err != nil || len(nonce) != 16 || len(key) != 24 {
		return "", &handshakeError{http.StatusBadRequest, `"Sec-WebSocket-Key" must be 16 bytes in base64.`, true}
	}
	return key, nil
}

func refuse(w http.ResponseWriter, err *handshakeError) {
	switch err.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	case http.StatusUpgradeRequired:
		w.Header().Set("Sec-WebSocket-Version", "13")
	}
	if !err.plain {
		httperror.Write(w, err.status, err.text)
		return
	}
	w.WriteHeader(err.status)
	_, _ = w.Write([]byte(err.text))
}

// hasToken tells whether a header, a list of tokens in any number of lines,
// holds token in any case.
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
