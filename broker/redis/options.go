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

// Options configure the connection to Redis. The zero value of a field is its default.
type Options struct {
	// Addresses are host:port of the server, of the Sentinels, or of some nodes of the
	// Cluster. URLs are refused. Default "127.0.0.1:6379".
	Addresses []string
	// Cluster declares that Addresses are nodes of a Redis Cluster.
	Cluster bool
	// SentinelMaster is the name that the Sentinels have for the primary. If it is set,
	// Addresses are the addresses of the Sentinels.
	SentinelMaster string

	Username string // default: Redis's user "default"
	Password string
	// SentinelUsername and SentinelPassword authenticate to the Sentinels.
	SentinelUsername string
	SentinelPassword string
	Database         int // must be 0 with Cluster
	// TLS, if it is not nil, is used for every connection. Set RootCAs for a private
	// authority, and Certificates for a client certificate.
	TLS *tls.Config

	// Prefix is the prefix of all keys and channels in Redis. Servers with the same Prefix
	// act as one, and Servers with different Prefixes are independent. It has at most 100
	// bytes and must not contain "{" or "}". Default "pushy".
	Prefix string
	// RequireAtStart makes Open return an error if Redis cannot be reached or is a
	// replica. By default the node starts alone, and joins the others as soon as it can.
	RequireAtStart bool
	// CheckEveryAppend checks the identity of the server with every append. It is needed
	// only behind a proxy that sends the commands of one connection to several servers, or
	// to another server while the connection stays open. It costs about 10 µs of Redis's
	// time for each append.
	CheckEveryAppend bool
	// Timeout limits a command, a new connection, and Redis's answer to a ping. At least
	// 100 ms, at most 24 h, default 3 s.
	Timeout time.Duration
	// Logger receives a message when Redis is away and when it is connected again. Default
	// slog.Default().
	Logger *slog.Logger

	testing testOptions
}

// Times outside of these limits are mistakes, such as a number without a unit.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = 24 * time.Hour
)

// testOptions are set by tests only.
type testOptions struct {
	plain  bool                        // no sharded Pub/Sub
	via    func(address string) string // returns the address to connect to instead
	maxIDs int
}

// A SettingError names the option that is invalid or that Redis does not accept. It never
// contains a password.
type SettingError struct {
	Setting string // the name of the field of Options
	Err     error
}

func (e *SettingError) Error() string { return "redis: Options." + e.Setting + ": " + e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

func wrong(setting, format string, args ...any) error {
	return &SettingError{Setting: setting, Err: fmt.Errorf(format, args...)}
}

// Validate checks the Options without connecting. Open calls it, too. The error is a
// *SettingError.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// withDefaults returns a copy with the defaults, and the error of the check.
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
		return wrong("Prefix", "%q is not at most 100 bytes of UTF-8 without control characters", o.Prefix)
	case o.Cluster && o.SentinelMaster != "":
		return wrong("Cluster", "a Cluster has no Sentinels: set either this or Options.SentinelMaster")
	case o.Cluster && o.Database != 0:
		return wrong("Database", "a Cluster has only database 0")
	case o.Database < 0:
		return wrong("Database", "%d is negative", o.Database)
	case !o.Cluster && o.SentinelMaster == "" && len(o.Addresses) > 1:
		return wrong("Addresses", "has %d addresses, but neither Options.Cluster nor Options.SentinelMaster is set",
			len(o.Addresses))
	case o.SentinelMaster == "" && o.SentinelUsername != "":
		return wrong("SentinelUsername", "is set, but Options.SentinelMaster is not")
	case o.SentinelMaster == "" && o.SentinelPassword != "":
		return wrong("SentinelPassword", "is set, but Options.SentinelMaster is not")
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

// checkAddress returns an error if an address is invalid. An address that is not plainly a
// host can contain a password, so the error does not repeat it.
func checkAddress(which, a string) error {
	problem := func(what string) error { return errors.New(which + " is " + what) }
	scheme, _, isURL := strings.Cut(a, "://")
	switch {
	case a == "":
		return problem("empty; write host:port")
	case isURL && strings.EqualFold(scheme, "unix"):
		return problem("a Unix socket, which is not supported; write host:port")
	case isURL && strings.EqualFold(scheme, "rediss"):
		return problem("a URL; write host:port, write the user into Options.Username and the password into " +
			"Options.Password, and set Options.TLS")
	case isURL, strings.ContainsAny(a, "@/?#\\"):
		return problem("not host:port; write the user into Options.Username, the password into Options.Password, " +
			"and the number of a database into Options.Database")
	case strings.ContainsAny(a, ",;"):
		return problem("a list of several addresses; make each address an element of Options.Addresses")
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
		return problem("not host:port; an IPv6 address needs brackets, as in [::1]:6379")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return problem("not host:port: the port is not a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		return nil
	}
	if !isHost(host) {
		return problem("not host:port: the host is not a name or IP address")
	}
	return nil
}

// isHost reports whether s can be the name of a host: ASCII letters, digits, dots, hyphens
// and underscores.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}
