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

// Options say where NATS is and how it is used. A zero field means its default.
type Options struct {
	// URL is a server's address, or those of several servers of one cluster,
	// separated by commas: nats://host:4222, or with tls, ws or wss as the scheme.
	// A user and password, or a token, may stand before an @ in it; they are in no
	// error and no log line. Default "nats://127.0.0.1:4222".
	URL string
	// Prefix begins every subject and the names of the streams, so that apps with
	// different ones share a NATS: 1 to 64 of A-Z a-z 0-9 _ -. Default "pushy".
	Prefix string
	// InboxPrefix begins the subjects of answers to this node's requests, for
	// accounts that may not subscribe to _INBOX.>: tokens of A-Z a-z 0-9 _ - with
	// dots between. Default "_INBOX".
	InboxPrefix string

	// User and Password, or Token, or Credentials, or NKey authenticate this node;
	// at most one of the four is set. Credentials is the name of a .creds file,
	// NKey that of a file with an nkey's seed. Default: what the URL has, or nothing.
	User, Password string
	Token          string
	Credentials    string
	NKey           string
	// TLS is used if not nil, and with tls:// URLs.
	TLS *tls.Config

	// RequireAtStart makes Open return an error when NATS cannot be reached. By
	// default the node begins alone, and joins when it can.
	RequireAtStart bool

	// Timeout is how long a request, a new connection, or NATS's answer to a ping
	// may take. At least 100 ms, default 3 s.
	Timeout time.Duration

	// Replicas is on how many servers of a NATS cluster each stream is kept. Files
	// keeps kept events, members and ids in files rather than in memory; the
	// records of the Ledger are always in files. MaxBytes is the size that each
	// stream may reach, for accounts that require one; 0 is no limit. They count
	// when a stream is made. Default 1 replica, in memory.
	Replicas int
	Files    bool
	MaxBytes int64

	// Logger receives a line when NATS goes away and comes back. Default
	// slog.Default().
	Logger *slog.Logger
}

// SettingError says which of the Options is wrong.
type SettingError struct {
	Setting string // the field's name
	Err     error
}

func (e *SettingError) Error() string {
	return "nats: Options." + e.Setting + ": " + e.Err.Error()
}
func (e *SettingError) Unwrap() error { return e.Err }

// Validate returns a *SettingError for the first of the Options that cannot work,
// or nil. It reads the files that they name, and connects to nothing.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// settings are checked Options, and what follows from them.
type settings struct {
	Options
	servers []server // that URL names
	notices *ratelog.Logger
}

func wrong(setting, format string, args ...any) error {
	return &SettingError{Setting: setting, Err: fmt.Errorf(format, args...)}
}

// withDefaults returns a checked copy.
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

// checkNames checks the prefixes, and sets their defaults.
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
				`%q is not like "_INBOX" or "_INBOX.app": tokens of A-Z a-z 0-9 _ - with dots between`, o.InboxPrefix)
		}
	}
	if o.InboxPrefix == o.Prefix || strings.HasPrefix(o.InboxPrefix, o.Prefix+".") {
		return wrong("InboxPrefix", "%q begins with Options.Prefix, whose subjects are for channels", o.InboxPrefix)
	}
	return nil
}

// minStreamBytes is the least size of a stream that makes sense.
const minStreamBytes = 64 << 10

// checkIdentity checks how this node authenticates, and that its files can be read.
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
		return &SettingError{"User", errors.New("is empty, and Options.Password is not")}
	}
	if len(set) > 1 {
		return wrong(set[1], "is set, and Options.%s too: a node authenticates in one way", set[0])
	}
	for _, s := range servers {
		if s.url.User != nil && len(set) > 0 {
			return wrong("URL", "has a user or token, and Options.%s is set too: a node authenticates in one way", set[0])
		}
	}
	c := natsgo.GetDefaultOptions()
	return o.authenticate(&c)
}

// authenticate sets in c who this node is. It reads the files.
func (o Options) authenticate(c *natsgo.Options) error {
	c.User, c.Password, c.Token = o.User, o.Password, o.Token
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

// identity is the setting that says who this node is.
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
