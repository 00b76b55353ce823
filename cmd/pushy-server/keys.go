package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/gopushy/pushy"
)

// keysPause is the time between two log lines about keys and versions that are to be removed.
const keysPause = time.Hour

func (c *config) setOldSecretKeys(v json.RawMessage) bool {
	keys := &c.options.OldSecretKeys
	return decode(v, keys) && !slices.Contains(*keys, "")
}

// logKeyUses logs which old secret keys were used since the last line, and whether version 1 was,
// until ctx ends. While there is no such line, they can be removed (docs/security.md).
func logKeyUses(ctx context.Context, log *slog.Logger, keys func() []pushy.KeyUse) {
	logged := keys()
	ticker := time.NewTicker(keysPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := keys()
		for i, use := range now {
			old := use.KeyID != now[0].KeyID
			if uses := use.Uses - logged[i].Uses; uses > 0 && (old || use.Version == 1) {
				log.Info("an old secret key or version 1 is in use",
					slog.String("keyID", use.KeyID),
					slog.Bool("oldKey", old),
					slog.Int("version", use.Version),
					slog.Uint64("uses", uses),
					slog.Time("last", use.Last))
			}
		}
		logged = now
	}
}
