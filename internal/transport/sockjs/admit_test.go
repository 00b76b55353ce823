package sockjs_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/transport"
)

// Admit is called only for requests that can become a connection.
func TestAdmitIsForHandshakes(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := serveSite(t, func(s *site) {
		admit := s.cfg.Admit
		s.cfg.Admit = func(w http.ResponseWriter, r *http.Request, socket bool) (*transport.Ticket, bool) {
			asked.Add(1)
			return admit(w, r, socket)
		}
	})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, path := range []string{"/websocket", "/0/s/websocket"} {
			r, err := http.NewRequest(method, s.base+path, nil)
			require.NoError(t, err)
			res, err := s.client.Do(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.GreaterOrEqual(t, res.StatusCode, 400)
		}
	}
	assert.Zero(t, asked.Load())
}
