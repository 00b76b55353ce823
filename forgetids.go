package pushy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ratelog"
)

const (
	// forgetAfter is how long after a request has ended the Broker still remembers the IDs of its
	// events. Until then, an append of an earlier attempt that was given up may still arrive.
	forgetAfter = time.Minute
	// forgetPause gathers the IDs of many requests in one call of the Broker.
	forgetPause = time.Second
	// maxForgotten is the number of IDs that wait at most. The Broker remembers the others for its
	// whole window.
	maxForgotten = 1 << 20
)

// finished has the IDs of the events of requests whose answers are stored. No request needs them
// any more: a repetition gets the answer. After forgetAfter, the Broker forgets them, so they do
// not limit how many events can be published. It is safe for concurrent use.
type finished struct {
	ids     broker.IDForgetter // nil if the Broker is none
	notices *ratelog.Logger

	mu      sync.Mutex
	waiting []finishedIDs // oldest first
	total   int           // the number of IDs of waiting
	running bool          // forget will run
}

type finishedIDs struct {
	at  time.Time
	ids []broker.EntryID
}

// add takes the IDs of a request.
func (f *finished) add(ids []broker.EntryID) {
	if f.ids == nil || len(ids) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total+len(ids) > maxForgotten {
		return
	}
	f.total += len(ids)
	f.waiting = append(f.waiting, finishedIDs{time.Now(), ids})
	if !f.running {
		f.running = true
		time.AfterFunc(forgetAfter, f.forget)
	}
}

// forget tells the Broker to forget the IDs that have waited long enough.
func (f *finished) forget() {
	var ids []broker.EntryID
	f.mu.Lock()
	n := 0
	for n < len(f.waiting) && time.Since(f.waiting[n].at) >= forgetAfter {
		ids = append(ids, f.waiting[n].ids...)
		f.waiting[n] = finishedIDs{} // frees them
		n++
	}
	f.waiting = f.waiting[n:]
	f.total -= len(ids)
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	err := f.ids.ForgetIDs(ctx, ids)
	cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, broker.ErrClosed): // the Server has ended
		f.waiting = nil
		f.total = 0
	case err != nil && !errors.Is(err, broker.ErrAway):
		f.notices.Warn("the Broker cannot forget the ids of events before their time", "", slog.Any("error", err))
	}
	f.running = len(f.waiting) > 0
	if f.running {
		time.AfterFunc(max(forgetPause, forgetAfter-time.Since(f.waiting[0].at)), f.forget)
	}
}
