package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Issue 11, number 18.
func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	const trusted = `["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]`
	tests := []struct {
		name, from string
		forwarded  []string // header lines
		want       string
	}{
		{"no proxy", "198.51.100.1:1234", nil, "198.51.100.1:1234"},
		{"a client that names another address", "198.51.100.1:1234", []string{"203.0.113.9"}, "198.51.100.1:1234"},
		{"a proxy", "10.1.2.3:1234", []string{"203.0.113.9"}, "203.0.113.9"},
		{"a single address as proxy", "192.0.2.7:1234", []string{"203.0.113.9"}, "203.0.113.9"},
		{"its neighbour", "192.0.2.8:1234", []string{"203.0.113.9"}, "192.0.2.8:1234"},
		{"what the client wrote", "10.1.2.3:1234", []string{"192.0.2.99, 198.51.100.77, 203.0.113.9"}, "203.0.113.9"},
		{"a client that names a proxy", "10.1.2.3:1234", []string{"10.9.9.9, 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", "10.1.2.3:1234", []string{"192.0.2.99, 203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		{"three, of two families", "[::1]:1234", []string{"192.0.2.99, 203.0.113.9, fd12::1, 10.0.0.1"}, "203.0.113.9"},
		{"two header lines", "10.1.2.3:1234", []string{"192.0.2.99", "203.0.113.9"}, "203.0.113.9"},
		{"two header lines of two proxies", "10.1.2.3:1234", []string{"192.0.2.99,203.0.113.9", "10.0.0.1"}, "203.0.113.9"},
		{"proxies only", "10.1.2.3:1234", []string{"10.0.0.5,10.0.0.1"}, "10.0.0.5"},
		{"an entry with a port", "10.1.2.3:1234", []string{"203.0.113.9:5678"}, "203.0.113.9"},
		{"an IPv6 entry with a port", "10.1.2.3:1234", []string{"[2001:db8::9]:5678"}, "2001:db8::9"},
		{"an IPv6 entry in brackets", "10.1.2.3:1234", []string{"[2001:db8::9]"}, "2001:db8::9"},
		{"IPv4 as IPv6", "[::ffff:10.1.2.3]:1234", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"a zone", "[fd00::1%eth0]:1234", []string{"203.0.113.9"}, "203.0.113.9"},
		{"no header", "10.1.2.3:1234", nil, ""},
		{"an empty header", "10.1.2.3:1234", []string{""}, ""},
		{"nonsense of the proxy", "10.1.2.3:1234", []string{"203.0.113.9, unknown"}, " unknown"},
		{"nonsense before proxies", "10.1.2.3:1234", []string{"x, 10.0.0.1"}, "10.0.0.1"},
		{"no address at all", "@", []string{"203.0.113.9"}, "@"},
	}
	c, err := parseConfig([]byte(`{"secretKey":"s","limits":{"perAddress":1},"trustedProxies":`+trusted+`}`), "")
	require.NoError(t, err)
	assert.Empty(t, c.warnings)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = test.from
			r.Header["X-Forwarded-For"] = test.forwarded
			assert.Equal(t, test.want, c.clientAddress(r))
		})
	}
}

// session opens a SockJS session, and returns the status.
func session(t *testing.T, s *running, id int, forwarded string) (status int, body string) {
	t.Helper()
	url := fmt.Sprintf("http://%s/pushy/socket/000/s%d/xhr", s.addr, id)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	require.NoError(t, err)
	if forwarded != "" {
		req.Header.Set("X-Forwarded-For", forwarded)
	}
	status, _, body = do(t, req)
	return status, body
}

// Issue 11, number 18.
func TestPerAddress(t *testing.T) {
	t.Parallel()
	direct := startService(t, `{"limits":{"perAddress":1}}`, defaultDrainTimeout, nil)
	status, _ := session(t, direct, 1, "203.0.113.1")
	assert.Equal(t, http.StatusOK, status)
	status, _ = session(t, direct, 2, "203.0.113.2")
	assert.Equal(t, http.StatusServiceUnavailable, status, "the header counts from trusted proxies only")
	assert.Contains(t, direct.log.wait(t, "connection refused: a limit is reached")["hint"],
		"limits.perAddress is 1 and the address is 127.0.0.1:", "it names the config's keys")
	assert.Contains(t, direct.log.wait(t, "connection refused: a limit is reached")["hint"], "behind a proxy set trustedProxies")

	proxied := startService(t, `{"limits":{"perAddress":1},"trustedProxies":["127.0.0.0/8"]}`, defaultDrainTimeout, nil)
	for i, hop := range []string{"203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8:0:1::1", "203.0.113.1, 203.0.113.3"} {
		status, body := session(t, proxied, i, hop)
		assert.Equal(t, http.StatusOK, status, "%s: %s", hop, body)
	}
	for i, hop := range []string{"203.0.113.1", "203.0.113.9, 203.0.113.2", "2001:db8::2", "127.0.0.1, 203.0.113.3"} {
		status, body := session(t, proxied, 100+i, hop)
		assert.Equal(t, http.StatusServiceUnavailable, status, "%s: %s", hop, body)
	}
	status, _ = session(t, proxied, 200, "")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, proxied.log.wait(t, "trustedProxies returned what is no IP address")["hint"], "does the proxy set the header")
}
