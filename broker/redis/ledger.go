package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

const listedAtOnce = 500

// ledger runs the script of the Ledger. All records are in the first shard.
func (b *Broker) ledger(ctx context.Context, what, key, digest string, args ...string) ([]rueidis.RedisMessage, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	sh := b.shards[0]
	k, err := sh.live()
	if err != nil {
		return nil, err
	}
	result := sh.exec(ctx, k, k, ledgerScript, "", append([]string{what, key, digest}, args...)...)
	if err := result.Error(); err != nil {
		return nil, sh.failed(ctx, what, err)
	}
	answer, _ := result.ToArray() // the answer to finish and release is not a list
	return answer, nil
}

// Claim implements broker.Ledger.
func (b *Broker) Claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	if err := brokerkit.CheckRecord(key, digest, nil); err != nil {
		return broker.Claim{}, err
	}
	answer, err := b.ledger(ctx, "claim", key, digest,
		milliseconds(max(ttl, time.Millisecond)),
		milliseconds(broker.ClaimTimeout),
		strconv.Itoa(brokerkit.MaxRecords))
	if err != nil {
		return broker.Claim{}, err
	}
	if len(answer) != 2 {
		return broker.Claim{}, wrapped("claim", errFormat)
	}
	state, err := answer[0].ToInt64()
	if err != nil || state < int64(broker.Claimed) || state > int64(broker.Mismatch) {
		return broker.Claim{}, wrapped("claim", errFormat)
	}
	c := broker.Claim{State: broker.ClaimState(state)}
	text, _ := answer[1].ToString()
	switch c.State {
	case broker.Finished:
		c.Answer = []byte(text)
	case broker.Claimed:
		c.Again = text != ""
	}
	return c, nil
}

// Finish implements broker.Ledger.
func (b *Broker) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if err := brokerkit.CheckRecord(key, digest, answer); err != nil {
		return err
	}
	_, err := b.ledger(ctx, "finish", key, digest, string(answer))
	return err
}

// Release implements broker.Ledger.
func (b *Broker) Release(ctx context.Context, key, digest string) error {
	_, err := b.ledger(ctx, "release", key, digest)
	return err
}

// List implements broker.Ledger.
func (b *Broker) List(ctx context.Context, prefix string) ([]broker.Record, error) {
	var list []broker.Record
	from, to := "["+prefix, prefixEnd(prefix)
	for len(list) < brokerkit.MaxListed {
		answer, err := b.ledger(ctx, "list", from, to, strconv.Itoa(listedAtOnce))
		if err != nil {
			return nil, err
		}
		for _, row := range answer {
			key, r, ok := parseRecord(row)
			from = "(" + key
			if ok && len(list) < brokerkit.MaxListed {
				list = append(list, r)
			}
		}
		if len(answer) < listedAtOnce {
			break
		}
	}
	return list, nil
}

// prefixEnd returns the end of the range of keys with a prefix, as ZRANGEBYLEX expects it.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return "(" + prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return "+"
}

// parseRecord decodes a record: key, digest, answer, whether there is an answer, and the
// remaining lifetime. ok is false for a record that has expired.
func parseRecord(row rueidis.RedisMessage) (key string, r broker.Record, ok bool) {
	fields, err := row.ToArray()
	if err != nil || len(fields) != 5 {
		return "", r, false
	}
	key, _ = fields[0].ToString()
	r.Key = key
	r.Digest, _ = fields[1].ToString()
	answer, _ := fields[2].ToString()
	if has, _ := fields[3].ToInt64(); has == 1 {
		r.Answer = []byte(answer)
	}
	left, err := fields[4].ToInt64()
	r.Until = time.Now().Add(time.Duration(left) * time.Millisecond)
	return key, r, err == nil && left > 0
}

// milliseconds rounds up, so that a positive duration never becomes 0.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}
