package limit

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// Network identifies the address of a client for limits: an IPv4 address, or the /64 network
// of an IPv6 address, because one machine can have all addresses of a /64. It is 0 for a
// client without an IP address, for example on a Unix socket; such clients are not limited.
type Network uint64

// Unknown is the Network of all clients whose address is limited and not known. No IP address
// has it.
const Unknown Network = 1

// NetworkOf returns the Network of an IP address, with a port or without.
func NetworkOf(address string) Network {
	var addr netip.Addr
	if at, err := netip.ParseAddrPort(address); err == nil {
		addr = at.Addr()
	} else if bare, ok := strings.CutPrefix(address, "["); ok && strings.HasSuffix(bare, "]") {
		addr, _ = netip.ParseAddr(strings.TrimSuffix(bare, "]"))
	} else {
		addr, _ = netip.ParseAddr(address)
	}
	if !addr.IsValid() {
		return 0
	}
	addr = addr.Unmap()
	if addr.Is4() {
		b := addr.As4()
		return Network(binary.BigEndian.Uint32(b[:])) | 1<<32 // no IPv6 network in use begins with 0:1
	}
	b := addr.As16()
	return max(Unknown+1, Network(binary.BigEndian.Uint64(b[:]))) // the network of ::1 would be 0
}

// Prefix returns an IPv6 network as "2001:db8::/64", and "" for anything else.
func (n Network) Prefix() string {
	switch {
	case n == 0, n == Unknown, n>>32 == 1:
		return ""
	case n == Unknown+1:
		n = 0 // the network of ::1
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return netip.PrefixFrom(netip.AddrFrom16(b), 64).String()
}
