package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const metricsToken = "a token of the monitoring"

// bearer requests a URL with an Authorization header.
func bearer(t *testing.T, url, authorization string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	status, _, body = do(t, req)
	return status, body
}

func TestMetricsNeedTheToken(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"metrics":{"token":"`+metricsToken+`"}}`, defaultDrainTimeout, nil)
	url := "http://" + s.addr + "/metrics"
	for _, wrong := range []string{"", metricsToken, "Bearer", "Bearer x" + metricsToken, "Basic " + metricsToken} {
		status, body := bearer(t, url, wrong)
		assert.Equal(t, http.StatusUnauthorized, status, wrong)
		assert.NotContains(t, body, "pushy_", wrong)
	}
	for _, right := range []string{"Bearer ", "bearer "} {
		status, body := bearer(t, url, right+metricsToken)
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, body, "\npushy_connections 0\n")
	}
}

func TestMetricsAreOff(t *testing.T) {
	t.Parallel()
	s := startService(t, `{}`, defaultDrainTimeout, nil)
	status, _ := bearer(t, "http://"+s.addr+"/metrics", "Bearer "+metricsToken)
	assert.Equal(t, http.StatusNotFound, status)
}

// A listener of its own has the metrics and nothing else, and the listener of the clients does not
// have them.
func TestMetricsListener(t *testing.T) {
	t.Parallel()
	s := startService(t, `{"metrics":{"listen":"127.0.0.1:0"}}`, defaultDrainTimeout, nil)
	own := "http://" + s.log.wait(t, "metrics")["address"].(string)
	status, body := bearer(t, own+"/metrics", "")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, "\npushy_ready 1\n")
	for _, url := range []string{own + "/healthz", own + "/pushy/pushy.js", "http://" + s.addr + "/metrics"} {
		status, _ = bearer(t, url, "")
		assert.Equal(t, http.StatusNotFound, status, url)
	}
}

// metricsFile returns the name of a config file.
func metricsFile(t *testing.T, metrics string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"secretKey":"a secret of sixteen bytes","metrics":`+metrics+`}`), 0o600))
	return file
}

func TestMetricsConfig(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	for text, want := range map[string]string{
		`{}`:                           "metrics needs listen",
		`{"listen":9123}`:              `metrics.listen must be an address with a port`,
		`{"listen":"127.0.0.1"}`:       `metrics.listen must be an address with a port`,
		`{"listen":"127.0.0.1:70000"}`: `metrics.listen must be an address with a port`,
		`{"listen":""}`:                `metrics.listen must be an address with a port`,
		`{"token":"short"}`:            "metrics.token must be a string of at least 16 bytes",
		`{"tokens":"x"}`:               "unknown key metrics.tokens",
	} {
		_, err := readConfig(metricsFile(t, text), none)
		assert.ErrorContains(t, err, strings.Trim(want, `"`), text)
	}
	for token, want := range map[string]string{metricsToken: "", "short": "PUSHY_METRICS_TOKEN must be"} {
		c, err := readConfig(metricsFile(t, "{}"),
			func(name string) string {
				if name == "PUSHY_METRICS_TOKEN" {
					return token
				}
				return ""
			})
		if want != "" {
			assert.ErrorContains(t, err, want)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, metricsToken, c.metrics.token)
	}
}
