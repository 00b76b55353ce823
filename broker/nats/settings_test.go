package nats_test

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
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/internal/natstest"
)

// authority is a certificate authority of a test, and the files of one
// certificate for 127.0.0.1.
type authority struct {
	pool     *x509.CertPool
	ca       string // file names
	certFile string
	keyFile  string
	pair     tls.Certificate
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	require.NoError(t, err)
	ca, err = x509.ParseCertificate(caDER)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "node"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	a := authority{
		pool:     x509.NewCertPool(),
		ca:       write("ca.pem", "CERTIFICATE", caDER),
		certFile: write("cert.pem", "CERTIFICATE", der),
		keyFile:  write("key.pem", "EC PRIVATE KEY", keyDER),
	}
	a.pool.AddCert(ca)
	a.pair, err = tls.LoadX509KeyPair(a.certFile, a.keyFile)
	require.NoError(t, err)
	return a
}

// configured is a server of the test's own with a configuration file.
func configured(t testing.TB, config string) *natstest.Server {
	t.Helper()
	s, err := natstest.StartConfigured(config)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// What cannot work is refused, and no error has a password.
func TestValidateURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, url, says string }{
		{"one", "nats://a:4222", ""},
		{"default", "", ""},
		{"several", "nats://a:4222,nats://b:4222", ""},
		{"blanks", " nats://a:4222 , nats://b:4222 ", ""},
		{"tls", "tls://a:4222, tls://b", ""},
		{"webSocket", "ws://a:8080,wss://b/", ""},
		{"trailingComma", "nats://a:4222,", ""},
		{"ipv6", "nats://[::1]:4222,nats://[fe80::1%25eth0]", ""},
		{"user", "nats://user:secret@a:4222", ""},
		{"token", "nats://secret@a:4222", ""},
		{"encoded", "nats://user:se%2Ccr%40et@a:4222", ""},
		{"bare", "a:4222", "not of the form nats://"},
		{"bareList", "a:1,b:2", "not of the form nats://"},
		{"bareSecond", "nats://a:4222,b:4222", `"b:4222" is not of the form nats://`},
		{"bareIPv6", "::1", "not of the form nats://"},
		{"ipv6WithoutBrackets", "nats://::1:4222", "not of the form nats://host:4222|brackets"},
		{"redis", "redis://user:secret@host:6379", "neither nats nor tls"},
		{"http", "http://a:4222", "neither nats nor tls"},
		{"unix", "unix:///run/nats.sock", "neither nats nor tls"},
		{"onlyCommas", " , ,", "no address"},
		{"noHost", "nats://", "not of the form nats://"},
		{"onlyPort", "nats://:4222", "not of the form nats://"},
		{"blankInside", "nats://a b:4222", "not of the form nats://"},
		{"wideHost", "nats://*:4222", "not of the form nats://"},
		{"portOver", "nats://a:70000", "port from 1 to 65535"},
		{"portZero", "nats://a:0", "port from 1 to 65535"},
		{"portEmpty", "nats://a:", "port from 1 to 65535"},
		{"path", "nats://a:4222/path", "more than a host and a port"},
		{"query", "nats://a:4222?tls=true", "more than a host and a port"},
		{"mixed", "nats://a:4222,ws://b:80", "use it for all or none"},
		{"comma", "nats://user:secret,secret@a:4222", "percent-encoded"},
		{"hash", "nats://user:123#secret@a:4222", "more than a host and a port"},
		{"question", "nats://user:secret?secret@a:4222", "percent-encoded"},
		{"slash", "nats://user:secret/secret@a:4222", "percent-encoded"},
		{"twoAts", "nats://user:sec ret@secret@a:4222", "percent-encoded"},
		{"userWithoutHost", "nats://user:secret", "not of the form nats://host:4222"},
		{"userWithoutHostOrSlashes", "nats:user:secret", "not of the form nats://host:4222"},
		{"tokenInQuery", "nats://a:4222?token=secret", "more than a host and a port"},
		{"tokenInFragment", "nats://a:4222#secret", "more than a host and a port"},
		{"tokenInPath", "nats://a:4222/secret", "more than a host and a port"},
		{"tokenAfterPort", "nats://a:4222:secret", "not of the form nats://host:4222"},
		{"control", "nats://\x01secret", "not of the form nats://host:4222"},
		{"semicolon", "nats://a:4222;nats://b:4222", "separated by commas"},
		{"blankBetween", "nats://a:4222 nats://b:4222", "not of the form nats://host:4222"},
		{"upperCase", "NATS://a:4222, TLS://b", ""},
		{"lines", "nats://a:4222,\n\tnats://b:4222\n", ""},
		{"noUser", "nats://:secret@a:4222", "before it"},
		{"noPassword", "nats://secret:@a:4222", "before it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := nats.Options{URL: c.url}.Validate()
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, "URL", wrong.Setting)
			assert.True(t, matchesAny(err.Error(), c.says), err)
			assert.NotContains(t, err.Error(), "secret")
			_, fails := try(t, nats.Options{URL: c.url}, time.Minute, nil)
			require.EqualError(t, fails, err.Error(), "Open refuses what Validate does")
		})
	}
}

