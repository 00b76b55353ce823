package pushy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"
)

// ErrTooManyBans is returned by Server.Kick if no further ban can be stored.
var ErrTooManyBans = errors.New("pushy: there are too many bans")

// maxBanTime is the longest time of a ban.
const maxBanTime = 366 * 24 * time.Hour

// Ban is a ban of a user or a channel that stands.
type Ban struct {
	Target string // as in Kick
	Reason string
	Since  time.Time // when it was made, or made longer or shorter
	Until  time.Time
}

// Bans returns the bans that stand, sorted by target. The errors are those of the Broker.
func (s *Server) Bans(ctx context.Context) ([]Ban, error) {
	records, _, err := s.listBans(ctx)
	if err != nil {
		return nil, callError("bans", err)
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

// Unban ends the ban of a target, which is "user:" and a Conn.UserID or "channel:" and the name of a
// channel. It returns false if there is no ban, or if an earlier call has lifted it: then it only
// notifies the nodes again. The errors are those of Kick.
func (s *Server) Unban(ctx context.Context, target string) (c Coverage, lifted bool, err error) {
	kind, name, err := parseTarget(target)
	if err == nil && kind == targetConn {
		err = errors.New(`must begin with "user:" or "channel:"`)
	}
	if err != nil {
		return c, false, callError("unban", fmt.Errorf("target: %w", err))
	}
	b := ban{Target: kind + name}
	lifted, err = s.storeBan(ctx, &b)
	if err != nil || b.At == 0 {
		return c, false, callError("unban", err)
	}
	// If an earlier call has lifted it, that one may not have reached all nodes.
	_, c, err = s.askTotal(ctx, askBan, b)
	if lifted {
		s.log.LogAttrs(ctx, slog.LevelInfo, "ban lifted",
			slog.String("target", b.Target),
			slog.Int("nodes", c.Nodes),
			slog.Any("silent", c.Silent))
	}
	return c, lifted, callError("unban", err)
}

// ban is what is known about the ban of a target. The newest one of each target counts.
type ban struct {
	Target string `json:"target"` // "user:42" or "channel:room"
	Reason string `json:"reason,omitempty"`
	Until  int64  `json:"until"` // Unix seconds; 0 if the ban was lifted
	At     int64  `json:"at"`    // when it was made, in milliseconds; increases with each of a target
}

func (b *ban) stands(now time.Time) bool { return now.Unix() < b.Until }

// validate returns an error for a ban that no Server makes. Bans come from the broker's store, to
// which other programs can write.
func (b *ban) validate(now time.Time) error {
	kind, _, err := parseTarget(b.Target)
	switch {
	case err != nil:
		return fmt.Errorf("its target %w", err)
	case kind == targetConn:
		return errors.New("its target is a connection")
	case len(b.Reason) > maxReason || !utf8.ValidString(b.Reason):
		return fmt.Errorf("its reason must be valid UTF-8 of at most %d bytes", maxReason)
	case b.Until < 0 || b.Until > now.Add(2*maxBanTime).Unix():
		return errors.New("its end is not a time that is allowed")
	case b.At <= 0 || b.At > now.Add(maxBanTime).UnixMilli():
		return errors.New("its beginning is not a time that is allowed")
	}
	return nil
}
