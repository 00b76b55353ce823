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
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/internal/testproc"
)

func containsAny(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// What is no host:port is refused before anything is connected, with
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
			log := &testlog.Log{}
			for name, check := range map[string]func(redis.Options) error{
				"Validate": redis.Options.Validate,
				"Open":     func(o redis.Options) error { return closedNode(t, o).open() },
			} {
				err := check(redis.Options{Addresses: []string{c.address}, Logger: log.Logger()})
				var wrong *redis.SettingError
				require.ErrorAs(t, err, &wrong, name)
				assert.Equal(t, "Addresses", wrong.Setting)
				assert.Contains(t, err.Error(), c.says)
				assert.NotContains(t, err.Error(), secret)
				assert.NotContains(t, err.Error(), "\n")
				err = check(redis.Options{Addresses: []string{"127.0.0.1:1", c.address}, Cluster: true, Logger: log.Logger()})
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
		"Timeout":          {Timeout: -1},
		"Cluster":          {Cluster: true, SentinelMaster: "main"},
	} {
		var wrong *redis.SettingError
		require.ErrorAs(t, o.Validate(), &wrong)
		assert.Equal(t, setting, wrong.Setting)
		assert.NotContains(t, wrong.Error(), secret)
	}
}

// documentedACL returns the ACL lines of the package's documentation, as arguments.
func documentedACL(t testing.TB) (lines [][]string) {
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for _, found := range regexp.MustCompile(`(?m)^//\tACL SETUSER (.*)$`).FindAllStringSubmatch(string(source), -1) {
		lines = append(lines, append([]string{"ACL", "SETUSER"}, strings.Fields(found[1])...))
	}
	require.Greater(t, len(lines), 9)
	return lines
}

func asUser(o redis.Options, s *redistest.Server, log *testlog.Log) redis.Options {
	o.Addresses, o.Username, o.Password = []string{s.Addr}, "pushy", "password"
	o.Prefix, o.Logger = "pushy", log.Logger()
	return o
}

// The ACL lines of the documentation, as they stand there, are enough for all that a
// node does.
func TestDocumentedACL(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]func(t *testing.T) []*redistest.Server{
		"single": func(t *testing.T) []*redistest.Server { return []*redistest.Server{ownServer(t)} },
		"cluster": func(t *testing.T) []*redistest.Server {
			all, err := redistest.Cluster(2)
			t.Cleanup(func() {
				for _, s := range all {
					s.Close()
				}
			})
			require.NoError(t, err)
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
					assert.Equal(t, "+OK", set(t, s, line...), "%q", line)
				}
			}
			log := &testlog.Log{}
			o := asUser(options(t), all[0], log)
			o.Cluster = name == "cluster"
			o.CheckEveryAppend = true
			everything(t, open(t, o), open(t, o))
			for _, s := range all {
				assert.Equal(t, "*0", set(t, s, "ACL", "LOG"), "the number of refusals")
			}
			assert.Empty(t, log.With("level=WARN"), log)
			assert.Empty(t, log.With("level=ERROR"), log)
		})
	}
}

