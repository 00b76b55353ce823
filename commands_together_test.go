package pushy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/deflate"
)

// sendTogether sends messages in one write, so that the server most likely reads them together.
func (c *client) sendTogether(texts ...string) {
	c.t.Helper()
	var wire bytes.Buffer
	for _, text := range texts {
		if c.framed {
			quoted, err := json.Marshal([]string{text})
			require.NoError(c.t, err)
			text = string(quoted)
		}
		require.NoError(c.t, ws.WriteFrame(&wire, ws.MaskFrame(ws.NewTextFrame([]byte(text)))))
	}
	require.NoError(c.t, c.conn.SetWriteDeadline(time.Now().Add(clientPatience)))
	_, err := c.conn.Write(wire.Bytes())
	require.NoError(c.t, err)
}

// The answers to commands that arrive together are written together. They come in the order of the
// commands, before what is sent later, and do not wait for a command that takes long.
func TestCommandsThatArriveTogether(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]dialOption{
		"bare":    nil,
		"framed":  nil,
		"deflate": {withDeflate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, url := serve(t, pushy.Options{
				Compress: deflate.From(512),
				Limits:   pushy.Limits{CommandRate: -1},
			})
			release := make(chan struct{})
			srv.RegisterCommand("echo", func(_ *pushy.Server, c *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
				_ = c.Reply("echo", data)
			})
			srv.RegisterCommand("wait", func(_ *pushy.Server, c *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
				_ = c.Send("waits", data)
				<-release
				_ = c.Reply("waited", data)
			})
			srv.RegisterCommand("publish", func(srv *pushy.Server, _ *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
				assert.NoError(t, srv.Publish(t.Context(), "room", "event", data))
			})
			srv.RegisterCommand("end", func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
				_ = c.Close(4000, "ended")
			})
			c := dial(t, url, name == "framed", options...)
			c.Send(`{"command":"subscribe","data":{"channel":"room"}}`)
			c.Receive()
			echo := func(i int) string { return fmt.Sprintf(`{"command":"echo","id":%d,"data":"%d"}`, i, i) }
			answer := func(i int) {
				t.Helper()
				require.Equal(t, fmt.Sprintf(`{"event":"echo","data":"%d","id":%d}`, i, i), c.Receive())
			}

			c.sendTogether(echo(1), echo(2), `{"command":"wait","data":3}`, echo(4), `{"command":"none","id":5}`, echo(6))
			answer(1)
			answer(2)
			require.Equal(t, `{"event":"waits","data":3}`, c.Receive())
			close(release)
			require.Equal(t, `{"event":"waited","data":3}`, c.Receive())
			answer(4)
			require.Equal(t, `{"event":"pushy:error","data":{"message":"Unknown command","code":"200","id":5}}`, c.Receive())
			answer(6)

			var many []string
			for i := range 300 {
				many = append(many, echo(i), fmt.Sprintf(`{"command":"publish","data":%d}`, i))
			}
			c.sendTogether(append(many, echo(300), `{"command":"end"}`, echo(301))...)
			for i := range 300 {
				answer(i)
				require.Equal(t, fmt.Sprintf(`{"event":"event","channel":"room","data":%d}`, i), c.Receive())
			}
			answer(300)
			if c.framed {
				require.Equal(t, `c[4000,"ended"]`, c.Next())
			}
			code, reason := c.Closed()
			assert.Equal(t, 4000, code)
			assert.Equal(t, "ended", reason)
		})
	}
}
