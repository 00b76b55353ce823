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

// A CommandFunc carries out one command of a client. data is the command's data as the
// client sent it, which is valid JSON, or nil if there is none. It must not be modified,
// and it must not be used after the command has returned. conn and channels are bound to
// this command and can be kept: the answers that they send have the command's id.
//
// The commands of one Conn run one at a time, in the order in which they arrive, with no
// lock held. The next command of that Conn is read when the current one has returned. A
// panic or runtime.Goexit is logged and answered with error 500; it does not end the
// connection.
type CommandFunc func(srv *Server, conn *Conn, data json.RawMessage, channels *Channels)

// Request is one command of a client. It can be kept after the command has returned, except
// for Data.
type Request struct {
	Name string // as the client spelled it
	// Data is the command's data as the client sent it, which is valid JSON, or nil if
	// there is none. It must not be modified, and it must not be used after the command has
	// returned.
	Data json.RawMessage
	// ID is the command's id, a JSON string or number, or nil if the client gave none.
	ID json.RawMessage
	// Conn and Channels are bound to this command: the answers that they send have its id.
	Conn     *Conn
	Channels *Channels

	conn     Conn
	purpose  purpose // of conn
	channels Channels
	srv      *Server
}

// Context returns a context that is canceled when the connection ends.
func (r *Request) Context() context.Context { return r.Conn.Context() }

// Server returns the Server that received the command.
func (r *Request) Server() *Server { return r.srv }

// Reply sends a direct message that answers the command. It has the command's id, if there
// is one. Reply can be called at any time, from any goroutine and any number of times.
func (r *Request) Reply(event string, data any) error { return r.Conn.Reply(event, data) }

// ReplyError answers the command with pushy:error.
func (r *Request) ReplyError(e *Error) error { return r.Conn.ReplyError(e) }

// builtin are the names of the protocol's own commands.
var builtin = map[string]func(*pushyjson.Protocol, *pushyjson.Request) *pushyjson.Error{
	"subscribe":   (*pushyjson.Protocol).Subscribe,
	"unsubscribe": (*pushyjson.Protocol).Unsubscribe,
}

// Builtin runs the built-in command that has the Request's name, "subscribe" or
// "unsubscribe", and answers it (PROTOCOL.md, sections 3, 4 and 6). Commands that replace a
// built-in one can call it. It panics for any other name. To call it after the command has
// returned, copy the Request and its Data.
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
		_ = pushyjson.Fail(r.Conn.c, refused, r.Conn.request()) // a connection that has ended needs no answer
	}
}

// RegisterCommand adds a command. It can be called at any time. Names are case-insensitive
// for ASCII letters. The built-in commands "subscribe" and "unsubscribe" can each be
// replaced once; a replacement that is added with HandleCommand can run the built-in one
// with Request.Builtin. RegisterCommand panics if the name is empty, begins with "pushy:"
// or is already registered, and if run is nil.
//
// HandleCommand adds a command that can return an error, and Handle adds one with typed
// data.
func (s *Server) RegisterCommand(name string, run CommandFunc) {
	if run == nil {
		panic("pushy: RegisterCommand: nil func for command " + name)
	}
	s.register(name, func(r *Request) error {
		run(s, r.Conn, r.Data, r.Channels)
		return nil
	})
}

// HandleCommand adds a command as RegisterCommand does. If run returns an *Error, the
// client receives it. Any other error is logged, and the client receives "Internal error".
// If run returns nil, the client receives only what run itself sends.
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
	s.counts.addCommand(key)
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
		conn:     Conn{c: p.Conn},
		purpose:  purpose{id: p.ID, last: p.Last},
		channels: Channels{srv: s, id: p.ID},
		srv:      s,
	}
	r.conn.of = &r.purpose
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
