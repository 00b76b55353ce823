package pusher_test

import (
	"context"
	"flag"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/pushytest"
	"github.com/gopushy/pushy/sse"
)

var update = flag.Bool("update", false, "write testdata/authorization.md")

// user is the user id of all clients of the matrix.
const matrixUser = "1"

// attempt is a subscription of the matrix.
type attempt struct {
	channel string
	with    string // one of credentials
}

var (
	credentials = []string{"none", "wrong", "other protocol's", "other channel's", "right"}
	channels    = []string{
		"news", "cache-news", "private-x", "presence-x", "private-cache-x", "presence-cache-x", "private-encrypted-x",
		"Private-x", "PRESENCE-x", "pRiVaTe-cache-x", "#server-to-user-1", "hidden", "Hidden", "xprivate-x", "private", "presence_x",
	}
)

// token is a credential of pushy's own protocol.
func (a attempt) token(t *testing.T, connID string) string {
	t.Helper()
	channel := a.channel
	switch a.with {
	case "none":
		return ""
	case "wrong":
		return "v2.00000000.e30.00"
	case "other protocol's":
		return sign(connID + ":" + channel)
	case "other channel's":
		channel += "-other"
	}
	token, err := pushy.SignToken(secretKey, pushy.Token{
		Channels: []string{channel},
		User:     matrixUser,
		Expires:  time.Now().Add(5 * time.Minute), // tokens in URLs live for 10 minutes at most
	})
	require.NoError(t, err)
	return token
}

// signature is a credential of Pusher's protocol, and the channel_data with it.
func (a attempt) signature(t *testing.T, connID string) (auth string, data *string) {
	t.Helper()
	text := connID + ":" + a.channel
	if strings.HasPrefix(strings.ToLower(a.channel), "presence-") {
		own := channelData(matrixUser)
		data = &own
	}
	switch a.with {
	case "none":
		return "", data
	case "wrong":
		return appKey + ":00", data
	case "other protocol's":
		token, err := pushy.SignToken(secretKey, pushy.Token{Channels: []string{a.channel}, User: matrixUser})
		require.NoError(t, err)
		return token, data
	case "other channel's":
		text += "-other"
	}
	if data != nil {
		text += ":" + *data
	}
	return sign(text), data
}

// A door is a way to subscribe to a channel. It reports whether the client is in the channel.
type door struct {
	name  string
	enter func(t *testing.T, n *node, a attempt) bool
}

var doors = []door{
	{"pushy", enterPushy},
	{"sse", enterSSE},
	{"pusher", enterPusher},
}

func enterPushy(t *testing.T, n *node, a attempt) bool {
	kit := pushytest.New(t, n.srv)
	c := kit.Connect()
	_, err := c.TrySubscribe(a.channel, pushytest.Token(a.token(t, c.ID()), nil))
	return err == nil
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

// reach.md P7: each way to subscribe, with each kind of name and of credential, on a node with the
// adapter and on one without. No door lets in what another one refuses for the same channel.
func TestAuthorizationMatrix(t *testing.T) {
	t.Parallel()
	rules := pusher.Channels(func(name string) pushy.ChannelOptions {
		if strings.EqualFold(name, "hidden") {
			return pushy.ChannelOptions{Access: pushy.AccessPrivate}
		}
		return pushy.ChannelOptions{}
	})
	cluster := newCluster()
	options := func() pushy.Options {
		return pushy.Options{
			Broker:  cluster.Broker(),
			Channel: rules,
			Accept:  func(*http.Request) (any, error) { return matrixUser, nil },
		}
	}
	with, without := serve(t, options()), serveWithout(t, options())
	var table strings.Builder
	table.WriteString("# Who may subscribe\n\nTestAuthorizationMatrix writes this page.\n\n| channel | credential |")
	for _, d := range doors {
		table.WriteString(" " + d.name + " |")
	}
	table.WriteString("\n|---|---|" + strings.Repeat("---|", len(doors)) + "\n")
	for _, channel := range channels {
		lower := strings.ToLower(channel)
		private := strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-") || lower == "hidden"
		for _, credential := range credentials {
			a := attempt{channel, credential}
			table.WriteString("| `" + channel + "` | " + credential + " |")
			for _, d := range doors {
				entered := d.enter(t, with, a)
				if private {
					assert.Equal(t, credential == "right", entered, "%s: %v", d.name, a)
				}
				if d.name != "pusher" {
					assert.Equal(t, entered, d.enter(t, without, a), "%s, on a node without the adapter: %v", d.name, a)
				}
				table.WriteString(map[bool]string{true: " yes |", false: " no |"}[entered])
			}
			table.WriteString("\n")
		}
	}
	file := filepath.Join("testdata", "authorization.md")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), table.String(), "go test -run TestAuthorizationMatrix ./pusher -update writes it")
}

// serveWithout is serve for a node without an Adapter.
func serveWithout(t *testing.T, o pushy.Options) *node {
	t.Helper()
	srv, err := pushy.New(defaults(o))
	require.NoError(t, err)
	n := &node{
		t:   t,
		srv: srv,
	}
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.Handle("/pushy/events", sse.New(srv, sse.Options{}))
	n.listen(mux)
	return n
}
