package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gopushy/pushy/subscriber"
)

const listenHelp = `Print the events of channels.

  pushy-server listen [flags] CHANNEL...

Each event is printed as one line of JSON, as PROTOCOL.md describes it:
{"event":"news","channel":"lobby","data":{"text":"Hello"}}. Control characters and
invisible characters in it are written as \u and four digits. Messages about the
connection go to standard error. Channels whose names begin with private- or
presence- need the secret key.

` + targetHelp + `  -member JSON       presence data for private channels, such as
                     '{"name":"Ann"}': their members see it join and leave
  -rewind N          first print the newest N events, at most 500, of each channel
                     that keeps events; also after a reconnect, if not all missed
                     events can be printed
  -n N               exit after N events
  -once              exit when the connection is lost. By default listen
                     reconnects, and prints the events that it missed if the
                     channel keeps them

listen exits when it is interrupted. The exit status is 0 after an interrupt and
after N events, 1 if the server refuses, cannot be reached (with -once) or ends all
subscriptions, and 2 if the command line is wrong.

  pushy-server listen -config config.json lobby private-staff | jq .data
`

// listening is a run of listen.
type listening struct {
	*program
	to       target
	channels []string
	member   json.RawMessage
	rewind   int
	events   int // number of events still to print; below zero: no limit
	once     bool
}

// maxRewind is the largest number of events that a server replays.
const maxRewind = 500

func (p *program) listen(args []string) int {
	l := listening{program: p}
	var member string
	f := flag.NewFlagSet("listen", flag.ContinueOnError)
	l.to.flags(f)
	f.StringVar(&member, "member", "", "")
	f.IntVar(&l.rewind, "rewind", 0, "")
	f.IntVar(&l.events, "n", -1, "")
	f.BoolVar(&l.once, "once", false, "")
	if status, done := p.parse(f, args, listenHelp); done {
		return status
	}
	l.channels = f.Args()
	err := l.to.resolve(p.getenv)
	switch {
	case err != nil:
	case len(l.channels) == 0:
		err = errors.New("listen: give at least one channel (-h explains)")
	case l.rewind < 0 || l.rewind > maxRewind:
		err = fmt.Errorf("listen: -rewind must be from 0 to %d", maxRewind)
	case l.events == 0:
		err = errors.New("listen: -n must be above 0")
	case member != "" && !json.Valid([]byte(member)):
		err = errors.New("listen: -member is not JSON")
	case member != "":
		l.member = json.RawMessage(member)
	}
	for _, channel := range l.channels {
		if err == nil && isPrivate(channel) && l.to.secret == "" {
			err = fmt.Errorf("listen: %s needs the secret key: set PUSHY_SECRET_KEY, -config or -secret-file", channel)
		}
	}
	if err != nil {
		return p.fail(exitUsage, err)
	}
	ctx, stop := p.untilSignal()
	defer stop()
	return l.run(ctx)
}

// received is what a loop has received from a channel.
type received struct {
	subscriber.Event
	channel string
	err     error // of the end of the loop
}