// everything does all that a node can do, on channels of many shards.
func everything(t testing.TB, a, b *openNode) {
	short := kept(`"short"`)
	short.Keep = broker.Keep{Size: 2, TTL: time.Millisecond, Bytes: 10}
	once := kept(`"once"`)
	once.ID = "1"
	for _, channel := range []string{"x", "y", "z", "v", "w"} {
		a.follow(channel)
		b.follow(channel)
		for range 3 {
			a.append(channel, event(`"plain"`))
			a.append(channel, short)
		}
		<-time.After(2 * time.Millisecond)
		a.append(channel, short)
		forever := kept(`"forever"`)
		forever.Keep.TTL = 0
		a.append(channel, forever)
		a.append(channel, once)
		assert.True(t, b.append(channel, once).Duplicate)
		a.append(channel, join("1"))
		b.append(channel, broker.Entry{Kind: broker.Update, Member: "1", Owner: "owner-1", Data: []byte(`{}`)})
		b.append(channel, broker.Entry{Kind: broker.Adopt, Member: "1", OldOwner: "owner-1", Owner: "owner-2"})
		b.append(channel, broker.Entry{Kind: broker.Leave, Member: "1", Owner: "owner-2"})
		_, err := a.Append(bounded(t), channel, join("1"))
		assert.ErrorIs(t, err, broker.ErrNotOwner)
		b.append(channel, join("2"))
		a.wait(channel, "+2")
		for _, r := range []broker.Range{{Limit: 10}, {Before: 6, Limit: 2, Bytes: 100}} {
			_, err = b.Read(bounded(t), channel, r)
			assert.NoError(t, err)
		}
		assert.NoError(t, b.Forget(bounded(t), channel))
		a.wait(channel, "reset:epoch")
		assert.NoError(t, b.Unfollow(bounded(t), channel))
		assert.NoError(t, b.Tidy(channel))
	}
	for _, digest := range []string{"d", "e"} {
		_, err := a.Claim(bounded(t), "key", digest, time.Hour)
		assert.NoError(t, err)
	}
	_, err := a.Claim(bounded(t), "soon", "d", time.Millisecond)
	assert.NoError(t, err)
	<-time.After(2 * time.Millisecond)
	_, err = a.Claim(bounded(t), "other", "d", time.Hour)
	assert.NoError(t, err)
	assert.NoError(t, a.Finish(bounded(t), "key", "d", []byte("x")))
	assert.NoError(t, a.Release(bounded(t), "other", "d"))
	list, err := a.List(bounded(t), "")
	assert.NoError(t, err)
	assert.Len(t, list, 1)
	_, err = a.Nodes(bounded(t))
	assert.NoError(t, err)
	require.NoError(t, b.Close(bounded(t)))
	for _, channel := range []string{"x", "y", "z", "v", "w"} {
		a.wait(channel, "-2") // its lease is over
	}
}

// A missing permission is a setting error of Open that names the command, not a node
// that is silently cut off.
func TestMissingPermissions(t *testing.T) {
	t.Parallel()
	missing := map[string]string{
		"resetchannels": "SUBSCRIBE|channel", // what Redis 7 gives a user with +@all ~*
		"resetkeys":     "key",
		"-subscribe":    "subscribe",
		"-unsubscribe":  "unsubscribe",
		"-eval":         "eval",
		"-evalsha":      "evalsha",
	}
	for _, command := range []string{
		"get", "set", "mget", "incr", "del", "exists", "type", "time", "pexpire", "pexpireat", "persist", "pttl",
		"hget", "hmget", "hgetall", "hset", "hdel", "sadd", "srem", "spop", "rpush", "lpop", "lindex", "lrange", "llen",
		"zadd", "zrem", "zscore", "zcard", "zrangebyscore", "zrangebylex", "publish",
	} {
		missing["-"+command] = strings.ToUpper(command) + "|NOPERM"
	}
	s := ownServer(t)
	for acl, says := range missing {
		for _, line := range documentedACL(t) {
			set(t, s, line...)
		}
		set(t, s, "ACL", "SETUSER", "pushy", acl)
		for _, required := range []bool{true, false} {
			log := &testlog.Log{}
			o := asUser(options(t), s, log)
			o.RequireAtStart = required
			err := closedNode(t, o).open()
			var wrong *redis.SettingError
			if !assert.ErrorAs(t, err, &wrong, acl) {
				continue
			}
			assert.Equal(t, "Username", wrong.Setting, "%s: %v", acl, err)
			assert.True(t, containsAny(err.Error(), strings.Split(says, "|")...), "%s in %s", says, err)
			assert.NotContains(t, err.Error()+log.String(), "password\"")
		}
	}
}

