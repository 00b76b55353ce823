package pushy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// ErrSlowConsumer ends the events of a Listener whose loop is too slow, see OnFull, and of one for which
// much is queued while Limits.Memory is used up; it then does not receive what is queued.
var ErrSlowConsumer = errors.New("pushy: slow consumer: the queue of the Listener is full")

const (
	defaultMaxEvents = 1024
	defaultMaxBytes  = 1 << 20
)

// OnFull says what happens when an event does not fit into the queue of a Listener. A publisher never
// waits for a Listener.
type OnFull uint8

const (
	// EndWhenFull ends the subscriptions: the loop receives what is queued, and then
	// ErrSlowConsumer.
	EndWhenFull OnFull = iota
	// SkipWhenFull puts one Received with KindGap, the reason "skipped" and a Count in place of the
	// events of a channel that did not fit. If changes of the members are among them, a KindMembers
	// follows.
	SkipWhenFull
)

// ListenOptions configure a Listener.
type ListenOptions struct {
	// Channels are the channels to which the Listener is subscribed, see Listener.Add. Names are
	// case-insensitive, unless KeepCase is set, and a name twice counts once.
	Channels []string
	// KeepCase leaves names as they are. It is needed for channels that only Pusher clients and
	// package pusher have, such as private-App.Models.User.1: all other names are in lower case.
	KeepCase bool
	// Since has positions of channels that keep events: the Listener first receives the events
	// after that position, at most 500 and 256 KiB, or a Received with KindGap and the reason why
	// it cannot (PROTOCOL.md, section 14). It concerns the channels of Channels; a name that is not
	// among them is an error.
	Since map[string]broker.Position
	// Rewind is the number of newest events that the Listener first receives of each channel that
	// keeps events, at most 500 and 256 KiB. With a position, it counts only if the Listener does
	// not receive everything since then. Default 0.
	Rewind int
	// Presence makes the Listener receive the members of private channels, and their changes.
	Presence bool
	// MaxEvents and MaxBytes limit what is queued for the Listener, without the past events that
	// it receives first. Default 1,024 and 1 MiB. An event counts with its data, its name and 250
	// bytes. One event always fits into an empty queue.
	MaxEvents int
	MaxBytes  int
	// OnFull says what happens when the queue is full. Default EndWhenFull.
	OnFull OnFull
}

