package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"

	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

// A CommandFunc answers one command of a client. data is the command's data as
// the client sent it, valid JSON, or nil when there was none; it must not be
// kept or changed. conn and channels belong to this command and may be kept: what
// they send as an answer carries the command's id.
//
// The commands of one Conn run one at a time, in the order they came, with no
// lock held; until it returns no other command of that Conn is read. A panic
// or runtime.Goexit is logged, answered with error 500 and ends nothing else.
type CommandFunc func(srv *Server, conn *Conn, data json.RawMessage, channels *Channels)

// Request is one command of a client. It may be kept, but for Data.
type Request struct {
	Name string // as the client spelled it
	// Data is the command's data as the client sent it, valid JSON, or nil when there
	// was none. It must not be changed, or used after the command has returned.
	Data json.RawMessage
	// ID is the command's id, a JSON string or number, or nil if the client gave none.
	ID json.RawMessage
	// Conn and Channels belong to this command: what they send as an answer carries
	// its id.
	Conn     *Conn
	Channels *Channels

	conn     Conn
	channels Channels
	srv      *Server
}

// Context returns a context that is cancelled when the connection ends.
func (r *Request) Context() context.Context { return r.Conn.Context() }

// Server returns the Server that the command came to.
func (r *Request) Server() *Server { return r.srv }

// Reply sends a direct message that answers the command: it carries the command's id,
// if there is one. It may be called at any time, from any goroutine, any number of times.
func (r *Request) Reply(event string, data any) error { return r.Conn.Reply(event, data) }

// ReplyError answers the command with pushy:error.
func (r *Request) ReplyError(e *Error) error { return r.Conn.ReplyError(e) }

// builtin are the names of the protocol's own commands.
var builtin = map[string]func(*pushyjson.Protocol, *pushyjson.Request) *pushyjson.Error{
	"subscribe":   (*pushyjson.Protocol).Subscribe,
	"unsubscribe": (*pushyjson.Protocol).Unsubscribe,
}

// Builtin carries out the built-in command of the Request's name, "subscribe" or
// "unsubscribe", and answers it (PROTOCOL.md, sections 3, 4 and 6). It is for commands
// that replace the built-in ones; for another name it panics. To call it after the
// command has returned, copy the Request and its Data.
func (r *Request) Builtin() {
	run := builtin[string(names.AppendLowerASCII(nil, r.Name))]
	if run == nil {
		panic("pushy: " + r.Name + " is not a built-in command")
	}
	refused := run(r.srv.protocol, &pushyjson.Request{
		Conn: r.Conn.c,
		Data: r.Data,
		ID:   r.ID,
	})
	if refused != nil {
		_ = pushyjson.Fail(r.Conn.c, refused, r.Conn.id) // a connection that has ended needs no answer
	}
}

// RegisterCommand adds a command. Names are compared without regard to ASCII case.
// The built-in "subscribe" and "unsubscribe" may each be replaced once; a command of
// HandleCommand that replaces one can carry it out with Request.Builtin. Any other name
// taken twice, an empty name, one that begins with "pushy:", and a nil func panic: they
// are mistakes in the program. It may be called at any time.
//
// HandleCommand adds one that can return an error, and Handle one with typed data.
func (s *Server) RegisterCommand(name string, run CommandFunc) {
	if run == nil {
		panic("pushy: RegisterCommand: nil func for command " + name)
	}
	s.register(name, func(r *Request) error {
		run(s, r.Conn, r.Data, r.Channels)
		return nil
	})
}

// HandleCommand adds a command, as RegisterCommand does. Of an error that run returns
// the client receives an *Error; any other is logged and answered with "Internal error".
// Without an error nothing is sent but what run sends itself.
func (s *Server) HandleCommand(name string, run func(r *Request) error) {
	if run == nil {
		panic("pushy: HandleCommand: nil func for command " + name)
	}
	s.register(name, run)
}

func (s *Server) register(name string, run func(r *Request) error) {
	if name == "" {
		panic("pushy: a command with an empty name")
	}
	key := string(names.AppendLowerASCII(nil, name))
	if strings.HasPrefix(key, "pushy:") {
		panic("pushy: command " + name + ": names that begin with pushy: are the protocol's own")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.commands[key]; taken {
		panic("pushy: command " + name + " is taken")
	}
	s.commands[key] = run
}

// runCommand is the one place where a host's command runs. It returns the error
// that the client is to see. If the command ends its goroutine it does not return.
func (s *Server) runCommand(p *pushyjson.Request) (refused *pushyjson.Error, known bool) {
	var buf [64]byte
	s.mu.RLock()
	run, known := s.commands[string(names.AppendLowerASCII(buf[:0], p.Name))]
	s.mu.RUnlock()
	if !known {
		return nil, false
	}
	r := &Request{
		Name:     p.Name,
		Data:     p.Data,
		ID:       p.ID,
		conn:     Conn{c: p.Conn, id: p.ID},
		channels: Channels{srv: s, id: p.ID},
		srv:      s,
	}
	r.Conn, r.Channels = &r.conn, &r.channels
	returned := false
	defer func() {
		r.Data = nil
		if !returned {
			s.logFailure("command", failed(recover()),
				slog.String("command", r.Name), slog.String("conn", p.Conn.ID()))
			refused, known = pushyjson.ErrInternal, true
		}
	}()
	err := run(r)
	if err != nil {
		refused = s.shownError(r, err)
	}
	returned = true
	return refused, true
}

// shownError is what the client sees of a command's error.
func (s *Server) shownError(r *Request, err error) *pushyjson.Error {
	var seen *Error
	if errors.As(err, &seen) && seen != nil {
		return seen.shown()
	}
	s.log.Error("command failed", "command", r.Name, "conn", r.Conn.ID(), "error", err)
	return pushyjson.ErrInternal
}
