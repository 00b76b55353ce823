package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The Pusher protocol is off by default, and served at the paths that Pusher's clients and SDKs use.
func TestPusher(t *testing.T) {
	t.Parallel()
	status := func(p *process, path string) int {
		t.Helper()
		response, err := http.Get("http://" + p.addr + path)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"pusher":{"app":"1","key":"app-key","clientEvents":true}}`,
		"PUSHY_PUSHER_SECRET=the secret of the application")
	assert.Equal(t, http.StatusUpgradeRequired, status(p, "/app/app-key"))
	assert.Equal(t, http.StatusUnauthorized, status(p, "/apps/1/channels"))
	assert.Equal(t, http.StatusNotFound, status(p, "/apps/2/channels"))
	assert.NotContains(t, p.log.String(), "the secret of the application")
	p = startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0}`)
	assert.Equal(t, http.StatusNotFound, status(p, "/app/app-key"))
	for content, says := range map[string]string{
		`{"key":"k","secret":"the secret of the application"}`:                     "pusher.app is missing",
		`{"app":"1","secret":"the secret of the application"}`:                     "pusher.key is missing",
		`{"app":"1","key":"k"}`:                                                    "PUSHY_PUSHER_SECRET",
		`{"app":"1","key":"k","secret":"` + secret + `"}`:                          "pusher.secret is a secret key",
		`{"app":"1","key":"a/b","secret":"the secret of the application"}`:         "pusher.key",
		`{"app":"1","key":"k","secret":"the secret of the application","other":1}`: "unknown key",
		`{"app":"1","key":"k","secret":"x","maxEventBytes":0}`:                     "maxEventBytes",
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		require.NoError(t, os.WriteFile(file, []byte(`{"secretKey":"`+secret+`","pusher":`+content+`}`), 0o600))
		_, err := loadConfig(file, func(string) string { return "" })
		assert.ErrorContains(t, err, says, content)
	}
}
