package httpapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

// Repeats remembers the responses to triggers with an id, so that a publisher can retry a
// trigger without a second delivery. It keeps a response for as long as the timestamp of the
// request is valid. It keeps only a digest of each request: MaxRepeats of them use about 64 MiB,
// and twice as much if all events are kept and have a position. The zero value is ready to use.
// Once is safe for concurrent use.
type Repeats struct {
	// Max is the number of responses that are kept. Default MaxRepeats.
	Max int
	// Full is called, without a lock, when a request is refused because Max responses are
	// kept. It can be nil.
	Full func()

	mu       sync.Mutex
	underWay map[digest]*repeat
	received map[digest]bool // whether the channel had a subscriber
	// positions has those of the events that are kept.
	positions map[digest]string
	order     []delivered // the keys of received, oldest first
}

// digest identifies the key of a request.
type digest [16]byte

// repeat is a request that is in progress.
type repeat struct {
	done chan struct{}
	got  *TriggerAnswer // set before done is closed; nil if publish panicked
}

type delivered struct {
	key digest
	at  int64 // Unix seconds
}

const (
	repeatFor = 2 * TriggerWindow // later, the timestamp of the request is not valid any more
	// MaxRepeats is the default number of responses that are kept. It is enough for 873
	// triggers with an id a second.
	MaxRepeats = 1 << 20
)

// Once calls publish, unless a request with the same key was delivered within repeatFor. In
// that case it returns the response of that request; if the request is in progress, Once
// waits for it. Requests that failed are forgotten. When Max requests are remembered, Once
// refuses new ones, because forgetting one could deliver an event twice.
func (rs *Repeats) Once(ctx context.Context, key string, now time.Time, publish func() *TriggerAnswer) *TriggerAnswer {
	sum := sha256.Sum256([]byte(key))
	d := digest(sum[:])
	var mine *repeat
	for mine == nil {
		var answer *TriggerAnswer
		var first *repeat
		answer, first, mine = rs.begin(d, now)
		switch {
		case answer != nil:
			return answer
		case mine != nil:
		case first == nil:
			if rs.Full != nil {
				rs.Full()
			}
			return tooMany()
		case lifecycle.Wait(ctx, first.done) != nil:
			return Refused(Unavailable())
		case first.got != nil && first.got.Delivered():
			return first.got
		}
	}
	var got *TriggerAnswer
	defer func() { // deferred because publish can panic
		rs.mu.Lock()
		delete(rs.underWay, d)
		if got != nil && got.Delivered() {
			rs.received[d] = got.received
			if got.at != "" {
				rs.positions[d] = got.at
			}
			rs.order = append(rs.order, delivered{d, now.Unix()})
		}
		rs.mu.Unlock()
		mine.got = got
		close(mine.done)
	}()
	got = publish()
	return got
}

// begin returns one of these: the response to an earlier request with that digest; first if
// such a request is in progress; mine if the caller is to call publish; nothing if no more
// requests can be remembered.
func (rs *Repeats) begin(d digest, now time.Time) (answer *TriggerAnswer, first, mine *repeat) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.expireLocked(now)
	if received, known := rs.received[d]; known {
		return Done(received, rs.positions[d]), nil, nil
	}
	first = rs.underWay[d]
	if first != nil {
		return nil, first, nil
	}
	if len(rs.order)+len(rs.underWay) >= cmp.Or(rs.Max, MaxRepeats) {
		return nil, nil, nil
	}
	if rs.underWay == nil {
		rs.underWay = map[digest]*repeat{}
		rs.received = map[digest]bool{}
		rs.positions = map[digest]string{}
	}
	mine = &repeat{done: make(chan struct{})}
	rs.underWay[d] = mine
	return nil, nil, mine
}

func (rs *Repeats) expireLocked(now time.Time) {
	for len(rs.order) > 0 && now.Unix()-rs.order[0].at >= int64(repeatFor/time.Second) {
		delete(rs.received, rs.order[0].key)
		delete(rs.positions, rs.order[0].key)
		rs.order = rs.order[1:]
	}
	if len(rs.order) == 0 && rs.order != nil {
		rs.order = nil // releases the memory of the array and of the map
		rs.received = map[digest]bool{}
		rs.positions = map[digest]string{}
	}
}
