package nats_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker/nats"
)

// What is read is what was written.
func TestDecoders(t *testing.T) {
	t.Parallel()
	for name, seeds := range nats.Seeds() {
		for _, data := range seeds {
			again, err := nats.Decoders[name](data)
			require.NoError(t, err, name)
			assert.Equal(t, string(data), string(again), name)
			for n := range data {
				_, _ = nats.Decoders[name](data[:n]) // none of which panics
			}
		}
	}
}

// Fields of a heartbeat that a later version appends are skipped.
func TestLaterHeartbeats(t *testing.T) {
	t.Parallel()
	open := nats.Seeds()["sign"][0]
	for later, want := range map[string]string{
		string(open) + "\x00more fields": string(open),
		string(open) + "\x01more fields": string(open) + "\x01",
	} {
		again, err := nats.Decoders["sign"]([]byte(later))
		require.NoError(t, err)
		assert.Equal(t, want, string(again))
	}
}

// fuzz holds a decoder to it: what it takes means the same when it is written again.
func fuzz(f *testing.F, name string) {
	for _, data := range nats.Seeds()[name] {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := nats.Decoders[name](data)
		if err != nil {
			return
		}
		twice, err := nats.Decoders[name](once)
		require.NoError(t, err)
		if name != "sign" { // whose settings have no order
			assert.Equal(t, string(once), string(twice))
		}
	})
}

func FuzzPlain(f *testing.F)  { fuzz(f, "plain") }
func FuzzKept(f *testing.F)   { fuzz(f, "kept") }
func FuzzRecord(f *testing.F) { fuzz(f, "record") }
func FuzzSign(f *testing.F)   { fuzz(f, "sign") }
func FuzzClaim(f *testing.F)  { fuzz(f, "claim") }
func FuzzResult(f *testing.F) { fuzz(f, "result") }
func FuzzToken(f *testing.F)  { fuzz(f, "token") }
func FuzzClass(f *testing.F)  { fuzz(f, "class") }
