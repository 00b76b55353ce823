package pushy

import (
	"context"
	"errors"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
	"github.com/gopushy/pushy/internal/strictjson"
)

// Handle adds a command whose data and answer are Go values. It panics where
// RegisterCommand does, and for a Req that JSON cannot be decoded into.
//
// Decoding is strict. Fields that Req does not have, names in another case or
// given twice, wrong types and null where Req has no pointer are answered with error
// 400, which names the place ("moves[2].x: must be a number, not a string"), without
// a call of run. What the client leaves out, be it all the data, is zero. Where Req
// takes an object, [] counts as {}: that is how PHP encodes one without members.
//
// A client that gave the command an id gets what run returns, as pushy:reply after
// all that run has sent it; without one it gets no answer. Errors it gets in both
// cases: an *Error as it is, for any other and a panic "Internal error" (the log has it).
//
// ctx ends with the connection and after Options.CommandTimeout; an error of a
// late run, unless it is an *Error, is answered with 504. A run that does not heed ctx
// is waited for: until it returns no other command of that Conn is read.
func Handle[Req, Resp any](srv *Server, name string, run func(ctx context.Context, conn *Conn, req Req) (Resp, error)) {
	if run == nil {
		panic("pushy: Handle: nil func for command " + name)
	}
	decoder, err := strictjson.New[Req]()
	if err != nil {
		panic("pushy: Handle: command " + name + ": " + err.Error())
	}
	srv.register(name, func(r *Request) error {
		req, err := decoder.DecodePHP(r.Data)
		if err != nil {
			srv.log.Debug("command refused", "command", name, "conn", r.Conn.ID(), "error", err, "cause", errors.Unwrap(err))
			return &Error{"400", err.Error()}
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit.Or(srv.opts.CommandTimeout, forever))
		defer cancel()
		resp, err := run(ctx, r.Conn, req)
		if err != nil {
			return r.failed(ctx, err)
		}
		raw, err := jsvalue.Encode(resp)
		if err != nil || r.ID == nil {
			return err
		}
		_ = r.Conn.c.Send(&hub.Event{ // a connection that has ended needs no answer
			Kind:    hub.Replied,
			Data:    raw,
			Request: r.ID,
		})
		return nil
	})
}

// failed turns the error of a run whose time is over, or whose client has gone.
func (r *Request) failed(ctx context.Context, err error) error {
	switch {
	case visible(err) != nil:
	case r.Context().Err() != nil && errors.Is(err, context.Canceled):
		return nil // nobody is there, and nothing is wrong
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.srv.log.Warn("command timed out", "command", r.Name, "conn", r.Conn.ID(), "error", err)
		return errorOf(pushyjson.ErrTimedOut)
	}
	return err
}
