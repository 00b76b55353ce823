package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"

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

// request is one command. The host may keep conn and channels, and the request
// with them, for as long as it likes.
type request struct {
	ctx      context.Context
	srv      *Server
	conn     Conn
	channels Channels // with the command's id
	name     string
	data     json.RawMessage // part of the message, valid while the command runs
}

// handler runs a request. Of its error the client sees an *Error; any other is
// logged and answered with "Internal error".
type handler func(*request) error

// builtin are the names of the protocol's own commands, each of which may be
// replaced once.
var builtin = map[string]bool{"subscribe": true, "unsubscribe": true}

// RegisterCommand adds a command. Names are compared without regard to ASCII case.
// The built-in "subscribe" and "unsubscribe" may each be replaced once, and called
// from what replaces them. Any other name taken twice, an empty name and a nil
// func panic: they are mistakes in the program. It may be called at any time.
func (s *Server) RegisterCommand(name string, run CommandFunc) {
	if run == nil {
		panic("pushy: RegisterCommand: nil func for command " + name)
	}
	s.register(name, func(r *request) error {
		run(r.srv, &r.conn, r.data, &r.channels)
		return nil
	})
}

func (s *Server) register(name string, run handler) {
	if name == "" {
		panic("pushy: a command with an empty name")
	}
	key := string(names.AppendLowerASCII(nil, name))
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
	r := &request{
		ctx:      p.Conn.Context(),
		srv:      s,
		conn:     Conn{c: p.Conn, id: p.ID},
		channels: Channels{srv: s, id: p.ID},
		name:     p.Name,
		data:     p.Data,
	}
	returned := false
	defer func() {
		r.data = nil
		if !returned {
			s.logFailure("command", failed(recover()),
				slog.String("command", r.name), slog.String("conn", r.conn.ID()))
			refused, known = pushyjson.ErrInternal, true
		}
	}()
	err := run(r)
	if err != nil {
		var seen *Error
		if errors.As(err, &seen) && seen != nil {
			refused = seen.shown()
		} else {
			s.log.Error("command failed", "command", r.name, "conn", r.conn.ID(), "error", err)
			refused = pushyjson.ErrInternal
		}
	}
	returned = true
	return refused, true
}

// Subscribe is the built-in command SUBSCRIBE: {"channel":…} and, for private
// channels, "auth" and "data" (PROTOCOL.md, sections 3, 4 and 6). It is called
// from what replaces that command.
func Subscribe(srv *Server, conn *Conn, data json.RawMessage, channels *Channels) {
	srv.answer(conn, data, channels, srv.protocol.Subscribe)
}

// Unsubscribe is the built-in command UNSUBSCRIBE: {"channel":…}. It is called
// from what replaces that command.
func Unsubscribe(srv *Server, conn *Conn, data json.RawMessage, channels *Channels) {
	srv.answer(conn, data, channels, srv.protocol.Unsubscribe)
}

func (s *Server) answer(conn *Conn, data json.RawMessage, channels *Channels,
	run func(*pushyjson.Request) *pushyjson.Error,
) {
	refused := run(&pushyjson.Request{
		Conn: conn.c,
		Data: data,
		ID:   channels.id,
	})
	if refused != nil {
		_ = pushyjson.Fail(conn.c, refused, conn.id)
	}
}
