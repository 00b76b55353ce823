package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Credentials that are valid, or wrong, or at the wrong place, are not in the log of the program.
func TestNoCredentialIsLogged(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":0}`)
	base := "http://" + p.addr + "/pushy"
	sum := func(text string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil))
	}
	now := time.Now().Unix() + 2 // not in the second in which the program started
	kid := sum("pushy2-key-id")[:8]
	const body = `{"events":[{"channels":["news"],"event":"x"}]}`
	signature := sum(fmt.Sprintf("pushy2-request\n%s\n%d\nid\n/api/publish\n%s", kid, now, body))
	trigger, err := pushy.SignTrigger(secret, "news", "x", now, []byte("{}"))
	require.NoError(t, err)
	token, err := pushy.SignToken(secret, pushy.Token{Channels: []string{"private-a"}, User: "42"})
	require.NoError(t, err)
	credentials := []string{secret, signature, trigger, token, strings.Split(token, ".")[2], strings.Split(token, ".")[3]}

	post := func(path, body, header string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", base+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Pushy-Signature", header)
		r.Header.Set("Authorization", "Bearer "+token)
		status, _, _ := do(t, r)
		return status
	}
	require.Equal(t, 200, post("/api/publish", body, fmt.Sprintf("v2 %s %d id %s", kid, now, signature)))
	query := fmt.Sprintf("?event=x&timestamp=%d&auth_key=", now)
	require.Equal(t, 200, post("/channel/news/trigger"+query+trigger, "{}", ""))
	for _, value := range credentials {
		post("/api/publish", body+" ", fmt.Sprintf("v2 %s %d id %s", kid, now, value))
		post("/api/publish", body, value)
		post("/api/nothing?auth="+value, body, value)
		post("/channel/news/trigger"+query+value, "[]", "")
		post("/channel/news/trigger"+query+value+"&event=y", "{}", "")
		post("/elsewhere?token="+value, "", value)
		post("/socket/websocket?token="+value, "", value)
		conn := dial(t, p.addr) // not HTTP
		_, err := fmt.Fprintf(conn, "%s\r\n\r\n", value)
		require.NoError(t, err)
		_ = conn.Close()
	}
	p.log.wait(t, "signed request refused")
	p.log.wait(t, "trigger refused")
	p.log.wait(t, "path that is not served")
	for _, value := range credentials {
		assert.NotContains(t, p.log.String(), value)
		assert.NotContains(t, p.log.String(), value[:min(len(value), 16)])
	}
}
