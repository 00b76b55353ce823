package hub

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// Reasons why a client cannot have everything that it missed, and of a Gap event in a
// channel that keeps events (PROTOCOL.md, section 14).
const (
	PastTrimmed     = "trimmed"     // over the size that is kept
	PastExpired     = "expired"     // over the time for which events are kept
	PastEpoch       = "epoch"       // the log is another one
	PastRestarted   = "restarted"   // the store was restarted or replaced
	PastAhead       = "ahead"       // the position is beyond the end of the log
	PastLarge       = "large"       // over the limits of a replay
	PastOff         = "off"         // the channel keeps no events
	PastDenied      = "denied"      // the authorizer refuses past events
	PastUnavailable = "unavailable" // the log cannot be read now
)

const (
	// maxHeld is the number of events of a channel that wait while the log is read. Their bytes
	// are limited, too, as those of a replay.
	maxHeld = 1000
	// maxEnded is the number of earlier epochs of a channel that are remembered.
	maxEnded = 8
)

// keptEvent is a kept event with its frame.
type keptEvent struct {
	entry broker.Entry
	frame *fanout.Frame
}

func (e *keptEvent) size() int { return len(e.frame.Bytes(fanout.Text)) }

// late returns the event with a frame that does not count towards the buffers of clients: that
// many events are sent at once is not the fault of a client.
func (e keptEvent) late() keptEvent {
	e.frame = fanout.NewList(e.frame.Bytes(fanout.Text))
	return e
}

// history is the part of a Channel that keeps events. The channel's fan guards it.
type history struct {
	keep        broker.Keep
	replayBytes int // the limit of one replay
	ring        ring
	// epoch and ring.last are the channel's place: the members have been sent every kept
	// event up to it, or a Gap event.
	epoch string
	own   bool // the epoch is one of this node, because the broker was away
	// ended has the epochs that have ended, oldest first.
	ended  []endedEpoch
	closed bool

	// While stalled is set, the log is being read, and kept events are added to held.
	stalled bool
	held    []keptEvent
	bytes   int  // of the messages in held
	dropped bool // held was full
	// onWay means that no delivery and no Reset has caused the stall: what is missing can be on its
	// way, also if the log has it no more.
	onWay  bool
	healed chan struct{} // closed when stalled ends
	turn   uint64        // counts the Resets, each of which replaces a heal that is running
	heals  []time.Time   // when the last heals began that a delivery caused

	arrived time.Time // when the last event was delivered
	used    time.Time // when the ring was last used by a client, or an event was added
	// replayed is when events were last replayed.
	replayed time.Time
	filling  *call  // reads older events into the ring
	asking   asking // asks the broker for the place
	reach    reach  // waits until the place is the one that the broker has named
	counted  int64  // the part of Hub.keptBytes that is the ring's
	notice   string // the reason of a Gap event, still to be logged
}

// endedEpoch is an epoch that has ended.
type endedEpoch struct {
	epoch  string
	reason string
	was    bool // the channel was in it on this node; otherwise a client has named it
}

// newHistory returns the history of a channel, or nil if it keeps no events.
func (h *Hub) newHistory(keep broker.Keep) *history {
	if h.history == nil || keep.Size <= 0 {
		return nil
	}
	return &history{
		keep:        keep,
		replayBytes: h.cfg.ReplayBytes,
	}
}

func (k *history) place() broker.Position {
	return broker.Position{
		Epoch:  k.epoch,
		Offset: k.ring.last,
	}
}

// endedAs returns why an epoch has ended, or "" if that is not known.
func (k *history) endedAs(epoch string) string {
	for i := range k.ended {
		if k.ended[i].epoch == epoch {
			return k.ended[i].reason
		}
	}
	return ""
}

// end remembers that an epoch has ended. Of too many, the oldest that only clients have named
// is forgotten, because they can name any.
func (k *history) end(e endedEpoch) {
	k.unend(e.epoch)
	if len(k.ended) == maxEnded {
		oldest := max(0, slices.IndexFunc(k.ended, func(e endedEpoch) bool { return !e.was }))
		k.ended = slices.Delete(k.ended, oldest, oldest+1)
	}
	k.ended = append(k.ended, e)
}

// unend forgets that an epoch has ended.
func (k *history) unend(epoch string) {
	k.ended = slices.DeleteFunc(k.ended, func(e endedEpoch) bool { return e.epoch == epoch })
}

// wasIn reports whether the channel was in an epoch that has ended.
func (k *history) wasIn(epoch string) bool {
	return slices.ContainsFunc(k.ended, func(e endedEpoch) bool { return e.was && e.epoch == epoch })
}

// newEpoch returns the reason why one epoch was followed by another (see package broker).
func newEpoch(was, now string) string {
	before, _, _ := strings.Cut(was, "-")
	after, _, parts := strings.Cut(now, "-")
	if parts && before == after {
		return PastRestarted
	}
	return PastEpoch
}

