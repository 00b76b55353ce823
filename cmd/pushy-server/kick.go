package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gopushy/pushy/backend"
)

const (
	kickHelp = `Remove a user, a connection, or all subscribers of a channel, on all nodes.

  pushy-server kick [flags] TARGET

TARGET is user: and the id of a user, conn: and the id of a connection, which is the
socketId of its client, or channel: and the name of a channel.

` + callHelp + idHelp + `  -reason TEXT       for the clients, at most 123 bytes. Default "Removed"
  -for D             also ban the user or the channel for this time, such as 24h or
                     90m, at most 8784h. By default clients can come back at once
  -until TIME        the same until a time, such as 2030-01-31T12:00:00Z. Use it in
                     a command with -id that you repeat: -for has another end then
  -json              print the result as JSON: {"closed":2,"nodes":3,"silent":[]}

` + changeHelp + `
  pushy-server kick -config config.json -reason Spam -for 24h user:42
`
	unbanHelp = `End the ban of a user or a channel.

  pushy-server unban [flags] TARGET

TARGET is user: and the id of a user, or channel: and the name of a channel.

` + callHelp + `  -json              print the result as JSON: {"lifted":true,"nodes":3,"silent":[]}

If there is no ban, it prints "not banned", and the exit status is 0, too. Nodes that
did not answer end the ban within 30 s of their return.
` + changeHelp + `
  pushy-server unban -config config.json user:42
`
	bansHelp = `List the bans of users and channels that stand.

  pushy-server bans [flags]

` + callHelp + `  -json              print each ban as a line of JSON, with times in seconds:
                     {"target":"user:42","reason":"Spam","since":…,"until":…}

The exit status is 0, 1 if the command failed, and 2 if the command line is wrong.

  pushy-server bans -config config.json | grep user:42
`
)

type kickResult struct {
	Closed int `json:"closed"`
	coverage
}

func (p *program) kick(args []string) int {
	c := p.newCall("kick", kickHelp)
	var k backend.Kick
	var life time.Duration
	var until string
	c.StringVar(&k.ID, "id", "", "")
	c.StringVar(&k.Reason, "reason", "", "")
	c.DurationVar(&life, "for", 0, "")
	c.StringVar(&until, "until", "", "")
	return c.run(args, 1, 1, "one TARGET", func(ctx context.Context, api *backend.Client) (err error) {
		k.Target = c.Arg(0)
		switch {
		case c.given("for") && c.given("until"):
			return c.usageError("-for and -until are both given")
		case c.given("for") && life < time.Second:
			return c.usageError("-for must be at least 1s")
		case c.given("for"):
			k.Until = time.Now().Add(life)
		case c.given("until"):
			if k.Until, err = time.Parse(time.RFC3339, until); err != nil {
				return c.usageError("-until must be a time such as 2030-01-31T12:00:00Z, not %q", until)
			}
		}
		result, err := api.Kick(ctx, k)
		nodes := c.answered(result.Coverage)
		if err != nil && result.Nodes == 0 {
			return err
		}
		text := "closed " + plural(result.Closed, "connection")
		if strings.HasPrefix(k.Target, "channel:") {
			text = "ended " + plural(result.Closed, "subscription")
		}
		printErr := c.print(text+" on "+nodes, kickResult{result.Closed, coverageOf(result.Coverage)})
		return firstError(err, printErr)
	})
}

type unbanResult struct {
	Lifted bool `json:"lifted"`
	coverage
}

func (p *program) unban(args []string) int {
	c := p.newCall("unban", unbanHelp)
	return c.run(args, 1, 1, "one TARGET", func(ctx context.Context, api *backend.Client) error {
		of, lifted, err := api.Unban(ctx, c.Arg(0))
		nodes := c.answered(of)
		if err != nil && of.Nodes == 0 {
			return err
		}
		text := "not banned"
		if lifted {
			text = "ended the ban on " + nodes
		}
		return firstError(err, c.print(text, unbanResult{lifted, coverageOf(of)}))
	})
}

type listedBan struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
	Since  int64  `json:"since"` // Unix seconds
	Until  int64  `json:"until"` // Unix seconds
}

func (p *program) bans(args []string) int {
	c := p.newCall("bans", bansHelp)
	return c.run(args, 0, 0, "no arguments", func(ctx context.Context, api *backend.Client) error {
		bans, err := api.Bans(ctx)
		for _, b := range bans {
			text := fmt.Sprintf("%s  until %s  %s", b.Target, b.Until.UTC().Format(time.RFC3339), b.Reason)
			printErr := c.print(text, listedBan{
				Target: b.Target,
				Reason: b.Reason,
				Since:  b.Since.Unix(),
				Until:  b.Until.Unix(),
			})
			if printErr != nil {
				return printErr
			}
		}
		return err
	})
}
