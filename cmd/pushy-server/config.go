package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/deflate"
)

// config is the content of a config file.
type config struct {
	host     string
	port     int
	ssl      bool
	cert     *certificate // nil without ssl
	options  pushy.Options
	warnings []warning

	drainDelay   time.Duration // between the signal and the shutdown
	drainTimeout time.Duration // of the shutdown; 0 is defaultDrainTimeout

	certFile, keyFile string
	originsGiven      bool
	trustedProxies    []netip.Prefix // without host bits
	channels          []channelRule
	console           *consoleConfig // nil: off
	events            bool           // Server-Sent Events are served
	compress          int            // see deflate.From

	webhooks *webhooks     // nil if there are none
	pusher   *pusherConfig // nil: off
	metrics  metricsConfig

	engine     string // the key in "broker"; "" if there is none
	redis      redis.Options
	nats       nats.Options
	brokerTLS  brokerTLS
	why        error        // why the setting that is being read is refused
	brokerCert *certificate // nil if there is none for the broker
}

// warning is a log line about the config file.
type warning struct {
	message string
	attrs   []any
}

// setting is a key that the file can have. set reads its value, and reports whether the
// value follows the rule. It can set config.why to a more exact reason.
type setting struct {
	key  string
	rule string // what the value must be
	set  func(c *config, value json.RawMessage) bool
}

var topSettings = []setting{
	{"port", "a whole number from 0 to 65535, also as a string", (*config).setPort},
	{"host", "a string: an address or a name, without a port", (*config).setHost},
	{"secretKey", "a string", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.SecretKey) }},
	{"oldSecretKeys", "an array of strings that are not empty", (*config).setOldSecretKeys},
	{"disableV1", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.DisableV1) }},
	{"ssl", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.ssl) }},
	{"cert", "the name of a file", nonEmpty(func(c *config) *string { return &c.certFile })},
	{"key", "the name of a file", nonEmpty(func(c *config) *string { return &c.keyFile })},
	{"origins", `an array of origins such as "https://app.example.com", or "*"`, (*config).setOrigins},
	{"trustedProxies", proxiesRule, (*config).setTrustedProxies},
	{"events", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.events) }},
	{"allowPrivateEvents", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.AllowPrivateEvents) }},
	{"grace", `a string such as "15s", at least "1s"`, func(c *config, v json.RawMessage) bool {
		g := &c.options.Grace
		return duration(v, g) && *g != 0 && check(pushy.Options{Grace: *g}) == nil
	}},
	{"repeatWindow", `a string such as "15m", from "11m" to "20m"`, func(c *config, v json.RawMessage) bool {
		w := &c.options.RepeatWindow
		return duration(v, w) && *w != 0 && check(pushy.Options{RepeatWindow: *w}) == nil
	}},
	{"returnRate", "a whole number of clients a second, at most 1000000", func(c *config, v json.RawMessage) bool {
		r := &c.options.ReturnRate
		return decode(v, r) && check(pushy.Options{ReturnRate: *r}) == nil
	}},
	{"compress", `a number of bytes, or a string such as "1K"; 0 is off`, func(c *config, v json.RawMessage) bool {
		n, ok := parseBytes(v)
		if !ok && string(v) == "0" {
			n, ok = 0, true
		}
		c.compress = int(n)
		return ok && n <= math.MaxInt32
	}},
	{"drainDelay", `a string such as "5s", from "0s" to "1h"`, func(c *config, v json.RawMessage) bool {
		return duration(v, &c.drainDelay) && c.drainDelay >= 0 && c.drainDelay <= time.Hour
	}},
	{"drainTimeout", `a string such as "15s", from "1s" to "1h"`, func(c *config, v json.RawMessage) bool {
		return duration(v, &c.drainTimeout) && c.drainTimeout >= time.Second && c.drainTimeout <= time.Hour
	}},
	{"prefix", "a plain path that begins with a slash", func(c *config, v json.RawMessage) bool {
		p := &c.options.Prefix
		return decode(v, p) && *p != "" && check(pushy.Options{Prefix: *p}) == nil
	}},
}

