package hub

import (
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

const (
	// maxReplay is the largest number of events that one client is sent when it subscribes.
	maxReplay = 500
	// maxReplayBytes is the largest size of the messages of one replay. It is less if half
	// of the client's buffer is less, see Config.ReplayBytes.
	maxReplayBytes = 256 << 10
	// maxRingText is the largest number of bytes of messages in a ring. No client receives
	// as many.
	maxRingText = 2 * maxReplayBytes
	// pastOverhead is the number of bytes that an event takes in a ring beside its message.
	pastOverhead = 190
)

// pastEvent is a kept event in a ring.
type pastEvent struct {
	text   []byte   // the message, as the protocol rendered it
	data   int      // the number of bytes of the event's data
	except []string // the ids of the connections that do not receive it
	time   time.Time
	// frame is a list, so that it does not count towards the client's buffer. It is made
	// when the event is first replayed, and dropped some time after the last replay.
	frame *fanout.Frame
}

func (p *pastEvent) size() int64 { return int64(len(p.text) + pastOverhead) }

// ring has the newest kept events of a channel, without gaps, up to the channel's place. It
// is a queue whose oldest events are removed when a limit is exceeded or their time has
// passed. The zero value is empty, and does not know whether the log has more.
type ring struct {
	events []pastEvent // a circular buffer
	head   int         // the index of the oldest event
	n      int         // the number of events
	last   uint64      // the offset of the newest event, or of the place if there is none
	// complete means that the log has no event that is older than those of the ring.
	complete bool
	lost     string // why the newest event that was removed was removed; "" if none was
	text     int    // the bytes of the messages
	data     int    // the bytes of the events' data
	bytes    int64  // what counts towards Config.MaxKept
	framed   bool   // an event or a run has a frame
	// runs has the frames of several events, by the first offset; nil for events that are too
	// large. They are made and dropped as the frames are.
	runs map[uint64]*run
	tail tail
}

func (r *ring) len() int { return r.n }

// place returns the place of the event that follows the oldest one by i.
func (r *ring) place(i int) *pastEvent {
	i += r.head
	if i >= len(r.events) {
		i -= len(r.events)
	}
	return &r.events[i]
}

// first returns the offset of the oldest event. It is last + 1 if there is none.
func (r *ring) first() uint64 { return r.last - uint64(r.len()) + 1 }

// at returns the event with an offset that the ring has.
func (r *ring) at(offset uint64) *pastEvent {
	return r.place(int(offset - r.first()))
}

// reset empties the ring, and puts the place at an offset.
func (r *ring) reset(last uint64) {
	*r = ring{
		last:     last,
		complete: last == 0, // the log begins with offset 1
	}
}

// frame returns the frame with which an event is replayed.
func (r *ring) frame(offset uint64) *fanout.Frame {
	p := r.at(offset)
	if p.frame == nil {
		p.frame = fanout.NewList(p.text)
		r.bytes += int64(len(p.text))
		r.framed = true
	}
	return p.frame
}

// push adds the event that follows the newest one.
func (r *ring) push(p pastEvent, keep broker.Keep) {
	if r.n == len(r.events) {
		r.grow(keep)
	}
	*r.place(r.n) = p
	r.n++
	r.last++
	r.count(&p, 1)
	r.trim(keep)
}

// grow makes the buffer larger, at most as large as the limits need. A push exceeds these by one
// event.
func (r *ring) grow(keep broker.Keep) {
	size := max(8, r.n+r.n/2)
	if most := min(keep.Size, maxReplay) + 1; r.n < most {
		size = min(size, most)
	}
	r.rebuild(nil, size)
}

// rebuild puts events before those of the ring, in a buffer of another size.
func (r *ring) rebuild(older []pastEvent, size int) {
	events := append(make([]pastEvent, 0, size), older...)
	for i := range r.n {
		events = append(events, *r.place(i))
	}
	r.n = len(events)
	r.events = events[:size]
	r.head = 0
}

// prepend adds events that precede the oldest one.
func (r *ring) prepend(older []pastEvent, keep broker.Keep) {
	r.rebuild(older, len(older)+r.n)
	for i := range older {
		r.count(&older[i], 1)
	}
	r.trim(keep)
}

func (r *ring) count(p *pastEvent, sign int) {
	r.text += sign * len(p.text)
	r.data += sign * p.data
	size := p.size()
	if p.frame != nil {
		size += int64(len(p.text))
	}
	r.bytes += int64(sign) * size
}

// trim removes the oldest events that are over a limit. The log removes those over the
// limits of keep, too; beyond the other limits it can have more.
func (r *ring) trim(keep broker.Keep) {
	for r.len() > 0 && (r.len() > keep.Size || keep.Bytes > 0 && r.data > keep.Bytes) {
		r.pop()
		r.lost = PastTrimmed
	}
	for r.len() > 1 && (r.len() > maxReplay || r.text > maxRingText) {
		r.pop()
		r.complete = false
	}
}

func (r *ring) pop() {
	if len(r.runs) > 0 {
		r.dropRunOf(r.first())
	}
	if r.tail.first == r.first() {
		r.dropTail()
	}
	p := r.place(0)
	r.count(p, -1)
	*p = pastEvent{}
	r.n--
	r.head++
	if r.head == len(r.events) {
		r.head = 0
	}
}

// expire removes the events that are older than the keep's TTL.
func (r *ring) expire(keep broker.Keep, now time.Time) {
	for r.len() > 0 && keep.TTL > 0 && now.Sub(r.place(0).time) >= keep.TTL {
		r.pop()
		r.lost = PastExpired
	}
	if r.len() == 0 && len(r.events) > 64 {
		r.events = nil
		r.head = 0
	}
}

// dropFrames drops the frames of replays, and with them their forms for each transport.
func (r *ring) dropFrames() {
	if !r.framed {
		return
	}
	for i := range r.n {
		p := r.place(i)
		if p.frame != nil {
			p.frame = nil
			r.bytes -= int64(len(p.text))
		}
	}
	for _, dropped := range r.runs {
		if dropped != nil {
			r.bytes -= dropped.size
		}
	}
	r.runs = nil
	r.dropTail()
	r.framed = false
}
