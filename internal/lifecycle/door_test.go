package lifecycle_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/lifecycle"
)

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	seen := map[lifecycle.Network]string{0: "none"}
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
		first := lifecycle.NetworkOf(same[0])
		assert.NotContains(t, seen, first, same[0])
		seen[first] = same[0]
		for _, addr := range same {
			assert.Equal(t, first, lifecycle.NetworkOf(addr), addr)
		}
	}
	for _, none := range []string{"@", "", "localhost:80", "unknown", "192.0.2.1, 192.0.2.2", " 192.0.2.1", "[]", "[192.0.2.1", "192.0.2.1:x"} {
		assert.Zero(t, lifecycle.NetworkOf(none), none)
	}
}

func TestPrefixOfANetwork(t *testing.T) {
	t.Parallel()
	for address, prefix := range map[string]string{
		"192.0.2.1": "", "0.0.0.0": "", "255.255.255.255:1": "", "::ffff:192.0.2.1": "", "unknown": "",
		"::1": "::/64", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		assert.Equal(t, prefix, lifecycle.NetworkOf(address).Prefix(), address)
	}
	assert.Empty(t, lifecycle.Unknown.Prefix())
}

func TestDoorCountsEachNetwork(t *testing.T) {
	t.Parallel()
	one, other, none := lifecycle.NetworkOf("192.0.2.1:1"), lifecycle.NetworkOf("192.0.2.2:1"), lifecycle.Network(0)
	d := lifecycle.NewDoor[string](10, 2)
	yes, no := func() bool { return true }, func() bool { return false }
	assert.Empty(t, d.Reserve(one))
	assert.Empty(t, d.Reserve(one))
	assert.Equal(t, lifecycle.Crowded, d.Reserve(one), "places that are reserved count")
	assert.Empty(t, d.Reserve(other))
	d.GiveBack(one)
	assert.Empty(t, d.Reserve(one))
	assert.True(t, d.Enter("a", "ann", one, yes))
	assert.False(t, d.Enter("b", "ben", one, no))
	assert.Empty(t, d.Reserve(one), "one that did not enter counts")
	assert.True(t, d.Enter("b", "ben", one, yes))
	assert.Equal(t, lifecycle.Crowded, d.Reserve(one))
	d.Leave("c")
	assert.Equal(t, lifecycle.Crowded, d.Reserve(one))
	d.Leave("a")
	d.Leave("a")
	assert.Empty(t, d.Reserve(one))
	assert.Equal(t, lifecycle.Crowded, d.Reserve(one))
	for range 3 {
		assert.Empty(t, d.Reserve(none), "what has no address is not limited")
	}
	for range 3 { // and the others are
		_ = d.Reserve(other)
	}
	d.GiveBack(none)
	assert.Equal(t, map[string]uint64{lifecycle.Crowded: 6, lifecycle.Closed: 1}, d.Refused())
	v, ok := d.Find("b")
	assert.True(t, ok)
	assert.Equal(t, "ben", v)
}
