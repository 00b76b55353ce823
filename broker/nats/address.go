package nats

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// server is one of the servers that Options.URL names.
type server struct{ url *url.URL }

// String returns the address without the user, password or token.
func (s server) String() string { return s.url.Scheme + "://" + s.url.Host }

// withUser returns the address with the user, password or token. It must not be logged.
func (s server) withUser() string { return s.url.String() }

func (s server) isWebSocket() bool { return s.url.Scheme == "ws" || s.url.Scheme == "wss" }

// parseServers splits and checks Options.URL. nats.go splits only the argument of
// natsgo.Connect, and accepts addresses that can never connect.
func parseServers(list string) ([]server, error) {
	parts := strings.Split(list, ",")
	var servers []server
	for i, part := range parts {
		part = strings.TrimSpace(part)
		if part == "" {
			continue // an extra comma
		}
		// Anything but a plain host and port can be a password, or a part of one.
		shown := strconv.Quote(part)
		if strings.Contains(list, "@") || !plain.MatchString(part) {
			shown = fmt.Sprintf("address %d of %d (not shown, since it may contain a password)", i+1, len(parts))
		}
		s, err := parseServer(part, shown)
		if err != nil {
			return nil, err
		}
		if len(servers) > 0 && s.isWebSocket() != servers[0].isWebSocket() {
			return nil, errors.New("has ws or wss in some addresses but not in all: use it for all or none")
		}
		servers = append(servers, s)
	}
	if len(servers) == 0 {
		return nil, errors.New("has no address: write nats://host:4222")
	}
	return servers, nil
}

// plain matches an address without a password, which an error can repeat.
var plain = regexp.MustCompile(`^([A-Za-z]+:/*)?([A-Za-z0-9._-]*|\[?[0-9A-Fa-f:]*\]?)(:[0-9]*)?/?$`)

// parseServer checks one address. Its errors show the address as shown.
func parseServer(part, shown string) (server, error) {
	malformed := fmt.Errorf("%s is not of the form nats://host:4222", shown)
	if !strings.Contains(part, "://") {
		return server{}, malformed
	}
	u, err := url.Parse(part) // its error contains the password
	if err != nil {
		return server{}, fmt.Errorf("%w; special characters in a user or password must be percent-encoded", malformed)
	}
	switch u.Scheme {
	case "nats", "tls", "ws", "wss":
	default:
		return server{}, fmt.Errorf("the scheme of %s is neither nats nor tls, ws or wss", shown)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	port, err := strconv.Atoi(u.Port())
	switch host := u.Hostname(); {
	case strings.Contains(part, ";"):
		return server{}, fmt.Errorf("%s has a semicolon: addresses are separated by commas", shown)
	case host == "", strings.ContainsAny(host, " \t*"):
		return server{}, malformed
	case strings.Contains(host, ":") && !strings.HasPrefix(u.Host, "["):
		return server{}, fmt.Errorf("%s has an IPv6 address without brackets: nats://[::1]:4222", shown)
	case u.Port() == "" && strings.HasSuffix(u.Host, ":"), u.Port() != "" && (err != nil || port < 1 || port > 65535):
		return server{}, fmt.Errorf("%s has no port from 1 to 65535", shown)
	case u.Path != "", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return server{}, fmt.Errorf("%s has more than a host and a port", shown)
	}
	if u.User != nil {
		password, has := u.User.Password()
		if u.User.Username() == "" || has && password == "" {
			return server{}, fmt.Errorf("%s has an @ without a user and password, or a token, before it", shown)
		}
	}
	return server{u}, nil
}

// shown returns the addresses of servers without users and passwords.
func shown(servers []server) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.String())
	}
	return strings.Join(all, ",")
}