// deliverKept handles the next kept event that the broker delivers.
func (ch *Channel) deliverKept(e broker.Entry) {
	event := keptEvent{
		entry: e,
		frame: ch.keptFrame(&e),
	}
	ch.render(event.frame)
	ch.fan.Lock()
	if ch.ready {
		ch.compact()
		ch.arriveKeptLocked(event)
	} else {
		early := event // only this copy is allocated
		ch.early = append(ch.early, arrival{kept: &early})
	}
	ch.countLocked()
	ch.fan.Unlock()
	ch.logGap()
	ch.hub.limitKept()
}

func (ch *Channel) keptFrame(e *broker.Entry) *fanout.Frame {
	return ch.hub.frame(&Event{
		Kind:    Published,
		Channel: ch.name,
		Name:    e.Event,
		Data:    e.Data,
		Offset:  e.At.Offset,
	})
}

// arriveKeptLocked sends an event to the members if it is the next one. If events are
// missing before it, it begins to heal the channel.
func (ch *Channel) arriveKeptLocked(event keptEvent) {
	k := ch.history
	at := event.entry.At
	switch {
	case k.closed:
	case at.Epoch == k.epoch && at.Offset <= k.ring.last:
		// It was sent before: the State of Follow, or a heal, included it.
	case k.wasIn(at.Epoch):
		// It is late: the members have been notified that its log has ended.
	case k.stalled && !k.dropped && len(k.held) < maxHeld && k.bytes+event.size() <= k.replayBytes:
		k.held = append(k.held, event)
		k.bytes += event.size()
	case k.stalled:
		k.dropped = true // it, and all that follow, are read from the log
	case at.Epoch == k.epoch && at.Offset == k.ring.last+1:
		ch.sendKeptLocked(event, time.Now())
	case k.healsOften(time.Now()):
		to := at
		to.Offset--
		ch.breakLocked(PastUnavailable, to)
		ch.sendKeptLocked(event, time.Now())
	default:
		k.heals = append(k.heals, time.Now())
		ch.stallLocked()
		k.held = append(k.held, event)
		k.bytes = event.size()
	}
}

// sendKeptLocked sends the event that follows the channel's place to all members.
func (ch *Channel) sendKeptLocked(event keptEvent, now time.Time) {
	k := ch.history
	k.arrived = now
	k.used = now
	k.ring.expire(k.keep, now)
	k.ring.push(pastOf(event, now), k.keep)
	k.reached()
	if ch.listeners != nil {
		ch.listeners.published(event.entry)
	}
	ch.broadcastLocked(event.frame, event.entry.Except)
}

func pastOf(event keptEvent, at time.Time) pastEvent {
	return pastEvent{
		text:   event.frame.Bytes(fanout.Text),
		data:   len(event.entry.Data),
		except: event.entry.Except,
		time:   at,
	}
}

// breakLocked moves the channel's place, and notifies the members that kept events before
// it may be missing.
func (ch *Channel) breakLocked(reason string, to broker.Position) {
	k := ch.history
	if to.Epoch != k.epoch {
		k.unend(to.Epoch)
		k.end(endedEpoch{
			epoch:  k.epoch,
			reason: reason,
			was:    true,
		})
	}
	k.epoch = to.Epoch
	k.own = false
	k.ring.reset(to.Offset)
	k.reached()
	k.notice = reason
	ch.gapLocked(reason, to)
}

// logGap logs the last Gap event, which is not done under fan.
func (ch *Channel) logGap() {
	ch.fan.Lock()
	reason := ch.history.notice
	ch.history.notice = ""
	ch.fan.Unlock()
	if reason != "" {
		ch.hub.cfg.Notices.Warn("kept events of a channel may be missing for its clients", reason,
			slog.String("channel", ch.name), slog.String("reason", reason))
	}
}

// beginKeptLocked sets the place from the State of Follow. If the broker is away, the place
// is in an epoch of this node, until the broker is back.
func (ch *Channel) beginKeptLocked(s broker.State) {
	k := ch.history
	now := time.Now()
	k.epoch = s.At.Epoch
	k.own = k.epoch == ""
	if k.own {
		k.epoch = "away" + ch.hub.cfg.Node
	}
	k.ring.reset(s.At.Offset)
	k.ring.complete = k.ring.complete && !k.own
	k.arrived = now
	k.used = now
}

// resetKeptLocked compares the place with the State of a Reset. Missing events are read from
// the log, so that only a new log causes a Gap event.
func (ch *Channel) resetKeptLocked(s broker.State, reason string) {
	k := ch.history
	k.turn++
	k.endStall()
	k.arrived = time.Now()
	switch {
	case k.own:
		ch.breakLocked(PastUnavailable, s.At)
	case reason == broker.ResetRestarted:
		ch.breakLocked(PastRestarted, s.At)
	case s.At.Epoch != k.epoch:
		ch.breakLocked(newEpoch(k.epoch, s.At.Epoch), s.At)
	case s.At.Offset > k.ring.last && k.healsOften(time.Now()):
		ch.breakLocked(PastUnavailable, s.At)
	case s.At.Offset > k.ring.last:
		k.heals = append(k.heals, time.Now())
		ch.stallLocked()
	}
}

// closeHistory releases the memory of a channel that is closed.
func (ch *Channel) closeHistory() {
	k := ch.history
	if k == nil {
		return
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k.closed = true
	k.turn++
	k.endStall()
	k.ring.reset(k.ring.last)
	k.reached()
	ch.countLocked()
}
