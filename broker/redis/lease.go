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
	sweepMost = 200  // members that a script takes out at once, so that others get a turn
	tidyMost  = 1000 // channels that a script looks at
	// tidyInterval is how often a node asks whether an hour is over.
	tidyInterval = 10 * time.Minute
)

// storeID is what tells one store from another: what changes when it is emptied, and
// what changes when its server restarts.
type storeID struct{ life, run string }

// renewed is what a renewal found.
type renewed struct {
	over     bool // the lease was over
	taken    int  // members of dead nodes
	store    storeID
	settings map[string]string
}

// holdLease renews the lease until release is called, in a goroutine and over a
// connection that no other commands use: nothing else that the node does may make the
// others take it for dead. It returns the reason for the Resets that are due now.
func (l *lane) holdLease(k *link) (reason string, release func(), err error) {
	reason, err = l.renew(l.b.ctx, k, k.side)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(l.b.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		interval := min(l.b.lease/4, time.Second)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		tidied := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := l.b.guarded("lease", func() error {
				_, err := l.renew(ctx, k, k.side)
				if err == nil && time.Since(tidied) > tidyInterval {
					tidied = time.Now()
					err = l.tidy(ctx, k, k.side)
				}
				return err
			})
			if err != nil && ctx.Err() == nil && !k.isEnded() {
				l.b.complain("cannot renew the lease", "", err)
			}
			next := interval
			if _, said := rueidis.IsRedisErr(err); err != nil && !said {
				next = min(interval, firstPause) // with a new connection, before the lease is over
			}
			tick.Reset(next)
		}
	})
	return reason, func() {
		cancel()
		done.Wait()
	}, nil
}

// renew renews the lease, takes out members of dead nodes, and makes Resets due if
// the lease was over or if the store is another one. It returns the reason.
func (l *lane) renew(ctx context.Context, k *link, c doer) (reason string, err error) {
	for {
		r, err := l.renewOnce(ctx, k, c)
		if err != nil {
			return "", err
		}
		l.mu.Lock()
		was := l.store
		l.store = r.store
		reason = broker.ResetGap
		switch {
		case was == storeID{}:
		case was.life != r.store.life:
			reason = broker.ResetEpoch
		case was.run != r.store.run:
			reason = broker.ResetRestarted
		case r.over:
			reason = broker.ResetLease
		}
		if reason != broker.ResetGap {
			l.resetAllLocked(reason)
		}
		l.mu.Unlock()
		l.b.compareSettings(r.settings)
		if r.taken < sweepMost {
			return reason, nil
		}
	}
}

func (l *lane) renewOnce(ctx context.Context, k *link, c doer) (r renewed, err error) {
	// A node that has just connected leaves the others a lease's time to do so too: it
	// may have been Redis that was away.
	most := 0
	l.mu.Lock()
	if l.up && time.Since(l.since) > l.b.lease {
		most = sweepMost
	}
	l.mu.Unlock()
	settings := ""
	if l == l.b.lanes[0] && len(l.b.settings) > 0 {
		text, err := json.Marshal(l.b.settings)
		if err != nil {
			return r, err
		}
		settings = string(text)
	}
	answer, err := l.exec(ctx, k, c, renewScript, "",
		milliseconds(l.b.lease), strconv.Itoa(most), brokerkit.NewEpoch(), l.versionsKey(),
		strconv.Itoa(broker.FormatVersion), settings,
	).ToArray()
	if err != nil {
		return r, err
	}
	if len(answer) != 5 {
		return r, errFormat
	}
	over, err := answer[0].ToInt64()
	if err != nil {
		return r, err
	}
	taken, err := answer[1].ToInt64()
	if err != nil {
		return r, err
	}
	r.over, r.taken = over == 1, int(taken)
	r.store.life, _ = answer[2].ToString()
	r.store.run, _ = answer[3].ToString()
	r.settings, _ = answer[4].AsStrMap()
	return r, nil
}

// tidy lets Redis forget the logs that nobody has used for long.
func (l *lane) tidy(ctx context.Context, k *link, c doer) error {
	for {
		more, err := l.exec(ctx, k, c, tidyScript, "", brokerkit.NewEpoch(), strconv.Itoa(tidyMost)).AsInt64()
		if err != nil || more == 0 {
			return err
		}
	}
}
