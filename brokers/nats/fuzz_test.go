package nats_test

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/brokers/nats"
)

// Issue 11, number 2: whatever comes as an event is broken or may go to clients.
func FuzzEvent(f *testing.F) {
	for _, data := range foreignMessages() {
		f.Add([]byte(data))
	}
	f.Add(nats.EncodeEvent(event("said")))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := nats.DecodeEvent(data)
		if err != nil {
			return
		}
		assert.True(t, utf8.Valid(m.Data) && json.Valid(m.Data))
		for _, text := range []string{m.Event, m.Node, m.Except} {
			assert.True(t, utf8.ValidString(text) && len(text) <= 256)
		}
		again, err := nats.DecodeEvent(nats.EncodeEvent(m))
		require.NoError(t, err)
		assert.Equal(t, m, again)
	})
}

// Issue 11, number 2: whatever comes as presence entries, one after the other, gives a
// list of members that may go to clients.
func FuzzLog(f *testing.F) {
	for _, data := range foreignMessages() {
		f.Add([]byte(data), []byte(joined(1, "1", `{"memberId":"1"}`)), []byte(joined(2, "2", `{}`)))
		f.Add([]byte(joined(0, "1", `{}`)), []byte(data), []byte(joined(2, "2", `{}`)))
	}
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		for _, snap := range nats.Replay(first, second, third) {
			ids := map[string]bool{}
			for _, m := range snap.Members {
				assert.True(t, utf8.Valid(m.JSON) && json.Valid(m.JSON))
				assert.Regexp(t, `^[A-Za-z0-9_-]{1,64}$`, m.ID)
				assert.False(t, ids[m.ID], "a member is listed once")
				ids[m.ID] = true
			}
		}
	})
}

// Issue 11, number 2: whatever comes as a sign of life is broken or a lease in bounds.
func FuzzSign(f *testing.F) {
	for _, data := range foreignMessages() {
		f.Add([]byte(data))
	}
	f.Add([]byte("\x01\x98\x75"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lease, err := nats.DecodeSign(data)
		if err == nil && lease != 0 {
			assert.GreaterOrEqual(t, lease, 500*time.Millisecond)
			assert.LessOrEqual(t, lease, 24*time.Hour)
		}
	})
}

// Issue 11, number 2: a subject's token is that of one channel, or of none.
func FuzzSubject(f *testing.F) {
	for _, name := range []string{"private-room", "private%2Droom", "%2f", "%2F", "A", "%41", "%zz", "%", "", ".", "%FF", "%C3%A9", "a.b", "%2E%2E"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		channel, ok := nats.ChannelOf(name)
		if !ok {
			return
		}
		assert.True(t, utf8.ValidString(channel) && channel != "")
		assert.Equal(t, name, nats.Token(channel))
	})
}
