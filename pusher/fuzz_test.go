package pusher_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// FuzzMessage sends a message of any content. The server answers with valid messages, and the
// connection goes on, unless the message is a sign-in.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"event":"pusher:subscribe","data":{"channel":"news"}}`,
		`{"event":"pusher:subscribe","data":"{\"channel\":\"presence-x\",\"auth\":\"k:s\",\"channel_data\":\"{}\"}"}`,
		`{"event":"pusher:unsubscribe","data":{"channel":"news"}}`,
		`{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"1\"}"}}`,
		`{"event":"client-x","channel":"private-x","data":{}}`,
		`{"event":"pusher:ping","data":{}}`, `{"event":"pusher:pong"}`, `{"event":null}`, `[`, `{"event":"pusher:subscribe","data":{"channel":["x"]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) || len(text) > 60<<10 || strings.Contains(string(text), "signin") {
			return
		}
		n := serve(t, pushy.Options{})
		c := n.dial()
		c.sendText(string(text))
		c.send("pusher:ping", "", nil)
		for {
			g := c.next()
			if g.Event == "pusher:error" {
				require.True(t, json.Valid(g.Data))
				continue
			}
			g.content(t)
			if g.Event == "pusher:pong" {
				return
			}
			require.NotContains(t, []string{"client-x"}, g.Event)
			if strings.HasPrefix(strings.ToLower(g.Channel), "private-") || strings.HasPrefix(strings.ToLower(g.Channel), "presence-") {
				require.Equal(t, "pusher:subscription_error", g.Event, "without a signature")
			}
		}
	})
}
