package pushy_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Clients that are not pushy's, such as htmx's, connect again after 1012 and
// not after 3001, so bare WebSockets get that at a shutdown, and SockJS's
// clients the code that they know. Issue 11, number 29.
func TestCloseCodeOfShutdown(t *testing.T) {
	t.Parallel()
	codes := make(chan int, 2)
	srv, baseURL := serve(t, pushy.Options{Hooks: pushy.Hooks{
		Disconnect: func(_ *pushy.Conn, code int, _ string) { codes <- code },
	}})
	bare, framed := dial(t, baseURL, false), dial(t, baseURL, true)
	ended := make(chan error, 1)
	go func() { ended <- srv.Shutdown(t.Context()) }()
	code, reason := bare.Closed()
	assert.Equal(t, 1012, code)
	assert.Equal(t, "server shutting down", reason)
	assert.Equal(t, `c[3001,"server shutting down"]`, framed.Next())
	code, _ = framed.Closed()
	assert.Equal(t, 3001, code)
	require.NoError(t, <-ended)
	for range 2 {
		assert.Equal(t, pushy.CloseShutdown, <-codes, "the hook's code is the same for all")
	}
}

// What a host closes with is sent as it is, but for CloseShutdown, and a peer's
// own code is answered with the same.
func TestCloseCodesOfBareWebSockets(t *testing.T) {
	t.Parallel()
	for code, sent := range map[int]int{
		pushy.CloseShutdown:     1012,
		pushy.CloseSlowConsumer: 3008,
		pushy.CloseRemoved:      3500,
		1012:                    1012,
		1013:                    1013,
		3002:                    3002,
		4999:                    4999,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			srv, baseURL := serve(t, pushy.Options{})
			c := dial(t, baseURL, false)
			conn, ok := srv.Conn(c.id)
			require.True(t, ok)
			require.NoError(t, conn.Close(code, ""))
			got, _ := c.Closed()
			assert.Equal(t, sent, got)
			assert.Equal(t, code, dial(t, baseURL, false).Close(code, ""), "the answer to a client's own")
		})
	}
}
