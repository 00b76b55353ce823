package pushy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/control"
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
	// channel. It is in the future, at most a year, and counts in whole seconds. Zero: the target
	// can return at once. Not allowed for a connection, because its id does not return.
	Until time.Time
}

// Kicked is the result of Server.Kick and Server.Unban.
type Kicked struct {
	// Closed is the number of connections that were closed or, for a channel, of subscriptions
	// that were ended, on the nodes that have answered.
	Closed int
	// Nodes is the number of nodes that have answered, this one included.
	Nodes int
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. Whether they
	// have carried out the call is not known. A node that could not be reached reads the bans
	// from the Broker when it is back.
	Silent []string
}

// Kick removes a user, a connection, or all subscribers of a channel, on all nodes.
//
// The connections of a user, and a connection, are closed with CloseRemoved and the reason, after
// which clients do not reconnect. The subscriptions of a channel end with
// pushy:subscription-end and the reason, and the connections stay. Members whose client is away
// (Options.Grace) leave at once.
//
// With Kick.Until, the Ledger of the Broker has the ban. So a node that is disconnected, or that
// starts later, knows it, too; it reads the list when it starts, when its Broker is back, and every
// 30 s. A new Kick replaces the ban of the same target, so a ban can be made longer or shorter, and
// Unban ends it. While a ban of a user stands, connections of the user are refused with status
// 403, and so are all tokens, whenever they were issued: those that are used on a connection of
// the user, and those whose presence data has an equal field "user". After it, tokens that have
// not expired are valid again. While a ban of a channel stands, nobody can subscribe to it, and
// Channels.Join fails.
//
// The error says which field is not valid. It wraps ErrTooManyBans if 9,900 bans are stored,
// errors.ErrUnsupported for a ban if the Broker does not implement broker.Ledger, and
// broker.ErrAway while the Broker is away. If the ban could not be stored, nothing was done. If the
// other nodes could not be asked, the target was removed from this node only, and Kicked says so.
// All calls can be repeated.
func (s *Server) Kick(ctx context.Context, k Kick) (Kicked, error) {
	b, place, err := s.checkKick(k)
	if err == nil && b.Until > 0 && !b.stands(s.now()) {
		place = "until"
		err = errPast
	}
	if err != nil {
		return Kicked{}, fmt.Errorf("pushy: kick: %s: %w", place, err)
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
	now := s.now()
	b.Until = k.Until.Unix()
	switch {
	case kind == targetConn:
		return b, "until", errors.New("is not allowed for a connection, because its id does not return")
	case k.Until.Sub(now) > maxBanTime:
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
			return Kicked{}, fmt.Errorf("pushy: kick: until: the Broker does not implement broker.Ledger, "+
				"which keeps bans: %w", errors.ErrUnsupported)
		}
		if _, err := s.storeBan(ctx, &b); err != nil {
			return Kicked{}, kickError("kick", err)
		}
	}
	result, err := s.tellNodes(ctx, askKick, b)
	attrs := []slog.Attr{
		slog.String("target", b.Target),
		slog.String("reason", b.Reason),
		slog.Int("closed", result.Closed),
		slog.Int("nodes", result.Nodes),
		slog.Any("silent", result.Silent),
	}
	if b.Until > 0 {
		attrs = append(attrs, slog.Time("until", time.Unix(b.Until, 0)))
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "kicked", attrs...)
	return result, kickError("kick", err)
}

// Unban ends the ban of a target, which is "user:" and a Conn.UserID or "channel:" and the name of a
// channel. If there is none, it does nothing and returns false. The errors are those of Kick.
func (s *Server) Unban(ctx context.Context, target string) (Kicked, bool, error) {
	kind, name, err := parseTarget(target)
	if err == nil && kind == targetConn {
		err = errors.New(`must begin with "user:" or "channel:"`)
	}
	if err != nil {
		return Kicked{}, false, fmt.Errorf("pushy: unban: target: %w", err)
	}
	b := ban{Target: kind + name}
	stored, err := s.storeBan(ctx, &b)
	if err != nil || !stored {
		return Kicked{}, false, kickError("unban", err)
	}
	result, err := s.tellNodes(ctx, askBan, b)
	s.log.LogAttrs(ctx, slog.LevelInfo, "ban lifted", slog.String("target", b.Target),
		slog.Int("nodes", result.Nodes), slog.Any("silent", result.Silent))
	return result, true, kickError("unban", err)
}

// Ban is a ban of a user or a channel that stands.
type Ban struct {
	Target string // as in Kick
	Reason string
	Since  time.Time // when it was made, or made longer or shorter
	Until  time.Time
}

// Bans returns the bans that stand, sorted by target. The errors are those of the Broker.
func (s *Server) Bans(ctx context.Context) ([]Ban, error) {
	records, err := s.listBans(ctx)
	if err != nil {
		return nil, kickError("bans", err)
	}
	now := s.now()
	var list []Ban
	for _, b := range newest(records) {
		if !b.stands(now) {
			continue
		}
		list = append(list, Ban{
			Target: b.Target,
			Reason: b.Reason,
			Since:  time.UnixMilli(b.At),
			Until:  time.Unix(b.Until, 0),
		})
	}
	return list, nil
}

func kickError(verb string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrClosed):
		return err
	case errors.Is(err, broker.ErrClosed):
		return ErrClosed
	}
	if strings.HasPrefix(err.Error(), "pushy: ") {
		return err
	}
	return fmt.Errorf("pushy: %s: %w", verb, err)
}

// tellNodes makes all nodes carry out a question whose answer is a number.
func (s *Server) tellNodes(ctx context.Context, question string, data any) (Kicked, error) {
	ctx, cancel := context.WithTimeout(ctx, control.DefaultTimeout)
	defer cancel()
	answers, err := s.ask(ctx, question, data)
	result := Kicked{Silent: answers.Silent}
	for _, a := range answers.Answers {
		var n int
		if a.Err != "" || json.Unmarshal(a.Data, &n) != nil || n < 0 {
			result.Silent = append(result.Silent, a.Node) // such as one with an earlier version
			continue
		}
		result.Closed += n
		result.Nodes++
	}
	slices.Sort(result.Silent)
	return result, err
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
