package pushy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

const (
	// maxHeard limits the bans in memory, which other programs can send through the broker.
	maxHeard = 20_000
	// banInterval is the longest time after which a node reads the list of bans again.
	banInterval = 30 * time.Second
)

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
		target = targetChannel + jsvalue.Lower(channel) // other protocols have names with capitals
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
	// As the member's data will be: clients can write the data of a token in several ways.
	fields, invalid := pushyjson.PresenceFields(data, 0)
	if invalid != nil {
		return "", false // the subscription is refused for that
	}
	if user := pushyjson.User(fields); user != "" {
		return s.banned(user[1:], "") // the first byte is the type of the field
	}
	return "", false
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
		retry := time.Second
		for {
			pause := banInterval - rand.N(banInterval/4) // not all nodes at the same time
			if err == nil {
				retry = time.Second
			} else {
				pause = retry
				retry = min(2*retry, banInterval)
			}
			select {
			case <-time.After(pause):
			case <-s.bans.wake:
			case <-ctx.Done():
				return
			}
			err = s.loadBans(ctx)
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
	records, _, err := s.listBans(ctx)
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
