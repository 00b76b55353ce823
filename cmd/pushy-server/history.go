package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gopushy/pushy/backend"
)

const (
	historyHelp = `Print events that a channel keeps, the oldest first.

  pushy-server history [flags] CHANNEL

By default it prints the newest ones. Each line has the offset, the time, the name and
the data of an event.

` + callHelp + `  -before OFFSET     the newest events with a lower offset
  -after OFFSET      the oldest events with a higher offset
  -limit N           at most N events, up to 500. Default 50. Fewer are printed if
                     their data has more than 256 KiB
  -json              print each event as a line of JSON: {"event":"said",
                     "data":{…},"offset":980,"epoch":"k3Xa9Q","time":…}

If more events are kept in that direction, it says to standard error how to print them.
The exit status is 0, 1 if the command failed or the channel keeps no events, and 2 if
the command line is wrong.

  pushy-server history -config config.json -limit 10 chat
`
	positionHelp = `Print the position of the last event of a channel that keeps events.

  pushy-server position [flags] CHANNEL

` + callHelp + `  -json              print it as JSON: {"position":"k3Xa9Q.1029"}

The exit status is 0, 1 if the command failed or the channel keeps no events, and 2 if
the command line is wrong.

  pushy-server position -config config.json chat
`
)

type pastEvent struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
	Epoch  string          `json:"epoch"`
	Time   int64           `json:"time"` // Unix milliseconds
}

func (p *program) history(args []string) int {
	c := p.newCall("history", historyHelp)
	var o backend.HistoryOptions
	c.Uint64Var(&o.Before, "before", 0, "")
	c.Uint64Var(&o.After, "after", 0, "")
	c.IntVar(&o.Limit, "limit", 0, "")
	return c.run(args, 1, 1, "one channel", func(ctx context.Context, api *backend.Client) error {
		for flag, offset := range map[string]uint64{"before": o.Before, "after": o.After} {
			if c.given(flag) && offset == 0 {
				return c.usageError("-%s must be above 0", flag)
			}
		}
		past, err := api.History(ctx, c.Arg(0), o)
		if err != nil {
			return err
		}
		for _, e := range past.Events {
			at := e.Time.UTC().Format(time.RFC3339)
			err := c.print(fmt.Sprintf("%d  %s  %s  %s", e.Position.Offset, at, e.Name, e.Data), pastEvent{
				Event:  e.Name,
				Data:   e.Data,
				Offset: e.Position.Offset,
				Epoch:  e.Position.Epoch,
				Time:   e.Time.UnixMilli(),
			})
			if err != nil {
				return err
			}
		}
		if n := len(past.Events); past.More && n > 0 {
			flag := fmt.Sprintf("-before %d", past.Events[0].Position.Offset)
			if o.After > 0 {
				flag = fmt.Sprintf("-after %d", past.Events[n-1].Position.Offset)
			}
			c.say("more events are kept; %s prints the next ones", flag)
		}
		return nil
	})
}

type positionResult struct {
	Position string `json:"position"`
}

func (p *program) position(args []string) int {
	c := p.newCall("position", positionHelp)
	return c.run(args, 1, 1, "one channel", func(ctx context.Context, api *backend.Client) error {
		at, err := api.Position(ctx, c.Arg(0))
		if err != nil {
			return err
		}
		return c.print(at.String(), positionResult{at.String()})
	})
}
