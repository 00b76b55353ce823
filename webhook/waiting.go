package webhook

import (
	"time"

	"github.com/gopushy/pushy/broker"
)

// restoreDelay is how long an event waits for records that are missing because the store has lost
// the log: the nodes write 100,000 of them within some seconds.
const restoreDelay = 30 * time.Second

// waiting is an event that is emitted when its time has come, unless it is canceled.
type waiting struct {
	due      time.Time
	rev      broker.Position
	canceled bool
	fire     func()
}

func cancel(w **waiting) {
	if *w != nil {
		(*w).canceled = true
		(*w).fire = nil
		*w = nil
	}
}

// waitList has events that wait for the same time, so they are sorted by due and by rev.
type waitList []*waiting

// The lists of a view.
const (
	waitDelay   = iota // for Options.Delay
	waitRestore        // for restoreDelay
	waits
)

// first returns the first event that is not canceled, or nil, and removes those before it.
func (l *waitList) first() *waiting {
	for len(*l) > 0 && (*l)[0].canceled {
		l.pop()
	}
	if len(*l) == 0 {
		*l = nil
		return nil
	}
	return (*l)[0]
}

func (l *waitList) pop() *waiting {
	w := (*l)[0]
	(*l)[0] = nil
	*l = (*l)[1:]
	return w
}

// laterLocked calls fire when the delay has passed.
func (v *view) laterLocked(rev broker.Position, fire func()) *waiting {
	list := waitDelay
	delay := v.delay
	if v.emptied {
		list = waitRestore
		delay = max(delay, restoreDelay)
	}
	if delay <= 0 || v.hurry {
		fire()
		return nil
	}
	w := &waiting{
		due:  time.Now().Add(delay),
		rev:  rev,
		fire: fire,
	}
	v.waiting[list] = append(v.waiting[list], w)
	if len(v.waiting[list]) == 1 {
		v.armLocked()
	}
	return w
}

// nextLocked returns the list whose first event is due first, or nil.
func (v *view) nextLocked() (list *waitList, first *waiting) {
	for i := range v.waiting {
		if w := v.waiting[i].first(); w != nil && (first == nil || w.due.Before(first.due)) {
			list = &v.waiting[i]
			first = w
		}
	}
	return list, first
}

// armLocked starts the timer for the next event.
func (v *view) armLocked() {
	_, w := v.nextLocked()
	if w == nil {
		return
	}
	if v.timer != nil {
		v.timer.Stop()
	}
	v.timer = time.AfterFunc(time.Until(w.due), v.expire)
}

func (v *view) expire() {
	v.mu.Lock()
	v.fireLocked(time.Now())
	v.armLocked()
	v.mu.Unlock()
	v.changed()
}

func (v *view) fireLocked(now time.Time) {
	for {
		list, w := v.nextLocked()
		if w == nil || !v.hurry && w.due.After(now) {
			return
		}
		list.pop()
		w.fire()
	}
}

// finish emits what waits, because nobody can come back any more.
func (v *view) finish() {
	v.mu.Lock()
	v.hurry = true
	v.fireLocked(time.Now())
	if v.timer != nil {
		v.timer.Stop()
	}
	v.mu.Unlock()
	v.changed()
}

// stop ends the timer.
func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting = [waits]waitList{}
	v.hurry = true // no timer is started any more
	v.emit = func(item) {}
	if v.timer != nil {
		v.timer.Stop()
	}
}
