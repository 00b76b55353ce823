package main

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// The key events serves Server-Sent Events under the prefix, and private channels to users with a token. Without
// it, nothing is there.
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
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"events":true}`)
	token, err := pushy.SignToken(secret, pushy.Token{
		Channels: []string{"private-orders"},
		User:     "ann",
		Expires:  time.Now().Add(5 * time.Minute),
	})
	require.NoError(t, err)
	for query, status := range map[string]int{
		"channel=private-orders&auth=" + token:                        http.StatusOK,
		"channel=private-orders&channel=news&auth=" + token:           http.StatusOK,
		"channel=private-orders":                                      http.StatusUnauthorized,
		"channel=private-others&auth=" + token:                        http.StatusForbidden,
		"channel=private-orders&auth=" + token[:len(token)-1] + "?":   http.StatusForbidden,
		"channel=private-orders&auth=" + strings.Repeat("0", 64):      http.StatusBadRequest,
		"channel=private-orders&channel=private-others&auth=" + token: http.StatusForbidden,
	} {
		res, err := http.Get("http://" + p.addr + "/pushy/events?" + query)
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, status, res.StatusCode, query)
	}
	p = startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0}`)
	res, err := http.Get("http://" + p.addr + "/pushy/events?channel=news")
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
}
