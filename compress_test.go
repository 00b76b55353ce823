package pushy_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/deflate"
)

var large = strings.Repeat("the same words again ", 40)

// An event that is large enough arrives compressed at the clients that have negotiated it, and as it
// is at the others. A smaller one is not compressed.
func TestEventsAreCompressed(t *testing.T) {
	t.Parallel()
	for _, framed := range []bool{false, true} {
		t.Run(fmt.Sprintf("framed=%v", framed), func(t *testing.T) {
			t.Parallel()
			srv, url := serve(t, pushy.Options{Compress: deflate.From(512)})
			with := dial(t, url, framed, withDeflate)
			require.True(t, with.deflates)
			without := dial(t, url, framed)
			require.False(t, without.deflates)
			for _, c := range []*client{with, without} {
				c.Send(`{"command":"subscribe","data":{"channel":"news"}}`)
				require.Contains(t, c.Receive(), "pushy:subscription-success")
			}
			require.Zero(t, with.compressed)

			event := func(text string) string {
				require.NoError(t, srv.Publish(t.Context(), "news", "m", text))
				want := without.Receive()
				require.Contains(t, want, `"event":"m"`)
				require.Equal(t, want, with.Receive())
				return want
			}
			event("small")
			assert.Zero(t, with.compressed, "below Options.Compress")
			assert.Zero(t, srv.Stats().Compressed)
			event(large)
			assert.Equal(t, 1, with.compressed)
			event("é𝄞\"\\\u2028" + large)
			assert.Equal(t, 2, with.compressed)

			before := len(event(strings.Repeat("x", 512)))
			assert.Equal(t, 3, with.compressed)
			stats := srv.Stats().Compressed
			assert.EqualValues(t, 3, stats.Events, "once for all clients")
			assert.Greater(t, stats.Before, uint64(len(large)*2+before))
			assert.Less(t, stats.After, stats.Before/4)
		})
	}
}

// What is for one client is not compressed: its own input could be beside a secret.
func TestMessagesForOneClientAreNotCompressed(t *testing.T) {
	t.Parallel()
	srv, url := serve(t, pushy.Options{Compress: deflate.From(1)})
	pushy.Handle(srv, "echo", func(_ context.Context, conn *pushy.Conn, text string) (string, error) {
		if err := conn.Send("direct", text); err != nil {
			return "", err
		}
		return text, nil
	})
	c := dial(t, url, false, withDeflate)
	require.True(t, c.deflates)
	c.Send(fmt.Sprintf(`{"command":"echo","id":1,"data":%q}`, large))
	require.Contains(t, c.Receive(), "direct")
	require.Contains(t, c.Receive(), large)
	c.Send(fmt.Sprintf(`{"command":"%s"}`, strings.Repeat("x", 40)))
	require.Contains(t, c.Receive(), "pushy:error")

	data := fmt.Sprintf(`{"name":%q}`, large)
	token, err := pushy.SignChannel("secret", c.id, "private-room", json.RawMessage(data))
	require.NoError(t, err)
	c.Send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-room","auth":%q,"data":%s}}`, token, data))
	require.Contains(t, c.Receive(), large, "the list of members")
	assert.Zero(t, c.compressed)
	assert.Zero(t, srv.Stats().Compressed)
}

// Kept events are compressed when they are published. When they are sent again, they are not.
func TestKeptEventsAreCompressed(t *testing.T) {
	t.Parallel()
	for _, framed := range []bool{false, true} {
		t.Run(fmt.Sprintf("framed=%v", framed), func(t *testing.T) {
			t.Parallel()
			srv, url := serve(t, pushy.Options{
				Compress: deflate.From(512),
				Channel: func(string) pushy.ChannelOptions {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: time.Hour}}
				},
			})
			first := dial(t, url, framed, withDeflate)
			first.Send(`{"command":"subscribe","data":{"channel":"log"}}`)
			require.Contains(t, first.Receive(), "pushy:subscription-success")
			var want []string
			for i := range 40 { // more than a run of the ring
				require.NoError(t, srv.Publish(t.Context(), "log", "m", fmt.Sprint(i, large)))
				want = append(want, first.Receive())
			}
			assert.Equal(t, 40, first.compressed)

			second := dial(t, url, framed, withDeflate)
			second.Send(`{"command":"subscribe","data":{"channel":"log","rewind":40}}`)
			require.Contains(t, second.Receive(), `"replay":40`)
			for i := range want {
				require.Equal(t, want[i], second.Receive())
			}
			assert.Zero(t, second.compressed)
			require.NoError(t, srv.Publish(t.Context(), "log", "m", large))
			assert.Equal(t, first.Receive(), second.Receive())
			assert.Equal(t, 1, second.compressed)
			assert.EqualValues(t, 41, srv.Stats().Compressed.Events)
		})
	}
}

