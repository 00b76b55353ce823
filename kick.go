package pushy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

const (
	targetUser    = "user:"
	targetConn    = "conn:"
	targetChannel = "channel:"

	maxReason     = 123 // bytes, as a close frame can have
	defaultReason = "Removed"
	// codeBanned is the code of the errors for clients that are banned.
	codeBanned = "403"

	askKick = "pushy:kick"
	askBan  = "pushy:ban"
)

// Kick says whom Server.Kick removes.
type Kick struct {
	// Target is "user:" and a Conn.UserID, "conn:" and the id of a connection, or "channel:" and
	// the name of a channel.
	Target string
	// Reason is for the clients, at most 123 bytes. Default "Removed".
	Reason string
	// Until makes a ban: until then, the user cannot connect, or nobody can subscribe to the
	// channel. It is in the future, at most 366 days, and counts in whole seconds, by the clock of
	// each node. Zero: the target can return at once. Not allowed for a connection, because its id
	// does not return.
	Until time.Time
}

// Kicked is the result of Server.Kick.
type Kicked struct {
	// Closed is the number of connections that were closed or, for a channel, of subscriptions
	// that were ended, on the nodes that have answered.
	Closed int
	Coverage
}

// Kick removes a user, a connection, or all subscribers of a channel, on all nodes.
//
// The connections of a user, and a connection, are closed with CloseRemoved and the reason, after
// which clients do not reconnect. Without Kick.Until, a connection that is accepted at the same
// moment can stay, as one that comes back at once. The subscriptions of a channel end with
// pushy:subscription-end and the reason, and the connections stay; a Listener receives KindEnded.
// Members whose client is away (Options.Grace) leave at once.
//
// With Kick.Until, the Ledger of the Broker has the ban. So a node that is disconnected, or that
// starts later, knows it, too; it reads the list when it starts, when its Broker is back, and
// every 30 s. While a node cannot read the list, it accepts connections all the same; when it
// can, it removes those that are banned. A new Kick replaces the ban of the same target, so a
// ban can be made longer or shorter, and Unban ends it. While a ban of a user stands,
// connections of the user are refused with status 403, and so are all tokens, whenever they were
// issued: those that are used on a connection of the user, and those whose presence data has an
// equal field "user". After it, tokens that have not expired are valid again. While a ban of a
// channel stands, nobody can subscribe to it, and Channels.Join fails.
//
// The error says which field is not valid. It wraps ErrTooManyBans if 9,900 bans are stored,
// errors.ErrUnsupported for a ban if the Broker does not implement broker.Ledger, and
// broker.ErrAway while the Broker is away. If the ban could not be stored, nobody was removed; but if
// the connection to the Broker was lost in that moment, the ban can stand. If the other nodes could
// not be asked, the target was removed from this node only, and Kicked says so. All calls can be
// repeated, which makes it certain.
func (s *Server) Kick(ctx context.Context, k Kick) (Kicked, error) {
	b, place, err := s.checkKick(k)
	if err == nil && b.Until > 0 && !b.stands(s.now()) {
		place = "until"
		err = errPast
	}
	if err != nil {
		return Kicked{}, callError("kick", fmt.Errorf("%s: %w", place, err))
	}
	return s.kick(ctx, b)
}

var errPast = errors.New("must be in the future")

// checkKick returns the target and the ban of a Kick, or the field that is not valid. It does not
// check that the ban ends in the future, because a request that is repeated later is valid.
func (s *Server) checkKick(k Kick) (b ban, field string, err error) {
	kind, name, err := parseTarget(k.Target)
	if err != nil {
		return b, "target", err
	}
	if kind == targetChannel {
		if name, err = s.channelName(name); err != nil {
			return b, "target", err
		}
	}
	b = ban{
		Target: kind + name,
		Reason: cmp.Or(k.Reason, defaultReason),
	}
	if len(b.Reason) > maxReason || !utf8.ValidString(b.Reason) {
		return b, "reason", fmt.Errorf("must be valid UTF-8 of at most %d bytes", maxReason)
	}
	if k.Until.IsZero() {
		return b, "", nil
	}
	b.Until = k.Until.Unix()
	switch {
	case kind == targetConn:
		return b, "until", errors.New("is not allowed for a connection, because its id does not return")
	case b.Until <= 0: // 0 would be no ban
		return b, "until", errPast
	case b.Until > s.now().Add(maxBanTime).Unix():
		return b, "until", errors.New("must be at most 366 days from now")
	}
	return b, "", nil
}

