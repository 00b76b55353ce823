package pushy_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// serveTLS is serve with http.Server.ServeTLS, as a host calls it.
func serveTLS(t *testing.T, options pushy.Options) (srv *pushy.Server, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	options.SecretKey = "secret"
	options.Logger = testLogger(t)
	srv, err = pushy.New(options)
	require.NoError(t, err)
	web := &http.Server{
		Handler: srv,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{{
				Certificate: [][]byte{cert},
				PrivateKey:  key,
			}},
		},
		ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug), // of the handshake that is cut
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener := shortQueues{tcp}
	ended := make(chan error, 1)
	go func() { ended <- web.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = web.Close()
		assert.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	return srv, listener.Addr().String()
}

// shortQueues is a listener whose connections have small buffers, which are full soon.
type shortQueues struct{ net.Listener }

func (l shortQueues) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn, shorten(conn)
}

func shorten(conn net.Conn) error {
	tcp := conn.(*net.TCPConn)
	return errors.Join(tcp.SetReadBuffer(16<<10), tcp.SetWriteBuffer(16<<10))
}

// secureClient is a client over TLS 1.3 that can also send records of its own, which package tls cannot.
type secureClient struct {
	*client
	under   *countingConn
	secret  []byte // of the records that it sends
	aead    cipher.AEAD
	iv      []byte
	records uint64
}

// countingConn counts the records that the client has sent after its handshake.
type countingConn struct {
	net.Conn
	shaken  bool
	records uint64
}

func (c *countingConn) Write(p []byte) (int, error) {
	if c.shaken {
		for rest := p; len(rest) >= 5; rest = rest[5+int(binary.BigEndian.Uint16(rest[3:])):] {
			c.records++
		}
	}
	return c.Conn.Write(p)
}

func dialTLS(t *testing.T, addr string) *secureClient {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	require.NoError(t, shorten(raw))
	under := &countingConn{Conn: raw}
	var keys bytes.Buffer
	conn := tls.Client(under, &tls.Config{
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS13,
		KeyLogWriter:       &keys,
	})
	require.NoError(t, conn.Handshake())
	under.shaken = true
	target := url.URL{
		Scheme: "wss",
		Host:   addr,
		Path:   "/pushy/socket/websocket",
	}
	in, _, err := ws.Dialer{}.Upgrade(conn, &target)
	require.NoError(t, err)
	c := &secureClient{
		client: &client{
			t:    t,
			conn: conn,
			in:   conn,
		},
		under: under,
	}
	if in != nil {
		c.in = in
	}
	for line := range strings.Lines(keys.String()) {
		if fields := strings.Fields(line); fields[0] == "CLIENT_TRAFFIC_SECRET_0" {
			c.secret, err = hex.DecodeString(fields[2])
			require.NoError(t, err)
		}
	}
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, conn.ConnectionState().CipherSuite)
	c.connected(c.Receive())
	return c
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1.
func (c *secureClient) expand(label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, 0)
	key, err := hkdf.Expand(sha256.New, c.secret, string(info), length)
	require.NoError(c.t, err)
	return key
}

func (c *secureClient) rekey() {
	block, err := aes.NewCipher(c.expand("key", 16))
	require.NoError(c.t, err)
	c.aead, err = cipher.NewGCM(block)
	require.NoError(c.t, err)
	c.iv = c.expand("iv", 12)
}

// record returns the next record. After the first one, the client must not send through package tls.
func (c *secureClient) record(kind byte, content []byte) []byte {
	if c.aead == nil {
		c.rekey()
		c.records = c.under.records
	}
	header := []byte{23, 3, 3}
	header = binary.BigEndian.AppendUint16(header, uint16(len(content)+1+c.aead.Overhead()))
	nonce := bytes.Clone(c.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^c.records)
	c.records++
	return c.aead.Seal(header, nonce, append(bytes.Clone(content), kind), header)
}

// keyUpdate returns a KeyUpdate that requests one of the server (RFC 8446, section 4.6.3).
func (c *secureClient) keyUpdate() []byte {
	wire := c.record(22, []byte{24, 0, 0, 1, 1})
	c.secret = c.expand("traffic upd", 32)
	c.rekey()
	c.records = 0
	return wire
}

// number returns the number of an event.
func (c *secureClient) number(text string) int {
	f, err := parseFrame(text)
	require.NoError(c.t, err)
	var data string
	require.NoError(c.t, json.Unmarshal(f.Data, &data), "%s", f.Data)
	var n int
	_, err = fmt.Sscan(data, &n)
	require.NoError(c.t, err)
	return n
}

func (c *secureClient) subscribe() *secureClient {
	c.Send(`{"command":"subscribe","data":{"channel":"all"}}`)
	require.Contains(c.t, c.Receive(), "pushy:subscription-success")
	return c
}

