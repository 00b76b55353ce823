package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy"
)

const listenHelp = `Print the events of channels.

  pushy-server listen [flags] CHANNEL...

Each event is one line, the JSON that the server sends:
{"event":"news","channel":"lobby","data":{"text":"Hello"}}. In it, characters that
a terminal obeys or that cannot be seen are written as \u and four digits. What
happens to the connection goes to standard error. Channels that begin with
private- need the secret key.

` + targetHelp + `  -member JSON       presence data for private channels, such as
                     '{"name":"Ann"}': their members see it join and leave
  -n N               exit after N events
  -once              exit when the connection is lost. By default it is made
                     again; events that were published meanwhile are missed

It exits when interrupted. The exit status is 0 after that and after N events, 1 if
the server refuses, cannot be reached (with -once) or ends all subscriptions, 2 if
the command line is wrong.

  pushy-server listen -config config.json lobby private-staff | jq .data
`

// Bounds of the pause before the next connection is tried.
const (
	shortestPause = 500 * time.Millisecond
	longestPause  = 20 * time.Second
)

// listening is a run of listen.
type listening struct {
	*program
	to       target
	channels []string
	member   json.RawMessage
	events   int // still to print; below zero is no end
	once     bool
}

// refusal is what another connection would not change.
type refusal struct{ error }

func (p *program) listen(args []string) int {
	l := listening{program: p}
	var member string
	f := flag.NewFlagSet("listen", flag.ContinueOnError)
	l.to.flags(f)
	f.StringVar(&member, "member", "", "")
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

// run connects until there is nothing more to do.
func (l *listening) run(ctx context.Context) int {
	most := shortestPause
	for {
		subscribed, err := l.connection(ctx)
		var final refusal
		switch {
		case err == nil, ctx.Err() != nil:
			return exitOK
		case errors.As(err, &final), l.once:
			return l.fail(exitFailed, err)
		case subscribed:
			most = shortestPause
		}
		pause := rand.N(most) + most/4
		l.say("%v; trying again in %.1f s", err, pause.Seconds())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return exitOK
		}
		most = min(2*most, longestPause)
	}
}

// connection listens for the life of one connection. A nil error is that all
// events have come; subscribed, that the server let us in.
func (l *listening) connection(ctx context.Context) (subscribed bool, err error) {
	c, err := dialLink(ctx, l.to.socket)
	var status ws.StatusError
	if errors.As(err, &status) && status >= 400 && status < 500 {
		return false, refusal{fmt.Errorf("%s answers %d", l.to.socket, int(status))}
	}
	if err != nil {
		return false, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in := map[string]bool{} // by the name that the server gives
	for {
		text, err := c.receive()
		if err != nil {
			return subscribed, err
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			return subscribed, refusal{fmt.Errorf("this is not a pushy server: it sends %.60q: %w", text, err)}
		}
		switch m.Event {
		case "pushy:connect":
			if err := l.subscribe(c, m.Data.SocketID); err != nil {
				return false, err
			}
		case "pushy:subscription-success":
			in[m.Data.Channel] = true
			l.say("listening to %s", m.Data.Channel)
			subscribed = true
		case "pushy:subscription-failed", "pushy:subscription-needauth", "pushy:error":
			why := cmp.Or(m.Data.Reason, m.Data.Message, "it takes a token")
			err := fmt.Errorf("cannot listen to %s: %s", cmp.Or(m.Data.Channel, m.Data.ID), why)
			if m.Data.Reason == "Temporarily unavailable" {
				return subscribed, err
			}
			return subscribed, refusal{err}
		case "pushy:subscription-end":
			delete(in, m.Data.Channel)
			l.say("the server ends the subscription to %s: %s", m.Data.Channel, m.Data.Reason)
			if len(in) == 0 {
				return subscribed, refusal{errors.New("no channel is left")}
			}
		default:
			if m.Channel == "" {
				continue // for this connection alone
			}
			line, err := printableJSON(text)
			if err != nil {
				return subscribed, refusal{err}
			}
			if _, err := fmt.Fprintf(l.stdout, "%s\n", line); err != nil {
				return subscribed, refusal{err}
			}
			if l.events--; l.events == 0 {
				return subscribed, nil
			}
		}
	}
}

// message is what listen reads of the server's messages.
type message struct {
	Event   string
	Channel string
	Data    messageData
}

type messageData struct{ SocketID, Channel, Reason, Message, ID string }

// UnmarshalJSON leaves an event's data, which may be anything, unread.
func (d *messageData) UnmarshalJSON(raw []byte) error {
	type plain messageData
	_ = json.Unmarshal(raw, (*plain)(d))
	return nil
}

// isPrivate reports whether a channel is private on a server without Options.Channel.
func isPrivate(channel string) bool {
	lower := strings.ToLower(channel)
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-")
}

// subscribe asks for all channels. The command's id, which an error carries back,
// is the channel.
func (l *listening) subscribe(c *link, connID string) error {
	for _, channel := range l.channels {
		data := map[string]any{"channel": channel}
		if isPrivate(channel) {
			var member any
			if l.member != nil {
				member, data["data"] = l.member, l.member
			}
			auth, err := pushy.SignChannel(l.to.secret, connID, channel, member)
			if err != nil {
				return refusal{err}
			}
			data["auth"] = auth
		}
		if err := c.send(map[string]any{"command": "subscribe", "id": channel, "data": data}); err != nil {
			return err
		}
	}
	return nil
}
