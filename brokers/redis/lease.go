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

// exec runs a script for this lane over c, which is k or a connection of it.
func (l *lane) exec(ctx context.Context, k *link, c doer, s *script, args ...string) rueidis.RedisResult {
	ctx, cancel := l.b.bounded(ctx)
	defer cancel()
	command := "PUBLISH"
	if k.sharded {
		command = "SPUBLISH"
	}
	result := s.run(ctx, c, l.tag+"nodes", append([]string{command, l.tag, l.b.node}, args...))
	l.b.judge(k, s.name+" script", result.Error())
	return result
}

func (l *lane) leaseMillis() string { return strconv.FormatInt(l.b.opts.Lease.Milliseconds(), 10) }

// holdLease renews the lease until release is called, in a goroutine and over a
// connection of its own: nothing else that the node does, be it settling 50,000
// channels, may make the others take it for dead.
func (l *lane) holdLease(k *link) (release func(), err error) {
	if err := l.renewOnce(k, k); err != nil {
		if isRole(err) || isForbidden(err) {
			return nil, l.b.opts.explain(err)
		}
		l.b.complain("cannot renew the lease", "", err)
	}
	ctx, cancel := context.WithCancel(l.b.ctx)
	holder := &holder{from: k}
	var done sync.WaitGroup
	done.Go(func() {
		interval := min(l.b.opts.Lease/4, time.Second)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := l.b.guarded("lease", func() error { return l.renewOnce(k, holder.take()) })
			if err != nil && ctx.Err() == nil && !k.isEnded() {
				l.b.complain("cannot renew the lease", "", err)
			}
			if _, said := rueidis.IsRedisErr(err); err != nil && !said {
				holder.drop()
				tick.Reset(firstPause) // with a new connection, before the lease is over
				continue
			}
			tick.Reset(interval)
		}
	})
	return func() {
		cancel()
		holder.drop()
		done.Wait()
		holder.drop()
	}, nil
}

// holder is a connection that is made anew once it is broken.
type holder struct {
	from *link

	mu   sync.Mutex
	conn rueidis.DedicatedClient
}

func (h *holder) take() doer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		h.conn, _ = h.from.Dedicate()
	}
	return h.conn
}

func (h *holder) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.conn.Close()
		h.conn = nil
	}
}

func (l *lane) renewOnce(k *link, c doer) error {
	over, err := l.renew(k, c)
	if over {
		for _, r := range l.allRooms() {
			r.markStale()
		}
	}
	if err == nil {
		l.leased.Store(time.Now().UnixMilli())
	}
	return err
}

// holdsLease reports whether the lease was renewed not long ago.
func (l *lane) holdsLease() bool {
	return time.Since(time.UnixMilli(l.leased.Load())) < l.b.opts.Lease
}

// keep settles what is stale until Close.
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
		k, err := l.live()
		if err != nil || !l.holdsLease() {
			continue // what is logged without a lease would be swept
		}
		_ = l.b.guarded("settle", func() error {
			l.settleAll(k)
			return nil
		})
	}
}

// renew renews the lease and sweeps. over says that the lease was over. A node that
// has just connected leaves the others a lease's time to do so too: it may have been
// Redis that was away.
func (l *lane) renew(k *link, c doer) (over bool, err error) {
	most := "0"
	l.mu.Lock()
	if l.up && time.Since(l.since) > l.b.opts.Lease {
		most = strconv.Itoa(sweepMost)
	}
	l.mu.Unlock()
	for {
		answer, err := l.exec(l.b.ctx, k, c, renewScript, l.leaseMillis(), most).AsIntSlice()
		if err != nil {
			return over, err
		}
		if len(answer) != 2 {
			return over, errors.New("the script's answer is not two numbers")
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

// settleAll settles the rooms that are stale, until the link has ended.
func (l *lane) settleAll(k *link) {
	places := make(chan struct{}, settleMost)
	var all sync.WaitGroup
	for _, r := range l.allRooms() {
		r.mu.Lock()
		stale := r.stale
		r.mu.Unlock()
		if !stale {
			continue
		}
		if k.isEnded() || l.b.ctx.Err() != nil {
			break
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			err := l.b.guarded("settle", func() error {
				r := l.b.use(r.channel) // it may have gone from the lane
				defer r.release()
				ctx, cancel := l.b.bounded(l.b.ctx)
				defer cancel()
				return r.settle(ctx, k)
			})
			if err != nil && l.isUp() {
				l.b.complain("cannot settle presence yet", "", fmt.Errorf("channel %q: %w", r.channel, err))
			}
		})
	}
	all.Wait()
}

// farewell takes the node's members out, as far as that can be done soon.
func (b *Broker) farewell(k *link) error {
	ctx, cancel := b.bounded(context.Background())
	defer cancel()
	for _, l := range b.lanes {
		for l.left {
			n, err := l.exec(ctx, k, k, farewellScript, strconv.Itoa(sweepMost)).AsInt64()
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
