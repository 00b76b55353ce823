package redis

import (
	"context"
	"errors"
	"slices"

	"github.com/gopushy/pushy/broker"
)

// forgottenAtOnce is how many IDs a script forgets, so that it does not block Redis for long.
const forgottenAtOnce = 500

// ForgetIDs implements broker.IDForgetter. Each shard has the IDs of its channels.
func (b *Broker) ForgetIDs(ctx context.Context, ids []broker.EntryID) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	byShard := map[*shard][]string{}
	for _, id := range ids {
		sh := b.shard(id.Channel)
		byShard[sh] = append(byShard[sh], digest(id.Channel, id.ID))
	}
	var errs []error
	for sh, hashes := range byShard {
		k, err := sh.live()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for some := range slices.Chunk(hashes, forgottenAtOnce) {
			if err := sh.exec(ctx, k, k, idsScript, "", some...).Error(); err != nil {
				errs = append(errs, sh.failed(ctx, "forget ids", err))
				break
			}
		}
	}
	return errors.Join(errs...)
}
