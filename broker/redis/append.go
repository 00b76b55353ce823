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

// Append implements broker.Broker: one PUBLISH for an event that is not kept and has
// no ID, one script for all else.
func (b *Broker) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if err := b.usable(ctx); err != nil {
		return broker.Appended{}, err
	}
	message := append(make([]byte, 0, len(e.Data)+256), 'e')
	event := rueidis.BinaryString(broker.AppendEntry(message, e))
	if len(event) > maxEntry {
		return broker.Appended{}, broker.ErrTooLarge
	}
	l := b.lane(channel)
	k, err := l.live()
	if err != nil {
		return broker.Appended{}, err
	}
	if e.Kind == broker.Event && e.ID == "" && e.Keep.Size <= 0 {
		a, err := l.publish(ctx, k, channel, event)
		return a, uncertain(err)
	}
	s, args, err := b.arguments(channel, e, event[1:])
	if err != nil {
		return broker.Appended{}, err
	}
	answer, err := l.ask(ctx, k, s, channel, args...).ToArray()
	if err != nil {
		return broker.Appended{}, uncertain(l.failed(ctx, "append", err))
	}
	a, err := l.appended(k, channel, answer)
	if err != nil {
		return broker.Appended{}, wrapped("append", err)
	}
	return a, nil
}

// uncertain adds to the error of a command that was sent that its answer is not known,
// unless the server has refused it.
func uncertain(err error) error {
	if errors.Is(err, broker.ErrAway) && !isRole(err) && !isMoved(err) {
		return fmt.Errorf("%w: %w", err, broker.ErrUncertain)
	}
	return err
}

// publish appends an event that only Pub/Sub carries.
func (l *lane) publish(ctx context.Context, k *link, channel, message string) (broker.Appended, error) {
	bounded, cancel := l.b.bounded(ctx)
	defer cancel()
	what := "PUBLISH"
	var command rueidis.Completed
	switch name := l.name(channel); {
	case k.sharded:
		what = "SPUBLISH"
		command = k.B().Spublish().Channel(name).Message(message).Build()
	case l.b.opts.Cluster: // always to the same node of it, or the order is lost
		command = k.B().Arbitrary("PUBLISH").Keys(name).Args(message).Build()
	default:
		command = k.B().Publish().Channel(name).Message(message).Build()
	}
	n, err := k.Do(bounded, command).AsInt64()
	l.b.judge(k, what+" "+l.tag+"*", err)
	if err != nil {
		return broker.Appended{}, l.failed(ctx, "publish", err)
	}
	return broker.Appended{Receivers: l.receivers(k, channel, n)}, nil
}

// receivers says of how many subscriptions that of this node is not one.
func (l *lane) receivers(k *link, channel string, subscriptions int64) broker.Receivers {
	if !k.counts {
		return broker.Unknown
	}
	if f := l.follow(l.name(channel)); f != nil && f.isListening() {
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

// arguments are those of the script that appends an entry.
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
	owner := e.Owner // whose adoption is remembered
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
		kind, owner = "adopt", e.OldOwner
	default:
		return nil, nil, fmt.Errorf("redis: append: there is no kind %d", e.Kind)
	}
	hasData, joined := "0", "0"
	if e.Data != nil {
		hasData = "1"
	}
	if !e.Joined.IsZero() {
		joined = strconv.FormatInt(max(e.Joined.UnixMilli(), 0), 10)
	}
	remembered := milliseconds(2 * b.lease)
	return members, append(args, kind, e.Member, e.Owner, e.OldOwner, hasData, e.User, joined,
		remembered, digest(channel, e.Member, owner)), nil
}

// digest is a short name for some texts, which are of any bytes.
func digest(texts ...string) string {
	var all []byte
	for _, t := range texts {
		all = binary.AppendUvarint(all, uint64(len(t)))
		all = append(all, t...)
	}
	sum := sha256.Sum256(all)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// appended reads the answer of a script that appends.
func (l *lane) appended(k *link, channel string, answer []rueidis.RedisMessage) (a broker.Appended, err error) {
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
		a.Receivers = l.receivers(k, channel, numbers[3])
	}
	return a, nil
}
