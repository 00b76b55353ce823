package httpapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

// Repeats remembers the answers of triggers that came with an id, so that a
// publisher may try again without delivering twice. Every answer is kept for as
// long as its timestamp allows the request, as a digest: MaxRepeats of them are
// some 64 MiB. Its zero value is ready.
type Repeats struct {
	// Max is how many answers are kept. Default MaxRepeats.
	Max int
	// Full is called, without a lock, when a request is refused because Max answers
	// are kept, if it is not nil.
	Full func()

	mu       sync.Mutex
	underWay map[digest]*repeat
	received map[digest]bool // whether anybody received what was delivered
	order    []delivered     // what received has, oldest first
}

// digest stands for a request's key.
type digest [16]byte

// repeat is a request that is being carried out.
type repeat struct {
	done chan struct{}
	got  *TriggerAnswer // set before done is closed; nil if publish panicked
}

type delivered struct {
	key digest
	at  int64 // Unix seconds
}

const (
	repeatFor = 2 * TriggerWindow // then the timestamp refuses it
	// MaxRepeats is how many answers are kept: 873 triggers a second with an id.
	MaxRepeats = 1 << 20
)

// Once calls publish unless a request of the same key was delivered within
// repeatFor, whose answer it returns, or is under way, which it waits for. One
// that failed is forgotten. While Max requests are remembered new ones are
// refused: to forget one would deliver its repeat twice.
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
			return Unavailable()
		case first.got != nil && first.got.Delivered():
			return first.got
		}
	}
	var got *TriggerAnswer
	defer func() { // also if publish panics
		rs.mu.Lock()
		delete(rs.underWay, d)
		if got != nil && got.Delivered() {
			rs.received[d] = got.received()
			rs.order = append(rs.order, delivered{d, now.Unix()})
		}
		rs.mu.Unlock()
		mine.got = got
		close(mine.done)
	}()
	got = publish()
	return got
}

// begin returns the answer to a request of that digest, or the one under way, or
// mine if the caller is to carry it out, or nothing if it cannot be remembered.
func (rs *Repeats) begin(d digest, now time.Time) (answer *TriggerAnswer, first, mine *repeat) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.expireLocked(now)
	if received, known := rs.received[d]; known {
		return Done(received), nil, nil
	}
	if first = rs.underWay[d]; first != nil {
		return nil, first, nil
	}
	if len(rs.order)+len(rs.underWay) >= cmp.Or(rs.Max, MaxRepeats) {
		return nil, nil, nil
	}
	if rs.underWay == nil {
		rs.underWay = map[digest]*repeat{}
		rs.received = map[digest]bool{}
	}
	mine = &repeat{done: make(chan struct{})}
	rs.underWay[d] = mine
	return nil, nil, mine
}

func (rs *Repeats) expireLocked(now time.Time) {
	for len(rs.order) > 0 && now.Unix()-rs.order[0].at >= int64(repeatFor/time.Second) {
		delete(rs.received, rs.order[0].key)
		rs.order = rs.order[1:]
	}
	if len(rs.order) == 0 && rs.order != nil {
		rs.order = nil // and the array under it, and what the map has grown to
		rs.received = map[digest]bool{}
	}
}