func (o *ListenOptions) withDefaults() (ListenOptions, error) {
	c := *o
	if c.MaxEvents == 0 {
		c.MaxEvents = defaultMaxEvents
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	switch {
	case c.MaxEvents < 0:
		return c, fmt.Errorf("option MaxEvents is %d, it must be positive", c.MaxEvents)
	case c.MaxBytes < 0:
		return c, fmt.Errorf("option MaxBytes is %d, it must be positive", c.MaxBytes)
	case c.Rewind < 0 || c.Rewind > pushyjson.MaxPast:
		return c, fmt.Errorf("option Rewind is %d, at most %d is allowed", c.Rewind, pushyjson.MaxPast)
	case c.OnFull > SkipWhenFull:
		return c, fmt.Errorf("option OnFull is %d, it must be EndWhenFull or SkipWhenFull", c.OnFull)
	}
	return c, nil
}

// Listener receives the events of channels for code of this process. It is no client: no Authorizer
// is asked, it is in no list of members, and of Limits only Memory concerns it. It counts as a
// subscriber (a trigger is answered with 201), and receives what its own process publishes, and the
// events that exclude a connection (Event.Except), too. Server.Kick with a channel ends its
// subscription of that channel. All methods are safe for concurrent use.
type Listener struct {
	srv      *Server
	l        *hub.Listener
	stop     func() bool // of the context
	keepCase bool
	started  atomic.Bool // Events was called
}

// Listen subscribes to channels. The subscriptions exist when it returns, so that nothing is missed
// between what the caller then reads from its database and the first event. They last until ctx ends,
// the loop over Events ends, or Close is called; one of these must happen.
//
// The error says which option or name is not valid, and is a *JoinError if a channel is banned (with
// the Code "403") or the Broker fails, ErrClosed after Shutdown has begun, and the cause of ctx.
func (s *Server) Listen(ctx context.Context, o ListenOptions) (*Listener, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, callError("listen", err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	since, channels, err := s.listenChannels(&o)
	if err != nil {
		return nil, callError("listen", err)
	}
	inner, err := s.hub.NewListener(hub.ListenerConfig{
		Presence:  o.Presence,
		Rewind:    hub.Rewind{Events: o.Rewind},
		MaxEvents: o.MaxEvents,
		MaxBytes:  o.MaxBytes,
		Skip:      o.OnFull == SkipWhenFull,
	})
	if err != nil {
		return nil, ErrClosed
	}
	l := &Listener{
		srv:      s,
		l:        inner,
		keepCase: o.KeepCase,
	}
	l.stop = context.AfterFunc(ctx, func() { inner.Close(context.Cause(ctx)) })
	for _, channel := range channels {
		if err := l.add(ctx, channel, since[channel]); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// listenChannels returns the channels and positions of o, by the names that the core has.
func (s *Server) listenChannels(o *ListenOptions) (since map[string]broker.Position, channels []string, err error) {
	since = map[string]broker.Position{}
	known := map[string]bool{}
	for i, name := range o.Channels {
		checked, err := s.channelName(name)
		if err != nil {
			return nil, nil, fmt.Errorf("option Channels[%d]: %w", i, err)
		}
		if o.KeepCase {
			checked = name
		}
		if !known[checked] {
			known[checked] = true
			channels = append(channels, checked)
		}
	}
	for name, position := range o.Since {
		core := coreName(name, o.KeepCase)
		if !known[core] {
			return nil, nil, fmt.Errorf("option Since: %q is not among Channels", name)
		}
		since[core] = position
	}
	return since, channels, nil
}

// coreName returns the name that the core has for a channel, or "" if there can be no such channel.
func coreName(channel string, keepCase bool) string {
	lower, err := names.Channel(channel)
	if err == nil && keepCase {
		return channel
	}
	return lower
}

// Add subscribes to one more channel. If since is not zero, the Listener first receives the events
// after it, as with ListenOptions.Since. ctx limits the time until the subscription exists. The errors
// are those of Listen; a channel that the Listener has is an error, too.
func (l *Listener) Add(ctx context.Context, channel string, since broker.Position) error {
	if _, err := l.srv.channelName(channel); err != nil {
		return callError("listen", fmt.Errorf("channel name: %w", err))
	}
	return l.add(ctx, coreName(channel, l.keepCase), since)
}

func (l *Listener) add(ctx context.Context, channel string, since broker.Position) error {
	var from *broker.Position
	if since != (broker.Position{}) {
		from = &since
	}
	err := l.l.Add(ctx, channel, from)
	var unavailable *hub.UnavailableError
	var refused *hub.RefusedError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, hub.ErrAlreadyMember):
		return callError("listen", fmt.Errorf("the Listener is subscribed to %s", channel))
	case errors.As(err, &unavailable), errors.As(err, &refused):
		join := &JoinError{Channel: channel}
		join.Reason, join.Code = pushyjson.Reason(err)
		if unavailable != nil {
			join.Err = unavailable.Err
		}
		return join
	case errors.Is(err, hub.ErrClosed), errors.Is(err, hub.ErrSlow):
		return ErrClosed
	}
	return callError("listen", err)
}

// Remove ends the subscription of a channel. What is queued of it is not received any more. It has no
// effect on a channel that the Listener does not have.
func (l *Listener) Remove(channel string) {
	l.l.Remove(coreName(channel, l.keepCase))
}

// Position returns the position of the last event of a channel whose loop body has finished, so that
// a process that saves it, and passes it as ListenOptions.Since when it is started again, handles each
// event at least once. Before the first event, it is the place from which the Listener receives the
// channel. It is zero if the channel keeps no events. It can be called after Close, too.
func (l *Listener) Position(channel string) broker.Position {
	return l.l.Position(coreName(channel, l.keepCase))
}

// Events yields what the Listener receives, in the order of each channel. When the loop ends, also
// with break, return or a panic, the Listener is closed. The last pair of a loop that the caller
// does not end itself has a zero Received and an error: the cause of the context of Listen,
// ErrSlowConsumer, or ErrClosed after Close or when the Server shuts down. Only the first loop
// receives events; another one yields ErrClosed.
func (l *Listener) Events() iter.Seq2[Received, error] {
	return func(yield func(Received, error) bool) {
		if !l.started.CompareAndSwap(false, true) {
			yield(Received{}, ErrClosed)
			return
		}
		defer l.Close()
		for {
			e, err := l.l.Next()
			if err != nil {
				yield(Received{}, listenerError(err))
				return
			}
			if !yield(receivedOf(&e), nil) {
				return
			}
		}
	}
}

func listenerError(err error) error {
	switch {
	case errors.Is(err, hub.ErrSlow):
		return ErrSlowConsumer
	case errors.Is(err, hub.ErrClosed):
		return ErrClosed
	}
	return err
}

// Close ends the subscriptions. A loop over Events ends with ErrClosed, without the events that are
// queued.
func (l *Listener) Close() {
	l.stop()
	l.l.Close(hub.ErrClosed)
}

// Subscribe yields the events of channels. The subscriptions exist from the beginning of the loop to
// its end. It is Listen with only Channels set, and Events; the first pair has the error of Listen, if
// there is one. When the last subscription has ended (KindEnded), the last pair has ErrClosed.
//
//	for e, err := range srv.Subscribe(ctx, "orders", "private-room") {
//		if err != nil {
//			return err // the cause of ctx, ErrSlowConsumer or ErrClosed
//		}
//		…
//	}
func (s *Server) Subscribe(ctx context.Context, channels ...string) iter.Seq2[Received, error] {
	return func(yield func(Received, error) bool) {
		l, err := s.Listen(ctx, ListenOptions{Channels: channels})
		if err != nil {
			yield(Received{}, err)
			return
		}
		for e, err := range l.Events() {
			if !yield(e, err) || err != nil {
				return
			}
			if e.Kind == KindEnded && l.l.Channels() == 0 {
				yield(Received{}, ErrClosed)
				return
			}
		}
	}
}
