package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
	"github.com/gopushy/pushy/pushytest"
)

func containsAny(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// Issue 11, number 7. What is no host:port is refused before anything is connected, with
// the option that is meant, and without the password.
func TestAddresses(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, c := range []struct{ address, says string }{
		{"redis://ann:" + secret + "@host", "the user into Options.Username, the password into Options.Password"},
		{"redis://ann:" + secret + "@host:6379/2", "the number of a database into Options.Database"},
		{"redis://host:6379", "is not host:port"},
		{"REDISS://:" + secret + "@host:6379", "set Options.TLS"},
		{"unix:///" + secret, "Unix socket"},
		{"//ann:" + secret + "@host:1", "Password"},
		{"ann:" + secret + "@host:6379", "Password"},
		{secret + "@host:6379", "Password"},
		{"/var/run/" + secret + ".sock", "is not host:port"},
		{"host:6379/" + secret, "Database"},
		{"host:6379?password=" + secret, "Password"},
		{"host:6379#" + secret, "is not host:port"},
		{`host\` + secret + ":6379", "is not host:port"},
		{"a:1,b:2", "several addresses"},
		{"a:1;b:2", "several addresses"},
		{"a:1 b:2", "is not host:port"},
		{"ann:" + secret + ":6379", "is not host:port"},
		{"ann " + secret + ":6379", "is not host:port"},
		{"::1", "write [::1]:6379"},
		{"[::1]", "write [::1]:6379"},
		{"fe80::1", "write [fe80::1]:6379"},
		{"::1:6379", "IPv6"},
		{"[::1]6379", "is not host:port"},
		{"[::1", "write [::1]:6379"},
		{"[host]:6379x", "port"},
		{"", "empty"},
		{" ", "is not host:port"},
		{" host:6379", "is not host:port"},
		{"host:6379 ", "port"},
		{"host", `"host" is not host:port`},
		{"host:", "port"},
		{":6379", "host"},
		{":", "port"},
		{"host:0", "port"},
		{"host:65536", "port"},
		{"host:-1", "port"},
		{"host:+1", "port"},
		{"host:06379", "port"},
		{"host:redis", "port"},
		{"host:" + secret, "port"},
		{"bücher:6379", "host"},
		{"host\x00:6379", "host"},
		{"host\n:6379", "host"},
	} {
		t.Run(c.address, func(t *testing.T) {
			t.Parallel()
			log := &lines{}
			for name, check := range map[string]func(redis.Options) error{
				"Validate": redis.Options.Validate,
				"New": func(o redis.Options) error {
					_, err := redis.New(t.Context(), o)
					return err
				},
			} {
				err := check(redis.Options{Addresses: []string{c.address}, Logger: log.logger()})
				var wrong *redis.SettingError
				require.ErrorAs(t, err, &wrong, name)
				assert.Equal(t, "Addresses", wrong.Setting)
				assert.Contains(t, err.Error(), c.says)
				assert.NotContains(t, err.Error(), secret)
				assert.NotContains(t, err.Error(), "\n")
				err = check(redis.Options{Addresses: []string{"127.0.0.1:1", c.address}, Cluster: true, Logger: log.logger()})
				require.ErrorAs(t, err, &wrong, name)
			}
			assert.Empty(t, log.String())
		})
	}
	for _, good := range []string{"localhost:6379", "127.0.0.1:1", "[::1]:6379", "[fe80::1%eth0]:6379", "my_host.example.:65535", "a-b:1"} {
		assert.NoError(t, redis.Options{Addresses: []string{good}}.Validate(), good)
	}
	assert.NoError(t, redis.Options{}.Validate())
	for setting, o := range map[string]redis.Options{
		"SentinelPassword": {SentinelPassword: secret},
		"SentinelUsername": {SentinelUsername: secret},
		"Prefix":           {Prefix: "a\nb"},
		"Lease":            {Lease: time.Millisecond},
		"Timeout":          {Timeout: -1},
		"Timeout ":         {Timeout: 3}, // nanoseconds
		"Timeout  ":        {Timeout: 25 * time.Hour},
		"Lease ":           {Lease: 1 << 62},
		"Cluster":          {Cluster: true, SentinelMaster: "main"},
	} {
		var wrong *redis.SettingError
		require.ErrorAs(t, o.Validate(), &wrong)
		assert.Equal(t, strings.TrimSpace(setting), wrong.Setting)
		assert.NotContains(t, wrong.Error(), secret)
	}
}

// documentedACL returns the ACL lines of the package's documentation, as arguments.
func documentedACL(t testing.TB) (lines [][]string) {
	source, err := os.ReadFile("redis.go")
	require.NoError(t, err)
	for _, found := range regexp.MustCompile(`(?m)^//\tACL SETUSER (.*)$`).FindAllStringSubmatch(string(source), -1) {
		lines = append(lines, append([]string{"ACL", "SETUSER"}, strings.Fields(found[1])...))
	}
	require.Greater(t, len(lines), 4)
	return lines
}

func asUser(o redis.Options, s *redistest.Server, log *lines) redis.Options {
	o.Addresses, o.Username, o.Password = []string{s.Addr}, "pushy", "password"
	o.Prefix, o.Logger = "pushy", log.logger()
	return o
}

// Issue 11, number 6. The ACL lines of the documentation, as they stand there, are
// enough for all that a node does.
func TestDocumentedACL(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]func(t *testing.T) []*redistest.Server{
		"single": func(t *testing.T) []*redistest.Server { return []*redistest.Server{ownServer(t)} },
		"cluster": func(t *testing.T) []*redistest.Server {
			all, err := redistest.Cluster(2)
			require.NoError(t, err)
			t.Cleanup(func() {
				for _, s := range all {
					s.Close()
				}
			})
			return all
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := servers(t)
			for _, s := range all {
				for _, line := range documentedACL(t) {
					if name == "single" && containsAny(strings.Join(line, " "), "+cluster", "+ssubscribe") {
						continue
					}
					answer, err := s.Command(line...)
					require.NoError(t, err)
					require.Equal(t, "+OK", answer, "%q", line)
				}
			}
			log := &lines{}
			o := asUser(options(t), all[0], log)
			o.Cluster = name == "cluster"
			a, b := connect(t, o), connect(t, o)
			one, two := serve(t, a, o.Logger), serve(t, b, o.Logger)
			ann, bob := newKit(t, one).Connect(), newKit(t, two).Connect()
			for _, channel := range []string{"private-x", "private-y", "private-z"} {
				ann.Subscribe(channel, named("Ann"))
				in := bob.Subscribe(channel, named("Bob"))
				assert.Equal(t, []string{"Ann", "Bob"}, names(t, in.Presence))
				require.NoError(t, one.Publish(t.Context(), channel, "said", 1))
				bob.ExpectEvent(channel, "said", nil)
				require.NoError(t, bob.Unsubscribe(channel))
				ann.ExpectEvent(channel, "pushy:presence-quit", nil)
			}
			b.Kill() // and be swept
			dead := connect(t, o)
			require.NoError(t, dead.Join(t.Context(), "private-x", pushy.Member{ID: "dead", HasData: true, JSON: []byte(`{"memberId":"dead"}`)}))
			ann.ExpectEvent("private-x", "pushy:presence-add", nil)
			dead.Kill()
			ann.ExpectEvent("private-x", "pushy:presence-quit", nil)
			assert.NoError(t, a.Close())
			for _, s := range all {
				refused, err := s.Command("ACL", "LOG")
				require.NoError(t, err)
				assert.Equal(t, "*0", refused, "the number of refusals")
			}
			assert.Empty(t, log.with("level=WARN"), log)
			assert.Empty(t, log.with("level=ERROR"), log)
		})
	}
}

