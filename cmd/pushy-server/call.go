package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/backend"
)

const (
	callHelp = targetHelp + `  -timeout D         time limit of all attempts together, such as 5s. Default 30s
  -tries N           maximum number of attempts. Default: no limit but the time
`
	idHelp = `  -id ID             1 to 64 of A-Z a-z 0-9 _ -. The server carries out a request
                     with the same ID and content once in 20 minutes. Default: random
`
	// coverageHelp is about the commands that ask all nodes.
	coverageHelp = `If some nodes did not answer within 500 ms, their ids are printed to standard error,
and the exit status is 4: what only they have is missing. The exit status is 0 if all
have answered, 1 if the command failed, and 2 if the command line is wrong.
`
	changeHelp = `If some nodes did not answer within 500 ms, their ids are printed to standard error,
and the exit status is 4: whether they have carried it out is not known. The exit
status is 0 if all have answered, 1 if the command failed, 2 if the command line is
wrong, and 3 if it was sent and no answer arrived, so that it may or may not have been
carried out.
`
)

// call is a run of a command that calls the signed API.
type call struct {
	*program
	*flag.FlagSet
	help    string
	to      target
	options backend.Options
	asJSON  bool
	silent  []string // the nodes that did not answer
}

// newCall returns a call with the flags that all of them have.
func (p *program) newCall(name, help string) *call {
	c := &call{
		program: p,
		FlagSet: flag.NewFlagSet(name, flag.ContinueOnError),
		help:    help,
	}
	c.to.flags(c.FlagSet)
	c.DurationVar(&c.options.Timeout, "timeout", 30*time.Second, "")
	c.IntVar(&c.options.Tries, "tries", 0, "")
	c.BoolVar(&c.asJSON, "json", false, "")
	return c
}

// usage is an error of the command line.
type usage struct{ error }

// run parses the flags, checks the number of arguments, and calls do. want says which arguments
// the command has. The result is the exit status.
func (c *call) run(args []string, least, most int, want string, do func(context.Context, *backend.Client) error) int {
	if status, done := c.parse(c.FlagSet, args, c.help); done {
		return status
	}
	client, err := c.client(least, most, want)
	if err != nil {
		return c.fail(exitUsage, err)
	}
	defer client.CloseIdleConnections()
	ctx, stop := c.untilSignal()
	defer stop()
	err = do(ctx, client)
	if len(c.silent) > 0 {
		slices.Sort(c.silent)
		c.say("nodes that did not answer: %s", strings.Join(slices.Compact(c.silent), ", "))
	}
	switch {
	case errors.As(err, &usage{}):
		return c.fail(exitUsage, err)
	case errors.Is(err, backend.ErrOutcomeUnknown):
		return c.fail(exitUnknown, err)
	case err != nil:
		return c.fail(exitFailed, err)
	case len(c.silent) > 0:
		return exitSilent
	}
	return exitOK
}

func (c *call) client(least, most int, want string) (*backend.Client, error) {
	if c.NArg() < least || c.NArg() > most {
		return nil, fmt.Errorf("%s: give %s (-h explains)", c.Name(), want)
	}
	if err := c.to.resolve(c.getenv); err != nil {
		return nil, err
	}
	if c.to.secret == "" {
		return nil, fmt.Errorf("%s: no secret key: set PUSHY_SECRET_KEY, -config or -secret-file", c.Name())
	}
	c.options.URL = c.to.url
	c.options.SecretKey = c.to.secret
	return backend.New(c.options)
}

// usageError returns an error about the command line.
func (c *call) usageError(format string, args ...any) error {
	return usage{fmt.Errorf("%s: %w", c.Name(), fmt.Errorf(format, args...))}
}

// given reports whether a flag is on the command line.
func (c *call) given(name string) bool {
	given := false
	c.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// answered notes the nodes that did not answer, and returns how many have, for people.
func (c *call) answered(of backend.Coverage) string {
	c.silent = append(c.silent, of.Silent...)
	return plural(of.Nodes, "node")
}

// print prints a line: text for people, or with -json the value as JSON.
func (c *call) print(text string, value any) error {
	if !c.asJSON {
		_, err := fmt.Fprintln(c.stdout, printable(text))
		return err
	}
	raw, err := json.Marshal(value)
	if err == nil {
		raw, err = printableJSON(raw)
	}
	if err == nil {
		_, err = fmt.Fprintf(c.stdout, "%s\n", raw)
	}
	return err
}

// coverage is a backend.Coverage as the API sends it.
type coverage struct {
	Nodes  int      `json:"nodes"`
	Silent []string `json:"silent"`
}

func coverageOf(c backend.Coverage) coverage {
	return coverage{
		Nodes:  c.Nodes,
		Silent: append([]string{}, c.Silent...),
	}
}

// plural returns a number and a noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// data reads DATA, from standard input if it is "-".
func (c *call) data(text string) (json.RawMessage, error) {
	raw := []byte(text)
	if text == "-" {
		var err error
		if raw, err = io.ReadAll(c.stdin); err != nil {
			return nil, c.usageError("standard input: %w", err)
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
		return nil, c.usageError("DATA:%w", err)
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
