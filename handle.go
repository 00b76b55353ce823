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

// Handle adds a command whose data and answer are Go values. It panics for the same reasons
// as Server.RegisterCommand, and if JSON cannot be decoded into Req.
//
// Decoding is strict. Unknown fields, names that differ in case, duplicate names, wrong
// types, and null for a value that is not a pointer are answered with error 400, and run is
// not called. The message names the place ("moves[2].x: must be a number, not a string").
// Missing fields, and missing data, have the zero value. An empty array is accepted for an
// object, because PHP encodes an empty object as [].
//
// If the client gave the command an id, it receives the result of run as pushy:reply, after
// all messages that run has sent. Without an id it receives no answer. In both cases it
// receives the error of run: an *Error as it is, and "Internal error" for any other error
// and for a panic, which are logged.
//
// ctx ends when the connection ends and when Options.CommandTimeout has passed. After that
// timeout, an error that is not an *Error is answered with error 504. A run that ignores
// ctx delays its connection: the next command of that Conn is read when run has returned.
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
		ctx := newCommandContext(r.Context(), limit.Or(srv.opts.CommandTimeout, forever))
		defer ctx.end()
		resp, err := run(ctx, r.Conn, req)
		if err != nil {
			return r.failed(ctx, err)
		}
		encoded, err := jsvalue.Encoded(resp)
		if err != nil {
			return err
		}
		defer encoded.Free()
		if r.ID == nil {
			return nil
		}
		e := hub.Event{
			Kind:    hub.Replied,
			Data:    encoded.JSON,
			Request: r.ID,
		}
		if r.purpose.now() {
			_ = r.conn.c.SendNow(&e) // a connection that has ended needs no answer
		} else {
			_ = r.conn.c.Send(&e)
		}
		return nil
	})
}

// failed returns the error to report for a run that failed, which is not its own if its
// time is over or its client has disconnected.
func (r *Request) failed(ctx context.Context, err error) error {
	switch {
	case visible(err) != nil:
	case r.Context().Err() != nil && errors.Is(err, context.Canceled):
		return nil // the client has disconnected, which is no fault
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.srv.log.Warn("command timed out", "command", r.Name, "conn", r.Conn.ID(), "error", err)
		return errorOf(pushyjson.ErrTimedOut)
	}
	return err
}
