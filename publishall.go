package pushy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gopushy/pushy/broker"
)

// Published is the result of one event of PublishAll.
type Published struct {
	Receipt
	// Err is why the event was not published, or may not have been (broker.ErrUncertain). It
	// wraps ErrNotSent if an earlier event failed first.
	Err error
}

// ErrNotSent is the error of an event that PublishAll has not tried to publish, because
// another one could not be published.
var ErrNotSent = errors.New("pushy: not sent, because another event could not be published")

// PublishAll publishes events as PublishEvent does, and returns one result for each of them.
// All events are checked before the first one is published: if a name or value is not allowed,
// the error names its place, such as events[3], the results are nil, and nothing is published.
//
// The events of one channel are published in order. Those of different channels are published
// at the same time, at most 16 at once, if there is a Broker. When an event cannot be published,
// no further one is begun, except after broker.ErrTooLarge, and the error wraps that of the
// first one in events that failed. To publish the rest later without delivering an event twice,
// give each event an ID and call PublishAll with the same events again.
func (s *Server) PublishAll(ctx context.Context, events []Event) ([]Published, error) {
	pairs := make([]pair, 0, len(events))
	for i, e := range events {
		p, err := s.pairOf(e)
		if err == nil {
			err = s.hub.CheckEvent(p.channel, p.entry)
		}
		if err != nil {
			return nil, fmt.Errorf(publishError+"events[%d]: %w", i, err)
		}
		pairs = append(pairs, p)
	}
	results := s.publishPairs(ctx, pairs)
	for i, r := range results {
		if r.Err != nil && !errors.Is(r.Err, ErrNotSent) {
			return results, fmt.Errorf("pushy: events[%d]: %w", i, r.Err)
		}
	}
	return results, nil
}

// pair is an event and one of its channels.
type pair struct {
	channel string // in lower case
	entry   broker.Entry
}

// maxAtOnce is how many channels PublishAll appends to at the same time.
const maxAtOnce = 16

// publishPairs appends checked events, those of one channel in order.
func (s *Server) publishPairs(ctx context.Context, pairs []pair) []Published {
	results := make([]Published, len(pairs))
	var stopped atomic.Bool
	publish := func(i int) {
		r := &results[i]
		if stopped.Load() {
			r.Err = ErrNotSent
			return
		}
		r.Err = errPublishEnded // unless it returns
		defer func() {
			if r.Err != nil && !errors.Is(r.Err, broker.ErrTooLarge) {
				stopped.Store(true)
			}
		}()
		r.Receipt, r.Err = s.publish(ctx, pairs[i].channel, pairs[i].entry)
	}
	if s.local { // no call waits
		for i := range pairs {
			publish(i)
		}
		return results
	}
	byChannel := map[string][]int{}
	var order []string
	for i, p := range pairs {
		if byChannel[p.channel] == nil {
			order = append(order, p.channel)
		}
		byChannel[p.channel] = append(byChannel[p.channel], i)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(maxAtOnce, len(order)) {
		workers.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(order) {
					return
				}
				// A Broker of the host's may end the goroutine of its Append.
				rest := byChannel[order[n]]
				f := hosted(func() {
					for len(rest) > 0 {
						i := rest[0]
						rest = rest[1:]
						publish(i)
					}
				})
				if f != nil {
					for _, i := range rest {
						results[i].Err = ErrNotSent
					}
				}
			}
		})
	}
	workers.Wait()
	return results
}
