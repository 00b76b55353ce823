package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Acceptance test 19 of the signed API's page: a client that joins and leaves a channel of 999
// members in a loop does not make the server send more than 20 times what it sends.
func TestJoinsAreNoAmplifier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const members = 999
		srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Heartbeat: -1})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var received atomic.Int64
		count := func(p *peer) {
			go func() {
				for {
					text, err := p.Receive(ctx)
					if err != nil {
						return
					}
					received.Add(int64(len(text)))
				}
			}()
		}
		for range members {
			p := connectPeer(t, srv)
			count(p)
			require.NoError(t, srv.Channels().Join(p.conn(srv), "private-crowd", []byte(`{"name":"Ann"}`)))
		}
		attacker := connectPeer(t, srv)
		synctest.Wait()
		count(attacker)
		auth, err := pushy.SignToken(peerKey, pushy.Token{
			Conn:     attacker.id,
			Channels: []string{"private-crowd"},
			Data:     json.RawMessage(`{"name":"Eve"}`),
		})
		require.NoError(t, err)
		join := fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-crowd","auth":%q,"data":{"name":"Eve"}}}`, auth)
		const leave = `{"command":"unsubscribe","data":{"channel":"private-crowd"}}`
		received.Store(0)
		sent := int64(0)
		for range 60 * 50 {
			attacker.send(join)
			attacker.send(leave)
			sent += int64(len(join) + len(leave))
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		assert.Greater(t, received.Load(), int64(members*100), "it may join at times")
		assert.Less(t, received.Load(), 20*sent)
		t.Logf("sent %d, received %d: %.1f times", sent, received.Load(), float64(received.Load())/float64(sent))
		cancel()
		require.NoError(t, srv.Close())
	})
}
