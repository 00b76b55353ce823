package load

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Commands are answered over both dialects of pushy, and a server that answers one twice is detected.
func TestCommands(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{
		SecretKey: Secret,
		Limits:    pushy.Limits{CommandRate: -1},
	})
	require.NoError(t, err)
	answers := func(n int) pushy.CommandFunc {
		return func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
			for range n {
				_ = conn.Reply("echo", data)
			}
		}
	}
	srv.RegisterCommand("echo", answers(1))
	srv.RegisterCommand("twice", answers(2))
	web := httptest.NewServer(srv)
	defer web.Close()
	defer srv.Close()
	for _, dialect := range []Dialect{Framed, Bare} {
		cfg := configFor(t, web)
		cfg.Dialect = dialect
		for _, n := range []int{1, 16} {
			a, err := Commands{Name: "echo", Size: 200, UnderWay: n, Time: 50 * time.Millisecond}.Run(t.Context(), cfg)
			require.NoError(t, err, dialect)
			assert.Positive(t, a.Count)
			assert.Positive(t, a.P50)
		}
		_, err := Commands{Name: "twice", Size: 60, UnderWay: 2, Warm: time.Minute}.Run(t.Context(), cfg)
		require.ErrorContains(t, err, "a client got the answer to command 0 where that to 1 was to come")
	}
}
