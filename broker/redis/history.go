package redis

import (
	"context"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// topsAtOnce is the maximum number of channels of one script.
const topsAtOnce = 500

// read reads a channel's state.
func (sh *shard) read(ctx context.Context, channel string) (broker.State, error) {
	k, err := sh.live()
	if err != nil {
		return broker.State{}, err
	}
	answer, err := sh.execLeased(ctx, k, stateScript, channel).ToArray()
	if err != nil {
		return broker.State{}, sh.failed(ctx, "read a state", err)
	}
	if len(answer) != 4 {
		return broker.State{}, wrapped("read a state", errFormat)
	}
	var texts [3]string
	for i := range texts {
		if texts[i], err = answer[i].ToString(); err != nil {
			return broker.State{}, wrapped("read a state", err)
		}
	}
	fields, err := answer[3].AsStrMap()
	if err != nil {
		return broker.State{}, wrapped("read a state", err)
	}
	state, skipped := parseState(texts[0], texts[1], texts[2], fields)
	if skipped != nil {
		sh.b.warn("skipped a member that pushy did not write", "", skipped)
	}
	return state, nil
}

// Read implements broker.History.
func (b *Broker) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if err := b.usable(ctx); err != nil {
		return broker.Page{}, err
	}
	sh := b.shard(channel)
	k, err := sh.live()
	if err != nil {
		return broker.Page{}, err
	}
	answer, err := sh.execLeased(ctx, k, readScript, channel,
		r.Epoch,
		strconv.FormatUint(min(r.After, maxNumber-1), 10),
		strconv.FormatUint(min(r.Before, maxNumber-1), 10),
		strconv.Itoa(max(r.Limit, 0)),
		strconv.Itoa(max(r.Bytes, 0)),
	).ToArray()
	if err != nil {
		return broker.Page{}, sh.failed(ctx, "read", err)
	}
	p, err := sh.page(r, answer)
	if err != nil {
		return broker.Page{}, wrapped("read", err)
	}
	if r.Epoch != "" && r.Epoch != p.Top.Epoch {
		return p, broker.ErrEpoch
	}
	return p, nil
}

func (sh *shard) page(r broker.Range, answer []rueidis.RedisMessage) (p broker.Page, err error) {
	if len(answer) != 4 {
		return p, errFormat
	}
	epoch, err := answer[0].ToString()
	if err != nil {
		return p, err
	}
	last, err := answer[1].ToInt64()
	if err != nil {
		return p, err
	}
	first, err := answer[2].ToInt64()
	if err != nil {
		return p, err
	}
	elements, err := answer[3].AsStrSlice()
	if err != nil {
		return p, err
	}
	if p.Top, err = position(epoch, last); err != nil {
		return p, err
	}
	p.First = uint64(first)
	if r.Before > 0 { // the newest is first
		slices.Reverse(elements)
	}
	for _, text := range elements {
		e, err := parseKept(p.Top, text)
		if err != nil {
			sh.b.warn("skipped a kept event that pushy did not write", "", err)
			continue
		}
		p.Entries = append(p.Entries, e)
	}
	if n := len(p.Entries); n > 0 {
		p.More = p.Entries[n-1].At.Offset < p.Top.Offset
		if r.Before > 0 {
			p.More = p.Entries[0].At.Offset > p.First
		}
	}
	return p, nil
}

// Tops implements broker.History.
func (b *Broker) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	byShard := map[*shard][]int{}
	for i, channel := range channels {
		sh := b.shard(channel)
		byShard[sh] = append(byShard[sh], i)
	}
	tops := make([]broker.Position, len(channels))
	for sh, indexes := range byShard {
		for len(indexes) > 0 {
			n := min(len(indexes), topsAtOnce)
			if err := sh.tops(ctx, channels, indexes[:n], tops); err != nil {
				return nil, err
			}
			indexes = indexes[n:]
		}
	}
	return tops, nil
}

// tops sets the positions of the channels with these indexes, which are of this shard.
func (sh *shard) tops(ctx context.Context, channels []string, indexes []int, tops []broker.Position) error {
	k, err := sh.live()
	if err != nil {
		return err
	}
	args := make([]string, len(indexes))
	for i, index := range indexes {
		args[i] = channels[index]
	}
	answer, err := sh.execLeased(ctx, k, topsScript, "", args...).ToArray()
	if err != nil {
		return sh.failed(ctx, "tops", err)
	}
	if len(answer) != 3 {
		return wrapped("tops", errFormat)
	}
	run, _ := answer[0].ToString()
	base, _ := answer[1].ToString()
	metas, err := answer[2].ToArray()
	if err != nil || len(metas) != len(indexes) {
		return wrapped("tops", errFormat)
	}
	for i, index := range indexes {
		meta, _ := metas[i].ToString() // an empty channel has none
		tops[index] = parseTop(run, base, meta)
	}
	return nil
}

// Forget implements broker.History. Followers receive a Reset.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	sh := b.shard(channel)
	k, err := sh.live()
	if err != nil {
		return err
	}
	return sh.failed(ctx, "forget", sh.exec(ctx, k, k, forgetScript, channel, brokerkit.NewEpoch()).Error())
}
