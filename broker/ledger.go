package broker

import (
	"context"
	"time"
)

// Ledger is an optional interface of a Broker: small records with a lifetime
// that all nodes share, such as request ids with their answers, bans and
// cursors. Keys are at most 256 bytes, digests 64, answers 4 KiB.
type Ledger interface {
	// Claim reserves a key for ttl unless it is claimed already. The digest
	// tells apart what is claimed under one key.
	Claim(ctx context.Context, key, digest string, ttl time.Duration) (Claim, error)
	// Finish stores the answer of a claimed key for the rest of its lifetime,
	// replacing an earlier one. It fails with ErrNotOwner if digest is not that
	// of the claim, or if the claim has expired.
	Finish(ctx context.Context, key, digest string, answer []byte) error
	// Release gives a claim without an answer back, so that it can be claimed
	// at once. It does nothing for a claim that has an answer or another digest.
	Release(ctx context.Context, key, digest string) error
	// List returns the records whose keys begin with prefix, sorted by key, at
	// most 10,000.
	List(ctx context.Context, prefix string) ([]Record, error)
}

// ClaimTimeout is how long a claim without an answer holds: after that the
// next Claim of the key takes it over.
const ClaimTimeout = 30 * time.Second

// ClaimState is what a Claim found.
type ClaimState uint8

const (
	Claimed  ClaimState = iota + 1 // the key is the caller's now
	Pending                        // another caller has claimed the key and not finished
	Finished                       // the key has an answer
	Mismatch                       // the key was claimed with another digest
)

// Claim is the result of Ledger.Claim.
type Claim struct {
	State  ClaimState
	Answer []byte // of Finished
}

// Record is one claimed key.
type Record struct {
	Key    string
	Digest string
	Answer []byte // nil while there is none
	Until  time.Time
}
