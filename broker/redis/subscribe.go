package redis

import (
	"context"
	"strings"

	"github.com/redis/rueidis"
)

// op is a SUBSCRIBE or UNSUBSCRIBE to be sent.
type op struct {
	name string
	off  bool
	done chan error // has room for one
}

// subscribeAll subscribes to all that is followed, and to what is followed meanwhile
// in its order. A refusal ends the session: the node would get nothing of that
// channel, and would not know.
func (l *lane) subscribeAll(ctx context.Context, k *link, conn rueidis.DedicatedClient) error {
	l.mu.Lock()
	l.linked = true
	for channel := range l.follows {
		l.ops = append(l.ops, op{name: l.name(channel), done: make(chan error, 1)})
	}
	l.mu.Unlock()
	return l.send(ctx, k, conn, true)
}

// askLocked lets a SUBSCRIBE or UNSUBSCRIBE be sent. It returns nil if there is no
// connection: the next one subscribes to what is followed then.
func (l *lane) askLocked(channel string, off bool) <-chan error {
	if !l.linked {
		return nil
	}
	o := op{name: l.name(channel), off: off, done: make(chan error, 1)}
	l.ops = append(l.ops, o)
	select {
	case l.opsC <- struct{}{}:
	default:
	}
	return o.done
}

// send sends what is to be sent until there is no more. Its error ends the
// connection; what Redis says of one command goes to its caller, and ends the
// connection, too, if all must succeed.
func (l *lane) send(ctx context.Context, k *link, conn rueidis.DedicatedClient, all bool) error {
	for {
		l.mu.Lock()
		ops := l.ops[:min(len(l.ops), batch)]
		l.ops = l.ops[len(ops):]
		for _, o := range ops {
			if o.off {
				l.unsubs[o.name]++
			}
		}
		l.mu.Unlock()
		if len(ops) == 0 {
			return nil
		}
		commands := make([]rueidis.Completed, 0, len(ops))
		for _, o := range ops {
			commands = append(commands, command(k, conn, o))
		}
		bounded, cancel := l.b.bounded(ctx)
		results := conn.DoMulti(bounded, commands...)
		cancel()
		if err := l.answered(k, ops, results, all); err != nil {
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

// verb is the op's command.
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

// answered passes the results of ops on and returns what ends the connection.
func (l *lane) answered(k *link, ops []op, results []rueidis.RedisResult, all bool) (broken error) {
	var refused error
	verb := "" // of the refused one
	for i, r := range results {
		err := r.Error()
		if _, said := rueidis.IsRedisErr(err); err != nil && (!said || isMoved(err)) {
			broken = err
		}
		if err != nil && refused == nil {
			verb = ops[i].verb(k)
			refused = wrapped(strings.ToLower(verb), err)
		}
		ops[i].done <- err
	}
	if refused != nil {
		l.b.judge(k, verb+" "+l.tag+"*", refused)
		if all && broken == nil {
			return l.b.opts.explain(refused)
		}
	}
	return broken
}

// listening is called, in the order of the messages, when a subscription begins.
func (l *lane) listening(name string) {
	if f := l.follow(name); f != nil {
		f.mu.Lock()
		f.listening = true
		f.mu.Unlock()
	}
}

// follow returns the follow of a channel by Redis's name, or nil.
func (l *lane) follow(name string) *follow {
	channel, ok := strings.CutPrefix(name, l.names)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows[channel]
}

// foreign reports whether an unsubscription is not of our making.
func (l *lane) foreign(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsubs[name] == 0 {
		return true
	}
	l.unsubs[name]--
	if l.unsubs[name] == 0 {
		delete(l.unsubs, name)
	}
	return false
}