// Without INFO a node works, with another epoch after each new connection, and one line
// in the log.
func TestWithoutInfo(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	set(t, s, "ACL", "SETUSER", "pushy", "-info")
	log := &testlog.Log{}
	a := open(t, asUser(options(t), s, log))
	a.follow("news")
	first := a.append("news", kept("1"))
	second := a.append("news", kept("2"))
	assert.Equal(t, first.At.Epoch, second.At.Epoch)
	set(t, s, "CLIENT", "KILL", "USER", "pushy")
	a.wait("news", "reset:"+broker.ResetRestarted)
	third := a.append("news", kept("3"))
	assert.NotEqual(t, first.At.Epoch, third.At.Epoch)
	assert.Equal(t, uint64(3), third.At.Offset)
	assert.Len(t, log.With("subject=INFO"), 1, log)
}

// A permission that is taken away later is an error of the call, and one line in the
// log that names the command.
func TestPermissionIsTakenAway(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	log := &testlog.Log{}
	a := open(t, asUser(options(t), s, log))
	a.follow("news")
	set(t, s, "ACL", "SETUSER", "pushy", "-publish")
	for range 3 {
		_, err := a.Append(bounded(t), "news", event("1"))
		assert.ErrorContains(t, err, "NOPERM")
		assert.NotErrorIs(t, err, broker.ErrAway)
	}
	assert.Len(t, log.With(`subject="PUBLISH {pushy}1:*"`), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "+publish", "-subscribe")
	a.append("news", event("2"))
	for _, channel := range []string{"a", "b"} {
		_, err := a.Follow(bounded(t), channel)
		assert.ErrorContains(t, err, "NOPERM")
		assert.NotErrorIs(t, err, broker.ErrAway)
	}
	assert.Len(t, log.With(`subject="SUBSCRIBE {pushy}1:*"`), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "+subscribe")
	a.follow("a")
	a.append("a", event("3"))
	a.wait("a", "3")
	assert.Equal(t, []string{"2"}, a.words("news"))
}

// A password that is changed while a node runs is a setting that is wrong, and is
// logged once; the node is back once the password is right.
func TestPasswordIsChanged(t *testing.T) {
	t.Parallel()
	const first, second = "hunter2-first", "hunter2-second"
	s := ownServer(t)
	set(t, s, "ACL", "SETUSER", "ann", "on", ">"+first, "~*", "&*", "+@all")
	log := &testlog.Log{}
	o := options(t, s)
	o.Username, o.Password, o.Logger = "ann", first, log.Logger()
	a := open(t, o)
	a.follow("news")
	set(t, s, "ACL", "SETUSER", "ann", "resetpass", ">"+second)
	set(t, s, "CLIENT", "KILL", "USER", "ann")
	var wrong *redis.SettingError
	require.Eventually(t, func() bool { return errors.As(a.Away(), &wrong) }, patience, tick)
	assert.Equal(t, "Password", wrong.Setting)
	_, err := a.Append(bounded(t), "news", event("1"))
	assert.ErrorIs(t, err, broker.ErrAway)
	assert.Len(t, log.With("until a setting is corrected"), 1, log)
	set(t, s, "ACL", "SETUSER", "ann", ">"+first)
	a.back()
	assert.NotContains(t, log.String(), "hunter2")
}

