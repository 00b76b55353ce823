package sse_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/sse"
)

// patched is what the page of Datastar has in the signal _pushy after an event.
type patched struct {
	Pushy struct {
		Gap, Dropped, End *struct {
			Channel, Reason *string
			At              int64
		}
	} `json:"_pushy"`
}

func (st *stream) patch() (p patched) {
	st.t.Helper()
	e := st.next()
	require.Equal(st.t, "datastar-patch-signals", e.name)
	signals, is := strings.CutPrefix(e.data, "signals ")
	require.True(st.t, is, e.data)
	require.NotContains(st.t, signals, "\n")
	decoder := json.NewDecoder(strings.NewReader(signals))
	decoder.DisallowUnknownFields()
	require.NoError(st.t, decoder.Decode(&p), signals)
	return p
}

// Datastar ignores events whose names do not begin with datastar, so its pages receive gaps and ends
// as changes of signals.
func TestDatastarReceivesGapsAndEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{Channel: keeping(2)}, sse.Options{}, nil)
		const query = `names=datastar&channel=kept&channel=chat&datastar=%7B%22a%22%3A1%7D`
		st := s.listen(query)
		id := st.open.id
		require.NoError(t, s.srv.Publish(t.Context(), "kept", "datastar-patch-elements", "mode append\nselector #a\nelements <p>\nelements x</p>"))
		e := st.next()
		assert.Equal(t, "datastar-patch-elements", e.name)
		assert.Equal(t, "mode append\nselector #a\nelements <p>\nelements x</p>", e.data)
		st.close()
		publish(t, s.srv, "kept", 1, 3)
		times := map[int64]bool{}
		for range 2 {
			pause(time.Second)
			st = s.listen(query, after(id))
			for _, channel := range []string{"kept", "chat"} {
				p := st.patch().Pushy
				require.NotNil(t, p.Gap)
				assert.Equal(t, channel, *p.Gap.Channel)
				assert.NotEmpty(t, *p.Gap.Reason)
				assert.Nil(t, p.End)
				times[p.Gap.At] = true
			}
		}
		assert.Len(t, times, 2, "two gaps are two values of the signal")
		conn, ok := s.srv.Conn(st.opened().SocketID)
		require.True(t, ok)
		ch, ok := s.srv.Channels().Lookup("chat")
		require.True(t, ok)
		require.NoError(t, ch.Remove(conn, "Removed"))
		p := st.patch().Pushy
		require.NotNil(t, p.End)
		assert.Equal(t, "chat", *p.End.Channel)
		conn.Close(pushy.CloseRemoved, "Removed")
		p = st.patch().Pushy
		require.NotNil(t, p.End)
		assert.Nil(t, p.End.Channel, "the end of the stream")
		assert.Equal(t, "Removed", *p.End.Reason)
		st.ends(false)
	})
}

// Datastar reads lines, not JSON.
func TestDatastarHasOnlyRawData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		for _, data := range []string{"json", "envelope"} {
			res, body := s.refused("channel=a&names=datastar&data=" + data)
			assert.Equal(t, 400, res.StatusCode)
			assert.Contains(t, body, "names must be")
		}
		assert.Equal(t, "pushy:open", s.listen("channel=a&names=datastar&data=raw").open.name)
	})
}
