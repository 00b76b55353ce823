package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// exec runs a script for this lane, bounded.
func (l *lane) exec(ctx context.Context, client rueidis.Client, s *rueidis.Lua, args ...string) rueidis.RedisResult {
	ctx, cancel := l.b.bounded(ctx)
	defer cancel()
	command := "PUBLISH"
	if l.b.isSharded() {
		command = "SPUBLISH"
	}
	return s.Exec(ctx, client, []string{l.tag + "nodes"}, append([]string{command, l.tag, l.b.node}, args...))
}

func (l *lane) leaseMillis() string { return strconv.FormatInt(l.b.opts.Lease.Milliseconds(), 10) }

// keep renews the lease, sweeps and settles until Close.
func (l *lane) keep() {
	tick := time.NewTicker(min(l.b.opts.Lease/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-l.b.ctx.Done():
			return
		case <-tick.C:
		case <-l.wake:
		}
		client, err := l.live()
		if err != nil {
			continue
		}
		over, err := l.renew(client)
		if over {
			for _, r := range l.allRooms() {
				r.markStale()
			}
		}
		if err != nil {
			l.complain("cannot renew the lease", err)
			continue // what is logged now would be swept
		}
		l.settleAll(client)
	}
}

// renew renews the lease and sweeps. over says that the lease was over. A node that
// has just connected leaves the others a lease's time to do so too: it may have been
// Redis that was away.
func (l *lane) renew(client rueidis.Client) (over bool, err error) {
	most := "0"
	l.mu.Lock()
	if l.up && time.Since(l.since) > l.b.opts.Lease {
		most = strconv.Itoa(sweepMost)
	}
	l.mu.Unlock()
	for {
		answer, err := l.exec(l.b.ctx, client, renewScript, l.leaseMillis(), most).AsIntSlice()
		if err != nil || len(answer) != 2 {
			return over, errors.Join(err)
		}
		over = over || answer[0] == 1
		if answer[1] < sweepMost {
			return over, nil
		}
	}
}

func (l *lane) allRooms() (all []*room) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rooms {
		all = append(all, r)
	}
	return all
}

// settleAll settles the rooms that are stale.
func (l *lane) settleAll(client rueidis.Client) {
	places := make(chan struct{}, settleMost)
	var all sync.WaitGroup
	for _, r := range l.allRooms() {
		r.mu.Lock()
		stale := r.stale
		r.mu.Unlock()
		if !stale {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			r := l.b.use(r.channel) // it may have gone from the lane
			defer r.release()
			ctx, cancel := l.b.bounded(l.b.ctx)
			defer cancel()
			if err := r.settle(ctx, client); err != nil {
				l.complain("cannot settle presence yet", err)
			}
		})
	}
	all.Wait()
}

// complain logs what will be tried again, unless the reason is known.
func (l *lane) complain(what string, err error) {
	if l.b.ctx.Err() == nil && l.isUp() {
		l.b.log.Warn("redis: "+what, "error", err)
	}
}

// farewell takes the node's members out, as far as that can be done soon.
func (b *Broker) farewell() error {
	ctx, cancel := b.bounded(context.Background())
	defer cancel()
	for _, l := range b.lanes {
		for l.left {
			n, err := l.exec(ctx, b.client, farewellScript, strconv.Itoa(sweepMost)).AsInt64()
			if err != nil {
				return fmt.Errorf("redis: close: this node's members will be gone in %v: %w", b.opts.Lease, err)
			}
			if n < sweepMost {
				break
			}
		}
	}
	return nil
}
