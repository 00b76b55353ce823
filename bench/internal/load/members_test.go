package load

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

func memberServer(t *testing.T, limits pushy.Limits) Config {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: Secret,
		Limits:    limits,
	})
	require.NoError(t, err)
	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)
	t.Cleanup(func() { _ = srv.Close() })
	return configFor(t, web)
}

// Each client of the mode list learns of all members, and those of the mode diff receive fewer bytes.
func TestJoin(t *testing.T) {
	t.Parallel()
	cfg := memberServer(t, pushy.Limits{})
	for _, dialect := range []Dialect{Framed, Bare} {
		cfg.Dialect = dialect
		list, left, err := Join(t.Context(), cfg, "list")
		require.NoError(t, err)
		assert.Greater(t, list.Bytes, int64(cfg.Clients*cfg.Clients*len(memberData(0))))
		assert.Positive(t, left.Bytes)
		assert.Positive(t, list.CPU)
		assert.Positive(t, list.Time)
		counted, _, err := Join(t.Context(), cfg, "count")
		require.NoError(t, err)
		assert.Less(t, counted.Bytes, list.Bytes)
	}
	few := memberServer(t, pushy.Limits{Members: 2})
	few.Clients = 3
	_, _, err := Join(t.Context(), few, "list")
	assert.ErrorContains(t, err, "has 0 answers", "a client is refused: the channel is full")
}

func TestChurn(t *testing.T) {
	t.Parallel()
	cfg := memberServer(t, pushy.Limits{CommandRate: -1, JoinRate: -1})
	for _, dialect := range []Dialect{Framed, Bare} {
		cfg.Dialect = dialect
		var p Pairs
		var err error
		for p.Count == 0 { // on a busy machine, none may be answered within so short a time
			p, err = Churn(t.Context(), cfg, 3, 20*time.Millisecond, 200*time.Millisecond)
			require.NoError(t, err)
		}
		assert.Positive(t, p.CPU)
		assert.GreaterOrEqual(t, p.Elapsed, 200*time.Millisecond)
	}
}