// Latest and Droppable work as without compression.
func TestOmittableEventsAreCompressed(t *testing.T) {
	t.Parallel()
	srv, url := serve(t, pushy.Options{Compress: deflate.From(512)})
	c := dial(t, url, false, withDeflate)
	c.Send(`{"command":"subscribe","data":{"channel":"prices"}}`)
	require.Contains(t, c.Receive(), "pushy:subscription-success")
	_, err := srv.PublishEvent(t.Context(), pushy.Event{
		Channel:   "prices",
		Name:      "price",
		Data:      large,
		Latest:    "ABC",
		Droppable: true,
	})
	require.NoError(t, err)
	require.Contains(t, c.Receive(), large)
	assert.Equal(t, 1, c.compressed)
}

// Without Options.Compress, and with a negative one, nothing is negotiated.
func TestCompressIsOffByDefault(t *testing.T) {
	t.Parallel()
	for _, value := range []int{0, -1} {
		srv, url := serve(t, pushy.Options{Compress: deflate.From(value)})
		c := dial(t, url, false, withDeflate)
		assert.False(t, c.deflates)
		c.Send(`{"command":"subscribe","data":{"channel":"news"}}`)
		require.Contains(t, c.Receive(), "pushy:subscription-success")
		require.NoError(t, srv.Publish(t.Context(), "news", "m", large))
		require.Contains(t, c.Receive(), large)
	}
}

// A client whose connection changes compressed frames asks for none in its URL.
func TestClientRefusesCompression(t *testing.T) {
	t.Parallel()
	_, url := serve(t, pushy.Options{Compress: deflate.From(512)})
	assert.False(t, dial(t, url, false, withDeflate, withPath("/pushy/socket/websocket?v=2&deflate=0")).deflates)
	assert.True(t, dial(t, url, false, withDeflate, withPath("/pushy/socket/websocket?v=2&deflate=1")).deflates)
	assert.False(t, dial(t, url, true, withDeflate, withPath("/pushy/socket/0/refuses/websocket?deflate=0")).deflates)
}

// Commands of clients can be compressed. MessageBytes limits their decompressed size.
func TestCompressedCommands(t *testing.T) {
	t.Parallel()
	compressed := func(text string) string {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		require.NoError(t, err)
		_, err = w.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
	}
	_, url := serve(t, pushy.Options{Compress: deflate.From(512), Limits: pushy.Limits{MessageBytes: 10_000}})
	send := func(c *client, text string) {
		frame := ws.NewFrame(ws.OpText, true, []byte(compressed(text)))
		frame.Header.Rsv = ws.Rsv(true, false, false)
		require.NoError(t, ws.WriteFrame(c.conn, ws.MaskFrameInPlace(frame)))
	}
	c := dial(t, url, false, withDeflate)
	send(c, `{"command":"subscribe","data":{"channel":"news"}}`)
	require.Contains(t, c.Receive(), "pushy:subscription-success")
	send(c, `{"command":"`+strings.Repeat("x", 9_000)+`"}`)
	require.Contains(t, c.Receive(), "pushy:error")
	send(c, `{"command":"`+strings.Repeat("x", 10_000)+`"}`)
	code, reason := c.Closed()
	assert.Equal(t, "1009 message too big", fmt.Sprint(code, " ", reason))
}
