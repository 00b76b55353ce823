package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
)

const proxiesRule = `an array of IP addresses and networks such as "10.0.0.0/8", but not of all addresses`

// setTrustedProxies reads the proxies whose X-Forwarded-For is believed.
func (c *config) setTrustedProxies(v json.RawMessage) bool {
	var list []*string // pointers, to distinguish null from ""
	if !decode(v, &list) {
		return false
	}
	for _, text := range list {
		if text == nil {
			return false
		}
		network, ok := parseNetwork(*text)
		if !ok {
			return false
		}
		c.trustedProxies = append(c.trustedProxies, network)
	}
	return true
}

// parseNetwork reads an address or a network. A network of all addresses is refused,
// because any client could then choose its own address. An IPv4 address that is written as
// IPv6 is refused, too, because it would never match.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, false
		}
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	return network.Masked(), network.Bits() > 0 && !network.Addr().Is4In6()
}

// trusts reports whether an address is that of a trusted proxy.
func (c *config) trusts(addr netip.Addr) bool {
	for _, network := range c.trustedProxies {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// clientAddress returns the address of a request's client. Each proxy appends to
// X-Forwarded-For the address of its own client. So the last entry is believed if the
// connection comes from a trusted proxy, the entry before it if the last one is a trusted
// proxy, too, and so on. Entries before the first address that is not trusted were written
// by the client.
func (c *config) clientAddress(r *http.Request) string {
	client, ok := parseHop(r.RemoteAddr)
	if !ok || !c.trusts(client) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && c.trusts(client); i-- {
		hop, ok := parseHop(hops[i])
		if !ok && i == len(hops)-1 {
			return hops[i] // pushy logs it: the proxy does not set the header
		}
		if !ok {
			break
		}
		client = hop
	}
	return client.String()
}

// parseHop reads an address in the forms of X-Forwarded-For and RemoteAddr: with or without
// a port, IPv6 with or without brackets.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		var at netip.AddrPort
		at, err = netip.ParseAddrPort(text)
		addr = at.Addr()
	}
	return addr.Unmap().WithZone(""), err == nil
}