var sockjsSettings = []setting{
	{"sockjs.prefix", "a plain path that begins with a slash", func(c *config, v json.RawMessage) bool {
		p := &c.options.SockJS.Prefix
		return decode(v, p) && *p != "" && check(pushy.Options{SockJS: pushy.SockJS{Prefix: *p}}) == nil
	}},
	{"sockjs.websocket", "true or false", func(c *config, v json.RawMessage) bool {
		var on bool
		ok := decode(v, &on)
		c.options.SockJS.DisableWebSocket = !on
		return ok
	}},
	{"sockjs.heartbeat_delay", delayRule, func(c *config, v json.RawMessage) bool {
		return c.setDelay("sockjs.heartbeat_delay", v, &c.options.Heartbeat)
	}},
	{"sockjs.disconnect_delay", delayRule, func(c *config, v json.RawMessage) bool {
		return c.setDelay("sockjs.disconnect_delay", v, &c.options.SockJS.DisconnectDelay)
	}},
	{"sockjs.response_limit", `a number of bytes above 0, or a string such as "128K"`, func(c *config, v json.RawMessage) bool {
		n, ok := parseBytes(v)
		c.options.SockJS.ResponseLimit = int(n)
		return ok && n <= math.MaxInt32
	}},
	{"sockjs.jsessionid", "true or false", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.options.SockJS.JSessionID)
	}},
	{"sockjs.sockjs_url", "the URL of a script", func(c *config, v json.RawMessage) bool {
		p := &c.options.SockJS.ScriptURL
		if !decode(v, p) {
			return false
		}
		u, err := url.Parse(*p)
		return err == nil && u.Path != "" && (u.Scheme == "" || u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"))
	}},
}

var limitSettings = []setting{
	limit("connections", func(l *pushy.Limits) *int { return &l.Connections }),
	limit("perAddress", func(l *pushy.Limits) *int { return &l.PerAddress }),
	limit("connectRate", func(l *pushy.Limits) *int { return &l.ConnectRate }),
	limit("connectBurst", func(l *pushy.Limits) *int { return &l.ConnectBurst }),
	limit("acceptRate", func(l *pushy.Limits) *int { return &l.AcceptRate }),
	limit("publishRate", func(l *pushy.Limits) *int { return &l.PublishRate }),
	limit("channels", func(l *pushy.Limits) *int { return &l.Channels }),
	limit("members", func(l *pushy.Limits) *int { return &l.Members }),
	limit("pagedMembers", func(l *pushy.Limits) *int { return &l.PagedMembers }),
	limit("presenceBytes", func(l *pushy.Limits) *int { return &l.PresenceBytes }),
	limit("messageBytes", func(l *pushy.Limits) *int { return &l.MessageBytes }),
	limit("triggerBytes", func(l *pushy.Limits) *int { return &l.TriggerBytes }),
	limit("commandRate", func(l *pushy.Limits) *int { return &l.CommandRate }),
	limit("commandBurst", func(l *pushy.Limits) *int { return &l.CommandBurst }),
	limit("joinRate", func(l *pushy.Limits) *int { return &l.JoinRate }),
	limit("joinBurst", func(l *pushy.Limits) *int { return &l.JoinBurst }),
	limit("connBuffer", func(l *pushy.Limits) *int { return &l.ConnBuffer }),
	limit("keepBytes", func(l *pushy.Limits) *int { return &l.KeepBytes }),
	{"limits.maxBuffered", "a whole number", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.MaxBuffered) }},
	{"limits.maxMemory", "a whole number", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.Limits.Memory) }},
	{"limits.maxKept", "a whole number", func(c *config, v json.RawMessage) bool { return decode(v, &c.options.MaxKept) }},
}

func limit(name string, field func(*pushy.Limits) *int) setting {
	return setting{"limits." + name, "a whole number", func(c *config, v json.RawMessage) bool {
		return decode(v, field(&c.options.Limits))
	}}
}

