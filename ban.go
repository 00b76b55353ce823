package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrTooManyBans is returned by Server.Kick if no further ban can be stored.
var ErrTooManyBans = errors.New("pushy: there are too many bans")

const (
	// maxBans is the number of records of bans. It is lower than what a Ledger lists, because
	// nodes that ban at the same time do not see each other's records.
	maxBans = 9_900
	// maxHeard limits the bans in memory, which other programs can send through the broker.
	maxHeard = 20_000
	// maxBanTime is the longest time of a ban.
	maxBanTime = 366 * 24 * time.Hour
	// banInterval is the longest time after which a node reads the list of bans again.
	banInterval = 30 * time.Second

	banPrefix = "ban:" // of the keys in the Ledger
	banDigest = "ban"
)

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

// bans has the bans that this node knows, by target. The zero value is ready to use.
type bans struct {
	known atomic.Int64 // len(all), so that nothing is locked while there are none

	mu  sync.RWMutex
	all map[string]heardBan
	seq uint64 // of the last ban that was put

	wake chan struct{} // has an element when the list is to be read; nil if it is never read
}

// heardBan is a ban with its place in the order in which this node received them.
type heardBan struct {
	ban
	seq uint64
}

// put adds a ban, and reports whether it is newer than what is known of its target.
func (bs *bans) put(b ban, now time.Time) (fresh bool, err error) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.putLocked(b, now)
}

func (bs *bans) putLocked(b ban, now time.Time) (fresh bool, err error) {
	old, known := bs.all[b.Target]
	if known && old.At >= b.At {
		return false, nil
	}
	if !known && len(bs.all) >= maxHeard {
		bs.sweepLocked(now)
	}
	if !known && len(bs.all) >= maxHeard {
		return false, ErrTooManyBans
	}
	if bs.all == nil {
		bs.all = map[string]heardBan{}
	}
	bs.seq++
	bs.all[b.Target] = heardBan{b, bs.seq}
	bs.known.Store(int64(len(bs.all)))
	return true, nil
}

func (bs *bans) sweepLocked(now time.Time) {
	for target, b := range bs.all {
		if !b.stands(now) {
			delete(bs.all, target)
		}
	}
}

// mark returns the place of the last ban, for replace.
func (bs *bans) mark() uint64 {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	return bs.seq
}

// replace makes the list of the Ledger the known bans, and keeps those that were put after mark. It
// returns the bans that are new to this node and stand.
func (bs *bans) replace(list []ban, mark uint64, now time.Time) (fresh []ban) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	old := bs.all
	bs.all = make(map[string]heardBan, len(list))
	for target, b := range old {
		if b.seq > mark {
			bs.all[target] = b
		}
	}
	for _, b := range list {
		if !b.stands(now) {
			if known, ok := bs.all[b.Target]; ok && known.At < b.At {
				delete(bs.all, b.Target)
			}
			continue
		}
		isNew, _ := bs.putLocked(b, now) // a Ledger lists fewer than maxHeard
		before, known := old[b.Target]
		if isNew && (!known || before.ban != b) {
			fresh = append(fresh, b)
		}
	}
	bs.known.Store(int64(len(bs.all)))
	return fresh
}

// find returns the ban of a target that stands.
func (bs *bans) find(target string, now func() time.Time) (b ban, banned bool) {
	bs.mu.RLock()
	heard, known := bs.all[target]
	bs.mu.RUnlock()
	return heard.ban, known && heard.stands(now())
}

// banned is hub.Config.Banned.
func (s *Server) banned(user, channel string) (reason string, banned bool) {
	if s.bans.known.Load() == 0 {
		return "", false
	}
	target := targetUser + user
	if channel != "" {
		target = targetChannel + channel
	}
	b, banned := s.bans.find(target, s.now)
	return b.Reason, banned
}

// bannedMember reports whether the user of a subscription is banned: the user of its connection,
// or the user whom the data that a token has signed names.
func (s *Server) bannedMember(c *hub.Conn, private bool, data []byte) (reason string, banned bool) {
	if s.bans.known.Load() == 0 {
		return "", false
	}
	if user := c.UserID(); user != "" {
		if reason, banned = s.banned(user, ""); banned {
			return reason, true
		}
	}
	if _, signed := s.opts.Authorizer.(*tokens); !signed || !private || len(data) == 0 {
		return "", false
	}
	data, err := jsvalue.Compact(nil, data, jsvalue.Limits{})
	if err != nil {
		return "", false // the subscription is refused for that
	}
	if user := pushyjson.User(data); user != "" {
		return s.banned(user[1:], "") // the first byte is the type of the field
	}
	return "", false
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
		closed = s.hub.KickChannel(name, reason)
	}
	return closed
}

