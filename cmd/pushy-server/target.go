package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

const defaultURL = "http://127.0.0.1:8123/pushy"

// target is the server to which the commands connect.
type target struct {
	url        string // of pushy, with its prefix
	socket     string // of the WebSocket endpoint
	secret     string // "" if none is given
	config     string
	secretFile string
}

const targetHelp = `  -url URL           URL of the server with its prefix; also PUSHY_URL.
                     Default ` + defaultURL + `
  -config FILE       read the address and the secret key from the config file of
                     a server on this machine
  -secret-file FILE  file that contains the secret key. By default the key is
                     PUSHY_SECRET_KEY. There is no flag for the key itself,
                     because other users of the machine can read command lines
`

func (t *target) flags(f *flag.FlagSet) {
	f.StringVar(&t.url, "url", "", "")
	f.StringVar(&t.config, "config", "", "")
	f.StringVar(&t.secretFile, "secret-file", "", "")
}

// resolve sets what the flags do not set.
func (t *target) resolve(getenv func(string) string) error {
	t.secret = getenv("PUSHY_SECRET_KEY")
	var sockets string // the URL of the SockJS prefix, if it comes from a config
	if t.config != "" {
		cfg, err := readConfig(t.config, getenv)
		if err != nil {
			return err
		}
		t.secret = cfg.options.SecretKey
		if t.url == "" {
			origin := cfg.origin()
			t.url = origin + cfg.options.Prefix
			sockets = origin + cfg.options.SockJS.Prefix
		}
	}
	if t.secretFile != "" {
		text, err := os.ReadFile(t.secretFile)
		if err != nil {
			return err
		}
		if t.secret = strings.TrimRight(string(text), "\r\n"); t.secret == "" {
			return fmt.Errorf("%s is empty", t.secretFile)
		}
	}
	for _, url := range []string{getenv("PUSHY_URL"), defaultURL} {
		if t.url == "" {
			t.url = url
		}
	}
	t.url = strings.TrimSuffix(t.url, "/")
	if !strings.HasPrefix(t.url, "http://") && !strings.HasPrefix(t.url, "https://") {
		return fmt.Errorf("-url %q must begin with http:// or https://", t.url)
	}
	if sockets == "" {
		sockets = t.url + "/socket"
	}
	t.socket = "ws" + strings.TrimPrefix(strings.TrimSuffix(sockets, "/"), "http") + "/websocket"
	return nil
}

// origin returns the origin at which a server with this config is reached from its own
// machine.
func (c *config) origin() string {
	scheme, host := "http://", c.host
	if c.ssl {
		scheme = "https://"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + net.JoinHostPort(host, strconv.Itoa(c.port))
}

// parse parses the flags of a command. done reports whether the program exits with status.
func (p *program) parse(f *flag.FlagSet, args []string, help string) (status int, done bool) {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(p.stdout, help)
		return exitOK, true
	}
	if err != nil {
		return p.fail(exitUsage, fmt.Errorf("%s: %w (-h explains)", f.Name(), err)), true
	}
	return exitOK, false
}
