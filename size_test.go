package pushy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// spellings are ways in which clients write a message into SockJS's array.
var spellings = map[string]func(message string) string{
	"as it is": func(message string) string {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(message); err != nil {
			panic(err)
		}
		return strings.TrimSpace(b.String())
	},
	"all escaped": func(message string) string {
		var b strings.Builder
		b.WriteByte('"')
		for _, r := range message {
			if r > 0xffff {
				r -= 0x10000
				fmt.Fprintf(&b, `\u%04x`, 0xd800+r>>10)
				r = 0xdc00 + r&0x3ff
			}
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		b.WriteByte('"')
		return b.String()
	},
}

// ofSize returns a command of so many bytes, made up of repetitions of filler.
func ofSize(t *testing.T, size int, filler string) string {
	t.Helper()
	const frame = `{"command":"size","data":{"text":"%s%s"}}`
	room := size - len(fmt.Sprintf(frame, "", ""))
	n := room / len(filler)
	message := fmt.Sprintf(frame, strings.Repeat(filler, n), strings.Repeat("x", room-n*len(filler)))
	require.Len(t, message, size)
	return message
}

// The limit counts a message's own bytes on every transport, whatever is escaped
// around them. One that is too large is refused over HTTP, where the session goes
// on, and ends a WebSocket with 1009. Issue 11, number 13.
func TestMessageSizeIsTheSameOnAllTransports(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	sizes := make(chan int, 1)
	// Nobody receives between the posts, so the sessions must outlive a slow machine.
	srv, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{Legacy: true, DisconnectDelay: time.Hour}})
	srv.RegisterCommand("size", func(_ *pushy.Server, _ *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		sizes <- len(data) + len(`{"command":"size","data":}`)
	})
	for what, filler := range map[string]string{
		"quotes":  `\"`,
		"emoji":   "\U0001f642",
		"percent": "%",
	} {
		fits, large := ofSize(t, limit, filler), ofSize(t, limit+1, filler)
		bare := dial(t, baseURL, false)
		bare.Send(fits)
		assert.Equal(t, limit, <-sizes, "bare WebSocket, %s", what)
		bare.Send(large)
		code, _ := bare.Closed()
		assert.Equal(t, 1009, code, "bare WebSocket, %s", what)

		for how, spell := range spellings {
			name := what + ", " + how
			framed := dial(t, baseURL, true)
			framed.SendFrame(ws.OpText, "["+spell(fits)+"]")
			assert.Equal(t, limit, <-sizes, "WebSocket, %s", name)
			framed.SendFrame(ws.OpText, "["+spell(large)+"]")
			assert.Equal(t, `c[1009,"message too big"]`, framed.Next())
			code, _ := framed.Closed()
			assert.Equal(t, 1009, code, "WebSocket, %s", name)

			for _, send := range []string{"xhr_send", "jsonp_send"} {
				id := strings.NewReplacer(" ", "-", ",", "").Replace(name) + "-" + send
				session := baseURL + "/pushy/socket/0/" + id
				res, err := http.Post(session+"/xhr", "text/plain", nil)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				post := func(body string) int {
					contentType := "text/plain"
					if send == "jsonp_send" {
						contentType = "application/x-www-form-urlencoded"
						body = "d=" + url.QueryEscape(body)
					}
					res, err := http.Post(session+"/"+send, contentType, strings.NewReader(body))
					require.NoError(t, err)
					_, err = io.Copy(io.Discard, res.Body)
					require.NoError(t, err)
					require.NoError(t, res.Body.Close())
					return res.StatusCode
				}
				require.Less(t, post("["+spell(fits)+"]"), 300, "%s, %s", send, name)
				assert.Equal(t, limit, <-sizes)
				assert.Equal(t, 413, post("["+spell(large)+"]"), "%s, %s", send, name)
				assert.Equal(t, 413, post("["+spell("x")+","+spell(large)+"]"), "%s, %s", send, name)
				require.Less(t, post("["+spell(fits)+"]"), 300, "the session goes on")
				assert.Equal(t, limit, <-sizes)
			}
		}
	}
}

// A body that no message could need is refused before it is read, and one with
// very many messages is refused as a whole.
func TestBodiesOfMessagesAreBounded(t *testing.T) {
	t.Parallel()
	_, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{DisconnectDelay: time.Hour}})
	res, err := http.Post(baseURL+"/pushy/socket/0/bounded/xhr", "text/plain", nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	post := func(body string) (int, string) {
		res, err := http.Post(baseURL+"/pushy/socket/0/bounded/xhr_send", "text/plain", strings.NewReader(body))
		require.NoError(t, err)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, string(text)
	}
	status, text := post("[" + strings.Repeat(" ", 1<<20) + "]")
	assert.Equal(t, 413, status)
	assert.Contains(t, text, "at most 65536 bytes")
	status, text = post("[" + strings.Repeat(`"",`, 1000) + `""]`)
	assert.Equal(t, 413, status)
	assert.Contains(t, text, "at most 1000 messages")
	status, _ = post(`["{}"]`)
	assert.Equal(t, 204, status)
}

// What may wait for a command to end is counted so that escapes do not make a
// client that stays within the limit of a message too fast. Issue 11, number 13.
func TestEscapedMessagesMayWaitForACommand(t *testing.T) {
	t.Parallel()
	const messages = 4 // 240,008 bytes; the bound is four times the limit
	release := make(chan struct{})
	sizes := make(chan int, messages)
	srv, baseURL := serve(t, pushy.Options{SockJS: pushy.SockJS{DisconnectDelay: time.Hour}})
	srv.RegisterCommand("size", func(_ *pushy.Server, _ *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		<-release
		sizes <- len(data) + len(`{"command":"size","data":}`)
	})
	session := baseURL + "/pushy/socket/0/escaped-and-waiting"
	res, err := http.Post(session+"/xhr", "text/plain", nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	body := "[" + spellings["as it is"](ofSize(t, 60_002, `\"`)) + "]"
	for range messages {
		res, err := http.Post(session+"/xhr_send", "text/plain", strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 204, res.StatusCode)
	}
	close(release)
	for range messages {
		select {
		case size := <-sizes:
			assert.Equal(t, 60_002, size)
		case <-time.After(clientPatience):
			require.Fail(t, "a message was lost")
		}
	}
}
