package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"
)

// errAddress is wrapped by the error of a connection to an address that is not allowed.
var errAddress = errors.New("the address is not allowed")

var (
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	ipv4Compat  = netip.MustParsePrefix("::/96")
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48") // with /96 prefixes, as systems use it
	sixToFour   = netip.MustParsePrefix("2002::/16")
)

// metadata has the services of clouds that give secrets to each program of a machine, apart from those
// at link-local addresses.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),      // Amazon: ::254, ::23, and others
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle
}

// unwrap returns the IPv4 address that an IPv6 address contains, if it has a form with which a
// system or a gateway connects to that.
func unwrap(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case nat64.Contains(a), nat64Local.Contains(a),
		ipv4Compat.Contains(a) && a != netip.IPv6Loopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// checkAddress returns an error for an address to which no request is sent. Private addresses
// are allowed, because receivers are often internal, and those of one machine or one link are
// not, because services there, such as the metadata of clouds, trust whoever can connect.
func checkAddress(a netip.Addr, encrypted bool) error {
	a = unwrap(a)
	kind := ""
	switch {
	case !a.IsValid():
		kind = "invalid"
	case a.IsUnspecified(), thisNetwork.Contains(a):
		kind = "unspecified"
	case a.IsLinkLocalUnicast():
		kind = "link-local"
	case a.IsMulticast():
		kind = "multicast"
	case a == broadcast:
		kind = "broadcast"
	case slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(a) }):
		kind = "metadata"
	case !encrypted && !a.IsLoopback() && !a.IsPrivate():
		return fmt.Errorf("%w: %s is neither a loopback nor a private address, so the URL must begin with https",
			errAddress, a)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s is %s", errAddress, a, kind)
}

// checkURL returns an error for a URL to which nothing can be sent. What its name resolves to is
// checked when a connection is made.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL") // the error of Parse contains it, which can have a password
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, errors.New("is not like https://app.example.com/webhooks")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("must have no user, password or fragment")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := checkAddress(a, u.Scheme == "https"); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// newTransport returns a transport that connects only to addresses that are allowed. They are
// checked after the look-up of the name, for each connection, because a name can have another
// address each time.
func newTransport(encrypted bool) *http.Transport {
	dialer := &net.Dialer{
		Timeout: tryTimeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %q", errAddress, address)
			}
			return checkAddress(a.Addr(), encrypted)
		},
	}
	return &http.Transport{
		// A proxy would connect to addresses that are not checked.
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    tryTimeout,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true, // at most 4 KiB of the answer are read
	}
}