// What the user may not do is a setting error at New that names the command, not a node
// that is alone without a word.
func TestMissingPermissions(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	type missing struct{ acl, says string }
	cases := map[string]missing{
		"channels": {"resetchannels", "SUBSCRIBE|channel"}, // what Redis 7 gives a user with +@all ~*
		"keys":     {"resetkeys", "key"},
	}
	for _, line := range documentedACL(t) {
		for _, right := range line[2:] {
			command, is := strings.CutPrefix(right, "+")
			switch command {
			case "hello", "auth", "ping", "client|setname", "select": // needed by some clients and settings
			case "role", "info": // see below
			case "cluster", "asking", "readonly", "ssubscribe", "sunsubscribe", "spublish": // of a Cluster
			default:
				if is {
					cases[command] = missing{"-" + command, strings.ToUpper(command) + "|" + command}
				}
			}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ownServer(t)
			for _, line := range documentedACL(t) {
				set(t, s, line...)
			}
			set(t, s, "ACL", "SETUSER", "pushy", c.acl)
			for _, required := range []bool{true, false} {
				log := &lines{}
				o := asUser(options(t), s, log)
				o.RequireAtStart = required
				b, err := redis.New(t.Context(), o)
				if err == nil {
					_ = b.Close()
				}
				var wrong *redis.SettingError
				require.ErrorAs(t, err, &wrong)
				assert.Equal(t, "Username", wrong.Setting, err)
				assert.True(t, containsAny(err.Error(), strings.Split(c.says, "|")...), "%s in %s", c.says, err)
				assert.NotContains(t, err.Error()+log.String(), "password\"")
			}
		})
	}
	// The commands that only tell the role and version are missed, not needed.
	set(t, s, "ACL", "SETUSER", "pushy", "-info", "-role")
	log := &lines{}
	b := connect(t, asUser(options(t), s, log))
	assert.NoError(t, b.Away())
	assert.Len(t, log.with("subject=ROLE"), 1, log)
	assert.Len(t, log.with("subject=INFO"), 1, log)
}

