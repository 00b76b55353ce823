package pushy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
)

const (
	// maxBans is the number of records of bans. It is lower than what a Ledger lists, because
	// nodes that ban at the same time do not see each other's records.
	maxBans = 9_900

	banPrefix = "ban:" // of the keys in the Ledger
	banDigest = "ban"
)

// banRecord is a ban with its record in the Ledger.
type banRecord struct {
	ban
	key   string
	until time.Time // of the record
}

// listBans reads the records of bans, of which total is the number. It skips those that are not
// valid.
func (s *Server) listBans(ctx context.Context) (list []banRecord, total int, err error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	records, err := s.ledger.List(ctx, banPrefix)
	if err != nil {
		return nil, 0, err
	}
	list = make([]banRecord, 0, len(records))
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
	return list, len(records), nil
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

// storeBan stores a ban, and sets its At. A target has one record: a new ban of it replaces the one
// that the record has, and prolongs the record if it lasts longer. If the ban ends another one and
// there is none, storeBan stores nothing and returns false. At is then that of the ban which has
// ended it, or 0.
func (s *Server) storeBan(ctx context.Context, b *ban) (stored bool, err error) {
	records, total, err := s.listBans(ctx)
	if err != nil {
		return false, err
	}
	now := s.now()
	b.At = now.UnixMilli()
	key := banKey(b.Target)
	var longest, last *banRecord // other programs can have written several
	for i := range records {
		r := &records[i]
		if r.Target != b.Target {
			continue
		}
		b.At = max(b.At, r.At+1)
		if longest == nil || r.until.After(longest.until) {
			longest = r
			key = r.key
		}
		if last == nil || r.At > last.At {
			last = r
		}
	}
	if b.Until == 0 && (last == nil || !last.stands(now)) {
		b.At = 0
		if last != nil && last.Until == 0 {
			b.At = last.At // for nodes that do not know it yet
		}
		return false, nil
	}
	if longest == nil && total >= maxBans {
		return false, fmt.Errorf("%w: %d are stored, which is the limit; ban channels or addresses, "+
			"or refuse users in Options.Accept", ErrTooManyBans, total)
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if b.Until > 0 {
		ttl := time.Unix(b.Until, 0).Sub(now) + time.Second
		if _, err := s.ledger.Claim(ctx, key, banDigest, ttl); err != nil {
			return false, err
		}
	}
	err = s.finishBan(ctx, key, b)
	if b.Until == 0 && errors.Is(err, broker.ErrNotOwner) {
		b.At = 0 // the ban has just ended by itself
		return false, nil
	}
	return err == nil, err
}

// finishBan stores a ban in a record that was claimed. If it fails, the record is released if it has
// no ban, because it would count until its end.
func (s *Server) finishBan(ctx context.Context, key string, b *ban) error {
	answer, err := jsvalue.Encode(b)
	if err == nil {
		err = s.ledger.Finish(ctx, key, banDigest, answer)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
		defer cancel()
		_ = s.ledger.Release(ctx, key, banDigest) // the next ban of the target uses the record otherwise
	}
	return err
}

// banKey returns the key of a target's record.
func banKey(target string) string {
	sum := sha256.Sum256([]byte(target))
	return banPrefix + hex.EncodeToString(sum[:16])
}