// parseTarget splits a target into one of the constants and the rest. The name of a channel is
// returned in lower case.
func parseTarget(target string) (kind, name string, err error) {
	for _, kind := range []string{targetUser, targetConn, targetChannel} {
		name, is := strings.CutPrefix(target, kind)
		switch {
		case !is:
			continue
		case kind == targetChannel:
			name, err = names.Channel(name)
		case name == "" || len(name) > maxUserID || !utf8.ValidString(name):
			err = fmt.Errorf("must have 1 to %d bytes of UTF-8 after %q", maxUserID, kind)
		}
		return kind, name, err
	}
	return "", "", errors.New(`must begin with "user:", "conn:" or "channel:"`)
}

func (s *Server) kick(ctx context.Context, b ban) (Kicked, error) {
	if b.Until > 0 {
		if !s.sharedLedger {
			return Kicked{}, callError("kick", fmt.Errorf("until: the Broker does not implement broker.Ledger, "+
				"which keeps bans: %w", errors.ErrUnsupported))
		}
		if _, err := s.storeBan(ctx, &b); err != nil {
			return Kicked{}, callError("kick", err)
		}
	}
	closed, coverage, err := s.askTotal(ctx, askKick, b)
	attrs := []slog.Attr{
		slog.String("target", b.Target),
		slog.String("reason", b.Reason),
		slog.Int("closed", closed),
		slog.Int("nodes", coverage.Nodes),
		slog.Any("silent", coverage.Silent),
	}
	if b.Until > 0 {
		attrs = append(attrs, slog.Time("until", time.Unix(b.Until, 0)))
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "kicked", attrs...)
	result := Kicked{
		Closed:   closed,
		Coverage: coverage,
	}
	return result, callError("kick", err)
}

// answerKick answers askKick, and askBan: it records the ban, if it is one, and then removes the
// target, so that a connection that begins meanwhile is found in one way or the other.
func (s *Server) answerKick(_ context.Context, data json.RawMessage) (any, error) {
	var b ban
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	now := s.now()
	kind, _, err := parseTarget(b.Target)
	switch {
	case err != nil:
	case len(b.Reason) > maxReason || !utf8.ValidString(b.Reason):
		err = errors.New("the reason is not valid")
	case b.At != 0:
		err = b.validate(now)
	}
	if err != nil {
		return nil, err
	}
	if b.At != 0 && kind != targetConn {
		if _, err := s.bans.put(b, now); err != nil {
			return nil, err
		}
		if !b.stands(now) { // it was lifted
			return 0, nil
		}
	}
	return s.enforce(b.Target, b.Reason), nil
}

// enforce ends what a ban forbids on this node, and returns the number of connections or, for a
// channel, of memberships that it has ended.
func (s *Server) enforce(target, reason string) (closed int) {
	kind, name, err := parseTarget(target)
	if err != nil {
		return 0
	}
	switch kind {
	case targetUser:
		closed = s.hub.KickUser(name, CloseRemoved, reason)
		s.hub.KickHeld(func(last *hub.Conn) bool { return last.UserID() == name })
	case targetConn:
		if s.hub.KickConn(name, CloseRemoved, reason) {
			closed = 1
		}
		s.hub.KickHeld(func(last *hub.Conn) bool { return last.ID() == name })
	case targetChannel:
		if !s.hub.HasForeign() {
			return s.hub.KickChannel(name, reason)
		}
		for _, spelling := range s.hub.Spellings(name, jsvalue.Lower) {
			closed += s.hub.KickChannel(spelling, reason)
		}
	}
	return closed
}
