// Command pushy-types writes a TypeScript declaration file from the Go types of a program's events, so that pages
// cannot use events or fields that the server does not have:
//
//	go run github.com/gopushy/pushy/cmd/pushy-types ./events
//
// It reads the packages that are named, and finds the structs that they mark with pushy.Events:
//
//	type ChatEvents struct {
//		Said Line `json:"said"` // rt.Publish(ctx, "chat", "said", Line{…})
//	}
//
//	var _ pushy.Events[ChatEvents]
//
// For each of them the file has an interface of the same name, beginning with an upper-case letter, for
// pushy.channel<ChatEvents>("chat") of the browser client and the hooks and stores of its bindings; and one for each
// type that is used in it. The declarations say what encoding/json writes:
//
//   - Strings, numbers, booleans, structs, slices, arrays and maps are what they are in JSON. A []byte, a time.Time
//     and a type with MarshalText are strings, and a time.Duration is a number of nanoseconds.
//   - The json tag gives a field its name; "-" omits it, ",string" makes it a string, and ",omitempty" and
//     ",omitzero" make it optional. The fields of embedded structs are those of the struct itself, as in Go.
//   - A pointer, slice or map without ",omitempty" can be null. Tag the field pushy:"nonnil" if your code never leaves
//     it nil.
//   - An event's data can be any of these types, and its name must be one that Publish accepts.
//
// Everything else, such as an interface, a func or a type with MarshalJSON, is an error that names the field and its
// place in the code, and no file is written.
//
// The flags are:
//
//	-o file      the file to write; by default NAME.d.ts in the package's directory, where NAME is the package's
//	             name. "-" is the standard output. It is needed if several packages are named.
//	-type a,b    also declares these types of the packages, such as those of commands or of presence data
//	-check       writes nothing, and fails if the file is not up to date
//
// The packages must compile. pushy-types needs the go command, and no other package than pushy's own and the standard
// library.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 1 if the types cannot be declared or the file is not up to date, 2 for wrong arguments.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("pushy-types", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: pushy-types [-o file] [-type name,name] [-check] package...")
		flags.PrintDefaults()
	}
	out := flags.String("o", "",
		"the file to write; \"-\" is the standard output (default NAME.d.ts in the package's directory)")
	more := flags.String("type", "", "names of types that are also declared, separated by commas")
	check := flags.Bool("check", false, "write nothing, and fail if the file is not up to date")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return 2
	}
	if err := generate(flags.Args(), *out, *more, *check, stdout); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "pushy-types: %s\n", strings.TrimRight(line, "\n"))
		}
		return 1
	}
	return 0
}

func generate(patterns []string, out, more string, check bool, stdout io.Writer) error {
	packages, err := load(patterns)
	if err != nil {
		return err
	}
	if out == "" {
		if len(packages) > 1 {
			return fmt.Errorf("%d packages are named: -o must name the file", len(packages))
		}
		out = filepath.Join(packages[0].dir, packages[0].types.Name()+".d.ts")
	}
	text, err := declare(packages, split(more))
	if err != nil {
		return err
	}
	if out == "-" {
		_, err := stdout.Write(text)
		return err
	}
	if !check {
		return os.WriteFile(out, text, 0o644)
	}
	old, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	// A checkout on Windows can have other line ends.
	if !bytes.Equal(bytes.ReplaceAll(old, []byte("\r\n"), []byte("\n")), text) {
		return fmt.Errorf("%s is not up to date: run pushy-types without -check", out)
	}
	return nil
}

func split(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
