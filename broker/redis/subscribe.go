package redis

import (
	"context"
	"strings"

	"github.com/redis/rueidis"
)

// op is a SUBSCRIBE or UNSUBSCRIBE command that is to be sent.
type op struct {
	name string
	off  bool       // UNSUBSCRIBE
	done chan error // buffered
}

// subscribeAll subscribes to all followed channels, and runs the ops that are queued in the
// meantime. If Redis refuses one, the session ends, because the node would miss the messages
// of that channel.
func (sh *shard) subscribeAll(ctx context.Context, k *link, conn rueidis.DedicatedClient) error {
	sh.mu.Lock()
	sh.linked = true
	for channel := range sh.follows {
		sh.ops = append(sh.ops, op{name: sh.name(channel), done: make(chan error, 1)})
	}
	sh.mu.Unlock()
	return sh.send(ctx, k, conn, true)
}

// queueLocked queues a SUBSCRIBE or UNSUBSCRIBE. It returns nil if there is no connection:
// the next one subscribes to all channels that are followed then.
func (sh *shard) queueLocked(channel string, off bool) <-chan error {
	if !sh.linked {
		return nil
	}
	o := op{
		name: sh.name(channel),
		off:  off,
		done: make(chan error, 1),
	}
	sh.ops = append(sh.ops, o)
	select {
	case sh.opsC <- struct{}{}:
	default:
	}
	return o.done
}

// send sends all queued ops. Its error ends the connection. If Redis refuses one op, its
// caller receives that error, which ends the connection only if all must succeed.
func (sh *shard) send(ctx context.Context, k *link, conn rueidis.DedicatedClient, all bool) error {
	for {
		sh.mu.Lock()
		ops := sh.ops[:min(len(sh.ops), batch)]
		sh.ops = sh.ops[len(ops):]
		for _, o := range ops {
			if o.off {
				sh.ownUnsubscribes[o.name]++
			}
		}
		sh.mu.Unlock()
		if len(ops) == 0 {
			return nil
		}
		commands := make([]rueidis.Completed, 0, len(ops))
		for _, o := range ops {
			commands = append(commands, command(k, conn, o))
		}
		bounded, cancel := sh.b.bounded(ctx)
		results := conn.DoMulti(bounded, commands...)
		cancel()
		if err := sh.handleResults(k, ops, results, all); err != nil {
			return err
		}
	}
}

func command(k *link, conn rueidis.DedicatedClient, o op) rueidis.Completed {
	switch {
	case k.sharded && o.off:
		return conn.B().Sunsubscribe().Channel(o.name).Build()
	case k.sharded:
		return conn.B().Ssubscribe().Channel(o.name).Build()
	case o.off:
		return conn.B().Unsubscribe().Channel(o.name).Build()
	default:
		return conn.B().Subscribe().Channel(o.name).Build()
	}
}

// verb returns the name of the op's command.
func (o op) verb(k *link) string {
	switch {
	case k.sharded && o.off:
		return "SUNSUBSCRIBE"
	case k.sharded:
		return "SSUBSCRIBE"
	case o.off:
		return "UNSUBSCRIBE"
	}
	return "SUBSCRIBE"
}

// handleResults delivers the results to the callers of ops. Its error ends the connection.
func (sh *shard) handleResults(k *link, ops []op, results []rueidis.RedisResult, all bool) (broken error) {
	var refused error
	verb := "" // of the first op that failed
	for i, r := range results {
		err := r.Error()
		if _, isReply := rueidis.IsRedisErr(err); err != nil && (!isReply || isMoved(err)) {
			broken = err
		}
		if err != nil && refused == nil {
			verb = ops[i].verb(k)
			refused = wrapped(strings.ToLower(verb), err)
		}
		ops[i].done <- err
	}
	if refused != nil {
		sh.b.noteError(k, verb+" "+sh.tag+"*", refused)
		if all && broken == nil {
			return sh.b.opts.explain(refused)
		}
	}
	return broken
}

// listening is called when a subscription has begun, in order with the messages.
func (sh *shard) listening(name string) {
	if f := sh.follow(name); f != nil {
		f.mu.Lock()
		f.listening = true
		f.mu.Unlock()
	}
}

// follow returns the follow of the channel that has this name in Redis, or nil.
func (sh *shard) follow(name string) *follow {
	channel, ok := strings.CutPrefix(name, sh.names)
	if !ok {
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.follows[channel]
}

// isUnexpectedUnsubscribe reports whether this node has not sent the UNSUBSCRIBE.
func (sh *shard) isUnexpectedUnsubscribe(name string) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.ownUnsubscribes[name] == 0 {
		return true
	}
	sh.ownUnsubscribes[name]--
	if sh.ownUnsubscribes[name] == 0 {
		delete(sh.ownUnsubscribes, name)
	}
	return false
}
