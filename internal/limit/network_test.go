package limit_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/limit"
)

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	seen := map[limit.Network]string{0: "none"}
	for _, same := range [][]string{
		{"192.0.2.1:80", "192.0.2.1:81", "[::ffff:192.0.2.1]:80", "192.0.2.1", "::ffff:192.0.2.1"},
		{"192.0.2.2:80"},
		{"0.0.0.0:1"},
		{"255.255.255.255:1"},
		{"[2001:db8:1:2:3:4:5:6]:80", "[2001:db8:1:2:ffff::1]:8080", "2001:db8:1:2::1", "[2001:db8:1:2::]"},
		{"[2001:db8:1:3:3:4:5:6]:80"},
		{"[fe80::1%eth0]:80", "[fe80::2%eth1]:80"},
		{"[::1]:80", "[::2]:80"},
	} {
		first := limit.NetworkOf(same[0])
		assert.NotContains(t, seen, first, same[0])
		seen[first] = same[0]
		for _, addr := range same {
			assert.Equal(t, first, limit.NetworkOf(addr), addr)
		}
	}
	for _, none := range []string{"@", "", "localhost:80", "unknown", "192.0.2.1, 192.0.2.2", " 192.0.2.1", "[]", "[192.0.2.1", "192.0.2.1:x"} {
		assert.Zero(t, limit.NetworkOf(none), none)
	}
}

func TestPrefixOfANetwork(t *testing.T) {
	t.Parallel()
	for address, prefix := range map[string]string{
		"192.0.2.1": "", "0.0.0.0": "", "255.255.255.255:1": "", "::ffff:192.0.2.1": "", "unknown": "",
		"::1": "::/64", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		assert.Equal(t, prefix, limit.NetworkOf(address).Prefix(), address)
	}
	assert.Empty(t, limit.Unknown.Prefix())
}
