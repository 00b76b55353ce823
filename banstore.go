package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
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

// storeBan stores a ban, and sets its At. A Ledger cannot delete a record, and prolongs one only
// while it exists. So the record of a target that lasts longest gets the new ban, or, if the ban
// lasts longer, there is a new record. In both cases the newest ban is in the record that lasts
// longest. If the ban ends another one and there is none, storeBan stores nothing and returns
// false.
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
		b.At = 0
		if last != nil && last.Until == 0 {
			b.At = last.At // for nodes that do not know it yet
		}
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
