// Package brokerkit is what the implementations of package broker have in common.
package brokerkit

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// NewEpoch makes up what begins an epoch: 12 letters and digits.
func NewEpoch() string { return rand.Text()[:12] }

// Bounds of a broker.Ledger.
const (
	MaxRecords = 1 << 20 // that are remembered
	MaxListed  = 10_000

	maxKey    = 256
	maxDigest = 64
	maxAnswer = 4 << 10
)

var errRecordSize = errors.New("broker: a ledger's key is at most 256 bytes, its digest 64, its answer 4 KiB")

// CheckRecord returns an error for what is too large for a broker.Ledger.
func CheckRecord(key, digest string, answer []byte) error {
	if len(key) > maxKey || len(digest) > maxDigest || len(answer) > maxAnswer {
		return errRecordSize
	}
	return nil
}

// Pick selects from kept events, the first of which has the offset first. The result is
// the caller's own.
func Pick(kept []broker.Entry, first uint64, r broker.Range) (entries []broker.Entry, more bool) {
	end := uint64(len(kept))
	if r.Before == 0 {
		begin := uint64(0)
		if r.After >= first {
			begin = min(r.After-first+1, end)
		}
		kept = slices.Clone(kept[begin:])
		n := fitting(kept, r)
		return kept[:n], n < len(kept)
	}
	if r.Before < first+end {
		end = max(r.Before, first) - first
	}
	kept = slices.Clone(kept[:end])
	slices.Reverse(kept)
	n := fitting(kept, r)
	entries = kept[:n]
	slices.Reverse(entries)
	return entries, n < len(kept)
}

// fitting returns how many of the events a Range takes.
func fitting(list []broker.Entry, r broker.Range) int {
	n, bytes := 0, 0
	for n < len(list) && n < r.Limit {
		bytes += len(list[n].Data)
		if n > 0 && r.Bytes > 0 && bytes > r.Bytes {
			break
		}
		n++
	}
	return n
}

// Settings compares what must be equal on all nodes. The zero value is ready to use.
type Settings struct {
	mu     sync.Mutex
	warned map[string]bool
}

// Compare logs one warning for each option that two nodes have and that differs, however
// many nodes there are. It returns how many it has logged.
func (s *Settings) Compare(log *slog.Logger, here, elsewhere map[string]string) (warnings int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for option, own := range here {
		other, known := elsewhere[option]
		if !known || other == own || s.warned[option] {
			continue
		}
		if s.warned == nil {
			s.warned = map[string]bool{}
		}
		s.warned[option] = true
		warnings++
		log.Warn("nodes have different settings", "option", option, "here", own, "elsewhere", other)
	}
	return warnings
}
