package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/brokerkit"
)

// Append implements broker.Broker. An event that is not kept and has no ID is one PUBLISH,
// every other entry is one script.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if err := b.usable(ctx); err != nil {
		return broker.Appended{}, err
	}
	message := append(make([]byte, 0, len(e.Data)+256), 'e')
	event := rueidis.BinaryString(broker.AppendEntry(message, e))
	if len(event) > maxEntry {
		return broker.Appended{}, broker.ErrTooLarge
	}
	sh := b.shard(channel)
	k, err := sh.live()
	if err != nil {
		return broker.Appended{}, err
	}
	if e.Kind == broker.Event && e.ID == "" && e.Keep.Size <= 0 {
		a, err := sh.publish(ctx, k, channel, event)
		return a, uncertain(err)
	}
	s, args, err := b.arguments(channel, e, event[1:])
	if err != nil {
		return broker.Appended{}, err
	}
	answer, err := sh.execLeased(ctx, k, s, channel, args...).ToArray()
	if err != nil {
		return broker.Appended{}, uncertain(sh.failed(ctx, "append", err))
	}
	a, err := sh.appended(k, channel, answer)
	if err != nil {
		return broker.Appended{}, wrapped("append", err)
	}
	return a, nil
}

// uncertain adds ErrUncertain to an error that wraps ErrAway, unless the server has refused
// the command.
func uncertain(err error) error {
	if errors.Is(err, broker.ErrAway) && !isRole(err) && !isMoved(err) {
		return fmt.Errorf("%w: %w", err, broker.ErrUncertain)
	}
	return err
}

// publish publishes an event that is not stored.
func (sh *shard) publish(ctx context.Context, k *link, channel, message string) (broker.Appended, error) {
	bounded, cancel := sh.b.bounded(ctx)
	defer cancel()
	what := "PUBLISH"
	var command rueidis.Completed
	switch name := sh.name(channel); {
	case k.sharded:
		what = "SPUBLISH"
		command = k.B().Spublish().Channel(name).Message(message).Build()
	case sh.b.opts.Cluster:
		// Keys sends it always to the same node of the Cluster, which preserves the order.
		command = k.B().Arbitrary("PUBLISH").Keys(name).Args(message).Build()
	default:
		command = k.B().Publish().Channel(name).Message(message).Build()
	}
	n, err := k.Do(bounded, command).AsInt64()
	sh.b.noteError(k, what+" "+sh.tag+"*", err)
	if err != nil {
		return broker.Appended{}, sh.failed(ctx, "publish", err)
	}
	return broker.Appended{Receivers: sh.receivers(k, channel, n)}, nil
}

// receivers returns whether there are subscriptions of other nodes.
func (sh *shard) receivers(k *link, channel string, subscriptions int64) broker.Receivers {
	if !k.counts {
		return broker.Unknown
	}
	if f := sh.follow(sh.name(channel)); f != nil && f.isListening() {
		subscriptions--
	}
	if subscriptions > 0 {
		return broker.Some
	}
	return broker.None
}

func (f *follow) isListening() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listening
}

// arguments returns the script that appends an entry, and its arguments.
func (b *Broker) arguments(channel string, e broker.Entry, entry string) (*script, []string, error) {
	id := ""
	if e.ID != "" {
		id = digest(channel, e.ID)
	}
	events, members := eventScript, memberScript
	if b.opts.CheckEveryAppend {
		events, members = checkedEventScript, checkedMemberScript
	}
	args := make([]string, 0, 13)
	args = append(args, entry, brokerkit.NewEpoch(), id, strconv.Itoa(b.opts.testing.maxIDs))
	kind := ""
	owner := e.Owner // the owner from which an adoption takes the member
	switch e.Kind {
	case broker.Event:
		return events, append(args,
			strconv.Itoa(max(e.Keep.Size, 0)),
			milliseconds(max(e.Keep.TTL, 0)),
			strconv.Itoa(max(e.Keep.Bytes, 0)),
			strconv.Itoa(len(e.Data)),
		), nil
	case broker.Join:
		kind = "join"
	case broker.Update:
		kind = "update"
	case broker.Leave:
		kind = "leave"
	case broker.Adopt:
		kind = "adopt"
		owner = e.OldOwner
	default:
		return nil, nil, fmt.Errorf("redis: append: unknown kind %d", e.Kind)
	}
	hasData := "0"
	if e.Data != nil {
		hasData = "1"
	}
	joined := "0"
	if !e.Joined.IsZero() {
		joined = strconv.FormatInt(max(e.Joined.UnixMilli(), 0), 10)
	}
	return members, append(args,
		kind,
		e.Member,
		e.Owner,
		e.OldOwner,
		hasData,
		e.User,
		joined,
		milliseconds(b.lease),
		digest(channel, e.Member, owner),
	), nil
}

// digest returns a short name for strings of any bytes.
func digest(texts ...string) string {
	var all []byte
	for _, t := range texts {
		all = binary.AppendUvarint(all, uint64(len(t)))
		all = append(all, t...)
	}
	sum := sha256.Sum256(all)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// appended decodes the answer of a script that appends.
func (sh *shard) appended(k *link, channel string, answer []rueidis.RedisMessage) (a broker.Appended, err error) {
	if len(answer) != 4 {
		return a, errFormat
	}
	epoch, err := answer[1].ToString()
	if err != nil {
		return a, err
	}
	var numbers [4]int64
	for _, i := range []int{0, 2, 3} {
		if numbers[i], err = answer[i].ToInt64(); err != nil {
			return a, err
		}
	}
	if epoch != "" {
		if a.At, err = position(epoch, numbers[2]); err != nil {
			return a, err
		}
	}
	a.Duplicate = numbers[0] == 1
	if !a.Duplicate {
		a.Receivers = sh.receivers(k, channel, numbers[3])
	}
	return a, nil
}
