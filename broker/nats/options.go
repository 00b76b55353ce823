package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/safelog"
)

// Options configure the connection to NATS. The zero value of a field is its default.
type Options struct {
	// URL is the address of a server, or a list of addresses of servers of one cluster,
	// separated by commas: nats://host:4222, or with the scheme tls, ws or wss. It can
	// contain a user and password, or a token, before an @; errors and log lines do not
	// contain them. Default "nats://127.0.0.1:4222".
	URL string
	// Prefix is the prefix of all subjects and of the names of the streams: 1 to 64 of A-Z
	// a-z 0-9 _ -. Apps with different Prefixes can use the same NATS. Default "pushy".
	Prefix string
	// InboxPrefix is the prefix of the subjects of answers to this node's requests, for
	// accounts that may not subscribe to _INBOX.>: tokens of A-Z a-z 0-9 _ -, separated by
	// dots. Default "_INBOX".
	InboxPrefix string

	// User and Password, or Token, or Credentials, or NKey authenticate this node. At most
	// one of the four can be set. Credentials is the name of a .creds file, and NKey the
	// name of a file with the seed of an nkey. By default, the node authenticates with the
	// user or token in URL, if there is one.
	User, Password string
	Token          string
	Credentials    string
	NKey           string
	// TLS configures TLS. If it is not nil, TLS is used with all schemes.
	TLS *tls.Config

	// RequireAtStart makes Open return an error if NATS cannot be reached. By default the
	// node starts alone, and joins the others as soon as it can.
	RequireAtStart bool

	// Timeout limits a request, a new connection, and NATS's answer to a ping. At least
	// 100 ms, at most 24 h, default 3 s.
	Timeout time.Duration

	// Replicas is the number of servers of a NATS cluster that store each stream. With
	// Files, kept events, members and IDs are stored in files instead of in memory; the
	// records of the Ledger are always in files. MaxBytes limits the size of each stream,
	// for accounts that require a limit; 0 is unlimited. These options apply when a stream
	// is created. Default 1 replica, in memory.
	Replicas int
	Files    bool
	MaxBytes int64

	// Logger receives a message when NATS is away and when it is connected again. Default
	// slog.Default().
	Logger *slog.Logger
}

// A SettingError names the option that is invalid or that NATS does not accept. It never
// contains a password.
type SettingError struct {
	Setting string // the name of the field of Options
	Err     error
}

func (e *SettingError) Error() string {
	return "nats: Options." + e.Setting + ": " + e.Err.Error()
}
func (e *SettingError) Unwrap() error { return e.Err }

// Validate checks the Options without connecting. It reads the files of Credentials and NKey.
// The error is a *SettingError.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// settings are checked Options, and values that are derived from them.
type settings struct {
	Options
	servers []server // of URL
	notices *ratelog.Logger
}

func wrong(setting, format string, args ...any) error {
	return &SettingError{Setting: setting, Err: fmt.Errorf(format, args...)}
}

// withDefaults returns a copy with the defaults, or the error of the check.
func (o Options) withDefaults() (settings, error) {
	if o.URL == "" {
		o.URL = natsgo.DefaultURL
	}
	servers, err := parseServers(o.URL)
	if err != nil {
		return settings{}, wrong("URL", "%w", err)
	}
	if err := o.checkNames(); err != nil {
		return settings{}, err
	}
	if err := o.checkIdentity(servers); err != nil {
		return settings{}, err
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Timeout < 100*time.Millisecond {
		return settings{}, wrong("Timeout", "%v is under 100ms", o.Timeout)
	}
	if o.Timeout > maxLease {
		return settings{}, wrong("Timeout", "%v is over %v", o.Timeout, maxLease)
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		return settings{}, wrong("Replicas", "%d is not from 1 to 5", o.Replicas)
	}
	if o.MaxBytes < 0 || o.MaxBytes > 0 && o.MaxBytes < minStreamBytes {
		return settings{}, wrong("MaxBytes", "%d is under %d", o.MaxBytes, minStreamBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = safelog.New(o.Logger)
	return settings{Options: o, servers: servers, notices: ratelog.New(o.Logger)}, nil
}

// checkNames checks the prefixes and sets their defaults.
func (o *Options) checkNames() error {
	if o.Prefix == "" {
		o.Prefix = "pushy"
	}
	if !names.IsToken(o.Prefix) {
		return wrong("Prefix", "%q is not 1 to 64 of A-Z a-z 0-9 _ -", o.Prefix)
	}
	if o.InboxPrefix == "" {
		o.InboxPrefix = strings.TrimSuffix(natsgo.InboxPrefix, ".")
	}
	for part := range strings.SplitSeq(o.InboxPrefix, ".") {
		if !names.IsToken(part) {
			return wrong("InboxPrefix",
				`%q is not of the form "_INBOX" or "_INBOX.app": tokens of A-Z a-z 0-9 _ -, separated by dots`, o.InboxPrefix)
		}
	}
	if o.InboxPrefix == o.Prefix || strings.HasPrefix(o.InboxPrefix, o.Prefix+".") {
		return wrong("InboxPrefix", "%q begins with Options.Prefix, whose subjects are reserved for channels", o.InboxPrefix)
	}
	return nil
}

// minStreamBytes is the minimum of Options.MaxBytes.
const minStreamBytes = 64 << 10

// checkIdentity checks the options for authentication, and reads their files.
func (o Options) checkIdentity(servers []server) error {
	var set []string
	for _, way := range []struct {
		setting string
		is      bool
	}{
		{"User", o.User != ""},
		{"Token", o.Token != ""},
		{"Credentials", o.Credentials != ""},
		{"NKey", o.NKey != ""},
	} {
		if way.is {
			set = append(set, way.setting)
		}
	}
	if o.Password != "" && o.User == "" {
		return &SettingError{"User", errors.New("is empty, but Options.Password is not")}
	}
	if len(set) > 1 {
		return wrong(set[1], "is set, and Options.%s too: set only one of them", set[0])
	}
	for _, s := range servers {
		if s.url.User != nil && len(set) > 0 {
			return wrong("URL", "has a user or token, and Options.%s is set too: set only one of them", set[0])
		}
	}
	c := natsgo.GetDefaultOptions()
	return o.authenticate(&c)
}

// authenticate sets the fields of c for authentication. It reads the files.
func (o Options) authenticate(c *natsgo.Options) error {
	c.User = o.User
	c.Password = o.Password
	c.Token = o.Token
	if o.Credentials != "" {
		if err := natsgo.UserCredentials(o.Credentials)(c); err != nil {
			return &SettingError{"Credentials", err}
		}
		if _, err := c.UserJWT(); err != nil {
			return &SettingError{"Credentials", err}
		}
		if _, err := c.SignatureCB([]byte("nonce")); err != nil {
			return &SettingError{"Credentials", err}
		}
	}
	if o.NKey != "" {
		use, err := natsgo.NkeyOptionFromSeed(o.NKey)
		if err == nil {
			err = use(c)
		}
		if err != nil {
			return &SettingError{"NKey", err}
		}
	}
	return nil
}

// identity returns the name of the option with which this node authenticates.
func (o settings) identity() string {
	switch {
	case o.servers[0].url.User != nil:
		return "URL"
	case o.Credentials != "":
		return "Credentials"
	case o.NKey != "":
		return "NKey"
	case o.Token != "":
		return "Token"
	}
	return "User"
}