// pong is a frame that is not answered. Package tls accepts only a few key updates without any.
var pong = ws.MustCompileFrame(ws.MaskFrame(ws.NewPongFrame(nil)))

// flood sends key updates until the server, whose answers the client does not read, reads no more.
func (c *secureClient) flood() {
	c.t.Helper()
	var err error
	sent := 0
	for ; err == nil && sent < 200_000; sent++ {
		wire := c.keyUpdate()
		if sent%8 == 0 {
			wire = append(wire, c.record(23, pong)...)
		}
		require.NoError(c.t, c.under.SetWriteDeadline(time.Now().Add(time.Second)))
		_, err = c.under.Conn.Write(wire)
	}
	require.ErrorIs(c.t, err, errTimeout, "the server answers %d key updates that are not read", sent)
}

// Clients over TLS that do not read, that send nothing but key updates, or whose handshake does not
// end, delay no other client, although the writes for some of them never end.
func TestTLSClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	var slow atomic.Int64
	srv, addr := serveTLS(t, pushy.Options{
		WriteTimeout: time.Hour, // a flusher that waited would wait for longer than the test
		Heartbeat:    time.Hour,
		Limits: pushy.Limits{
			ConnBuffer:   64 << 10,
			TriggerBytes: 8 << 10,
		},
		Hooks: pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, _ string) {
			if code == 3008 {
				slow.Add(1)
			}
		}},
	})
	cut, err := net.Dial("tcp", addr) // in the middle of its ClientHello
	require.NoError(t, err)
	defer func() { _ = cut.Close() }()
	_, err = cut.Write([]byte{22, 3, 1, 1, 0, 1, 0, 0})
	require.NoError(t, err)

	dialTLS(t, addr).subscribe() // never reads
	dialTLS(t, addr).subscribe().flood()
	reading := dialTLS(t, addr).subscribe()

	padding := strings.Repeat("x", 2<<10)
	until := time.Now().Add(clientPatience)
	for n, more := 0, 200; more > 0; n++ {
		require.True(t, time.Now().Before(until), "a client that does not read stays connected")
		_, err := srv.PublishEvent(t.Context(), pushy.Event{
			Channel: "all",
			Name:    "event",
			Data:    fmt.Sprint(n, " ", padding),
		})
		require.NoError(t, err)
		require.Equal(t, n, reading.number(reading.Receive()))
		if slow.Load() > 0 {
			more--
		}
	}
	require.NoError(t, cut.Close())
	require.Equal(t, 1000, reading.Close(1000, ""))
}

// The connection of a client that reads no answers to its key updates is closed after WriteTimeout.
func TestTLSKeyUpdatesThatAreNotRead(t *testing.T) {
	t.Parallel()
	ended := make(chan int, 1)
	srv, addr := serveTLS(t, pushy.Options{
		WriteTimeout: time.Second,
		Hooks:        pushy.Hooks{Disconnect: func(_ *pushy.Conn, code int, _ string) { ended <- code }},
	})
	dialTLS(t, addr).subscribe().flood()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for until := time.Now().Add(clientPatience); ; {
		select {
		case code := <-ended:
			assert.Contains(t, []int{1006, 3008}, code, "the reader or the writer fails first")
			return
		case <-again.C: // the server may have been only slow when flood returned
			require.True(t, time.Now().Before(until), "the connection remains open")
			require.NoError(t, srv.Publish(t.Context(), "all", "event", "text"))
		}
	}
}

// The server answers key updates of a client while it writes events, and ends the connection with a close_notify.
func TestTLSKeyUpdates(t *testing.T) {
	t.Parallel()
	srv, addr := serveTLS(t, pushy.Options{})
	c := dialTLS(t, addr).subscribe()
	next := 0
	for n := range 300 {
		ping := ws.MustCompileFrame(ws.MaskFrame(ws.NewPingFrame(fmt.Append(nil, n))))
		_, err := c.under.Conn.Write(append(c.keyUpdate(), c.record(23, ping)...))
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, srv.Publish(t.Context(), "all", "event", fmt.Sprint(3*n+i)))
		}
		for answered := false; !answered || next < 3*n+3; {
			frame, err := ws.ReadFrame(c.in)
			require.NoError(t, err)
			if frame.Header.OpCode == ws.OpPong {
				require.Equal(t, fmt.Sprint(n), string(frame.Payload))
				answered = true
				continue
			}
			require.Equal(t, next, c.number(string(frame.Payload)))
			next++
		}
	}
	closing := ws.MustCompileFrame(ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, ""))))
	_, err := c.under.Conn.Write(c.record(23, closing))
	require.NoError(t, err)
	frame, err := c.read()
	require.NoError(t, err)
	require.Equal(t, ws.OpClose, frame.Header.OpCode)
	_, err = c.in.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err, "not an unexpected end")
}