// A permission that is taken away later is an error of the call, 503 at the trigger, and
// one line in the log that names the command.
func TestPermissionIsTakenAway(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	log := &lines{}
	b := connect(t, asUser(options(t), s, log))
	srv := serve(t, b, log.logger())
	ann := newKit(t, srv).Connect()
	ann.Subscribe("news")
	assert.Equal(t, http.StatusCreated, trigger(t, srv, serverKey, "news").Code)
	set(t, s, "ACL", "SETUSER", "pushy", "-publish")
	for range 3 {
		assert.Equal(t, http.StatusServiceUnavailable, trigger(t, srv, serverKey, "news").Code)
	}
	assert.ErrorContains(t, srv.Publish(t.Context(), "news", "said", 1), "NOPERM")
	assert.Len(t, log.with(`subject="PUBLISH {pushy}*"`), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "+publish")
	assert.Equal(t, http.StatusCreated, trigger(t, srv, serverKey, "news").Code)

	set(t, s, "ACL", "SETUSER", "pushy", "-subscribe")
	for _, channel := range []string{"a", "b"} {
		_, err := ann.TrySubscribe(channel)
		var refused *pushytest.RefusedError
		require.ErrorAs(t, err, &refused)
		assert.ErrorContains(t, b.Subscribe(t.Context(), channel), "NOPERM")
		_ = b.Unsubscribe(t.Context(), channel)
	}
	assert.Len(t, log.with(`subject="SUBSCRIBE {pushy}*"`), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "+subscribe")
	ann.Subscribe("c")

	set(t, s, "ACL", "SETUSER", "pushy", "-unsubscribe")
	require.NoError(t, b.Subscribe(t.Context(), "d"))
	assert.ErrorContains(t, b.Unsubscribe(t.Context(), "d"), "redis: unsubscribe: NOPERM")
	assert.Len(t, log.with(`subject="UNSUBSCRIBE {pushy}*"`), 1, log)
}

