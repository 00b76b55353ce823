package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// thing counts the calls of its lifetime.
type thing struct {
	opened, closed, gone atomic.Int64
	fail                 error
	slow                 time.Duration
	life                 *lifetime
}

func newThing(linger time.Duration) *thing {
	th := &thing{}
	th.life = newLifetime(lifetimePlan{
		open: func() error {
			time.Sleep(th.slow)
			th.opened.Add(1)
			return th.fail
		},
		close:  func() { time.Sleep(th.slow); th.closed.Add(1) },
		gone:   func() { th.gone.Add(1) },
		linger: linger,
		run:    func(transition func()) { go transition() },
	})
	return th
}

func (th *thing) counts() [3]int64 {
	return [3]int64{th.opened.Load(), th.closed.Load(), th.gone.Load()}
}

func TestLifetimeLingersAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThing(time.Second)
		held, err := th.life.acquire(t.Context())
		require.True(t, held && err == nil)
		th.life.release()
		time.Sleep(999 * time.Millisecond)
		held, err = th.life.acquire(t.Context())
		require.True(t, held && err == nil)
		time.Sleep(time.Minute)
		assert.Equal(t, [3]int64{1, 0, 0}, th.counts(), "held")
		th.life.release()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, [3]int64{1, 0, 0}, th.counts(), "lingers")
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, [3]int64{1, 1, 1}, th.counts(), "gone")
		held, err = th.life.acquire(t.Context())
		assert.False(t, held)
		assert.NoError(t, err, "there will have to be a new one")
	})
}

func TestLifetimeFailedOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThing(time.Second)
		th.slow, th.fail = time.Second, errors.New("no")
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				held, err := th.life.acquire(t.Context())
				assert.False(t, held)
				assert.Equal(t, th.fail, err)
			})
		}
		all.Wait()
		synctest.Wait()
		assert.Equal(t, [3]int64{1, 0, 1}, th.counts())
	})
}

// All callers stop waiting: the lifetime then closes again.
func TestLifetimeAbandonedOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThing(0)
		th.slow = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		held, err := th.life.acquire(ctx)
		assert.False(t, held)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		time.Sleep(time.Hour)
		assert.Equal(t, [3]int64{1, 1, 1}, th.counts())
	})
}

func TestLifetimeAcquireWhileClosing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThing(0)
		_, err := th.life.acquire(t.Context())
		require.NoError(t, err)
		th.slow = time.Minute
		th.life.release()
		synctest.Wait()
		began := time.Now()
		held, err := th.life.acquire(t.Context())
		assert.False(t, held)
		assert.NoError(t, err)
		assert.Equal(t, time.Minute, time.Since(began), "it waits for the end")
	})
}

func TestLifetimeEndLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThing(time.Hour)
		_, err := th.life.acquire(t.Context())
		require.NoError(t, err)
		th.life.endLingerAndWait()
		assert.Equal(t, [3]int64{1, 0, 0}, th.counts(), "held")
		th.life.release()
		th.slow = time.Minute
		began := time.Now()
		th.life.endLingerAndWait()
		assert.Equal(t, [3]int64{1, 1, 1}, th.counts())
		assert.Equal(t, time.Minute, time.Since(began), "it waits for the end")
	})
}

// A lifetime that is held is open, independently of other holders.
func TestLifetimeHolds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var open atomic.Bool
			var life *lifetime
			get := func() *lifetime {
				mu.Lock()
				defer mu.Unlock()
				if life == nil {
					life = newLifetime(lifetimePlan{
						open: func() error {
							time.Sleep(time.Second)
							assert.False(t, open.Swap(true), "opened twice")
							return nil
						},
						close: func() {
							assert.True(t, open.Swap(false), "closed twice")
							time.Sleep(time.Second)
						},
						gone: func() {
							mu.Lock()
							life = nil
							mu.Unlock()
						},
						linger: time.Second, run: func(transition func()) { go transition() },
					})
				}
				return life
			}
			for i := range uint64(6) {
				r := rand.New(rand.NewPCG(seed, i))
				pause := func() { time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second)))) }
				go func() {
					for range 50 {
						pause()
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Int64N(int64(2*time.Second))))
						l := get()
						if held, err := l.acquire(ctx); held && assert.NoError(t, err) {
							assert.True(t, open.Load(), "held and not open")
							pause()
							assert.True(t, open.Load(), "held and not open")
							l.release()
						}
						cancel()
					}
				}()
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			assert.False(t, open.Load())
			assert.Nil(t, life, "nothing is left")
		})
	}
}
