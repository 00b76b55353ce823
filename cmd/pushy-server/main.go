package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/gopushy/pushy"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitUnknown = 3 // of publish, send, kick and unban: it may have been carried out
	exitSilent  = 4 // of the commands that ask all nodes: some nodes did not answer
)

func main() {
	// Signals are received from here on, so that one during the start is not lost.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	p := program{getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, signals: signals}
	os.Exit(p.run(os.Args[1:]))
}

// program has everything that a run depends on, so that tests can replace it.
type program struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal
}

// run returns the exit status.
func (p *program) run(args []string) int {
	if len(args) > 0 {
		if c, ok := commandOf(args[0]); ok {
			return c.run(p, args[1:])
		}
		switch args[0] {
		case "trigger":
			return p.fail(exitUsage, errors.New("trigger is now pushy-server publish, with the same flags and arguments"))
		case "version":
			return p.version(args[1:])
		case "help":
			return p.help(args[1:])
		}
	}
	var check, showVersion bool
	flags := flag.NewFlagSet("pushy-server", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&check, "check", false, "")
	flags.BoolVar(&showVersion, "version", false, "")
	var files []string
	for rest := args; ; {
		err := flags.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(p.stdout, manual())
			return exitOK
		}
		if err != nil {
			return p.fail(exitUsage, err)
		}
		if flags.NArg() == 0 {
			break
		}
		files = append(files, flags.Arg(0))
		rest = flags.Args()[1:]
	}
	if showVersion {
		return p.version(nil)
	}
	if len(files) != 1 {
		return p.fail(exitUsage, errors.New("give one config file: pushy-server [-check] config.json (-h explains)"))
	}

	cfg, err := loadConfig(files[0], p.getenv)
	if err != nil {
		return p.fail(exitUsage, err)
	}
	log := newLogger(p.stderr, isTerminal(p.stderr))
	for _, w := range cfg.warnings {
		log.Warn(w.message, w.attrs...)
	}
	if check {
		// New logs the same warnings as at the start.
		options := cfg.serverOptions()
		options.Logger = log
		srv, err := pushy.New(options)
		if err != nil {
			return p.fail(exitUsage, err)
		}
		_ = srv.Close()
		fmt.Fprintln(p.stdout, printable(files[0]+": ok: would listen on "+cfg.summary()))
		return exitOK
	}
	s, err := newService(cfg, log)
	if err != nil {
		return p.fail(exitFailed, err)
	}
	return s.serve(p.signals)
}

func (p *program) version(args []string) int {
	if len(args) > 0 {
		return p.fail(exitUsage, errors.New("version: it takes no arguments"))
	}
	info, _ := debug.ReadBuildInfo()
	fmt.Fprintln(p.stdout, versionLine(info, version))
	return exitOK
}

// help prints the manual, or the usage of a command.
func (p *program) help(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(p.stdout, manual())
		return exitOK
	}
	c, ok := commandOf(args[0])
	if !ok || len(args) > 1 {
		var names []string
		for _, c := range commands {
			names = append(names, c.name)
		}
		return p.fail(exitUsage, errors.New("help: give one of the commands "+strings.Join(names, ", ")))
	}
	fmt.Fprint(p.stdout, c.help)
	return exitOK
}

// command is a command that talks to a running server.
type command struct {
	name string
	help string
	run  func(p *program, args []string) int
}

var commands = []command{
	{"publish", publishHelp, (*program).publish},
	{"listen", listenHelp, (*program).listen},
	{"send", sendHelp, (*program).send},
	{"channels", channelsHelp, (*program).channels},
	{"members", membersHelp, (*program).members},
	{"connections", connectionsHelp, (*program).connections},
	{"kick", kickHelp, (*program).kick},
	{"unban", unbanHelp, (*program).unban},
	{"bans", bansHelp, (*program).bans},
	{"history", historyHelp, (*program).history},
	{"position", positionHelp, (*program).position},
}

func commandOf(name string) (c command, ok bool) {
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
	if i < 0 {
		return command{}, false
	}
	return commands[i], true
}

func (p *program) fail(status int, err error) int {
	p.say("%v", err)
	return status
}

//go:embed doc.go
var docSource string

// manual returns the package comment, which is also the usage text.
func manual() string {
	comment, _, _ := strings.Cut(docSource, "\npackage ")
	var b strings.Builder
	for line := range strings.Lines(comment + "\n") {
		b.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "//"), " "))
	}
	return b.String()
}

func newLogger(w io.Writer, terminal bool) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: byKeys}
	if terminal {
		return slog.New(slog.NewTextHandler(printableLines{w}, options))
	}
	return slog.New(slog.NewJSONHandler(printableLines{w}, options))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
