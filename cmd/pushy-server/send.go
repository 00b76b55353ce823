package main

import (
	"context"
	"strings"

	"github.com/gopushy/pushy/backend"
)

const sendHelp = `Send a direct message to all connections of a user, or to one connection.

  pushy-server send [flags] TARGET EVENT [DATA]

TARGET is user: and the id of a user, or conn: and the id of a connection, which is the
socketId of its client. DATA is JSON. With - it is read from standard input. Default {}.
The message is not stored: a user without a connection does not receive it.

` + callHelp + idHelp + `  -json              print the result as JSON: {"sent":2,"nodes":3,"silent":[]}

` + changeHelp + `
  pushy-server send -config config.json user:42 order '{"state":"paid"}'
`

type sendResult struct {
	Sent int `json:"sent"`
	coverage
}

func (p *program) send(args []string) int {
	c := p.newCall("send", sendHelp)
	var m backend.Message
	c.StringVar(&m.ID, "id", "", "")
	want := "a TARGET, an event and at most one DATA"
	return c.run(args, 2, 3, want, func(ctx context.Context, api *backend.Client) error {
		kind, name, _ := strings.Cut(c.Arg(0), ":")
		switch {
		case name == "" || kind != "user" && kind != "conn":
			return c.usageError("TARGET must be like user:42 or conn:ID, not %q", c.Arg(0))
		case kind == "user":
			m.User = name
		default:
			m.Conn = name
		}
		data, err := c.data(c.Arg(2))
		if err != nil {
			return err
		}
		m.Event = c.Arg(1)
		m.Data = data
		result, err := api.Send(ctx, m)
		nodes := c.answered(result.Coverage)
		if err != nil && result.Nodes == 0 {
			return err
		}
		text := "sent to " + plural(result.Sent, "connection") + " on " + nodes
		return firstError(err, c.print(text, sendResult{result.Sent, coverageOf(result.Coverage)}))
	})
}
