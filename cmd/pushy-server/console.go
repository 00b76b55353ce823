package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/console"
)

// consolePath is where the console is served. A server whose prefix is "/" has no other page there.
const consolePath = "/console/"

// minPassword is the smallest number of bytes of the password.
const minPassword = 12

// consoleConfig is the object "console" of the config.
type consoleConfig struct {
	password string
	readOnly bool
	hosts    []string
}

var consoleSettings = []setting{
	{"console.password", fmt.Sprintf("a string of at least %d bytes", minPassword), func(c *config, v json.RawMessage) bool {
		return decode(v, &c.console.password) && len(c.console.password) >= minPassword
	}},
	{"console.readOnly", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.console.readOnly) }},
	{"console.hosts", `an array of names such as "ops.example.com", without ports`, func(c *config, v json.RawMessage) bool {
		var list []*string // tells null from a string
		if !decode(v, &list) {
			return false
		}
		for _, host := range list {
			if host == nil || *host == "" || strings.ContainsAny(*host, ":/*@ ") {
				return false
			}
			c.console.hosts = append(c.console.hosts, *host)
		}
		return true
	}},
}

// complete replaces the password by that of the environment, if there is one.
func (c *consoleConfig) complete(password string) error {
	switch {
	case password == "" && c.password == "":
		return errors.New("console.password is missing; it can also be given in PUSHY_CONSOLE_PASSWORD")
	case password == "":
	case len(password) < minPassword:
		return fmt.Errorf("PUSHY_CONSOLE_PASSWORD must have at least %d bytes", minPassword)
	default:
		c.password = password
	}
	return nil
}

// handler returns the console behind the password. address returns the address of a client.
func (c *consoleConfig) handler(
	srv *pushy.Server, address func(*http.Request) string, log *slog.Logger,
) (http.Handler, error) {
	password := sha256.Sum256([]byte(c.password))
	var wrong attempts
	page, err := console.New(srv, console.Options{
		ReadOnly: c.readOnly,
		Hosts:    c.hosts,
		Authorize: func(r *http.Request) (who string, err error) {
			name, given, ok := r.BasicAuth()
			if !ok {
				return "", pushy.ErrNeedAuth
			}
			// The sums have the same length, so the time does not depend on the password.
			sum := sha256.Sum256([]byte(given))
			if subtle.ConstantTimeCompare(sum[:], password[:]) != 1 {
				client := address(r)
				if wrong.add(networkOf(client), time.Now()) {
					log.Warn("console: too many wrong passwords", "address", client, "refusedFor", attemptTime.String())
				}
				return "", pushy.ErrNeedAuth
			}
			// Others can have been counted since the request was let in.
			if wrong.wait(networkOf(address(r)), time.Now()) > 0 {
				return "", errors.New("too many wrong passwords")
			}
			if name == "" {
				name = "operator"
			}
			return name[:min(len(name), 128)], nil
		},
	})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wait := wrong.wait(networkOf(address(r)), time.Now()); wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "too many wrong passwords", http.StatusTooManyRequests)
			return
		}
		if r.URL.Path+"/" == consolePath {
			http.Redirect(w, r, consolePath, http.StatusPermanentRedirect)
			return
		}
		page.ServeHTTP(w, r)
	}), nil
}

const (
	// maxAttempts is the number of wrong passwords of one IPv4 address or IPv6 /64 after which all
	// its requests for the console are refused for attemptTime.
	maxAttempts = 10
	attemptTime = time.Minute
	// maxNetworks limits the memory. Further networks count as one.
	maxNetworks = 10_000
)

// attempts counts wrong passwords. The zero value is ready to use.
type attempts struct {
	mu  sync.Mutex
	all map[netip.Prefix]*attempt
}

type attempt struct {
	wrong int
	since time.Time // of the first of them, or of the last if there are maxAttempts
}

// add counts a wrong password, and reports whether it is the one after which the network is refused.
func (a *attempts) add(n netip.Prefix, now time.Time) (last bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[netip.Prefix]*attempt{}
	}
	if len(a.all) >= maxNetworks && a.all[n] == nil {
		for other, x := range a.all {
			if now.Sub(x.since) >= attemptTime {
				delete(a.all, other)
			}
		}
		if len(a.all) >= maxNetworks {
			n = netip.Prefix{}
		}
	}
	x := a.all[n]
	if x == nil || now.Sub(x.since) >= attemptTime {
		x = &attempt{since: now}
		a.all[n] = x
	}
	x.wrong++
	if x.wrong == maxAttempts {
		x.since = now
	}
	return x.wrong == maxAttempts
}

// wait returns for how long requests of the network are refused.
func (a *attempts) wait(n netip.Prefix, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.all[n]
	if x == nil && len(a.all) >= maxNetworks {
		x = a.all[netip.Prefix{}]
	}
	if x == nil || x.wrong < maxAttempts {
		return 0
	}
	return max(0, attemptTime-now.Sub(x.since))
}

// networkOf returns an IPv4 address, the /64 of an IPv6 address, or the zero Prefix.
func networkOf(address string) netip.Prefix {
	addr, ok := parseHop(address)
	if !ok {
		return netip.Prefix{}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	return network
}
