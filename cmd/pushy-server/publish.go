package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/gopushy/pushy/backend"
)

const publishHelp = `Publish an event to the subscribers of a channel.

  pushy-server publish [flags] CHANNEL EVENT [DATA]

DATA is JSON. With - it is read from standard input. Default {}.

` + targetHelp + `  -except ID         do not send it to the connection with this socketId
  -id ID             1 to 64 of A-Z a-z 0-9 _ -. The server carries out a request
                     with the same ID and content once in 20 minutes. Default: random
  -timeout D         time limit of all attempts together, such as 5s. Default 30s
  -tries N           maximum number of attempts. Default: no limit but the time
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
	var to target
	options := backend.Options{}
	var except, id string
	var asJSON bool
	f := flag.NewFlagSet("publish", flag.ContinueOnError)
	to.flags(f)
	f.StringVar(&except, "except", "", "")
	f.StringVar(&id, "id", "", "")
	f.DurationVar(&options.Timeout, "timeout", 30*time.Second, "")
	f.IntVar(&options.Tries, "tries", 0, "")
	f.BoolVar(&asJSON, "json", false, "")
	if status, done := p.parse(f, args, publishHelp); done {
		return status
	}
	if f.NArg() < 2 || f.NArg() > 3 {
		return p.fail(exitUsage, errors.New("publish: give a channel, an event and at most one DATA (-h explains)"))
	}
	if err := to.resolve(p.getenv); err != nil {
		return p.fail(exitUsage, err)
	}
	if to.secret == "" {
		return p.fail(exitUsage, errors.New("publish: no secret key: set PUSHY_SECRET_KEY, -config or -secret-file"))
	}
	data, err := p.publishData(f.Arg(2))
	if err != nil {
		return p.fail(exitUsage, err)
	}
	options.URL, options.SecretKey = to.url, to.secret
	client, err := backend.New(options)
	if err != nil {
		return p.fail(exitUsage, err)
	}
	defer client.CloseIdleConnections()
	event := backend.Event{
		Channels: []string{f.Arg(0)},
		Name:     f.Arg(1),
		Data:     data,
	}
	if except != "" {
		event.Except = []string{except}
	}
	ctx, stop := p.untilSignal()
	defer stop()
	published, err := client.PublishAll(ctx, backend.Batch{Events: []backend.Event{event}, ID: id})
	switch {
	case errors.Is(err, backend.ErrOutcomeUnknown):
		return p.fail(exitUnknown, err)
	case err != nil:
		return p.fail(exitFailed, err)
	}
	var result publishResult
	for _, receipt := range published.Events[0] {
		result = publishResult{receipt.Received, receipt.Position.String()}
	}
	switch {
	case asJSON:
		text, _ := json.Marshal(result) // cannot fail
		fmt.Fprintln(p.stdout, string(text))
	case result.Received:
		fmt.Fprintln(p.stdout, "delivered")
	default:
		fmt.Fprintln(p.stdout, "nobody is subscribed")
	}
	return exitOK
}

// publishData reads DATA, from standard input if it is "-".
func (p *program) publishData(text string) (json.RawMessage, error) {
	raw := []byte(text)
	if text == "-" {
		var err error
		if raw, err = io.ReadAll(p.stdin); err != nil {
			return nil, fmt.Errorf("publish: standard input: %w", err)
		}
	}
	if text == "" {
		raw = []byte("{}")
	}
	if err := checkSyntax(raw); err != nil {
		var f *fault
		if errors.As(err, &f) {
			err = fmt.Errorf("%s: %s", position(raw, f.at), f.text)
		}
		return nil, fmt.Errorf("publish: DATA:%w", err)
	}
	return raw, nil
}

// untilSignal returns a context that is canceled by the first signal.
func (p *program) untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-p.signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
