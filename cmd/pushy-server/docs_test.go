package main

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// comparable replaces what differs in each run: ids, times, and the epochs of positions.
func comparable(text string) string {
	for _, rule := range []struct{ pattern, with string }{
		{`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, "connection"},
		{`\b[0-9a-f]{32}\b`, "member"},
		{`\b[0-9a-f]{16}\b`, "node"},
		{`\b1\d{12}\b`, "milliseconds"},
		{`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\b`, "time"},
		{`(?m)^\w+(\.\d+)$`, "epoch$1"},
	} {
		text = regexp.MustCompile(rule.pattern).ReplaceAllString(text, rule.with)
	}
	return text
}

// Every command in docs/api.md prints what the page says, on the servers that it describes.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	cluster := memory.NewCluster(memory.Options{})
	var srv *pushy.Server
	var urls []string
	for _, user := range []string{"42", "43", "44"} {
		one, url, _ := startPushy(t, pushy.Options{
			Broker: cluster.Broker(),
			Accept: func(*http.Request) (any, error) { return user, nil },
			Channel: func(name string) pushy.ChannelOptions {
				if name == "chat" {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 100}}
				}
				return pushy.ChannelOptions{}
			},
		})
		srv = one
		urls = append(urls, url)
	}
	ann := newTerminal(withSecret()).start("listen", "-url", urls[0], "-member", `{"name":"Ann"}`, "lobby", "private-one", "private-room")
	says(t, ann.err, "listening to", 3)
	bob := newTerminal(withSecret()).start("listen", "-url", urls[1], "-member", `{"name":"Bob"}`, "lobby", "private-room")
	says(t, bob.err, "listening to", 2)
	require.NoError(t, srv.Publish(t.Context(), "chat", "said", "the first event"))
	require.NoError(t, srv.Publish(t.Context(), "chat", "news", map[string]string{"text": "Hello"}))

	page, err := os.ReadFile("../../docs/api.md")
	require.NoError(t, err)
	found := regexp.MustCompile("(?s)```sh\npushy-server ([^\n]+)\n```\n\n```text\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	assert.Len(t, found, 10)
	for _, m := range found {
		words, err := exec.CommandContext(t.Context(), "sh", "-euc", `printf '%s\n' `+m[1]).Output()
		require.NoError(t, err, m[1])
		status, stdout, stderr := runCall(t, urls[0], strings.Split(strings.TrimSpace(string(words)), "\n")...)
		assert.Equal(t, exitOK, status, "%s: %s", m[1], stderr)
		assert.Equal(t, comparable(m[2]), comparable(stdout), m[1])
	}
	assert.Equal(t, exitFailed, ann.end(t), "Ann was banned")
}
