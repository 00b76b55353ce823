package pusher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/subscriber"
)

// The ways to subscribe to a channel. Each reports whether the client is in the channel.
var doors = []door{
	{
		name:  "WebSocket",
		enter: enterPushy,
	},
	{
		name:  "SockJS",
		enter: enterSockJS,
	},
	{
		name:  "SSE",
		enter: enterSSE,
	},
	{
		name:  "Go client",
		enter: enterSubscriber,
	},
	{
		name:    "Pusher",
		adapter: true,
		enter:   enterPusher,
	},
}

func enterPushy(t *testing.T, n *node, a attempt) bool {
	kit := pushytest.New(t, n.srv)
	c := kit.Connect()
	_, err := c.TrySubscribe(a.channel, pushytest.Token(a.token(t, c.ID()), nil))
	return err == nil
}

var sockJSSessions atomic.Int64

// enterSockJS uses the transport xhr, with a request for each frame.
func enterSockJS(t *testing.T, n *node, a attempt) bool {
	session := "http://pushy.test/pushy/socket/000/matrix" + strconv.FormatInt(sockJSSessions.Add(1), 10)
	post := func(path, body string) string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, session+path, strings.NewReader(body))
		require.NoError(t, err)
		res, err := n.http.Do(r)
		require.NoError(t, err)
		defer func() { require.NoError(t, res.Body.Close()) }()
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Less(t, res.StatusCode, 300, "%s", answer)
		return string(answer)
	}
	next := func() []got {
		for {
			frame := post("/xhr", "")
			if frame == "h\n" {
				continue
			}
			require.True(t, strings.HasPrefix(frame, "a"), frame)
			var texts []string
			require.NoError(t, json.Unmarshal([]byte(frame[1:]), &texts))
			events := make([]got, len(texts))
			for i, text := range texts {
				require.NoError(t, json.Unmarshal([]byte(text), &events[i]))
			}
			return events
		}
	}
	require.Equal(t, "o\n", post("/xhr", ""))
	var connect struct{ SocketID string }
	first := next()
	require.Equal(t, "pushy:connect", first[0].Event)
	require.NoError(t, json.Unmarshal(first[0].Data, &connect))
	data := map[string]string{"channel": a.channel}
	if auth := a.token(t, connect.SocketID); auth != "" {
		data["auth"] = auth
	}
	command, err := json.Marshal(map[string]any{
		"command": "subscribe",
		"data":    data,
	})
	require.NoError(t, err)
	body, err := json.Marshal([]string{string(command)})
	require.NoError(t, err)
	post("/xhr_send", string(body))
	for events := first[1:]; ; events = next() {
		for _, e := range events {
			switch e.Event {
			case "pushy:subscription-success":
				return true
			case "pushy:subscription-failed", "pushy:subscription-needauth", "pushy:error":
				return false
			}
		}
	}
}

func enterSSE(t *testing.T, n *node, a attempt) bool {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	query := url.Values{"channel": {a.channel}}
	if auth := a.token(t, "0.0"); auth != "" {
		query.Set("auth", auth)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pushy.test/pushy/events?"+query.Encode(), nil)
	require.NoError(t, err)
	res, err := n.http.Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode == http.StatusOK
}

// enterSubscriber uses package subscriber, which asks for a token by the name of the channel.
func enterSubscriber(t *testing.T, n *node, a attempt) bool {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := subscriber.Options{NetDial: n.pipes.Dial}
	if a.with != "none" {
		o.Token = func(_ context.Context, r subscriber.TokenRequest) (map[string]subscriber.Token, error) {
			return map[string]subscriber.Token{r.Channels[0]: {Auth: a.token(t, r.ConnID)}}, nil
		}
	}
	c, err := subscriber.Dial(ctx, "ws://pushy.test/pushy", o)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Subscribe(ctx, a.channel, nil)
	require.NoError(t, ctx.Err())
	return err == nil
}

func enterPusher(t *testing.T, n *node, a attempt) bool {
	c := n.dial()
	data := map[string]any{"channel": a.channel}
	auth, channelData := a.signature(t, c.id)
	if auth != "" {
		data["auth"] = auth
	}
	if channelData != nil {
		data["channel_data"] = *channelData
	}
	c.send("pusher:subscribe", "", data)
	return c.next().Event == "pusher_internal:subscription_succeeded"
}

// answerOf sends a request and returns the status of the answer.
func (n *node) answerOf(t *testing.T, r *http.Request) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := n.http.Do(r.WithContext(ctx))
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode
}

func newRequest(t *testing.T, method, path string, body []byte, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://pushy.test"+path, bytes.NewReader(body))
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}
