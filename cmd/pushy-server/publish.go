package main

import (
	"context"

	"github.com/gopushy/pushy/backend"
)

const publishHelp = `Publish an event to the subscribers of a channel.

  pushy-server publish [flags] CHANNEL EVENT [DATA]

DATA is JSON. With - it is read from standard input. Default {}.

` + callHelp + idHelp + `  -except ID         do not send it to the connection with this socketId
  -json              print the result as JSON

It prints "delivered", or "nobody is subscribed" if the channel has no subscribers.
The exit status is 0 for both, 1 if the event was not published, 2 if the command
line is wrong, and 3 if the event was sent and no answer arrived, so that it may or
may not have been published.

  echo '{"text":"Hello"}' | pushy-server publish -config config.json lobby news -
`

// publishResult is what publish prints with -json.
type publishResult struct {
	Received bool   `json:"received"`
	Position string `json:"position,omitempty"`
}

func (p *program) publish(args []string) int {
	c := p.newCall("publish", publishHelp)
	var except string
	var batch backend.Batch
	c.StringVar(&except, "except", "", "")
	c.StringVar(&batch.ID, "id", "", "")
	want := "a channel, an event and at most one DATA"
	return c.run(args, 2, 3, want, func(ctx context.Context, api *backend.Client) error {
		data, err := c.data(c.Arg(2))
		if err != nil {
			return err
		}
		event := backend.Event{
			Channels: []string{c.Arg(0)},
			Name:     c.Arg(1),
			Data:     data,
		}
		if except != "" {
			event.Except = []string{except}
		}
		batch.Events = []backend.Event{event}
		published, err := api.PublishAll(ctx, batch)
		if err != nil {
			return err
		}
		for _, receipt := range published.Events[0] {
			text := "nobody is subscribed"
			if receipt.Received {
				text = "delivered"
			}
			return c.print(text, publishResult{receipt.Received, receipt.Position.String()})
		}
		return nil
	})
}
