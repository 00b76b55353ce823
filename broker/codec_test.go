package broker_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
)

func entries() []broker.Entry {
	return []broker.Entry{
		{Kind: broker.Event, Event: "said", Data: json.RawMessage(`{"text":"Hello"}`)},
		{
			Kind:      broker.Event,
			Event:     "moved",
			Except:    []string{"a", "b"},
			From:      "a",
			Latest:    "position",
			Droppable: true,
			Keep:      broker.Keep{Size: 100, TTL: 5 * time.Minute, Bytes: 256 << 10},
			Data:      json.RawMessage(`[]`),
			ID:        "id",
		},
		{Kind: broker.Join, Member: "m1", Owner: "o1", Data: json.RawMessage(`{"name":"Ann"}`)},
		{
			Kind:   broker.Join,
			Member: "m1",
			Owner:  "o1",
			User:   "u1",
			Joined: time.UnixMilli(1_700_000_000_123),
		},
		{Kind: broker.Update, Member: "m1", Owner: "o1", Data: json.RawMessage(`{}`), State: json.RawMessage(`{"idle":true}`)},
		{Kind: broker.Adopt, Member: "m1", OldOwner: "o1", Owner: "o2"},
		{Kind: broker.Leave, Member: "m1", Owner: "o2"},
	}
}

func TestEntryEncoding(t *testing.T) {
	t.Parallel()
	for _, e := range entries() {
		got, err := broker.ParseEntry(broker.AppendEntry(nil, e))
		require.NoError(t, err)
		assert.Equal(t, e, got)
	}
}

// Whatever limits are set, the other nodes can decode the event.
func TestEncodingOfAnyKeep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, want broker.Keep }{
		{broker.Keep{Size: 10, TTL: 30 * 24 * time.Hour}, broker.Keep{Size: 10, TTL: 30 * 24 * time.Hour}},
		{broker.Keep{Size: 10, TTL: time.Microsecond}, broker.Keep{Size: 10, TTL: time.Millisecond}},
		{broker.Keep{Size: -1, TTL: -1, Bytes: -1}, broker.Keep{}},
		{
			broker.Keep{Size: math.MaxInt, TTL: math.MaxInt64, Bytes: math.MaxInt},
			broker.Keep{Size: math.MaxInt32, TTL: math.MaxInt64 / time.Millisecond * time.Millisecond, Bytes: math.MaxInt32},
		},
	} {
		got, err := broker.ParseEntry(broker.AppendEntry(nil, broker.Entry{
			Kind:  broker.Event,
			Event: "said",
			Keep:  c.set,
		}))
		require.NoError(t, err, "%+v", c.set)
		assert.Equal(t, c.want, got.Keep)
	}
}

func TestEntryEncodingSkipsUnknownFields(t *testing.T) {
	t.Parallel()
	want := entries()[0]
	b := append(broker.AppendEntry(nil, want), 99, 3, 'n', 'e', 'w')
	got, err := broker.ParseEntry(b)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestEntryOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := broker.AppendEntry(nil, entries()[0])
	b[0] = 7
	_, err := broker.ParseEntry(b)
	assert.ErrorIs(t, err, broker.ErrVersion)
	assert.ErrorContains(t, err, "7")
	assert.ErrorContains(t, err, "1")
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range entries() {
		f.Add(broker.AppendEntry(nil, e))
	}
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := broker.ParseEntry(b)
		if err != nil {
			assert.Equal(t, broker.Entry{}, e)
			return
		}
		again, err := broker.ParseEntry(broker.AppendEntry(nil, e))
		require.NoError(t, err)
		assert.Equal(t, e, again)
	})
}

func TestPositionText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "k3Xa9Q.0", "k3Xa9Q.1042", "a-b_c.9007199254740991", strings.Repeat("e", 64) + ".1"} {
		p, err := broker.ParsePosition(s)
		require.NoError(t, err, s)
		assert.Equal(t, s, p.String())
	}
	for _, s := range []string{
		".", "k3Xa9Q", "k3Xa9Q.", ".1", "e.-1", "e.+1", "e.01", "e.1.2", "e. 1", "e.9007199254740992",
		"e.1e3", "é.1", strings.Repeat("e", 65) + ".1", "e.18446744073709551616",
	} {
		p, err := broker.ParsePosition(s)
		assert.Error(t, err, s)
		assert.Zero(t, p)
	}
}
