package redis

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

const (
	maxSweep = 200  // members that one script removes; other commands wait while it runs
	maxTidy  = 1000 // channels that one script checks
	// tidyInterval is how often a node runs tidyScript, which does something once an hour.
	tidyInterval = 10 * time.Minute
)

// storeID identifies a store. life changes when it is emptied, and run when its server
// restarts or another server takes over.
type storeID struct{ life, run string }

// renewed is the result of a renewal.
type renewed struct {
	expired  bool // the lease had expired
	removed  int  // members of dead nodes
	store    storeID
	settings map[string]string // of the other nodes, by node, in JSON
}

// holdLease renews the lease in a goroutine until release is called. It uses a connection
// without other commands, so that no other work can delay the renewal. It returns the reason
// for the Resets that are due now.
func (sh *shard) holdLease(k *link) (reason string, release func(), err error) {
	reason, err = sh.renew(sh.b.ctx, k, k.side)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(sh.b.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		interval := min(sh.b.lease/4, time.Second)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		lastTidy := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := sh.b.guarded("lease", func() error {
				_, err := sh.renew(ctx, k, k.side)
				if err == nil && time.Since(lastTidy) > tidyInterval {
					lastTidy = time.Now()
					err = sh.tidy(ctx, k, k.side)
				}
				return err
			})
			if err != nil && ctx.Err() == nil && !k.isEnded() {
				sh.b.warn("cannot renew the lease", "", err)
			}
			next := interval
			if _, isReply := rueidis.IsRedisErr(err); err != nil && !isReply {
				next = min(interval, minPause) // retry on a new connection before the lease expires
			}
			tick.Reset(next)
		}
	})
	return reason, func() {
		cancel()
		done.Wait()
	}, nil
}

// renew renews the lease, removes members of dead nodes, and makes Resets due if the lease
// had expired or the store is another one. It returns the reason.
func (sh *shard) renew(ctx context.Context, k *link, c doer) (reason string, err error) {
	for {
		r, err := sh.renewOnce(ctx, k, c)
		if err != nil {
			return "", err
		}
		sh.mu.Lock()
		was := sh.store
		sh.store = r.store
		reason = broker.ResetGap
		switch {
		case was == storeID{}:
		case was.life != r.store.life:
			reason = broker.ResetEpoch
		case was.run != r.store.run:
			reason = broker.ResetRestarted
		case r.expired:
			reason = broker.ResetLease
		}
		if reason != broker.ResetGap {
			sh.resetAllLocked(reason)
		}
		sh.mu.Unlock()
		sh.b.compareSettings(r.settings)
		if r.removed < maxSweep {
			return reason, nil
		}
	}
}

func (sh *shard) renewOnce(ctx context.Context, k *link, c doer) (r renewed, err error) {
	// A node that has just connected removes no members for the time of a lease, so that the
	// other nodes can reconnect, too: Redis itself may have been away.
	most := 0
	sh.mu.Lock()
	if sh.up && time.Since(sh.since) > sh.b.lease {
		most = maxSweep
	}
	sh.mu.Unlock()
	settings := ""
	if sh == sh.b.shards[0] && len(sh.b.settings) > 0 {
		text, err := json.Marshal(sh.b.settings)
		if err != nil {
			return r, err
		}
		settings = string(text)
	}
	lease := max(sh.b.lease, time.Duration(sh.b.extended.Load()))
	answer, err := sh.exec(ctx, k, c, renewScript, "",
		milliseconds(lease), strconv.Itoa(most), brokerkit.NewEpoch(), sh.versionsKey(),
		strconv.Itoa(broker.FormatVersion), settings,
	).ToArray()
	if err != nil {
		return r, err
	}
	if len(answer) != 5 {
		return r, errFormat
	}
	expired, err := answer[0].ToInt64()
	if err != nil {
		return r, err
	}
	removed, err := answer[1].ToInt64()
	if err != nil {
		return r, err
	}
	r.expired = expired == 1
	r.removed = int(removed)
	r.store.life, _ = answer[2].ToString()
	r.store.run, _ = answer[3].ToString()
	r.settings, _ = answer[4].AsStrMap()
	return r, nil
}

// tidy removes the logs to which nothing was appended for a long time.
func (sh *shard) tidy(ctx context.Context, k *link, c doer) error {
	for {
		more, err := sh.exec(ctx, k, c, tidyScript, "", brokerkit.NewEpoch(), strconv.Itoa(maxTidy)).AsInt64()
		if err != nil || more == 0 {
			return err
		}
	}
}

// Extend implements broker.Leaser.
func (b *Broker) Extend(ctx context.Context, lease time.Duration) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	for {
		old := b.extended.Load()
		if int64(lease) <= old || b.extended.CompareAndSwap(old, int64(lease)) {
			break
		}
	}
	var failed error
	for _, sh := range b.shards {
		k, err := sh.live()
		if err == nil {
			_, err = sh.renew(ctx, k, k)
			err = sh.failed(ctx, "extend the lease", err)
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}