// enforceAll is enforce for bans that this node has not received when they were made.
func (s *Server) enforceAll(list []ban) {
	users := map[string]bool{}
	for _, b := range list {
		kind, name, _ := parseTarget(b.Target)
		switch kind {
		case targetUser:
			users[name] = true
			s.hub.KickUser(name, CloseRemoved, b.Reason)
		case targetChannel:
			s.hub.KickChannel(name, b.Reason)
		}
	}
	if len(users) > 0 {
		s.hub.KickHeld(func(last *hub.Conn) bool { return users[last.UserID()] })
	}
}

// openBans reads the list of bans, and begins to read it again and again. If the Broker has no
// Ledger, or is the process's own, nobody else makes bans.
func (s *Server) openBans() {
	if s.local || !s.sharedLedger {
		return
	}
	err := s.loadBans(context.Background())
	s.hub.Go(func(ctx context.Context) {
		pause := time.Second
		for {
			if err == nil {
				// Not all nodes at the same time.
				pause = banInterval - rand.N(banInterval/4)
			}
			select {
			case <-time.After(pause):
			case <-s.bans.wake:
			case <-ctx.Done():
				return
			}
			if err = s.loadBans(ctx); err != nil {
				pause = min(2*pause, banInterval)
			}
		}
	})
}

// wakeBans makes the node read the list of bans soon. It does not block.
func (s *Server) wakeBans() {
	select {
	case s.bans.wake <- struct{}{}:
	default:
	}
}

func (s *Server) loadBans(ctx context.Context) error {
	mark := s.bans.mark()
	records, err := s.listBans(ctx)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrClosed) {
			s.notices.Warn("cannot read the list of bans; pushy retries", "", slog.Any("error", err))
		}
		return err
	}
	now := s.now()
	s.enforceAll(s.bans.replace(newest(records), mark, now))
	return nil
}

// banRecord is a ban with its record in the Ledger.
type banRecord struct {
	ban
	key   string
	until time.Time // of the record
}

// listBans reads the records of bans. It skips those that are not valid.
func (s *Server) listBans(ctx context.Context) ([]banRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	records, err := s.ledger.List(ctx, banPrefix)
	if err != nil {
		return nil, err
	}
	list := make([]banRecord, 0, len(records))
	now := s.now()
	for _, r := range records {
		if len(r.Answer) == 0 {
			continue // it is being made
		}
		b := banRecord{key: r.Key, until: r.Until}
		err := json.Unmarshal(r.Answer, &b.ban)
		if err == nil {
			err = b.validate(now)
		}
		if err != nil {
			s.notices.Warn("skipped an invalid ban in the broker's store", "", slog.Any("reason", err))
			continue
		}
		list = append(list, b)
	}
	return list, nil
}

// newest returns the newest ban of each target, sorted by target.
func newest(records []banRecord) []ban {
	sorted := slices.Clone(records)
	slices.SortFunc(sorted, func(a, b banRecord) int {
		if c := strings.Compare(a.Target, b.Target); c != 0 {
			return c
		}
		if a.At != b.At {
			return int(max(-1, min(b.At-a.At, 1)))
		}
		return strings.Compare(a.key, b.key)
	})
	var list []ban
	for _, r := range sorted {
		if len(list) == 0 || list[len(list)-1].Target != r.Target {
			list = append(list, r.ban)
		}
	}
	return list
}

// storeBan stores a ban, and sets its At. A Ledger cannot delete or prolong a record. So the record
// of a target that lasts longest gets the new ban, or, if the ban lasts longer, there is a new
// record. In both cases the newest ban is in the record that lasts longest. If the ban ends
// another one and there is none, storeBan stores nothing and returns false.
func (s *Server) storeBan(ctx context.Context, b *ban) (stored bool, err error) {
	records, err := s.listBans(ctx)
	if err != nil {
		return false, err
	}
	now := s.now()
	b.At = now.UnixMilli()
	var longest, last *banRecord
	for i := range records {
		r := &records[i]
		if r.Target != b.Target {
			continue
		}
		b.At = max(b.At, r.At+1)
		if longest == nil || r.until.After(longest.until) {
			longest = r
		}
		if last == nil || r.At > last.At {
			last = r
		}
	}
	if b.Until == 0 && (last == nil || !last.stands(now)) {
		return false, nil
	}
	answer, err := jsvalue.Encode(b)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	ttl := time.Unix(b.Until, 0).Sub(now)
	if longest != nil && time.Until(longest.until) >= ttl {
		err := s.ledger.Finish(ctx, longest.key, banDigest, answer)
		if !errors.Is(err, broker.ErrNotOwner) || b.Until == 0 {
			return err == nil, err
		} // it has expired
	}
	if len(records) >= maxBans {
		return false, fmt.Errorf("%w: %d are stored, which is the limit; ban channels or addresses, "+
			"or refuse users in Options.Accept", ErrTooManyBans, len(records))
	}
	key := banPrefix + names.RandomHex(16)
	if _, err := s.ledger.Claim(ctx, key, banDigest, ttl+time.Second); err != nil {
		return false, err
	}
	err = s.ledger.Finish(ctx, key, banDigest, answer)
	return err == nil, err
}
