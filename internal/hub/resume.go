package hub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// PastAnswer is what a Subscribed event says about the past of a channel.
type PastAnswer struct {
	// Place is the channel's place after the replay. It is zero if the channel keeps no
	// events, or if the client did not ask and does not know the keys.
	Place     broker.Position
	Resumed   bool   // the client has sent a position: Recovered is shown
	Recovered bool   // it has received, or receives with the replay, everything since then
	Reason    string // why not, or why there is no rewind
	Asked     bool   // Replay is shown
	Replay    int    // the number of events that follow
	First     uint64 // the offset of the oldest event that is kept, or 0 if it is not known
}

// wants reports whether a client asks for past events.
func (p *Past) wants() bool { return p.Since != nil || p.Rewind.Events > 0 }

// ids returns the ids of the connections of a client, whose connection has the id now.
func (p *Past) ids(now string) []string {
	if !p.wants() {
		return nil
	}
	return append([]string{now}, p.Was...)
}

// pastRequest is the part of a Join that concerns the past, while the join is in progress.
type pastRequest struct {
	Past
	call   *call    // the call of ask that p has joined, or nil
	shown  bool     // the answer has the place
	denied bool     // the authorizer refuses past events
	ids    []string // of the client, for Except
	form   fanout.Form
	// filled and asked say what was done. The result is final when there is nothing left to
	// try, or when it does not matter.
	filled bool
	failed bool // the log could not be read
	asked  bool
	final  bool
	bytes  int64 // of the replay, when it has been answered
	answer *PastAnswer
	missed bool // it was answered, and the channel keeps no event now
}

// need is what must be done before a request can be answered.
type need uint8

const (
	needNothing need = iota
	needOlder        // older events than the ring has
	needPlace        // the broker must be asked for the channel's place
)

func (c *Conn) pastRequest(r *JoinRequest, denied bool) *pastRequest {
	return &pastRequest{
		Past:   r.Past,
		shown:  c.version >= 2 || r.Past.wants(),
		denied: denied && r.Past.wants(),
		ids:    r.Past.ids(c.id),
		form:   c.out.Form().Plain(), // replays are not compressed
	}
}

