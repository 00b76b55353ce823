package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/gopushy/pushy"
)

const listenHelp = `Print the events of channels.

  pushy-server listen [flags] CHANNEL...

Each event is printed as one line, the JSON that the server sends:
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

// Bounds of the pause before the next attempt to connect.
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
	rewind   int
	events   int // number of events still to print; below zero: no limit
	once     bool
	places   map[string]*place // by the channel's name in lower case

	// For the first attempt after a connection, if the server has sent them.
	within   time.Duration
	returnIn *time.Duration
}

// maxRewind is the largest number of events that a server replays.
const maxRewind = 500

// refusal is an error that would occur again after a reconnect.
type refusal struct{ error }

func (p *program) listen(args []string) int {
	l := listening{program: p, places: map[string]*place{}}
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

// run connects, and reconnects, until listen ends.
func (l *listening) run(ctx context.Context) int {
	most := 2 * shortestPause
	for {
		subscribed, err := l.connection(ctx)
		var final refusal
		pause := shortestPause + rand.N(most-shortestPause)
		most = min(2*most, longestPause)
		switch {
		case err == nil, ctx.Err() != nil:
			return exitOK
		case errors.As(err, &final), l.once:
			return l.fail(exitFailed, err)
		case subscribed && (l.within > 0 || l.returnIn != nil):
			pause = l.returnPause(err)
			most = 2 * shortestPause
		case subscribed:
			pause = shortestPause + rand.N(shortestPause)
			most = 2 * shortestPause
		}
		l.say("%v; reconnecting in %.1f s", err, pause.Seconds())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return exitOK
		}
	}
}

// returnPause returns the pause before the first attempt after a connection (PROTOCOL.md,
// section 2).
func (l *listening) returnPause(err error) time.Duration {
	most := 60 * time.Second
	if l.returnIn != nil {
		return min(*l.returnIn, most)
	}
	if !errors.As(err, &closed{}) {
		most = 5 * time.Second // there was no close frame
	}
	return rand.N(min(max(l.within, time.Second), most))
}

// connection listens until one connection ends. The error is nil if all events have
// arrived. subscribed reports whether the server accepted a subscription.
func (l *listening) connection(ctx context.Context) (subscribed bool, err error) {
	c, err := dialLink(ctx, l.to.socket+"?v=2")
	var status ws.StatusError
	if errors.As(err, &status) && status >= 400 && status < 500 {
		return false, refusal{fmt.Errorf("%s answers %d", l.to.socket, int(status))}
	}
	if err != nil {
		return false, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in := map[string]bool{}    // by the channel's name as the server sends it
	waiting := len(l.channels) // the number of answers that are missing
	for {
		text, err := c.receive()
		var end closed
		switch {
		case errors.As(err, &end) && end.code == ws.StatusMessageTooBig && waiting > 0:
			return subscribed, refusal{err} // it would send the same command again
		case err != nil:
			return subscribed, err
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			return subscribed, refusal{fmt.Errorf("this is not a pushy server: it sends %.60q: %w", text, err)}
		}
		switch m.Event {
		case "pushy:connect":
			l.within, l.returnIn = m.Data.ReturnWithin.duration(), nil
			if err := l.subscribe(c, m.Data.SocketID); err != nil {
				return false, err
			}
		case "pushy:return":
			l.within = m.Data.ReturnWithin.duration()
		case "pushy:drain":
			ms := milliseconds(-1)
			if err := json.Unmarshal(m.Data.ReturnIn, &ms); err == nil && ms >= 0 {
				in := ms.duration()
				l.returnIn = &in
			}
		case "pushy:subscription-success":
			in[m.Data.Channel] = true
			waiting--
			l.say("listening to %s", m.Data.Channel)
			if m.Data.Reason != "" {
				l.say("%s: not all earlier events can be printed: %s", m.Data.Channel, m.Data.Reason)
			}
			l.place(m.Data.Channel).subscribed(m.Data)
			subscribed = true
		case "pushy:subscription-failed", "pushy:subscription-needauth", "pushy:error":
			why := cmp.Or(m.Data.Reason, m.Data.Message, "it needs a token")
			err := fmt.Errorf("cannot listen to %s: %s", cmp.Or(m.Data.Channel, m.Data.ID), why)
			if m.Data.Reason == "Temporarily unavailable" {
				return subscribed, err
			}
			return subscribed, refusal{err}
		case "pushy:subscription-end":
			delete(in, m.Data.Channel)
			l.say("the server ended the subscription to %s: %s", m.Data.Channel, m.Data.Reason)
			if len(in) == 0 {
				return subscribed, refusal{errors.New("no channel is left")}
			}
		default:
			if m.Channel == "" {
				continue // a message for this connection only
			}
			line, err := printableJSON(text)
			if err != nil {
				return subscribed, refusal{err}
			}
			if _, err := fmt.Fprintf(l.stdout, "%s\n", line); err != nil {
				return subscribed, refusal{err}
			}
			l.place(m.Channel).received(m)
			if l.events--; l.events == 0 {
				return subscribed, nil
			}
		}
	}
}

// message has the fields of the server's messages that listen needs.
type message struct {
	Event   string
	Channel string
	Data    messageData
	Offset  uint64
}

type messageData struct {
	SocketID, Channel, Reason, Message, ID string

	Epoch     string
	Offset    uint64
	Recovered bool
	Replay    int

	ReturnWithin milliseconds
	ReturnIn     json.RawMessage
}

// milliseconds is a time that the server has sent.
type milliseconds float64

func (ms milliseconds) duration() time.Duration {
	return time.Duration(min(ms, milliseconds(math.MaxInt32))) * time.Millisecond
}

// UnmarshalJSON ignores errors, because the data of an event can be any JSON value.
func (d *messageData) UnmarshalJSON(raw []byte) error {
	type plain messageData
	_ = json.Unmarshal(raw, (*plain)(d))
	return nil
}

// place returns the place of a channel.
func (l *listening) place(channel string) *place {
	name := strings.ToLower(channel)
	if l.places[name] == nil {
		l.places[name] = &place{}
	}
	return l.places[name]
}

// isPrivate reports whether a channel is private on a server without Options.Channel.
func isPrivate(channel string) bool {
	lower := strings.ToLower(channel)
	return strings.HasPrefix(lower, "private-") || strings.HasPrefix(lower, "presence-")
}

// subscribe sends a command for each channel. The id of the command, which the server
// returns in an error, is the channel.
func (l *listening) subscribe(c *link, connID string) error {
	for _, channel := range l.channels {
		data := map[string]any{"channel": channel}
		if since := l.place(channel).last; since != nil {
			data["since"] = since
		}
		if l.rewind > 0 {
			data["rewind"] = l.rewind
		}
		if isPrivate(channel) {
			var member any
			if l.member != nil {
				member, data["data"] = l.member, l.member
			}
			auth, err := pushy.SignToken(l.to.secret, pushy.Token{
				Channels: []string{channel},
				Conn:     connID,
				Data:     member,
			})
			if err != nil { // data that a token of version 2 cannot have, such as 8 KiB
				auth, err = pushy.SignChannel(l.to.secret, connID, channel, member)
			}
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
