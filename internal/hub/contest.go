package hub

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
)

// A client can move between nodes faster than the broker delivers. Then a node gives the client
// its member although the log has an adoption by another node, for an earlier connection of the
// client, that has not been delivered yet. So that the newest connection has the member in the
// end, an owner contains the time at which its connection has claimed the member: a node that
// learns of such an adoption takes the member back, and an earlier connection that is still
// waiting gives up.
//
// The times are those of different clocks. If these differ by more than the time between two
// moves, and a node has not noticed that its connection is lost, the earlier connection can win;
// the client then becomes a new member.

// contestFor is the time after a claim in which an earlier adoption can still be delivered.
const contestFor = 10 * time.Second

// newOwner returns an owner for a member that was claimed at that time, in milliseconds.
func (h *Hub) newOwner(claimed int64) string {
	return h.cfg.NewOwner() + "-" + strconv.FormatInt(claimed, 36)
}

// claimedAt returns the time that an owner contains, or 0.
func claimedAt(owner string) int64 {
	i := strings.LastIndexByte(owner, '-')
	if i < 0 {
		return 0
	}
	claimed, err := strconv.ParseInt(owner[i+1:], 36, 64)
	if err != nil {
		return 0
	}
	return claimed
}

// isNewerThan reports whether the connection of l has claimed the member after that of another
// owner, a short time ago.
func (l *loggedMember) isNewerThan(owner string) bool {
	other := claimedAt(owner)
	return other > 0 && l.claimed > other && time.Now().UnixMilli()-l.claimed < contestFor.Milliseconds()
}

// contestLocked takes a live member back from an owner that has adopted it for an earlier
// connection.
func (ch *Channel) contestLocked(l *loggedMember, owner string) {
	h := ch.hub
	if !h.tasks.Start() {
		ch.dropLocked(l, true)
		return
	}
	mine := h.newOwner(l.claimed)
	l.member.Owner = mine
	l.contest = owner
	go func() {
		defer h.tasks.End()
		ch.takeBack(l, owner, mine)
	}()
}

func (ch *Channel) takeBack(l *loggedMember, owner, mine string) {
	h := ch.hub
	id := l.member.ID
	ctx, cancel := h.operation(h.ctx)
	defer cancel()
	_, err := h.cfg.Broker.Append(ctx, ch.name, broker.Entry{
		Kind:     broker.Adopt,
		Member:   id,
		OldOwner: owner,
		Owner:    mine,
	})
	switch {
	case err == nil && l.hasEnded() && h.stopping.Err() == nil:
		// Its Leave may have come before the adoption, and then it had no effect.
		if _, err = h.cfg.Broker.Append(ctx, ch.name, leaveEntry(id, mine)); err != nil && !errors.Is(err, broker.ErrNotOwner) {
			h.backlog.addLeave(ch.name, id, mine, time.Time{})
		}
	case err == nil:
		if err = ch.appendLate(l); err != nil && h.ctx.Err() == nil {
			h.cfg.Notices.Warn("cannot append the new data of a member that has returned", ch.name,
				slog.String("channel", ch.name), slog.Any("error", err))
		}
	case errors.Is(err, broker.ErrNotOwner):
		// Another entry has changed the owner, or the member has left. Its delivery decides.
	default:
		h.backlog.addLeave(ch.name, id, mine, h.lateUntil(err)) // the adoption may have been appended
		ch.fan.Lock()
		defer ch.fan.Unlock()
		if !l.ended && l.member.Owner == mine {
			ch.dropLocked(l, true)
		}
	}
}
