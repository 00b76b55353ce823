package pushy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/wire"
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

type command struct {
	run     handler
	builtin bool // may still be replaced
}

// RegisterCommand adds a command. Names match without regard to ASCII case. The
// built-in "subscribe" and "unsubscribe" may each be replaced once, and called
// from what replaces them. Any other name taken twice, an empty name and a nil
// func panic: they are mistakes in the program. It may be called at any time.
func (s *Server) RegisterCommand(name string, run CommandFunc) {
	if run == nil {
		panic("pushy: RegisterCommand: nil func for command " + name)
	}
	s.register(name, false, adapt(run))
}

func adapt(run CommandFunc) handler {
	return func(r *request) error {
		run(r.srv, &r.conn, r.data, &r.channels)
		return nil
	}
}

func (s *Server) register(name string, builtin bool, run handler) {
	if name == "" {
		panic("pushy: a command with an empty name")
	}
	key := string(names.AppendLowerASCII(nil, name))
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, taken := s.commands[key]; taken && !old.builtin {
		panic("pushy: command " + name + " is taken")
	}
	s.commands[key] = command{run, builtin}
}

// dispatch answers one message of a client. Whatever it holds, the connection
// gets an answer or, for a client's own events, nothing.
func (s *Server) dispatch(c *connection, text []byte, now time.Time) {
	m := wire.Parse(text)
	r := &request{
		ctx:  c.ctx,
		srv:  s,
		name: m.Name,
		data: m.Data,
		// The id is needed after the next message has overwritten this one.
		channels: Channels{registry: s.channels.registry, id: bytes.Clone(m.ID)},
	}
	r.conn = Conn{connection: c, command: &r.channels}
	refused := errInternal // unless the command returns
	defer func() {
		r.data = nil
		if refused != nil {
			_ = r.conn.ReplyError(refused) // a connection that has ended needs no answer
		}
	}()
	if debt := c.debt.Load(); debt > 0 {
		c.debt.Add(-debt)
		c.budget.Charge(int(debt))
	}
	switch verdict := c.budget.Spend(now, s.opts.Limits.CommandRate, s.opts.Limits.CommandBurst); {
	case verdict == limit.Abuse:
		c.end(1008, "too many requests")
		refused = nil
	case verdict == limit.Over:
		refused = errTooManyRequests
	case m.Kind == wire.Bogus:
		refused = errBogus
	case m.Kind == wire.Ignored:
		refused = nil
	default:
		refused = s.runCommand(r)
	}
}

// runCommand is the one place where a host's command runs. It returns the error
// that the client is to see. If the command ends its goroutine it does not return.
func (s *Server) runCommand(r *request) (refused *Error) {
	var buf [64]byte
	s.mu.RLock()
	cmd, known := s.commands[string(names.AppendLowerASCII(buf[:0], r.name))]
	s.mu.RUnlock()
	if !known {
		return errUnknownCommand
	}
	returned := false
	defer func() {
		if !returned {
			s.logFailure("command", failed(recover()),
				slog.String("command", r.name), slog.String("conn", r.conn.id))
			refused = errInternal
		}
	}()
	err := cmd.run(r)
	if err != nil && (!errors.As(err, &refused) || refused == nil) {
		s.log.Error("command failed", "command", r.name, "conn", r.conn.id, "error", err)
		refused = errInternal
	}
	returned = true
	return refused
}