// A password that is changed while a node runs is a setting that is wrong, and says so
// once; the node serves its own clients, and is back once the password is right.
func TestPasswordIsChanged(t *testing.T) {
	t.Parallel()
	const first, second = "hunter2-first", "hunter2-second"
	s := ownServer(t)
	set(t, s, "ACL", "SETUSER", "ann", "on", ">"+first, "~*", "&*", "+@all")
	log := &lines{}
	o := options(t)
	o.Addresses, o.Username, o.Password, o.Logger = []string{s.Addr}, "ann", first, log.logger()
	a := connect(t, o)
	heardA := heard(t, a)
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	set(t, s, "ACL", "SETUSER", "ann", "resetpass", ">"+second)
	set(t, s, "CLIENT", "KILL", "USER", "ann")
	var wrong *redis.SettingError
	require.Eventually(t, func() bool { return errors.As(a.Away(), &wrong) }, patience, tick)
	assert.Equal(t, "Password", wrong.Setting)
	_, err := a.Publish(t.Context(), "news", event("alone"))
	require.NoError(t, err)
	assert.Equal(t, "alone", next(t, heardA).Event)
	assert.Len(t, log.with("until a setting is right"), 1, log)
	set(t, s, "ACL", "SETUSER", "ann", ">"+first)
	require.Eventually(t, func() bool { return a.Away() == nil }, patience, tick)
	assert.NotContains(t, log.String(), "hunter2")
}

// Issue 11, number 10. A SUBSCRIBE that is refused while the node reconnects must not
// leave a channel deaf on a node that says it is up.
func TestSubscribeRefusedWhileReconnecting(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	log := &lines{}
	o := asUser(options(t), s, log)
	a := connect(t, o)
	heardA := heard(t, a)
	require.NoError(t, a.Subscribe(t.Context(), "news"))
	require.NoError(t, a.Subscribe(t.Context(), "chat"))
	// Only the node's own channel and one of the others: what an ACL change leaves.
	set(t, s, "ACL", "SETUSER", "pushy", "resetchannels", "&{pushy}", "&{pushy}chat", "&{pushy}try*")
	set(t, s, "CLIENT", "KILL", "USER", "pushy")
	require.Eventually(t, func() bool { return a.Away() != nil }, patience, tick)
	require.Eventually(t, func() bool {
		err := a.Away()
		return err != nil && containsAny(err.Error(), "Options.Username")
	}, patience, tick)
	assert.Len(t, log.with("this node serves its own clients alone until a setting is right"), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "&{pushy*")
	require.Eventually(t, func() bool { return a.Away() == nil }, patience, tick)
	for _, channel := range []string{"news", "chat"} {
		set(t, s, "PUBLISH", "{pushy}"+channel, redis.Encode(event(channel)))
		for next(t, heardA).Event != channel {
		}
	}
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key}
}

