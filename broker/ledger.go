package broker

import (
	"context"
	"time"
)

// Ledger is an optional interface of a Broker that stores small records with a lifetime,
// which all nodes share. Examples are request ids with their answers, bans and cursors.
// Keys have at most 256 bytes, digests 64 bytes, and answers 4 KiB.
type Ledger interface {
	// Claim reserves a key for ttl, unless it is already claimed. The digest distinguishes
	// requests that use the same key. If the key has an answer for that digest, Claim
	// returns it, and the record lasts for at least ttl from now on.
	Claim(ctx context.Context, key, digest string, ttl time.Duration) (Claim, error)
	// Finish stores the answer of a claimed key for the rest of the record's lifetime, and
	// replaces an earlier answer. It returns ErrNotOwner if the digest is not that of the
	// claim, or if the claim has expired.
	Finish(ctx context.Context, key, digest string, answer []byte) error
	// Release ends a claim that has no answer, so that the key can be claimed again at
	// once. It has no effect on a claim that has an answer or another digest.
	Release(ctx context.Context, key, digest string) error
	// List returns the records whose keys begin with prefix, sorted by key, at most 10,000. It
	// need not return those whose keys begin with RequestPrefix.
	List(ctx context.Context, prefix string) ([]Record, error)
}

// VolatileLedger is an optional interface of a Ledger whose records end with the process. A
// Server with such a Broker refuses signed requests from before LedgerSince, because a Ledger
// that had their ids may have ended.
type VolatileLedger interface {
	Ledger
	// LedgerSince returns when the Ledger began to keep its records.
	LedgerSince() time.Time
}

// RequestPrefix is how the keys of signed requests begin.
const RequestPrefix = "id:"

// ClaimTimeout is how long a claim without an answer is valid. After that, the next Claim
// of the key replaces it.
const ClaimTimeout = 30 * time.Second

// ClaimState is the outcome of a Claim.
type ClaimState uint8

const (
	Claimed  ClaimState = iota + 1 // the caller has the key
	Pending                        // another caller has claimed the key and has not finished
	Finished                       // the key has an answer
	Mismatch                       // the key was claimed with another digest
)

// Claim is the result of Ledger.Claim.
type Claim struct {
	State  ClaimState
	Answer []byte // set for Finished
	// Again is set for Claimed if the claim replaces one without an answer, whose time
	// (ClaimTimeout) was over. The caller of that one may still be at work.
	Again bool
}

// Record is one claimed key.
type Record struct {
	Key    string
	Digest string
	Answer []byte // nil if the claim has no answer yet
	Until  time.Time
}

// IDForgetter is an optional interface of a Broker that can forget the IDs of entries before
// the end of its ID window. A Server uses it for the IDs that it has made for the events of a
// signed request, a minute after the answer to the request was stored.
type IDForgetter interface {
	// ForgetIDs forgets the IDs of entries that were appended, so that they leave room for
	// others. Another Append with such an ID appends an entry. IDs that are unknown, or whose
	// Append has not returned, are skipped.
	ForgetIDs(ctx context.Context, ids []EntryID) error
}

// EntryID identifies an Entry with an ID: each channel has its own.
type EntryID struct {
	Channel string
	ID      string
}
