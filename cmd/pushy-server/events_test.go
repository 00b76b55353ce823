package main

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The key events serves Server-Sent Events under the prefix. Without it, nothing is there.
func TestEvents(t *testing.T) {
	t.Parallel()
	for prefix, path := range map[string]string{"/pushy": "/pushy/events", "/": "/events"} {
		p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"prefix":"`+prefix+`","events":true}`)
		res, err := http.Get("http://" + p.addr + path + "?channel=news")
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		require.Equal(t, http.StatusOK, res.StatusCode)
		in := bufio.NewReader(res.Body)
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "event: pushy:open\n", line)
		url := "http://" + p.addr + strings.TrimSuffix(prefix, "/")
		require.Equal(t, exitOK, newTerminal(withSecret()).start("publish", "-url", url, "news", "headline", `"Hello"`).end(t))
		for !strings.HasPrefix(line, "event: headline") {
			line, err = in.ReadString('\n')
			require.NoError(t, err)
		}
		line, err = in.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "data: Hello\n", line)
	}
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0}`)
	res, err := http.Get("http://" + p.addr + "/pushy/events?channel=news")
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
}
