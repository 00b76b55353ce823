// Package brokerkit has the common parts of the implementations of package broker.
package brokerkit

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/gopushy/pushy/broker"
)

// NewEpoch returns a random first part of an epoch: 12 letters and digits.
func NewEpoch() string { return rand.Text()[:12] }

// Limits of a broker.Ledger.
const (
	MaxRecords = 1 << 20
	MaxListed  = 10_000 // records that one List returns

	maxKey    = 256
	maxDigest = 64
	maxAnswer = 4 << 10
)

var errRecordSize = errors.New(
	"broker: a record of the Ledger has a key of at most 256 bytes, a digest of 64 bytes and an answer of 4 KiB")

// CheckRecord returns an error for a key, digest or answer that is too large for a
// broker.Ledger.
func CheckRecord(key, digest string, answer []byte) error {
	if len(key) > maxKey || len(digest) > maxDigest || len(answer) > maxAnswer {
		return errRecordSize
	}
	return nil
}

// Pick selects the events of a Range from kept events. first is the offset of the first one.
// The result is a new slice.
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

// fitting returns how many events of list the limits of a Range permit.
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

// Settings compares the settings that must be equal on all nodes. The zero value is ready to
// use.
type Settings struct {
	mu     sync.Mutex
	warned map[string]bool
}

// Compare logs a warning for each option that both nodes have and that differs, but only once
// for each option, for any number of nodes. It returns the number of warnings.
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
