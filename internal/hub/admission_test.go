package hub

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/limit"
)

func TestAdmissionCountsEachNetwork(t *testing.T) {
	t.Parallel()
	one, other, none := limit.NetworkOf("192.0.2.1:1"), limit.NetworkOf("192.0.2.2:1"), limit.Network(0)
	a := newAdmission(Limits{
		Connections: 10,
		PerNetwork:  2,
	})
	yes, no := func() bool { return true }, func() bool { return false }
	ann, ben := &Conn{id: "a", network: one}, &Conn{id: "b", network: one}
	assert.Empty(t, a.Reserve(one))
	assert.Empty(t, a.Reserve(one))
	assert.Equal(t, RefusedAddress, a.Reserve(one), "places that are reserved count")
	assert.Empty(t, a.Reserve(other))
	a.GiveBack(one)
	assert.Empty(t, a.Reserve(one))
	assert.True(t, a.add(ann, yes))
	assert.False(t, a.add(ben, no))
	assert.Empty(t, a.Reserve(one), "a connection that was not added does not count")
	assert.True(t, a.add(ben, yes))
	assert.Equal(t, RefusedAddress, a.Reserve(one))
	a.remove(&Conn{id: "c", network: one})
	assert.Equal(t, RefusedAddress, a.Reserve(one))
	a.remove(ann)
	a.remove(ann)
	assert.Empty(t, a.Reserve(one))
	assert.Equal(t, RefusedAddress, a.Reserve(one))
	for range 3 {
		assert.Empty(t, a.Reserve(none), "a client without an address is not limited")
	}
	for range 3 { // a client with an address is limited
		_ = a.Reserve(other)
	}
	a.GiveBack(none)
	assert.Equal(t, uint64(6), a.Refused()[RefusedAddress])
	assert.Equal(t, uint64(1), a.Refused()[RefusedClosed])
	assert.Same(t, ben, a.find("b"))
	assert.Equal(t, []*Conn{ben}, a.all())
}
