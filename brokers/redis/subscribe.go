package redis

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

// op is a SUBSCRIBE or UNSUBSCRIBE to be sent.
type op struct {
	name string
	off  bool
	done chan error // has room for one
}

// want adds to what is wanted of a channel, and waits until Redis sends it.
func (l *lane) want(ctx context.Context, channel string, add func(*sub)) error {
	name := l.name(channel)
	l.mu.Lock()
	s := l.subs[name]
	if s == nil {
		s = &sub{channel: channel}
		l.subs[name] = s
	}
	add(s)
	done := l.askLocked(name, false) // twice does no harm, and is ordered
	l.mu.Unlock()
	return await(ctx, done)
}

// release takes from what is wanted of a channel.
func (l *lane) release(channel string, remove func(*sub)) <-chan error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.releaseLocked(channel, remove)
}

func (l *lane) releaseLocked(channel string, remove func(*sub)) <-chan error {
	name := l.name(channel)
	s := l.subs[name]
	if s == nil {
		return nil
	}
	remove(s)
	if s.events || s.watched {
		return nil
	}
	delete(l.subs, name)
	return l.askLocked(name, true)
}

// await waits for an op, if it was sent at all.
func await(ctx context.Context, done <-chan error) error {
	if done == nil {
		return ctx.Err()
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// subscribeAll subscribes to all that is wanted, and takes what is asked for
// meanwhile in its order. A refusal ends the session: the node would get nothing of
// that channel, and would not know.
func (l *lane) subscribeAll(ctx context.Context, k *link, conn rueidis.DedicatedClient) error {
	l.mu.Lock()
	l.linked = true
	for name, s := range l.subs {
		s.confirmed = false
		l.ops = append(l.ops, op{name: name, done: make(chan error, 1)})
	}
	l.mu.Unlock()
	return l.send(ctx, k, conn, true)
}

// askLocked has a SUBSCRIBE or UNSUBSCRIBE sent; nil says that there is nobody to
// send it to, and that a connection to come will see to it.
func (l *lane) askLocked(name string, off bool) <-chan error {
	if !l.linked {
		return nil
	}
	o := op{name, off, make(chan error, 1)}
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

// answered passes the results of ops on and returns what ends the connection.
func (l *lane) answered(k *link, ops []op, results []rueidis.RedisResult, all bool) (broken error) {
	var refused error
	verb := "" // of the refused one
	errs := make([]error, len(results))
	l.mu.Lock()
	for i, r := range results {
		err := r.Error()
		if s := l.subs[ops[i].name]; s != nil && err == nil {
			s.confirmed = !ops[i].off
		}
		if _, said := rueidis.IsRedisErr(err); err != nil && (!said || isMoved(err)) {
			broken, err = err, nil
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", strings.ToLower(ops[i].verb(k)), err)
		}
		if err != nil && refused == nil {
			refused, verb = err, ops[i].verb(k)
		}
		errs[i] = err
	}
	l.mu.Unlock()
	l.b.judge(k, verb+" "+l.tag+"*", refused)
	for i, err := range errs {
		ops[i].done <- err
	}
	if refused != nil && all && broken == nil {
		return l.b.opts.explain(refused)
	}
	return broken
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
