package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A seed of nats.go's own tests.
const nkeySeed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"

// checkFiles makes a directory with what the broker settings of a test name.
func checkFiles(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	newCertificate(t, dir, "own", 1)
	newCertificate(t, dir, "other", 2)
	for name, content := range map[string]string{
		"empty.pem":  "",
		"seed.nk":    nkeySeed,
		"broken.nk":  "SU" + secret,
		"empty.nk":   "",
		"no.creds":   secret,
		"text.pem":   secret,
		"broken.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// Issue 11, number 11: -check finds what is wrong with the broker's settings without
// connecting, and names the config's key.
func TestCheckOfBrokerSettings(t *testing.T) {
	t.Parallel()
	dir := checkFiles(t)
	for _, test := range []struct {
		name, broker string
		says         string // after the file's name; "" if it is right
	}{
		{"redis", `{"redis":{"addresses":["redis.example:6379"],"password":"p"}}`, ""},
		{"redisTLS", `{"redis":{"tls":true}}`, ""},
		{"redisCA", `{"redis":{"ca":"own.pem"}}`, ""},
		{"redisAll", `{"redis":{"tls":true,"ca":"own.pem","cert":"own.pem","key":"own.key"}}`, ""},
		{"nats", `{"nats":{"url":"nats://a.example:4222, nats://b.example:4222"}}`, ""},
		{"natsAll", `{"nats":{"url":"tls://a.example","ca":"own.pem","cert":"own.pem","key":"own.key","nkey":"seed.nk"}}`, ""},
		{"wholePath", `{"nats":{"ca":"` + dir + `/own.pem"}}`, ""},

		{"caMissing", `{"redis":{"ca":"none.pem"}}`, "broker.redis.ca: open "},
		{"caEmpty", `{"redis":{"ca":"empty.pem"}}`, "has no certificate in PEM form"},
		{"caText", `{"nats":{"ca":"text.pem"}}`, "broker.nats.ca: "},
		{"caBroken", `{"nats":{"ca":"broken.pem"}}`, "broker.nats.ca: "},
		{"caKey", `{"nats":{"ca":"own.key"}}`, "broker.nats.ca: "},
		{"caDirectory", `{"nats":{"ca":"` + dir + `"}}`, "broker.nats.ca: "},
		{"certMissing", `{"redis":{"cert":"none.pem","key":"own.key"}}`, "broker.redis.cert: open "},
		{"keyMissing", `{"nats":{"cert":"own.pem","key":"none.key"}}`, "broker.nats.key: open "},
		{"pair", `{"redis":{"cert":"own.pem","key":"other.key"}}`, "broker.redis.cert and key: "},
		{"pairOfNATS", `{"nats":{"cert":"other.pem","key":"own.key"}}`, "broker.nats.cert and key: "},
		{"certAlone", `{"redis":{"cert":"own.pem"}}`, "broker.redis.key is missing: cert needs it"},
		{"keyAlone", `{"nats":{"key":"own.key"}}`, "broker.nats.cert is missing: key needs it"},
		{"tlsOff", `{"redis":{"tls":false,"ca":"own.pem"}}`, "broker.redis.ca is given, but tls is false"},
		{"tlsOffCert", `{"nats":{"tls":false,"cert":"own.pem","key":"own.key"}}`, "broker.nats.cert is given, but tls is false"},

		{"nkeyMissing", `{"nats":{"nkey":"none.nk"}}`, "broker.nats.nkey: "},
		{"nkeyEmpty", `{"nats":{"nkey":"empty.nk"}}`, "broker.nats.nkey: "},
		{"nkeyBroken", `{"nats":{"nkey":"broken.nk"}}`, "broker.nats.nkey: "},
		{"credentialsMissing", `{"nats":{"credentials":"none.creds"}}`, "broker.nats.credentials: "},
		{"credentialsBroken", `{"nats":{"credentials":"no.creds"}}`, "broker.nats.credentials: "},
		{"twoWays", `{"nats":{"user":"u","password":"p","nkey":"seed.nk"}}`, "broker.nats.nkey: is set, and broker.nats.user too"},
		{"natsURL", `{"nats":{"url":"127.0.0.1"}}`, "broker.nats.url: "},
		{"natsURLWithSecret", `{"nats":{"url":"redis://u:` + secret + `@host:6379"}}`, "broker.nats.url: "},
		{"natsPrefix", `{"nats":{"prefix":"a.b"}}`, "broker.nats.prefix: "},
		{"natsInbox", `{"nats":{"inboxPrefix":"a.>"}}`, "broker.nats.inboxPrefix: "},
		{"natsBytes", `{"nats":{"maxBytes":5}}`, "broker.nats.maxBytes: "},
		{"redisNoPort", `{"redis":{"addresses":["127.0.0.1"]}}`, "broker.redis.addresses: "},
		{"redisURL", `{"redis":{"addresses":["redis://u:` + secret + `@host:6379"]}}`, "the user into broker.redis.username, the password into broker.redis.password"},
		{"redisTLSURL", `{"redis":{"addresses":["rediss://host:6379"]}}`, "and set broker.redis.tls"},
		{"redisUser", `{"redis":{"addresses":["u:` + secret + `@host:6379"]}}`, "the number of a database into broker.redis.database"},
		{"redisTwo", `{"redis":{"addresses":["a:1","b:2"]}}`, "has 2 addresses, but neither broker.redis.cluster nor broker.redis.sentinelMaster is set"},
		{"redisSentinels", `{"redis":{"cluster":true,"sentinelMaster":"m"}}`, "a Cluster has no Sentinels: set either this or broker.redis.sentinelMaster"},
		{"redisList", `{"redis":{"addresses":["a:1,b:2"]}}`, "broker.redis.addresses: "},
		{"redisIPv6", `{"redis":{"addresses":["::1"]}}`, "broker.redis.addresses: "},
		{"redisSocket", `{"redis":{"addresses":["unix:///run/redis.sock"]}}`, "broker.redis.addresses: "},
		{"redisUser", `{"redis":{"addresses":["u:` + secret + `@host:6379"]}}`,
			"the user into broker.redis.username, the password into broker.redis.password"},
		{"redisTLSURL", `{"redis":{"addresses":["rediss://:` + secret + `@host:6379"]}}`, "and set broker.redis.tls"},
		{"redisText", `{"redis":{"addresses":"redis://u:` + secret + `@host:6379"}}`, "must be an array of strings"},
		{"redisTwo", `{"redis":{"addresses":["a:1","b:2"]}}`, "neither broker.redis.cluster nor broker.redis.sentinelMaster"},
		{"redisPort", `{"redis":{"addresses":["host:65536"]}}`, "the port is not a number from 1 to 65535"},
		{"redisSentinel", `{"redis":{"sentinelPassword":"` + secret + `"}}`, "broker.redis.sentinelMaster is not"},
		{"redisTimeout", `{"redis":{"timeout":1}}`, "broker.redis.timeout: 1ms is under 100ms"},
		{"natsPasswordAlone", `{"nats":{"password":"` + secret + `"}}`, "broker.nats.password is not"},
		{"natsToken", `{"nats":{"url":"nats://host:4222?token=` + secret + `"}}`, "has more than a host and a port"},
		{"natsList", `{"nats":{"url":["nats://u:` + secret + `@host"]}}`, "must be a string"},
		{"natsMixed", `{"nats":{"url":"nats://a:1,ws://b:1"}}`, "use it for all or none"},
		{"redisDatabase", `{"redis":{"cluster":true,"database":1}}`, "broker.redis.database: "},
		{"redisLease", `{"redis":{"lease":15000}}`, "broker.redis.lease was removed"},
		{"natsLease", `{"nats":{"lease":15000}}`, "broker.nats.lease was removed"},
		{"natsMemory", `{"nats":{"memory":true}}`, "broker.nats.memory was removed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, test.name+".json")
			require.NoError(t, os.WriteFile(file, []byte(`{"secretKey":"`+secret+`","broker":`+test.broker+`}`), 0o600))
			status, stdout, stderr := runProgram(t, "-check", file)
			if test.says == "" {
				assert.Equal(t, exitOK, status, stderr)
				assert.Empty(t, stderr)
				assert.Contains(t, stdout, file+": ok: would listen on ")
				return
			}
			assert.Equal(t, exitUsage, status)
			assert.Regexp(t, "^pushy-server: "+regexp.QuoteMeta(file)+":(\\d+:\\d+:)? broker\\.", stderr)
			assert.Contains(t, stderr, test.says)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			assert.NotContains(t, stderr, secret)
			assert.NotContains(t, stderr, "Options.")
			assert.NotContains(t, stderr, nkeySeed)
			assert.Empty(t, stdout)
		})
	}
}

// Issue 11, number 11: publish and listen take the address and the secret key from
// the config, and need none of the files that the server needs.
func TestTargetNeedsNoFilesOfTheServer(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":1,"ssl":true,"cert":"none.pem","key":"none.key",
		"broker":{"nats":{"nkey":"none.nk","ca":"none.pem"}}}`)
	tm := newTerminal(nil).start("publish", "-config", file, "-tries", "1", "lobby", "news")
	assert.Equal(t, exitFailed, tm.end(t))
	assert.Contains(t, tm.err.String(), "connection refused")
}

// Issue 11, number 11: Redis and NATS are reached over TLS with the authority and the
// certificate that the config names, and SIGHUP reads the certificate again.
func TestBrokerTLS(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"redis", "nats"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			server := newCertificate(t, dir, "server", 1)
			first := newCertificate(t, dir, "own", 2)
			serials, addr := startTLSBroker(t, dir, server, engine)
			broker := `{"redis":{"addresses":["` + addr + `"],"ca":"server.pem","cert":"own.pem","key":"own.key","timeout":5000}}`
			if engine == "nats" {
				broker = `{"nats":{"url":"nats://` + addr + `","ca":"server.pem","cert":"own.pem","key":"own.key","timeout":5000}}`
			}
			p := startProcessIn(t, dir, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"broker":`+broker+`}`)
			assert.Equal(t, first.serial, <-serials)
			second := newCertificate(t, dir, "own", 3)
			p.signal(t, syscall.SIGHUP)
			assert.Equal(t, "broker", p.log.wait(t, "certificate reloaded")["of"])
			for serial := range serials {
				if serial == second.serial {
					break
				}
				assert.Equal(t, first.serial, serial)
			}
		})
	}
}

// startTLSBroker listens as a broker that ends each connection after the handshake, so
// that the next one comes, and reports the client certificates' serial numbers.
func startTLSBroker(t *testing.T, dir string, own testCertificate, engine string) (serials <-chan int64, addr string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, own.cert), filepath.Join(dir, own.key))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	all := make(chan int64, 1000)
	go func() {
		defer close(all)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if engine == "nats" { // it speaks first, and in the clear
				_, _ = conn.Write([]byte(`INFO {"server_id":"x","version":"2.10.0","tls_required":true,"max_payload":1048576}` + "\r\n"))
			}
			secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
			if secured.HandshakeContext(t.Context()) == nil {
				_, _ = bufio.NewReader(secured).ReadByte()
				select {
				case all <- secured.ConnectionState().PeerCertificates[0].SerialNumber.Int64():
				default:
				}
			}
			_ = conn.Close()
		}
	}()
	return all, listener.Addr().String()
}