// joinPublic makes m a member of a public channel.
func (ch *Channel) joinPublic(m *membership, p *pastRequest, request []byte) {
	e := Event{
		Kind:     Subscribed,
		Channel:  ch.name,
		Conn:     m.conn,
		Member:   m.id,
		Returned: m.returned,
		Expires:  m.expires(),
		Request:  request,
	}
	if ch.history == nil {
		e.Past = p.off()
		ch.admitNow(m, &e)
		return
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	var replay []*fanout.Frame
	e.Past, replay = ch.pastLocked(p)
	ch.admit(m, m.conn.directFrame(&e), replay...)
}

// off returns the answer of a channel that keeps no events.
func (p *pastRequest) off() *PastAnswer {
	if !p.wants() {
		return nil
	}
	p.answer = &PastAnswer{
		Resumed: p.Since != nil,
		Reason:  PastOff,
		Asked:   true,
	}
	return p.answer
}

// maxPrepare is the number of calls of the broker for one request.
const maxPrepare = 4

// prepare does what must not be done under fan: it reads older events into the ring, asks
// the broker for the place if the client's position is unknown, and renders frames. Before
// that it waits until the client has read earlier replays.
func (ch *Channel) prepare(m *membership, p *pastRequest) error {
	if !p.wants() || p.denied || ch.history == nil {
		p.final = true
		return nil
	}
	release, err := m.out.AwaitRoom(&m.conn.ctx, 0)
	if err != nil {
		return err
	}
	release()
	missing, bare := ch.missing(p)
	if missing != needNothing {
		ctx, cancel := context.WithTimeout(&m.conn.ctx, ch.hub.cfg.Timeout)
		defer cancel()
		for i := 0; missing != needNothing && i < maxPrepare; i++ {
			ch.provide(ctx, p, missing)
			missing, bare = ch.missing(p)
		}
		if err := m.conn.ctx.Err(); err != nil {
			return err
		}
	}
	for _, f := range bare.frames {
		f.Bytes(p.form)
	}
	for _, r := range bare.runs {
		r.run.frame(p.form, r.texts)
	}
	p.final = true
	return nil
}

// provide does what is missing for the answer to p.
func (ch *Channel) provide(ctx context.Context, p *pastRequest, missing need) {
	var err error
	if missing == needOlder {
		err = ch.fill(ctx, p)
	} else {
		var fresh bool
		fresh, err = ch.ask(ctx, p)
		p.asked = p.asked || fresh
	}
	p.failed = p.failed || err != nil
	switch {
	case err == nil, errors.Is(err, broker.ErrEpoch): // a Reset follows
	case errors.Is(err, ErrClosed), errors.Is(ctx.Err(), context.Canceled): // nobody waits for the answer
	default:
		ch.hub.cfg.Notices.Warn("the history of a channel cannot be read", "",
			slog.String("channel", ch.name), slog.String("error", err.Error()))
	}
}

// unformed has what does not have the form of a client yet.
type unformed struct {
	frames []*fanout.Frame
	runs   []unformedRun
}

type unformedRun struct {
	run   *run
	texts [][]byte
}

// missing returns what must be done before p can be answered, and what does not have the
// client's form yet.
func (ch *Channel) missing(p *pastRequest) (missing need, bare unformed) {
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	now := time.Now()
	k.used = now
	k.ring.expire(k.keep, now)
	from, _, missing := k.from(p, now)
	if missing != needNothing {
		return missing, bare
	}
	k.ring.askTail(from)
	for run, f := range k.ring.replay(from, p) {
		switch {
		case run != nil && !run.has(p.form):
			bare.runs = append(bare.runs, unformedRun{run, k.ring.texts(run)})
		case f != nil && !f.Has(p.form):
			bare.frames = append(bare.frames, f)
		}
	}
	ch.countLocked()
	return needNothing, bare
}

// pastLocked returns the answer to p, and the frames of the replay.
func (ch *Channel) pastLocked(p *pastRequest) (*PastAnswer, []*fanout.Frame) {
	k := ch.history
	switch {
	case k == nil:
		return p.off(), nil
	case !p.shown:
		return nil, nil
	}
	a := &PastAnswer{
		Place:   k.place(),
		Resumed: p.Since != nil,
		Asked:   p.wants(),
	}
	p.answer = a
	switch {
	case !p.wants():
		return a, nil
	case p.denied:
		a.Reason = PastDenied
		return a, nil
	}
	now := time.Now()
	k.used = now
	k.replayed = now
	k.ring.expire(k.keep, now)
	from, reason, _ := k.from(p, now)
	a.Reason = reason
	a.Recovered = a.Resumed && reason == ""
	p.missed = !a.Recovered && k.isEmpty()
	if reason != "" && k.ring.complete {
		a.First = k.ring.first()
	}
	var frames []*fanout.Frame
	if from <= k.ring.last {
		frames = make([]*fanout.Frame, 0, 2*runLength+(k.ring.last-from)/runLength)
	}
	for run, f := range k.ring.replay(from, p) {
		if run != nil {
			a.Replay += int(run.length)
			f = k.ring.runFrame(run, p.form)
		} else {
			a.Replay++
		}
		frames = append(frames, f)
		p.bytes += int64(len(f.Bytes(p.form)))
	}
	ch.countLocked()
	return a, frames
}

// isEmpty reports whether it is known that the log has no event now. The caller has removed the
// expired events from the ring.
func (k *history) isEmpty() bool { return k.ring.len() == 0 && k.ring.complete && !k.own && !k.stalled }

// excepted reports whether an event is not for this client.
func (p *pastRequest) excepted(except []string) bool {
	return len(except) > 0 && slices.ContainsFunc(p.ids, func(id string) bool { return slices.Contains(except, id) })
}

// from returns the offset of the first event of the replay, and the reason if these are not
// all that the client has missed. The caller has removed the expired events from the ring.
func (k *history) from(p *pastRequest, now time.Time) (offset uint64, reason string, missing need) {
	none := k.ring.last + 1
	var want uint64 // the first event that the client lacks, if the position is of this log
	if since := p.Since; since != nil {
		offset, reason, missing = k.since(p, *since)
		if reason == "" {
			return offset, "", missing
		}
		if since.Epoch == k.epoch {
			want = since.Offset + 1
		}
	}
	switch {
	case p.Rewind.Events > 0:
		offset, missing = k.rewind(p, now)
		if missing == needNothing && offset == none && p.failed && reason == "" {
			reason = PastUnavailable
		}
		return offset, reason, missing
	case p.Partial && want > 0 && reason != PastAhead:
		if want < k.ring.first() && !k.ring.complete && !p.filled && !p.final && reason == PastLarge {
			return none, reason, needOlder
		}
		return k.fitting(max(want, k.ring.first())), reason, needNothing
	}
	return none, reason, needNothing
}

// since answers a position.
func (k *history) since(p *pastRequest, since broker.Position) (offset uint64, reason string, missing need) {
	none := k.ring.last + 1
	if k.own {
		return none, PastUnavailable, needNothing
	}
	if since.Epoch != k.epoch || since.Offset > k.ring.last {
		reason = PastAhead
		if since.Epoch != k.epoch {
			reason = k.endedAs(since.Epoch)
		}
		switch {
		case reason != "" && reason != PastAhead: // the epoch has ended
		case p.failed, p.asked && k.behind(since):
			reason = PastUnavailable
		case !p.asked && !p.final && broker.ValidEpoch(since.Epoch):
			return none, "", needPlace
		case reason == "":
			reason = newEpoch(since.Epoch, k.epoch)
			if p.asked {
				k.end(endedEpoch{
					epoch:  since.Epoch,
					reason: reason,
				})
			}
		case k.ring.last == 0:
			reason = PastEpoch // no event was appended to this log, so that of the position was lost
		}
		return none, reason, needNothing
	}
	want := since.Offset + 1
	switch {
	case want == none:
		return none, "", needNothing
	case none-want > maxReplay:
		return none, PastLarge, needNothing
	case want >= k.ring.first():
		if k.fitting(want) > want {
			return none, PastLarge, needNothing
		}
		return want, "", needNothing
	case k.ring.complete:
		return none, cmp.Or(k.ring.lost, k.lostWith(k.ring.len(), k.ring.data)), needNothing
	case p.failed:
		return none, PastUnavailable, needNothing
	case p.filled:
		return none, PastLarge, needNothing // the ring has as much as it can have
	case p.final:
		return none, PastUnavailable, needNothing
	}
	return none, "", needOlder
}

// behind reports whether the log, when the broker was last asked, had an event that the
// channel's place has not reached: the channel could not be healed.
func (k *history) behind(since broker.Position) bool {
	top := k.asking.top
	return since.Epoch == top.Epoch && since.Offset <= top.Offset
}

// rewind returns the first of the newest events that a client asks for.
func (k *history) rewind(p *pastRequest, now time.Time) (offset uint64, missing need) {
	none := k.ring.last + 1
	want := uint64(1)
	if none > uint64(p.Rewind.Events) {
		want = none - uint64(p.Rewind.Events)
	}
	if want < k.ring.first() && !k.ring.complete && !p.filled && !p.failed && !p.final {
		return none, needOlder
	}
	want = k.fitting(max(want, k.ring.first()))
	for p.Rewind.Age > 0 && want < none && now.Sub(k.ring.at(want).time) > p.Rewind.Age {
		want++
	}
	return want, needNothing
}

// fitting returns the offset of the first of the newest events, from an offset of the ring
// on, that the limits of a replay allow.
func (k *history) fitting(from uint64) uint64 {
	bytes := 0
	offset := k.ring.last + 1
	if offset > maxReplay {
		from = max(from, offset-maxReplay)
	}
	if k.ring.text <= k.replayBytes {
		return from
	}
	for offset > from {
		bytes += len(k.ring.at(offset - 1).text)
		if bytes > k.replayBytes {
			break
		}
		offset--
	}
	return offset
}

// fill reads older events than the ring has. If another goroutine does that, fill waits for
// it, and the caller checks again.
func (ch *Channel) fill(ctx context.Context, p *pastRequest) error {
	ch.fan.Lock()
	k := ch.history
	mine := k.filling == nil
	if mine {
		k.filling = newCall()
	}
	f := k.filling
	place, first := k.place(), k.ring.first()
	wanted := p.Rewind.Events
	if p.Since != nil && p.Since.Epoch == place.Epoch && p.Since.Offset < place.Offset {
		wanted = max(wanted, int(min(place.Offset-p.Since.Offset, maxReplay)))
	}
	ch.fan.Unlock()
	if !mine {
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.filled, f.err = ch.read(ctx, place, first, max(wanted, minFill))
	ch.fan.Lock()
	k.filling = nil
	ch.fan.Unlock()
	close(f.done)
	ch.hub.limitKept()
	return f.err
}

// fillTimeout limits the time for which clients wait for older events. No events wait meanwhile.
const fillTimeout = 3 * time.Second

// minFill is the smallest number of events that are read at once.
const minFill = 100

// read reads the events that precede those of the ring. It reports whether the ring has them;
// it has not if it has changed meanwhile.
func (ch *Channel) read(ctx context.Context, place broker.Position, first uint64, wanted int) (bool, error) {
	h := ch.hub
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.patient(fillTimeout)) // others wait for it, too
	defer cancel()
	page, err := h.history.Read(ctx, ch.name, broker.Range{
		Epoch:  place.Epoch,
		Before: first,
		Limit:  min(wanted, maxReplay),
		Bytes:  maxReplayBytes,
	})
	if errors.Is(err, broker.ErrEpoch) {
		ch.compare(page.Top, true) // a Reset follows, unless it was lost
	}
	if err != nil {
		return false, err
	}
	now := time.Now()
	older := make([]pastEvent, 0, len(page.Entries))
	next := uint64(0)
	for i := range page.Entries {
		e := &page.Entries[i]
		if e.At.Offset >= first {
			break
		}
		if e.At.Offset != next { // an event is missing: only those after it are a run
			older = older[:0]
		}
		next = e.At.Offset + 1
		at := e.Time
		if at.IsZero() || at.After(now) {
			at = now
		}
		older = append(older, pastOf(keptEvent{entry: *e, frame: ch.keptFrame(e)}, at))
	}
	ch.fan.Lock()
	defer ch.fan.Unlock()
	k := ch.history
	if k.closed || k.epoch != place.Epoch || k.ring.first() != first {
		return false, nil
	}
	if len(older) > 0 && next != first {
		older = nil
	}
	whole := !page.More && len(older) == len(page.Entries)
	if len(older) == 0 {
		whole = page.First >= first
	}
	k.ring.complete = whole
	k.ring.prepend(older, k.keep)
	ch.countLocked()
	return true, nil
}