// A SUBSCRIBE that is refused while the node reconnects must not leave a channel deaf
// on a node that says it is up.
func TestSubscribeRefusedWhileReconnecting(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	for _, line := range documentedACL(t) {
		set(t, s, line...)
	}
	log := &testlog.Log{}
	a := open(t, asUser(options(t), s, log))
	a.follow("news")
	a.follow("chat")
	// Only the node's own channel and one of the others: what an ACL change leaves.
	set(t, s, "ACL", "SETUSER", "pushy", "resetchannels", "&{pushy}1:probe", "&{pushy}1:c:chat", "&{pushy}1:try")
	set(t, s, "CLIENT", "KILL", "USER", "pushy")
	require.Eventually(t, func() bool {
		err := a.Away()
		return err != nil && strings.Contains(err.Error(), "Options.Username")
	}, patience, tick)
	assert.Len(t, log.With("this node serves its own clients alone until a setting is corrected"), 1, log)
	set(t, s, "ACL", "SETUSER", "pushy", "&{pushy*")
	a.back()
	for _, channel := range []string{"news", "chat"} {
		a.wait(channel, "reset:"+broker.ResetGap)
		set(t, s, "PUBLISH", "{pushy}1:c:"+channel, redis.MessageOf(event(`"after"`)))
		a.wait(channel, `"after"`)
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
func tlsServer(t testing.TB, a *authority, cert, key, clients string) string {
	port, err := testproc.FreePort()
	require.NoError(t, err)
	ownServer(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", a.file(t), "--tls-auth-clients", clients)
	return net.JoinHostPort("127.0.0.1", port)
}

// A wrong certificate, and TLS on one side only, are setting errors, not a Redis that
// is away.
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
		"plainToTLS":         {address, nil, "uses TLS, but this option is not set"},
		"plainToStrictTLS":   {strict, nil, "uses TLS, but this option is not set"},
		"tlsToPlain":         {server.Addr, &tls.Config{RootCAs: ours.pool()}, "does not use TLS"},
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
				n := closedNode(t, o)
				err := n.open()
				if err == nil {
					assert.NoError(t, n.Away())
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
	log := &testlog.Log{}
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
			o.Addresses, o.Logger, o.RequireAtStart = []string{s.Addr}, log.Logger(), required
			change(&o)
			n := closedNode(t, o)
			if err := n.open(); err != nil {
				assert.NotContains(t, err.Error(), secret)
			} else if away := n.Away(); away != nil {
				assert.NotContains(t, away.Error(), secret)
			}
		}
	}
	assert.NotContains(t, log.String(), secret)
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	secured := ownServer(t, "--requirepass", "right")
	at := func(s *redistest.Server) redis.Options { return redis.Options{Addresses: []string{s.Addr}} }
	with := func(o redis.Options, change func(*redis.Options)) redis.Options {
		change(&o)
		return o
	}
	cases := []struct {
		name, setting, says string
		o                   redis.Options
	}{
		{"wrong password", "Password", "the password is not accepted", with(at(secured), func(o *redis.Options) { o.Password = "wrong" })},
		{"no password", "Password", "a password is required", at(secured)},
		{"nobody there", "Addresses", "no Redis server answers at 127.0.0.1:1", redis.Options{Addresses: []string{"127.0.0.1:1"}, RequireAtStart: true}},
		{"no port", "Addresses", "is not host:port", redis.Options{Addresses: []string{"localhost"}}},
		{"a cluster as stand-alone", "Cluster", "is a node of a Redis Cluster, but this option is not set", at(cluster[0])},
		{"stand-alone as a cluster", "Cluster", "is not a Redis Cluster", with(at(server), func(o *redis.Options) { o.Cluster = true })},
		{"two stand-alones", "Addresses", "neither Options.Cluster nor Options.SentinelMaster", redis.Options{Addresses: []string{server.Addr, server.Addr}}},
		{"a database that is not there", "Database", "", with(at(server), func(o *redis.Options) { o.Database = 99 })},
		{"a database of a cluster", "Database", "only database 0", with(at(cluster[0]), func(o *redis.Options) { o.Cluster, o.Database = true, 1 })},
		{"a server as sentinel", "Addresses", "is not a Sentinel", with(at(server), func(o *redis.Options) { o.SentinelMaster = "main" })},
		{"braces", "Prefix", "brace", with(at(server), func(o *redis.Options) { o.Prefix = "a{b}" })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := closedNode(t, c.o).open()
			var wrong *redis.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, c.setting, wrong.Setting, err)
			assert.Contains(t, err.Error(), c.says)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}
