package load

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Handshakes is what a server has done with new connections.
type Handshakes struct {
	Admitted int
	Closed   int // with the close code 1013
	Refused  int // with status 503 and Retry-After
	Failed   int // anything else
}

const (
	handshake = "GET /pushy/socket/websocket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	tryAgain = 1013
)

// MakeHandshakes opens bare WebSockets at a rate, whether or not the server has answered. Those
// that are admitted stay open until it returns.
func MakeHandshakes(addr netip.AddrPort, perSecond int, d time.Duration) Handshakes {
	var mu sync.Mutex
	var sum Handshakes
	var open []net.Conn
	var all sync.WaitGroup
	began := time.Now()
	total := int(d.Seconds() * float64(perSecond))
	for n := range total {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
		all.Go(func() {
			conn, count := shake(addr)
			mu.Lock()
			defer mu.Unlock()
			*count(&sum)++
			if conn != nil {
				open = append(open, conn)
			}
		})
	}
	all.Wait()
	for _, conn := range open {
		_ = conn.Close()
	}
	return sum
}

// shake makes one handshake. It returns the connection if it was admitted, and which figure counts
// it.
func shake(addr netip.AddrPort) (admitted net.Conn, count func(*Handshakes) *int) {
	failed := func(h *Handshakes) *int { return &h.Failed }
	tcp, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, failed
	}
	defer func() {
		if admitted == nil {
			_ = tcp.Close()
		}
	}()
	_ = tcp.SetLinger(0) // so many connections in TIME_WAIT would use up the ports
	_ = tcp.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := fmt.Fprintf(tcp, handshake, addr); err != nil {
		return nil, failed
	}
	in := bufio.NewReaderSize(tcp, 512)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, failed
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return nil, func(h *Handshakes) *int { return &h.Refused }
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, failed
	}
	head := make([]byte, 4) // the first bytes of pushy:connect, or of a close frame with a code
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, failed
	}
	const text, closing = 0x81, 0x88
	switch {
	case head[0] == text:
		return tcp, func(h *Handshakes) *int { return &h.Admitted }
	case head[0] == closing && binary.BigEndian.Uint16(head[2:]) == tryAgain:
		return nil, func(h *Handshakes) *int { return &h.Closed }
	}
	return nil, failed
}