func matchesAny(text, alternatives string) bool {
	for one := range strings.SplitSeq(alternatives, "|") {
		if strings.Contains(text, one) {
			return true
		}
	}
	return false
}

// So are other options.
func TestValidateOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		return name
	}
	for _, c := range []struct {
		name, setting, says string
		o                   nats.Options
	}{
		{"userTwice", "URL", "Options.User", nats.Options{URL: "nats://u:secret@a", User: "u", Password: "secret"}},
		{"tokenTwice", "URL", "Options.Token", nats.Options{URL: "nats://secret@a", Token: "secret"}},
		{"userAndToken", "Token", "Options.User", nats.Options{User: "u", Password: "secret", Token: "secret"}},
		{"noNKey", "NKey", "no such file", nats.Options{NKey: "/nowhere.nk"}},
		{"emptyNKey", "NKey", "", nats.Options{NKey: file("empty.nk", "secret")}},
		{"noCredentials", "Credentials", "no such file", nats.Options{Credentials: "/nowhere.creds"}},
		{"emptyCredentials", "Credentials", "", nats.Options{Credentials: file("empty.creds", "secret")}},
		{"inboxDot", "InboxPrefix", "_INBOX.app", nats.Options{InboxPrefix: "_INBOX."}},
		{"inboxWild", "InboxPrefix", "_INBOX.app", nats.Options{InboxPrefix: "_INBOX.>"}},
		{"inboxOurs", "InboxPrefix", "Options.Prefix", nats.Options{InboxPrefix: "pushy.i"}},
		{"fewBytes", "MaxBytes", "65536", nats.Options{MaxBytes: 1}},
		{"negativeBytes", "MaxBytes", "65536", nats.Options{MaxBytes: -1}},
		{"dottedPrefix", "Prefix", `"a.b"`, nats.Options{Prefix: "a.b"}},
		{"manyReplicas", "Replicas", "from 1 to 5", nats.Options{Replicas: 6}},
		{"longTimeout", "Timeout", "24h", nats.Options{Timeout: 1 << 62}},
		{"shortTimeout", "Timeout", "under 100ms", nats.Options{Timeout: time.Millisecond}},
		{"passwordWithoutUser", "User", "Options.Password is not", nats.Options{Password: "secret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.o.Validate()
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting)
			assert.Contains(t, err.Error(), c.says)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

// What the server does not accept is a setting error,
// whether or not NATS is required, and what it accepts connects.
func TestIdentitiesAndTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	files := `cert_file: "` + ca.certFile + `", key_file: "` + ca.keyFile + `"`
	secured := configured(t, `tls { `+files+` }`)
	mutual := configured(t, `tls { `+files+`, ca_file: "`+ca.ca+`", verify: true }`)
	user := configured(t, `authorization { user: app, password: "s3cret" }`)
	token := configured(t, `authorization { token: "s3cret" }`)
	// A seed of nats.go's own tests.
	const seed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
	seedFile := filepath.Join(t.TempDir(), "seed.nk")
	require.NoError(t, os.WriteFile(seedFile, []byte(seed), 0o600))
	var public natsgo.Options
	use, err := natsgo.NkeyOptionFromSeed(seedFile)
	require.NoError(t, err)
	require.NoError(t, use(&public))
	nkey := configured(t, `authorization { users: [ { nkey: `+public.Nkey+` } ] }`)
	webSocket := configured(t, `websocket { listen: "127.0.0.1:-1", no_tls: true }`)
	wsURL := webSocketURL(t, webSocket)
	wssURL := webSocketURL(t, configured(t, `websocket { listen: "127.0.0.1:-1", tls { `+files+` } }`))
	with := func(s *natstest.Server, user *url.Userinfo) string {
		return (&url.URL{Scheme: "nats", User: user, Host: s.Addr}).String()
	}
	trusts := func(a authority, pairs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: a.pool, Certificates: pairs}
	}
	for _, c := range []struct {
		name, setting string // setting "" if it connects
		o             nats.Options
	}{
		{"tls", "", nats.Options{URL: secured.URL, TLS: trusts(ca)}},
		{"tlsScheme", "", nats.Options{URL: "tls://" + secured.Addr, TLS: trusts(ca)}},
		{"wrongAuthority", "TLS", nats.Options{URL: secured.URL, TLS: trusts(other)}},
		{"unknownAuthority", "TLS", nats.Options{URL: secured.URL}},
		{"otherName", "TLS", nats.Options{URL: "tls://localhost:" + secured.Port(), TLS: trusts(ca)}},
		{"noTLSThere", "TLS", nats.Options{URL: user.URL, User: "app", Password: "s3cret", TLS: trusts(ca)}},
		{"clientCertificate", "", nats.Options{URL: mutual.URL, TLS: trusts(ca, ca.pair)}},
		{"noClientCertificate", "TLS", nats.Options{URL: mutual.URL, TLS: trusts(ca)}},
		{"otherClientCertificate", "TLS", nats.Options{URL: mutual.URL, TLS: trusts(ca, other.pair)}},
		{"password", "", nats.Options{URL: user.URL, User: "app", Password: "s3cret"}},
		{"wrongPassword", "Password", nats.Options{URL: user.URL, User: "app", Password: "s3cretive"}},
		{"noPassword", "Password", nats.Options{URL: user.URL}},
		{"passwordInURL", "", nats.Options{URL: with(user, url.UserPassword("app", "s3cret"))}},
		{"wrongPasswordInURL", "URL", nats.Options{URL: with(user, url.UserPassword("app", "s3cretive"))}},
		{"token", "", nats.Options{URL: token.URL, Token: "s3cret"}},
		{"tokenInURL", "", nats.Options{URL: with(token, url.User("s3cret"))}},
		{"wrongTokenInURL", "URL", nats.Options{URL: with(token, url.User("s3cretive"))}},
		{"nkey", "", nats.Options{URL: nkey.URL, NKey: seedFile}},
		{"noNKey", "Password", nats.Options{URL: nkey.URL}},
		{"webSocket", "", nats.Options{URL: wsURL}},
		{"webSocketOfNothing", "URL", nats.Options{URL: "ws://" + user.Addr, RequireAtStart: true}},
		{"webSocketWithoutTLS", "TLS", nats.Options{URL: "ws" + strings.TrimPrefix(wssURL, "wss")}},
		{"secureWebSocketOfPlain", "TLS", nats.Options{URL: "wss" + strings.TrimPrefix(wsURL, "ws"), TLS: trusts(ca)}},
		{"secureWebSocket", "", nats.Options{URL: wssURL, TLS: trusts(ca)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Prefix = "identity"
			b, err := try(t, c.o, time.Minute, nil)
			if c.setting == "" {
				require.NoError(t, err)
				require.NoError(t, b.Away())
				return
			}
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting, err)
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
}

// An account that requires a size gets one.
func TestMaxBytesRequired(t *testing.T) {
	t.Parallel()
	s := configured(t, `
		accounts { app {
			users: [ { user: app, password: app } ]
			jetstream { max_file: 64MB, max_memory: 64MB, max_bytes_required: true, disk_max_stream_bytes: 1MB, memory_max_stream_bytes: 1MB }
		} }
		no_auth_user: app
	`)
	var wrong *nats.SettingError
	_, err := try(t, nats.Options{URL: s.URL}, time.Minute, nil)
	require.ErrorAs(t, err, &wrong)
	assert.Equal(t, "MaxBytes", wrong.Setting, err)
	_, err = try(t, nats.Options{URL: s.URL, MaxBytes: 2 << 20}, time.Minute, nil)
	require.ErrorAs(t, err, &wrong)
	assert.Equal(t, "MaxBytes", wrong.Setting, err)
	n := open(t, nats.Options{URL: s.URL, MaxBytes: 1 << 20})
	n.append("room", join("1"))
	n.append("room", kept("1"))
	require.NoError(t, n.Away())
}

// What the server does not have, or cannot do, is a setting error of Open.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	plain, err := natstest.Start()
	require.NoError(t, err)
	t.Cleanup(plain.Close)
	for _, c := range []struct {
		name, setting, says string
		o                   nats.Options
	}{
		{"noJetStream", "URL", "has no JetStream", nats.Options{URL: plain.URL}},
		{"nobodyThere", "URL", "nats://127.0.0.1:1: ", nats.Options{URL: "nats://127.0.0.1:1", RequireAtStart: true}},
		{"manyReplicas", "Replicas", "3", nats.Options{URL: shared.URL, Replicas: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := try(t, c.o, time.Minute, nil)
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting, err)
			assert.Contains(t, err.Error(), c.says)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}
