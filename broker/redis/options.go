package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/safelog"
)

// Options say where Redis is and how it is used. A zero field means its default.
type Options struct {
	// Addresses are host:port of the server, of the Sentinels, or of some nodes
	// of the Cluster; URLs are refused. Default "127.0.0.1:6379".
	Addresses []string
	// Cluster says that Addresses are nodes of a Redis Cluster.
	Cluster bool
	// SentinelMaster is the name under which Sentinel knows the primary, and says
	// that Addresses are Sentinels.
	SentinelMaster string

	Username string // default: Redis's user "default"
	Password string
	// SentinelUsername and SentinelPassword are for the Sentinels themselves.
	SentinelUsername string
	SentinelPassword string
	Database         int // not with Cluster
	// TLS, if not nil, is used for every connection: RootCAs for a private
	// authority, Certificates for a client certificate.
	TLS *tls.Config

	// Prefix begins all keys and channels in Redis. Servers act as one if they
	// use one Prefix, and are independent if not. It must not contain "{" or
	// "}". Default "pushy".
	Prefix string
	// RequireAtStart makes Open return an error when Redis cannot be reached or is
	// a replica. By default the node begins alone, and joins when it can.
	RequireAtStart bool
	// CheckEveryAppend makes every append ask the server who it is. It is needed
	// only behind a proxy that passes the commands of one connection to several
	// servers, or to another server while the connection stays open. It costs
	// Redis about 10 µs an append.
	CheckEveryAppend bool
	// Timeout is how long a command, a new connection, or Redis's answer to a
	// ping may take. At least 100 ms, at most 24 h, default 3 s.
	Timeout time.Duration
	// Logger is notified when Redis goes away and comes back. Default slog.Default().
	Logger *slog.Logger

	testing testOptions
}

// Shorter or longer times are mistakes, such as a number without a unit.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = 24 * time.Hour
)

// testOptions change what tests need differently.
type testOptions struct {
	plain  bool                        // no sharded Pub/Sub
	via    func(address string) string // where to connect instead
	maxIDs int
}

// A SettingError says which of the Options is wrong. It never contains a password.
type SettingError struct {
	Setting string // the field's name
	Err     error
}

func (e *SettingError) Error() string { return "redis: Options." + e.Setting + ": " + e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

func wrong(setting, format string, args ...any) error {
	return &SettingError{Setting: setting, Err: fmt.Errorf(format, args...)}
}

// Validate checks the Options without connecting, as Open does first. The error is
// a *SettingError.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// withDefaults returns a checked copy.
func (o Options) withDefaults() (Options, error) {
	if len(o.Addresses) == 0 {
		o.Addresses = []string{"127.0.0.1:6379"}
	}
	if o.Prefix == "" {
		o.Prefix = "pushy"
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.testing.maxIDs == 0 {
		o.testing.maxIDs = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = safelog.New(o.Logger)
	return o, o.check()
}

func (o *Options) check() error {
	for i, a := range o.Addresses {
		which := "the address"
		if len(o.Addresses) > 1 {
			which = "address " + strconv.Itoa(i+1)
		}
		if err := checkAddress(which, a); err != nil {
			return &SettingError{Setting: "Addresses", Err: err}
		}
	}
	switch {
	case strings.ContainsAny(o.Prefix, "{}"):
		return wrong("Prefix", "%q contains a brace", o.Prefix)
	case !plain(o.Prefix):
		return wrong("Prefix", "%q is not up to 100 bytes of UTF-8 without control characters", o.Prefix)
	case o.Cluster && o.SentinelMaster != "":
		return wrong("Cluster", "a Cluster has no Sentinels: set it or Options.SentinelMaster")
	case o.Cluster && o.Database != 0:
		return wrong("Database", "a Cluster has only database 0")
	case o.Database < 0:
		return wrong("Database", "%d is negative", o.Database)
	case !o.Cluster && o.SentinelMaster == "" && len(o.Addresses) > 1:
		return wrong("Addresses", "%d of them, but neither Options.Cluster nor Options.SentinelMaster is set",
			len(o.Addresses))
	case o.SentinelMaster == "" && o.SentinelUsername != "":
		return wrong("SentinelUsername", "it is set, but Options.SentinelMaster is not")
	case o.SentinelMaster == "" && o.SentinelPassword != "":
		return wrong("SentinelPassword", "it is set, but Options.SentinelMaster is not")
	case o.Timeout < minTimeout:
		return wrong("Timeout", "%v is under %v", o.Timeout, minTimeout)
	case o.Timeout > maxTimeout:
		return wrong("Timeout", "%v is over %v", o.Timeout, maxTimeout)
	}
	return nil
}

func plain(prefix string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }
	return len(prefix) <= 100 && utf8.ValidString(prefix) && !strings.ContainsFunc(prefix, control)
}

// checkAddress says what is wrong with an address. Whatever is not plainly a host
// may contain a password, so the error does not repeat it.
func checkAddress(which, a string) error {
	is := func(what string) error { return errors.New(which + " is " + what) }
	scheme, _, isURL := strings.Cut(a, "://")
	switch {
	case a == "":
		return is("empty; write host:port")
	case isURL && strings.EqualFold(scheme, "unix"):
		return is("a Unix socket, which is not supported; write host:port")
	case isURL && strings.EqualFold(scheme, "rediss"):
		return is("a URL; write host:port, the user into Options.Username, the password into Options.Password, " +
			"and set Options.TLS")
	case isURL, strings.ContainsAny(a, "@/?#\\"):
		return is("not host:port; write the user into Options.Username, the password into Options.Password, " +
			"and the number of a database into Options.Database")
	case strings.ContainsAny(a, ",;"):
		return is("several addresses in one; make each an element of its own")
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		bare := strings.TrimSuffix(strings.TrimPrefix(a, "["), "]")
		if ip, err := netip.ParseAddr(bare); err == nil && ip.Is6() {
			return fmt.Errorf("%q is an IPv6 address without a port; write [%s]:6379", a, bare)
		}
		if isHost(a) {
			return fmt.Errorf("%q is not host:port", a)
		}
		return is("not host:port; an IPv6 address needs brackets, as in [::1]:6379")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return is("not host:port: the port is not a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		return nil
	}
	if !isHost(host) {
		return is("not host:port: the host is not a name or IP address")
	}
	return nil
}

// isHost reports whether s may be a host's name: ASCII letters, digits, dots,
// hyphens and underscores.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}
