package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// An old key and version 1 are in the log while they are used, and a new key is not.
func TestKeyUsesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const old, now = "the old secret of this server", "the new secret of this server"
		srv, err := pushy.New(pushy.Options{
			SecretKey:     now,
			OldSecretKeys: []string{old},
			Logger:        slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer func() { assert.NoError(t, srv.Close()) }()
		trigger := func(key string) {
			at := time.Now().Unix()
			auth, err := pushy.SignTrigger(key, "lobby", "news", at, nil)
			require.NoError(t, err)
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, httptest.NewRequest("POST", "/pushy/channel/lobby/trigger?event=news&timestamp="+
				strconv.FormatInt(at, 10)+"&auth_key="+auth, nil))
			require.Equal(t, 200, w.Code, w.Body)
		}
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			logKeyUses(ctx, slog.New(slog.NewTextHandler(&out, nil)), func() []pushy.KeyUse { return srv.Stats().Keys })
			close(done)
		}()
		synctest.Wait()
		trigger(now)
		trigger(old)
		trigger(old)
		time.Sleep(keysPause + time.Second)
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		require.Len(t, lines, 2, out.String())
		assert.Contains(t, lines[0], "oldKey=false version=1 uses=1")
		assert.Contains(t, lines[1], "oldKey=true version=1 uses=2")
		time.Sleep(2 * keysPause) // nothing uses them
		synctest.Wait()
		assert.Equal(t, 2, strings.Count(out.String(), "\n"))
		cancel()
		<-done
	})
}

// A server without version 1 accepts what pushy-server sends.
func TestListenWithoutVersion1(t *testing.T) {
	t.Parallel()
	_, url, _ := startPushy(t, pushy.Options{DisableV1: true})
	tm := newTerminal(withSecret()).start("listen", "-url", url, "-n", "1", "-member", `{"name":"Ann"}`, "private-a")
	says(t, tm.err, "listening to private-a", 1)
	assert.Equal(t, exitOK, newTerminal(withSecret()).start("publish", "-url", url, "private-a", "news").end(t))
	assert.Equal(t, exitOK, tm.end(t))
	assert.Contains(t, tm.out.String(), `"event":"news"`)
}
