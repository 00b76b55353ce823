package pushy

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/internal/sign"
)

// KeyUse says how often a secret key has verified a credential on this node.
type KeyUse struct {
	// Version is that of the credential: 1 for triggers and tokens, 2 for requests to the
	// signed API and tokens that begin with "v2.".
	Version int
	// KeyID identifies the key without revealing it (PROTOCOL.md, section 15).
	KeyID string
	// Uses is how many triggers, signed requests and tokens were valid with the key.
	Uses uint64
	// Last is the time of the last one, to the second. It is zero if there was none.
	Last time.Time
}

// keyUses counts the uses of the keys of a Server, for each key and version.
type keyUses struct {
	ids  []string
	uses [][2]keyUse
}

type keyUse struct {
	count atomic.Uint64
	last  atomic.Int64 // Unix seconds
}

func newKeyUses(keys []string) keyUses {
	u := keyUses{uses: make([][2]keyUse, len(keys))}
	for _, key := range keys {
		u.ids = append(u.ids, sign.KeyID(key))
	}
	return u
}

// add counts a credential of a version, 1 or 2, that the key with an index has verified.
func (u *keyUses) add(version, key int, now time.Time) {
	use := &u.uses[key][version-1]
	use.count.Add(1)
	use.last.Store(now.Unix())
}

// usedKey counts a credential of a version, 1 or 2, that the key with an id has verified.
func (s *Server) usedKey(version int, keyID string) {
	if i := slices.Index(s.keyUses.ids, keyID); i >= 0 {
		s.keyUses.add(version, i, s.now())
	}
}

// list returns the uses, SecretKey first.
func (u *keyUses) list() []KeyUse {
	var list []KeyUse
	for i, id := range u.ids {
		for v := range u.uses[i] {
			use := &u.uses[i][v]
			row := KeyUse{
				Version: v + 1,
				KeyID:   id,
				Uses:    use.count.Load(),
			}
			if row.Uses > 0 {
				row.Last = time.Unix(use.last.Load(), 0)
			}
			list = append(list, row)
		}
	}
	return list
}