// Subscribe is the built-in command SUBSCRIBE: {"channel":…} and, for private
// channels, "auth" and "data" (PROTOCOL.md, sections 3, 4 and 6).
func Subscribe(srv *Server, conn *Conn, data json.RawMessage, channels *Channels) {
	channel, want, err := srv.subscription(data)
	if err != nil {
		_ = conn.ReplyError(err)
		return
	}
	reply := struct {
		Channel string `json:"channel"`
		Reason  string `json:"reason,omitempty"`
		Code    string `json:"code,omitempty"`
	}{Channel: channel}

	joinErr := srv.authorize(conn.Context(), AuthRequest{
		Conn:    &conn.plain,
		Channel: channel,
		Auth:    want.Auth,
		Data:    want.Presence,
	})
	if joinErr == nil {
		joinErr = channels.Join(conn, channel, want.Presence)
		if joinErr == nil {
			srv.chargeJoin(conn.connection, channel, want.Presence)
		}
	}
	var refused *JoinError
	var seen *Error
	switch {
	case joinErr == nil, errors.Is(joinErr, ErrClosed):
	case errors.Is(joinErr, ErrNeedAuth):
		if seen := visible(joinErr); seen != nil {
			reply.Reason = seen.Message
			reply.Code = seen.Code
		}
		_ = conn.Reply(eventNeedAuth, reply)
	case errors.As(joinErr, &refused):
		reply.Reason = refused.Reason
		reply.Code = refused.Code
		if refused.Err != nil {
			srv.notices.Warn("clients cannot subscribe", channel,
				slog.String("channel", channel), slog.Any("error", refused.Err))
		}
		_ = conn.Reply(eventFailed, reply)
	case errors.As(joinErr, &seen):
		_ = conn.ReplyError(seen)
	default:
		panic(fmt.Sprintf("pushy: Join returned %v", joinErr))
	}
}

// joinToken is how many bytes of what a join makes the server send cost one token
// of the client's message rate.
const joinToken = 4 << 10

// chargeJoin charges the client's message rate for a join of a presence channel
// that it has joined before, by the size of what that made the server send, at
// most half the burst. The first join of each channel costs one message: a
// client that reconnects may subscribe to all of its channels at once.
func (s *Server) chargeJoin(c *connection, channel string, data json.RawMessage) {
	rate, burst := s.opts.Limits.CommandRate, s.opts.Limits.CommandBurst
	ch := s.channels.find(channel)
	if rate <= 0 || ch == nil || !ch.private {
		return
	}
	tokens := min(ch.joinBytes(data)/joinToken, int64(burst/2))
	if tokens > 0 && !c.firstJoin(channel) {
		c.debt.Add(int32(tokens))
	}
}

// maxJoined is how many channels firstJoin remembers of one connection where
// Limits.Channels is off. They take less than 100 KiB.
const maxJoined = 4096

// firstJoin reports whether the connection joins a channel for the first time,
// and remembers that it did. It remembers no more channels than the connection may
// be in at once: a join of any other never counts as the first.
func (c *connection) firstJoin(channel string) bool {
	most := c.srv.opts.Limits.Channels
	if most <= 0 {
		most = maxJoined
	}
	// Two names with one hash cost a client tokens once in a great while.
	hash := maphash.String(joinedSeed, channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, joined := c.joined[hash]; joined || len(c.joined) >= most {
		return false
	}
	if c.joined == nil {
		c.joined = map[uint64]struct{}{}
	}
	c.joined[hash] = struct{}{}
	return true
}

// joinedSeed keeps clients from choosing names that have one hash.
var joinedSeed = maphash.MakeSeed()

// Unsubscribe is the built-in command UNSUBSCRIBE: {"channel":…}.
func Unsubscribe(srv *Server, conn *Conn, data json.RawMessage, channels *Channels) {
	channel, _, err := srv.subscription(data)
	switch {
	case err != nil:
	case channels.Leave(conn, channel) == nil:
		return
	default:
		err = errNotSubscribed
		if _, known := channels.Lookup(channel); !known {
			err = errChannelNotFound
		}
	}
	_ = conn.ReplyError(err)
}

// subscription reads the data of the built-in commands; the channel's name comes
// back checked and in lower case.
func (s *Server) subscription(data json.RawMessage) (channel string, want wire.Subscription, err *Error) {
	want = wire.ParseSubscription(data)
	if want.Channel == "" {
		return "", want, errNoChannel
	}
	channel, nameErr := s.channelName(want.Channel)
	switch {
	case errors.Is(nameErr, names.ErrNotChecked):
		return "", want, errInternal
	case nameErr != nil:
		return "", want, errInvalidChannel
	}
	return channel, want, nil
}
