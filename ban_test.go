package pushy_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// failingLedger is a broker whose Ledger fails while its fields say so.
type failingLedger struct {
	*memory.Broker
	failFinish, failList atomic.Bool
	finishError          error
}

var errLedger = errors.New("the ledger failed")

func (b *failingLedger) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if b.failFinish.Load() {
		return b.finishError
	}
	return b.Broker.Finish(ctx, key, digest, answer)
}

func (b *failingLedger) List(ctx context.Context, prefix string) ([]broker.Record, error) {
	if b.failList.Load() {
		return nil, errLedger
	}
	return b.Broker.List(ctx, prefix)
}

// onFailingLedger runs a test in a bubble of testing/synctest, on a Server whose Ledger can fail.
func onFailingLedger(
	t *testing.T, run func(t *testing.T, c *memory.Cluster, b *failingLedger, srv *pushy.Server),
) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := &failingLedger{
			Broker:      cluster.Broker(),
			finishError: errLedger,
		}
		run(t, cluster, b, startOn(t, b, kickOptions))
	})
}

// ban makes a ban of a user.
func ban(srv *pushy.Server, user string, until time.Time) error {
	_, err := srv.Kick(context.Background(), pushy.Kick{
		Target: "user:" + user,
		Until:  until,
	})
	return err
}

// A ban that is made longer again and again, as a program does that renews it while it sees abuse,
// has one record: the number of records is limited.
func TestRenewedBanHasOneRecord(t *testing.T) {
	onUsers(t, 2, func(t *testing.T, _ *memory.Cluster, nodes []node) {
		for i := range 30 {
			require.NoError(t, ban(nodes[i%2].Server, "42", time.Now().Add(time.Hour)))
			time.Sleep(time.Minute)
		}
		records, err := nodes[0].List(t.Context(), "ban:")
		require.NoError(t, err)
		assert.Len(t, records, 1)
		time.Sleep(58 * time.Minute)
		status, _ := connects(nodes[1].Server, "42")
		assert.Equal(t, 403, status, "the last renewal holds")
		time.Sleep(2 * time.Minute)
		status, _ = connects(nodes[1].Server, "42")
		assert.Equal(t, 200, status)
		records, err = nodes[0].List(t.Context(), "ban:")
		require.NoError(t, err)
		assert.Empty(t, records)
	})
}

// A ban that could not be stored leaves nothing in the Ledger, where it would count until its end.
func TestBanThatIsNotStored(t *testing.T) {
	onFailingLedger(t, func(t *testing.T, _ *memory.Cluster, b *failingLedger, srv *pushy.Server) {
		p := connectOf(t, srv, "42")
		b.failFinish.Store(true)
		end := time.Now().Add(24 * time.Hour)
		require.ErrorIs(t, ban(srv, "42", end), errLedger)
		p.quiet()
		records, err := b.List(t.Context(), "ban:")
		require.NoError(t, err)
		assert.Empty(t, records)
		b.failFinish.Store(false)
		require.NoError(t, ban(srv, "42", end))
		endedWith(t, p, pushy.CloseRemoved, "Removed")
	})
}

// A ban that ends by itself while it is lifted is no error.
func TestUnbanOfABanThatEnds(t *testing.T) {
	onFailingLedger(t, func(t *testing.T, _ *memory.Cluster, b *failingLedger, srv *pushy.Server) {
		require.NoError(t, ban(srv, "42", time.Now().Add(time.Hour)))
		b.finishError = broker.ErrNotOwner
		b.failFinish.Store(true)
		_, lifted, err := srv.Unban(t.Context(), "user:42")
		require.NoError(t, err)
		assert.False(t, lifted)
	})
}

// A node that cannot read the list of bans once tries again after a second, not after the usual
// time.
func TestBansAreReadAgainAfterAFailure(t *testing.T) {
	onFailingLedger(t, func(t *testing.T, cluster *memory.Cluster, b *failingLedger, srv *pushy.Server) {
		p := connectOf(t, srv, "42")
		other := startOn(t, cluster.Broker(), kickOptions)
		b.failList.Store(true)
		mend := b.Cut()
		require.NoError(t, ban(other, "42", time.Now().Add(time.Hour)))
		mend() // it wakes the node, which fails to read
		time.Sleep(30 * time.Second)
		p.quiet()
		b.failList.Store(false)
		recovered := time.Now()
		endedWith(t, p, pushy.CloseRemoved, "Removed")
		assert.LessOrEqual(t, time.Since(recovered), 2*time.Second)
	})
}
