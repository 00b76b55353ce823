package calls_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/calls"
)

var shortEvents = []calls.Event{
	{Channels: []string{"lobby", "room"}},
	{Channels: []string{"lobby"}},
	{Channels: []string{"room", "other"}},
}

func answers() []calls.PublishAnswer {
	return []calls.PublishAnswer{
		{
			Events:   shortEvents,
			Receipts: make([]calls.Receipt, 5),
		},
		{
			Events:  shortEvents,
			Counted: true,
			Silent:  []string{"5f0c1b9e6a7d3c42", ""},
			Receipts: []calls.Receipt{
				{Received: true, Position: calls.Position{Epoch: "e1", Offset: 7}, Subscribers: 12},
				{Duplicate: true, Subscribers: 1 << 40},
				{Received: true, Position: calls.Position{Epoch: "e1", Offset: 8}},
				{Position: calls.Position{Epoch: "e2"}, Duplicate: true},
				{Received: true},
			},
		},
	}
}

func TestShortFormHasTheWholeAnswer(t *testing.T) {
	t.Parallel()
	for _, a := range answers() {
		short := a.Shorten()
		got := calls.PublishAnswer{Events: shortEvents}
		require.True(t, got.Lengthen(short))
		assert.Equal(t, a, got)
		assert.Equal(t, string(a.JSON()), string(got.JSON()))
		for n := range short {
			cut := calls.PublishAnswer{Events: shortEvents}
			assert.False(t, cut.Lengthen(short[:n]), "the first %d bytes", n)
		}
		assert.False(t, (&calls.PublishAnswer{Events: shortEvents}).Lengthen(append(short, 0)))
		short[0]++
		assert.False(t, (&calls.PublishAnswer{Events: shortEvents}).Lengthen(short), "of another version")
	}
}

// An answer to 1,000 events in one channel with long epochs fits into a record of a Ledger.
func TestShortFormIsShort(t *testing.T) {
	t.Parallel()
	var a calls.PublishAnswer
	for i := range 10 {
		e := calls.Event{}
		for j := range calls.MaxChannels {
			e.Channels = append(e.Channels, fmt.Sprintf("channel-%d", j))
			a.Receipts = append(a.Receipts, calls.Receipt{
				Received: true,
				Position: calls.Position{Epoch: "k3Xa9Q", Offset: uint64(1000 + i)},
			})
		}
		a.Events = append(a.Events, e)
	}
	assert.Less(t, len(a.Shorten()), 4<<10)
}

// Other programs can write to the store of a Ledger.
func FuzzLengthen(f *testing.F) {
	for _, a := range answers() {
		f.Add(a.Shorten())
	}
	f.Fuzz(func(t *testing.T, short []byte) {
		a := calls.PublishAnswer{Events: shortEvents}
		if !a.Lengthen(short) {
			return
		}
		require.Len(t, a.Receipts, 5)
		_ = a.JSON()
		again := calls.PublishAnswer{Events: shortEvents}
		require.True(t, again.Lengthen(a.Shorten()))
		require.Equal(t, a.JSON(), again.JSON())
	})
}