// issue writes a certificate and its key to files.
func (a *authority) issue(t testing.TB, until time.Time, ip string) (certFile, keyFile string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "server"},
		NotBefore:    time.Now().Add(-2 * time.Hour),
		NotAfter:     until,
		IPAddresses:  []net.IP{net.ParseIP(ip)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(file, kind string, der []byte) {
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(certFile, "CERTIFICATE", der)
	write(keyFile, "PRIVATE KEY", encoded)
	return certFile, keyFile
}

func (a *authority) file(t testing.TB) string {
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	return file
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// tlsServer runs a server that speaks TLS at the address returned, and plain at its own.
func tlsServer(t testing.TB, a *authority, cert, key, clients string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address = l.Addr().String()
	require.NoError(t, l.Close())
	_, port, _ := net.SplitHostPort(address)
	ownServer(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", a.file(t), "--tls-auth-clients", clients)
	return address
}

// Issue 11, number 6. A wrong certificate, and TLS on one side only, are setting errors,
// not a Redis that is away.
func TestTLSSettings(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	cert, key := ours.issue(t, time.Now().Add(time.Hour), "127.0.0.1")
	address := tlsServer(t, ours, cert, key, "no")
	strict := tlsServer(t, ours, cert, key, "yes")
	oldCert, oldKey := ours.issue(t, time.Now().Add(-time.Hour), "127.0.0.1")
	expired := tlsServer(t, ours, oldCert, oldKey, "no")
	otherCert, otherKey := ours.issue(t, time.Now().Add(time.Hour), "127.0.0.2")
	otherHost := tlsServer(t, ours, otherCert, otherKey, "no")
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		address string
		tls     *tls.Config
		says    string // "" for none
	}{
		"right":              {address, &tls.Config{RootCAs: ours.pool()}, ""},
		"clientCertificate":  {strict, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{pair}}, ""},
		"unknownAuthority":   {address, &tls.Config{RootCAs: theirs.pool()}, "unknown authority"},
		"noAuthority":        {address, &tls.Config{}, "x509"},
		"expired":            {expired, &tls.Config{RootCAs: ours.pool()}, "expired"},
		"otherHost":          {otherHost, &tls.Config{RootCAs: ours.pool()}, "127.0.0.1"},
		"noCertificate":      {strict, &tls.Config{RootCAs: ours.pool()}, "certificate required"},
		"plainToTLS":         {address, nil, "speaks TLS, but Options.TLS is not set"},
		"plainToStrictTLS":   {strict, nil, "speaks TLS, but Options.TLS is not set"},
		"tlsToPlain":         {server.Addr, &tls.Config{RootCAs: ours.pool()}, "does not speak TLS"},
		"tlsVersionTooHigh":  {address, &tls.Config{RootCAs: ours.pool(), MaxVersion: tls.VersionTLS10}, "tls: "},
		"otherServersName":   {address, &tls.Config{RootCAs: ours.pool(), ServerName: "redis.example"}, "redis.example"},
		"withoutVerifying":   {expired, &tls.Config{InsecureSkipVerify: true}, ""},
		"plainIsStillServed": {server.Addr, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, required := range []bool{true, false} {
				o := options(t)
				o.Addresses, o.TLS, o.RequireAtStart = []string{c.address}, c.tls, required
				b, err := redis.New(t.Context(), o)
				if err == nil {
					assert.NoError(t, b.Away())
					require.NoError(t, b.Close())
				}
				if c.says == "" {
					require.NoError(t, err)
					continue
				}
				var wrong *redis.SettingError
				require.ErrorAs(t, err, &wrong)
				assert.Equal(t, "TLS", wrong.Setting, err)
				assert.Contains(t, err.Error(), c.says)
			}
		})
	}
}

// No password is ever in a log line or an error, whatever goes wrong.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	s := ownServer(t)
	set(t, s, "ACL", "SETUSER", "ann", "on", ">other", "~*", "&*", "+@all")
	log := &lines{}
	for _, change := range []func(*redis.Options){
		func(o *redis.Options) { o.Password = secret },
		func(o *redis.Options) { o.Username, o.Password = "ann", secret },
		func(o *redis.Options) { o.SentinelMaster, o.SentinelPassword = "main", secret },
		func(o *redis.Options) { o.Cluster, o.Username, o.Password = true, "ann", secret },
		func(o *redis.Options) { o.Addresses, o.Password = []string{"127.0.0.1:1"}, secret },
		func(o *redis.Options) { o.TLS, o.Password = &tls.Config{}, secret },
	} {
		for _, required := range []bool{true, false} {
			o := options(t)
			o.Addresses, o.Logger, o.RequireAtStart = []string{s.Addr}, log.logger(), required
			change(&o)
			b, err := redis.New(t.Context(), o)
			if err == nil {
				if away := b.Away(); away != nil {
					assert.NotContains(t, away.Error(), secret)
				}
				_ = b.Close()
				continue
			}
			assert.NotContains(t, err.Error(), secret)
		}
	}
	assert.NotContains(t, log.String(), secret)
}
