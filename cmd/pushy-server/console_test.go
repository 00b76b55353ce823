package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

const consolePassword = "the console's password"

// The console is off by default, needs the password, and is the same as that of package console.
func TestConsole(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0,"console":{"readOnly":true}}`,
		"PUSHY_CONSOLE_PASSWORD="+consolePassword)
	request := func(method, path, password string) (int, string) {
		r, err := http.NewRequestWithContext(context.Background(), method, "http://"+p.addr+path, nil)
		require.NoError(t, err)
		if password != "" {
			r.SetBasicAuth("ann", password)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/json")
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text)
	}
	for _, password := range []string{"", "wrong", consolePassword + "x"} {
		status, text := request(http.MethodGet, "/console/data", password)
		assert.Equal(t, http.StatusUnauthorized, status, password)
		assert.NotContains(t, text, "nodes")
	}
	status, text := request(http.MethodGet, "/console", consolePassword)
	assert.Equal(t, http.StatusOK, status, "it is redirected")
	assert.Contains(t, text, "<title>pushy console</title>")
	status, text = request(http.MethodGet, "/console/data", consolePassword)
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, text, `{"who":"ann","readOnly":true,`)
	status, _ = request(http.MethodPost, "/console/kick", consolePassword)
	assert.Equal(t, http.StatusForbidden, status)
	assert.NotContains(t, p.log.String(), consolePassword)

	p = startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0}`, "PUSHY_CONSOLE_PASSWORD="+consolePassword)
	status, _ = request(http.MethodGet, "/console/", consolePassword)
	assert.Equal(t, http.StatusNotFound, status)
}

// After ten wrong passwords in a minute, the right one of that address is refused for a minute, too.
func TestConsolePasswordsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, err := pushy.New(pushy.Options{SecretKey: secret, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer srv.Close()
		c := consoleConfig{password: consolePassword}
		page, err := c.handler(srv, func(r *http.Request) string { return r.RemoteAddr }, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		try := func(address, password string) int {
			r := httptest.NewRequest(http.MethodGet, "http://localhost/console/data", nil)
			r.RemoteAddr = address
			r.SetBasicAuth("ann", password)
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			return w.Code
		}
		for i := range 10 {
			assert.Equal(t, http.StatusUnauthorized, try(fmt.Sprintf("[2001:db8::%x]:1", i), "wrong"))
		}
		assert.Equal(t, http.StatusTooManyRequests, try("[2001:db8::ffff]:1", consolePassword))
		assert.Equal(t, http.StatusOK, try("[2001:db8:0:1::1]:1", consolePassword))
		assert.Equal(t, http.StatusOK, try("192.0.2.1:1", consolePassword))
		time.Sleep(time.Minute)
		assert.Equal(t, http.StatusOK, try("[2001:db8::1]:1", consolePassword))

		for i := range 20 { // more slowly, or after the right one
			time.Sleep(7 * time.Second)
			assert.Equal(t, http.StatusUnauthorized, try("192.0.2.1:1", "wrong"), i)
		}
		// The networks that are remembered are limited, and further ones count as one.
		for i := range maxNetworks {
			try(fmt.Sprintf("10.%d.%d.1:1", i/200, i%200), "wrong")
		}
		for range 10 {
			try("198.51.100.1:1", "wrong")
		}
		assert.Equal(t, http.StatusTooManyRequests, try("198.51.100.2:1", consolePassword))
		assert.Equal(t, http.StatusOK, try("10.0.0.1:1", consolePassword))
	})
}

func TestConsoleConfig(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"password":"short"}`:                  "console.password must be a string of at least 12 bytes",
		`{}`:                                    "console.password is missing; it can also be given in PUSHY_CONSOLE_PASSWORD",
		`{"hosts":["https://ops.example.com"]}`: `console.hosts must be an array of names such as "ops.example.com", without ports`,
		`{"readOnly":1}`:                        "console.readOnly must be true or false",
		`{"user":"x"}`:                          "unknown key console.user",
		`true`:                                  "console must be an object",
	} {
		_, err := readConfig(writeConfig(t, `{"secretKey":"`+secret+`","console":`+text+`}`), func(string) string { return "" })
		require.ErrorContains(t, err, want, text)
	}
	file := writeConfig(t, `{"secretKey":"`+secret+`","console":{"password":"of the file, long","hosts":["ops.example.com"]}}`)
	for env, want := range map[string]string{"": "of the file, long", consolePassword: consolePassword} {
		c, err := readConfig(file, func(name string) string {
			return map[string]string{"PUSHY_CONSOLE_PASSWORD": env}[name]
		})
		require.NoError(t, err)
		assert.Equal(t, want, c.console.password)
		assert.True(t, strings.HasSuffix(c.summary(), "console: /console/"), c.summary())
	}
	_, err := readConfig(file, func(name string) string {
		return map[string]string{"PUSHY_CONSOLE_PASSWORD": "short"}[name]
	})
	require.ErrorContains(t, err, "PUSHY_CONSOLE_PASSWORD must have at least 12 bytes")
}
