package webhook

import (
	"time"

	"github.com/gopushy/pushy/broker"
)

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
		*w = nil
	}
}

// laterLocked calls fire when delay has passed.
func (v *view) laterLocked(rev broker.Position, delay time.Duration, fire func()) *waiting {
	if delay <= 0 || v.hurry {
		fire()
		return nil
	}
	w := &waiting{
		due:  time.Now().Add(delay),
		rev:  rev,
		fire: fire,
	}
	v.waiting = append(v.waiting, w)
	if v.timer == nil {
		v.timer = time.AfterFunc(delay, v.expire)
	}
	return w
}

func (v *view) expire() {
	v.mu.Lock()
	v.timer = nil
	v.fireLocked(time.Now())
	if len(v.waiting) > 0 {
		v.timer = time.AfterFunc(time.Until(v.waiting[0].due), v.expire)
	}
	v.mu.Unlock()
	v.changed()
}

func (v *view) fireLocked(now time.Time) {
	for len(v.waiting) > 0 && (v.waiting[0].canceled || v.hurry || !v.waiting[0].due.After(now)) {
		w := v.waiting[0]
		v.waiting[0] = nil
		v.waiting = v.waiting[1:]
		if !w.canceled {
			w.fire()
		}
	}
}

// finish emits what waits, because nobody can come back any more.
func (v *view) finish() {
	v.mu.Lock()
	v.hurry = true
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	v.fireLocked(time.Now())
	v.mu.Unlock()
	v.changed()
}

// stop ends the timer.
func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting = nil
	v.emit = func(item) {}
	if v.timer != nil {
		v.timer.Stop()
	}
}