// loadConfig reads and checks a config file, the secrets in the environment and the files
// that the config names. The error is one line and begins with the file's name.
func loadConfig(file string, getenv func(string) string) (*config, error) {
	c, err := readConfig(file, getenv)
	if err != nil {
		return nil, err
	}
	if c.ssl {
		c.cert = &certificate{certFile: c.certFile, keyFile: c.keyFile}
		if err := c.cert.load(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := c.checkBroker(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// readConfig reads a config file and the secrets in the environment, but none of the
// files that the config names.
func readConfig(file string, getenv func(string) string) (*config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, cause(err))
	}
	c, err := parseConfig(text, getenv("PUSHY_SECRET_KEY"))
	var f *fault
	if errors.As(err, &f) {
		return nil, fmt.Errorf("%s:%s: %w", file, position(text, f.at), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if c.console != nil {
		if err := c.console.complete(getenv("PUSHY_CONSOLE_PASSWORD")); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if c.engine != "" {
		engines[c.engine].env(c, getenv)
	}
	if err := c.checkPusher(getenv); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := c.checkWebhooks(getenv); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := c.metrics.check(getenv); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range []*string{&c.certFile, &c.keyFile, &c.nats.Credentials, &c.nats.NKey} {
		if *name != "" {
			*name = beside(file, *name)
		}
	}
	c.brokerTLS.beside(file)
	return c, nil
}

// parseConfig parses text. If secret is not empty, it replaces the secret key in text. An
// error that has a position in text is a *fault.
func parseConfig(text []byte, secret string) (*config, error) {
	if err := checkSyntax(text); err != nil {
		return nil, err
	}
	c := &config{port: 8123}
	if err := c.read(text, skip(text, 0, " \t\r\n"), "", topSettings); err != nil {
		return nil, err
	}
	o := &c.options
	if secret != "" {
		o.SecretKey = secret
	}
	switch {
	case o.SecretKey == "":
		return nil, errors.New("secretKey is missing; it can also be given in PUSHY_SECRET_KEY")
	case c.ssl && c.certFile == "":
		return nil, errors.New("cert is missing: ssl needs it")
	case c.ssl && c.keyFile == "":
		return nil, errors.New("key is missing: ssl needs it")
	}
	if !c.ssl && c.certFile != "" {
		c.warn("cert", "config key without effect: ssl is not true")
	}
	if !c.ssl && c.keyFile != "" {
		c.warn("key", "config key without effect: ssl is not true")
	}
	if len(c.trustedProxies) > 0 && o.Limits.PerAddress <= 0 && o.Limits.ConnectRate < 0 {
		c.warn("trustedProxies", "config key without effect: limits.perAddress is not set and limits.connectRate is off")
	}
	if !c.originsGiven {
		o.Origins = []string{"*"}
	}
	// The transports of old browsers do not check the origin of the page, so they are
	// served only if any origin is allowed.
	o.SockJS.Legacy = slices.Contains(o.Origins, "*")
	o.Prefix = trimmed(o.Prefix, "/pushy")
	o.SockJS.Prefix = trimmed(o.SockJS.Prefix, strings.TrimSuffix(o.Prefix, "/")+"/socket")
	// Each key can be valid while their combination is not.
	if err := check(c.serverOptions()); err != nil {
		return nil, err
	}
	return c, nil
}

// serverOptions returns the options with the functions that the config needs.
func (c *config) serverOptions() pushy.Options {
	o := c.options
	o.Compress = deflate.From(c.compress)
	if len(c.channels) > 0 {
		o.Channel = c.channelOptions
	}
	if c.pusher != nil {
		o.Channel = c.pusher.channels(o.Channel)
	}
	if len(c.trustedProxies) > 0 {
		o.Address = c.clientAddress
	}
	return o
}

// read reads the members of an object. path is the prefix of their keys.
func (c *config) read(object json.RawMessage, at int, path string, settings []setting) error {
	all, err := members(object, at)
	if err != nil {
		var f *fault
		if path != "" && errors.As(err, &f) {
			f.text = strings.TrimSuffix(path, ".") + " " + f.text
		}
		return err
	}
	for _, m := range all {
		switch key := path + m.key; key {
		case "sockjs":
			err = c.read(m.value, m.valueAt, "sockjs.", sockjsSettings)
		case "limits":
			err = c.read(m.value, m.valueAt, "limits.", limitSettings)
		case "metrics":
			err = c.readMetrics(m.value, m.valueAt)
		case "broker":
			err = c.readBroker(m.value, m.valueAt)
		case "channels":
			err = c.readChannels(m.value, m.valueAt)
		case "webhooks":
			c.webhooks = &webhooks{}
			err = c.read(m.value, m.valueAt, "webhooks.", webhookSettings)
		case "pusher":
			c.pusher = &pusherConfig{}
			err = c.read(m.value, m.valueAt, "pusher.", pusherSettings)
		case "console":
			c.console = &consoleConfig{}
			err = c.read(m.value, m.valueAt, "console.", consoleSettings)
		default:
			name := index.ReplaceAllString(path, "") + m.key
			i := slices.IndexFunc(settings, func(s setting) bool { return s.key == name })
			switch {
			case i < 0 && path == "sockjs.":
				c.warn(key, "unknown config key ignored")
			case i < 0:
				err = &fault{m.keyAt, "unknown key " + shown(key)}
			case !settings[i].set(c, m.value):
				err = &fault{m.valueAt, key + " must be " + settings[i].rule}
				if c.why != nil {
					err = &fault{m.valueAt, c.why.Error()}
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// index matches the index of an array's element in a path.
var index = regexp.MustCompile(`\[[0-9]+\]`)

func (c *config) warn(key, message string, attrs ...any) {
	c.warnings = append(c.warnings, warning{message, append([]any{"key", key}, attrs...)})
}

func (c *config) setPort(v json.RawMessage) bool {
	text := string(v)
	if v[0] == '"' && !decode(v, &text) {
		return false
	}
	if !digits.MatchString(text) {
		return false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	c.port = int(port)
	return err == nil
}

var digits = regexp.MustCompile(`^[0-9]+$`)

func (c *config) setHost(v json.RawMessage) bool {
	if !decode(v, &c.host) {
		return false
	}
	if _, err := netip.ParseAddr(c.host); err == nil {
		return true
	}
	return !strings.ContainsAny(c.host, ":/[]@ ")
}

func (c *config) setOrigins(v json.RawMessage) bool {
	c.originsGiven = true
	var list []*string // tells null from a string
	if !decode(v, &list) {
		return false
	}
	for _, origin := range list {
		if origin == nil {
			return false
		}
		c.options.Origins = append(c.options.Origins, *origin)
	}
	c.why = check(pushy.Options{Origins: c.options.Origins})
	return c.why == nil
}

const (
	delayRule = "a whole number of milliseconds from 1 to 86400000"
	maxDelay  = 24 * time.Hour
)

// setDelay reads milliseconds. A number under 1000 is read as seconds: the original's
// sample has 25 and 5, and its users copied them.
func (c *config) setDelay(key string, v json.RawMessage, delay *time.Duration) bool {
	var n int64
	if !decode(v, &n) || n <= 0 || n > maxDelay.Milliseconds() {
		return false
	}
	if *delay = time.Duration(n) * time.Millisecond; n < 1000 {
		*delay = time.Duration(n) * time.Second
		c.warn(key, "delay under 1000 read as seconds; write milliseconds", "seconds", n)
	}
	return true
}

// decode reads a value of one type. It does not accept null.
func decode[T any](v json.RawMessage, into *T) bool {
	return string(v) != "null" && json.Unmarshal(v, into) == nil
}

func trimmed(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	if path = strings.TrimRight(path, "/"); path == "" {
		return "/"
	}
	return path
}

// beside resolves a file name in the config relative to the config file.
func beside(configFile, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(configFile), name)
}

// cause omits the file's name, because the message already has it.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (c *config) address() string { return net.JoinHostPort(c.host, strconv.Itoa(c.port)) }

// originRule describes which origins are allowed.
func (c *config) originRule() string {
	switch {
	case slices.Contains(c.options.Origins, "*"):
		return "any"
	case len(c.options.Origins) == 0:
		return "same"
	}
	return "same, " + strings.Join(c.options.Origins, ", ")
}

// summary describes the configuration, for -check.
func (c *config) summary() string {
	scheme := "http"
	if c.ssl {
		scheme = "https"
	}
	text := fmt.Sprintf("%s (%s), prefix %s, SockJS %s, origins: %s",
		c.address(), scheme, c.options.Prefix, c.options.SockJS.Prefix, c.originRule())
	if c.engine != "" {
		text += ", broker: " + c.engine
	}
	if c.console != nil {
		text += ", console: " + consolePath
	}
	return text
}
