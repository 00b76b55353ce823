package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testCertificate is a certificate that signs itself, as files.
type testCertificate struct {
	cert, key string // names in the folder
	pool      *x509.CertPool
	serial    int64
}

// newCertificate writes name.pem and name.key for 127.0.0.1.
func newCertificate(t *testing.T, dir, name string, serial int64) testCertificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "pushy test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	c := testCertificate{cert: name + ".pem", key: name + ".key", pool: x509.NewCertPool(), serial: serial}
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	c.pool.AddCert(parsed)
	writePEM(t, filepath.Join(dir, c.cert), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, c.key), "PRIVATE KEY", pkcs8)
	return c
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// handshake returns the version spoken, if the server shows this certificate.
func (c testCertificate) handshake(t *testing.T, addr string, maxVersion uint16) (version uint16, err error) {
	t.Helper()
	conn := tls.Client(dial(t, addr), &tls.Config{RootCAs: c.pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS10, MaxVersion: maxVersion})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return 0, err
	}
	state := conn.ConnectionState()
	assert.Equal(t, c.serial, state.PeerCertificates[0].SerialNumber.Int64())
	return state.Version, conn.Close()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newCertificate(t, dir, "own", 1)
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"ssl":true,"cert":"`+dir+`/own.pem","key":"`+dir+`/own.key"}`)
	assert.Equal(t, true, p.log.wait(t, "listening")["tls"])

	version, err := first.handshake(t, p.addr, 0)
	require.NoError(t, err)
	assert.Equal(t, uint16(tls.VersionTLS13), version)
	version, err = first.handshake(t, p.addr, tls.VersionTLS12)
	require.NoError(t, err)
	assert.Equal(t, uint16(tls.VersionTLS12), version)
	_, err = first.handshake(t, p.addr, tls.VersionTLS11)
	require.ErrorContains(t, err, "protocol version")

	// The server's own complaints are lines of the same log.
	for found := false; !found; {
		all, changed := p.log.lines(t)
		for _, fields := range all {
			message, _ := fields["msg"].(string)
			found = found || fields["level"] == "WARN" && len(message) > 5 && message[:5] == "http:"
		}
		if !found {
			select {
			case <-changed:
			case <-time.After(patience):
				require.Failf(t, "no complaint logged", "%s", p.log)
			}
		}
	}

	second := newCertificate(t, dir, "own", 2)
	p.signal(t, syscall.SIGHUP)
	notAfter, _ := p.log.wait(t, "certificate reloaded")["notAfter"].(string)
	_, err = time.Parse(time.RFC3339, notAfter)
	require.NoError(t, err)
	_, err = second.handshake(t, p.addr, 0)
	require.NoError(t, err)
	_, err = first.handshake(t, p.addr, 0)
	require.Error(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "own.pem"), []byte("broken"), 0o600))
	p.signal(t, syscall.SIGHUP)
	failed := p.log.wait(t, "cannot reload the certificate; the old one remains in use")
	assert.Equal(t, "cert and key: "+dir+"/own.pem and "+dir+"/own.key: tls: failed to find any PEM data in certificate input", failed["error"])
	_, err = second.handshake(t, p.addr, 0)
	require.NoError(t, err)

	c := connect(t, "wss://"+p.addr+"/pushy/socket/websocket", second.pool)
	p.signal(t, syscall.SIGTERM)
	assert.Equal(t, 1012, c.closeCode())
	assert.Equal(t, 0, p.status(t))
}
