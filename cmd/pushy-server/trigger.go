package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/gopushy/pushy/trigger"
)

const triggerHelp = `Publish an event to the subscribers of a channel.

  pushy-server trigger [flags] CHANNEL EVENT [DATA]

DATA is a JSON object or array. With - it is read from standard input. Default {}.

` + targetHelp + `  -except ID         do not send it to the connection with this socketId
  -timeout D         time limit of all attempts together, such as 5s. Default 30s
  -tries N           maximum number of attempts. Default: no limit but the time

It prints "delivered", or "nobody is subscribed" if the channel has no subscribers.
The exit status is 0 for both, 1 if the event was not published, 2 if the command
line is wrong, and 3 if the event was sent and no answer arrived, so that it may or
may not have been published.

  echo '{"text":"Hello"}' | pushy-server trigger -config config.json lobby news -
`

func (p *program) trigger(args []string) int {
	var to target
	options := trigger.Options{}
	var except string
	f := flag.NewFlagSet("trigger", flag.ContinueOnError)
	to.flags(f)
	f.StringVar(&except, "except", "", "")
	f.DurationVar(&options.Timeout, "timeout", 30*time.Second, "")
	f.IntVar(&options.Tries, "tries", 0, "")
	if status, done := p.parse(f, args, triggerHelp); done {
		return status
	}
	if f.NArg() < 2 || f.NArg() > 3 {
		return p.fail(exitUsage, errors.New("trigger: give a channel, an event and at most one DATA (-h explains)"))
	}
	if err := to.resolve(p.getenv); err != nil {
		return p.fail(exitUsage, err)
	}
	if to.secret == "" {
		return p.fail(exitUsage, errors.New("trigger: no secret key: set PUSHY_SECRET_KEY, -config or -secret-file"))
	}
	data, err := p.triggerData(f.Arg(2))
	if err != nil {
		return p.fail(exitUsage, err)
	}
	options.URL, options.SecretKey = to.url, to.secret
	publisher, err := trigger.New(options)
	if err != nil {
		return p.fail(exitUsage, err)
	}
	defer publisher.CloseIdleConnections()
	var with []trigger.PublishOption
	if except != "" {
		with = append(with, trigger.Except(except))
	}
	ctx, stop := p.untilSignal()
	defer stop()
	delivered, err := publisher.Publish(ctx, f.Arg(0), f.Arg(1), data, with...)
	switch {
	case errors.Is(err, trigger.ErrOutcomeUnknown):
		return p.fail(exitUnknown, err)
	case err != nil:
		return p.fail(exitFailed, err)
	case delivered:
		fmt.Fprintln(p.stdout, "delivered")
	default:
		fmt.Fprintln(p.stdout, "nobody is subscribed")
	}
	return exitOK
}

// triggerData reads DATA, from standard input if it is "-".
func (p *program) triggerData(text string) (json.RawMessage, error) {
	raw := []byte(text)
	if text == "-" {
		var err error
		if raw, err = io.ReadAll(p.stdin); err != nil {
			return nil, fmt.Errorf("trigger: standard input: %w", err)
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
		return nil, fmt.Errorf("trigger: DATA:%w", err)
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