// run prints events until listen ends.
func (l *listening) run(ctx context.Context) int {
	// With -once, the cause is why a connection was lost.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := subscriber.Options{
		Logger: slog.New(&retries{l, cancel}),
		OnFull: subscriber.SkipWhenFull,
	}
	if l.to.secret != "" {
		o.Token = subscriber.SignWith(l.to.secret)
	}
	c, err := subscriber.Dial(ctx, l.to.socket, o)
	if err != nil {
		return l.ended(ctx, err)
	}
	defer c.Close()
	all := make(chan received)
	for _, channel := range l.channels {
		s, err := c.Subscribe(ctx, channel, l.options())
		var refused *subscriber.Error
		if errors.As(err, &refused) {
			err = fmt.Errorf("cannot listen to %s: %s", channel, refused.Message)
		}
		if err != nil {
			return l.ended(ctx, err)
		}
		l.say("listening to %s", s.Channel())
		go func() {
			for e, err := range s.Events() {
				select {
				case all <- received{e, s.Channel(), err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for left := len(l.channels); left > 0; {
		select {
		case r := <-all:
			done, err := l.receive(&r)
			switch {
			case done:
				return exitOK
			case errors.Is(err, subscriber.ErrClosed):
				left--
			case err != nil:
				return l.ended(ctx, err)
			}
		case <-ctx.Done():
			return l.ended(ctx, nil)
		}
	}
	return l.ended(ctx, errors.New("no channel is left"))
}

func (l *listening) options() *subscriber.SubscribeOptions {
	o := &subscriber.SubscribeOptions{
		Rewind:   l.rewind,
		Presence: true,
	}
	if l.member != nil {
		o.Data = l.member
	}
	return o
}

// ended returns the exit status after err, or after the end of ctx.
func (l *listening) ended(ctx context.Context, err error) int {
	if ctx.Err() != nil {
		if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
			return exitOK // it was interrupted
		}
	}
	return l.fail(exitFailed, l.explained(err))
}

// explained is an error of a subscriber.Client in the words of this program.
func (l *listening) explained(err error) error {
	var closed *subscriber.CloseError
	switch {
	case errors.As(err, &closed) && closed.Status != 0:
		return fmt.Errorf("%s answers %d", l.to.socket, closed.Status)
	case errors.Is(err, subscriber.ErrProtocol):
		return fmt.Errorf("this is not a pushy server: %w", err)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "subscriber: "))
}

// receive handles what was received. It reports whether all events have been printed.
func (l *listening) receive(r *received) (done bool, err error) {
	switch {
	case r.err != nil:
		return false, r.err
	case r.Kind == subscriber.KindEnded:
		l.say("the server ended the subscription to %s: %s", r.channel, r.Reason)
		return false, nil
	case r.Kind == subscriber.KindGap && r.Reason == "off":
		l.say("listening to %s again; what was published meanwhile is not printed", r.channel)
		return false, nil
	case r.Kind == subscriber.KindGap:
		l.say("%s: not all earlier events can be printed: %s", r.channel, r.Reason)
		return false, nil
	case r.Kind == subscriber.KindMembers:
		return false, nil
	}
	line, err := lineOf(&r.Event)
	if err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(l.stdout, "%s\n", line); err != nil {
		return false, err
	}
	l.events--
	return l.events == 0, nil
}

// lineOf returns an event as the server sends it (PROTOCOL.md, section 2).
func lineOf(e *subscriber.Event) ([]byte, error) {
	m := struct {
		Event   string          `json:"event"`
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
		Offset  uint64          `json:"offset,omitempty"`
		From    string          `json:"from,omitempty"`
	}{e.Name, e.Channel, e.Data, e.Position.Offset, e.From}
	for kind, name := range map[subscriber.Kind]string{
		subscriber.KindJoined:  "pushy:presence-add",
		subscriber.KindLeft:    "pushy:presence-quit",
		subscriber.KindUpdated: "pushy:presence-update",
	} {
		if e.Kind == kind {
			m.Event = name
			m.Data = fmt.Appendf(nil, `{"member":%s}`, e.Data)
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, err
	}
	return printableJSON(text.Bytes())
}

// retries is the log of a subscriber.Client, which has a line for each connection that is lost.
type retries struct {
	l      *listening
	cancel context.CancelCauseFunc
}

func (r *retries) Enabled(context.Context, slog.Level) bool { return true }

func (r *retries) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *retries) WithGroup(string) slog.Handler { return r }

func (r *retries) Handle(_ context.Context, record slog.Record) error {
	var lost error
	pause := time.Duration(-1)
	record.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "error":
			lost, _ = a.Value.Any().(error)
		case "pause":
			pause = a.Value.Duration()
		}
		return true
	})
	switch {
	case lost == nil || pause < 0:
	case r.l.once:
		r.cancel(lost)
	default:
		r.l.say("%v; reconnecting in %.1f s", r.l.explained(lost), pause.Seconds())
	}
	return nil
}

// isPrivate reports whether a channel is private on a server without Options.Channel.
func isPrivate(channel string) bool {
	lower := strings.ToLower(channel)
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-")
}
