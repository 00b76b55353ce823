package pusher_test

import (
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/sse"
)

var update = flag.Bool("update", false, "write testdata/authorization.md")

// user is the user id of all clients of the matrix.
const matrixUser = "1"

// attempt is an attempt of the matrix.
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

// A door is a way into a Server. It reports whether the attempt has succeeded.
type door struct {
	name    string
	adapter bool // it needs an Adapter, of this node
	enter   func(t *testing.T, n *node, a attempt) bool
}

// spy receives all entries of channels from the broker.
type spy struct {
	mu      sync.Mutex
	entries map[string][]string // the names of the events, by the name of the channel
}

func (s *spy) Deliver(channel string, e broker.Entry) {
	if e.Kind == broker.Event {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.entries[channel] = append(s.entries[channel], e.Event)
	}
}

func (s *spy) Reset(string, broker.State, string) {}

func (s *spy) published(channel string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries[channel])
}

// follow makes a spy of the channels of the matrix, with the spelling of each protocol.
func follow(t *testing.T, b broker.Broker) *spy {
	t.Helper()
	s := &spy{entries: map[string][]string{}}
	require.NoError(t, b.Open(t.Context(), broker.OpenOptions{Node: "spy", Lease: time.Minute}, s))
	t.Cleanup(func() { require.NoError(t, b.Close(context.Background())) })
	for _, channel := range channels {
		for _, name := range []string{channel, strings.ToLower(channel)} {
			_, err := b.Follow(t.Context(), name)
			require.NoError(t, err)
		}
	}
	return s
}

// isPrivate reports whether a channel of the matrix is private.
func isPrivate(channel string) bool {
	lower := strings.ToLower(channel)
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-") || lower == "hidden"
}

// reach.md P7: each way to subscribe, to publish, to ask and to get a credential, with each kind of name
// and of credential, on a node with the adapter and on one without, which share their channels. Nothing
// succeeds that another protocol refuses.
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
	for _, n := range []*node{with, without} {
		// A server refuses what was signed in the second in which it started.
		require.Eventually(t, func() bool { return callPublish(t, n, attempt{"started", "right"}) }, patience, 10*time.Millisecond)
	}
	seen := follow(t, cluster.Broker())
	expected := map[string][]string{} // the events that must have been published, by channel
	m := matrix{
		t:       t,
		with:    with,
		without: without,
	}
	m.text.WriteString("# Who may do what\n\nTestAuthorizationMatrix writes this page. Each answer was asked for on a node with " +
		"an Adapter of package\npusher and, where it is not the Adapter that answers, on a node of the same cluster without one: " +
		"they are\nequal. The Go client sends a token only for channels that need one.\n")
	m.section("Subscribing", doors, func(a attempt, d door, entered bool) {
		switch {
		case isPrivate(a.channel):
			assert.Equal(t, a.with == "right", entered, "%s: %v", d.name, a)
		case a.channel == "#server-to-user-1" && d.adapter:
			assert.False(t, entered, "%s: %v: it has not signed in", d.name, a)
		case a.with == "none", a.with == "right":
			assert.True(t, entered, "%s: %v", d.name, a)
		case a.with == "wrong" && d.name != "Go client":
			assert.False(t, entered, "%s: %v", d.name, a)
		}
	})
	m.section("HTTP APIs", apis, func(a attempt, d door, done bool) {
		switch {
		case strings.Contains(d.name, "auth endpoint"):
			if isPrivate(a.channel) {
				assert.Equal(t, a.with == "right", done, "%s: %v", d.name, a)
			}
			return
		case d.name == "Pusher API: channel" && a.channel == "#server-to-user-1":
			assert.False(t, done, "%s: %v: it is no channel", d.name, a)
			return
		case d.name == "signed API: members": // of which public channels have none
			assert.Equal(t, a.with == "right" && isPrivate(a.channel), done, "%s: %v", d.name, a)
			return
		default:
			assert.Equal(t, a.with == "right", done, "%s: %v", d.name, a)
		}
		if !done {
			return
		}
		lower := strings.ToLower(a.channel)
		switch d.name {
		case "trigger":
			expected[lower] = append(expected[lower], a.eventOf("trigger"))
		case "signed API: publish":
			expected[lower] = append(expected[lower], a.eventOf("publish"))
		case "Pusher API: events":
			if a.channel != "#server-to-user-1" { // which is another name of the user
				expected[a.channel] = append(expected[a.channel], a.eventOf("events"))
			}
		}
	})
	for _, channel := range channels {
		for _, name := range []string{channel, strings.ToLower(channel)} {
			require.Eventually(t, func() bool { return len(seen.published(name)) >= len(expected[name]) }, patience, time.Millisecond)
			assert.ElementsMatch(t, expected[name], seen.published(name), "events in %s", name)
		}
	}
	m.check(filepath.Join("testdata", "authorization.md"))
}

// matrix writes the page.
type matrix struct {
	t             *testing.T
	with, without *node
	text          strings.Builder
}

// section makes all attempts at doors. judge is called for each attempt on each node.
func (m *matrix) section(title string, doors []door, judge func(a attempt, d door, entered bool)) {
	m.text.WriteString("\n## " + title + "\n\n| channel | credential |")
	for _, d := range doors {
		m.text.WriteString(" " + d.name + " |")
	}
	m.text.WriteString("\n|---|---|" + strings.Repeat("---|", len(doors)) + "\n")
	for _, channel := range channels {
		for _, credential := range credentials {
			a := attempt{channel, credential}
			m.text.WriteString("| `" + channel + "` | " + credential + " |")
			for _, d := range doors {
				entered := d.enter(m.t, m.with, a)
				judge(a, d, entered)
				if !d.adapter {
					other := d.enter(m.t, m.without, a)
					judge(a, d, other)
					assert.Equal(m.t, entered, other, "%s, on a node without the adapter: %v", d.name, a)
				}
				m.text.WriteString(map[bool]string{true: " yes |", false: " no |"}[entered])
			}
			m.text.WriteString("\n")
		}
	}
}

// check compares the page with the one in the repository.
func (m *matrix) check(file string) {
	m.t.Helper()
	if *update {
		require.NoError(m.t, os.MkdirAll("testdata", 0o755))
		require.NoError(m.t, os.WriteFile(file, []byte(m.text.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(m.t, err)
	assert.Equal(m.t, string(want), m.text.String(), "go test -run TestAuthorizationMatrix ./pusher -update writes it")
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
	n.authEndpoints(mux)
	n.listen(mux)
	return n
}
