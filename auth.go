package pushy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
	"github.com/gopushy/pushy/internal/sign"
)

// AuthRequest describes a subscription that an Authorizer decides.
type AuthRequest struct {
	Conn    *Conn  // not bound to a command
	Channel string // lower-case and valid
	Private bool   // whether the channel is private (Options.Channel)
	Auth    string // as sent; "" if it is missing or not a string
	// Protocol is the protocol of the client: "pushy", "sse" (package sse) or "pusher" (package pusher).
	// Conn.Protocol is the transport.
	Protocol string
	// Claims is what the client's token of version 2 says, if Auth is one and covers the channel.
	// The Server has verified it: a token that is not valid, or for another connection, user or
	// private channel, refuses the subscription, whatever the Authorizer is. It is nil if there
	// is no token, or no SecretKey. The Authorizer decides in any case.
	Claims *Claims
	Data   json.RawMessage // presence data as sent; nil if it is missing or null
	// Since reports whether the client asks for past events, with since or rewind
	// (PROTOCOL.md, section 14).
	Since bool
	// Grant has the terms of the subscription if it is allowed: those of Claims, if it is not nil.
	// Grant is not nil, and an Authorizer can change its fields before it returns.
	Grant *Grant
}

// Grant has the terms of a subscription that an Authorizer allows. The zero value, which is the
// default, is a subscription that lasts as long as its connection.
type Grant struct {
	// Expires is when the permission ends, unless the client renews it with pushy:refresh,
	// which asks the Authorizer again. 25 s later the Server ends the subscription; the
	// connection and its other channels go on. A time that is not in the future refuses the
	// subscription, as ErrNeedAuth does. Zero: the permission does not end.
	Expires time.Time
	// ClientEvents lets the client send events to the channel, if ChannelOptions.ClientEvent
	// is set. Default: it cannot.
	ClientEvents bool
	// Data is the member's presence data, a JSON object, instead of what the client sent. If it
	// is nil, what the client sent is used (AuthRequest.Data).
	Data json.RawMessage
}

// An Authorizer decides every subscription, to public and private channels. It is called
// from many goroutines at once and with no lock held. A slow call delays only the
// connection that it is for.
//
// The error nil allows the subscription. ErrNoHistory allows it, too, but the client receives
// no past events, neither now nor later with pushy:history. So whether an Authorizer returns
// ErrNoHistory should not depend on AuthRequest.Since. ErrNeedAuth is answered with
// pushy:subscription-needauth, all other errors with pushy:subscription-failed: ErrDenied
// with the reason "Invalid credentials", an *Error with its Message as the reason and with
// its Code. For any other error, and for a panic, the reason is "Temporarily unavailable",
// after which clients try again; the Server logs at most one of these a minute. If an error
// wraps several of these, ErrNeedAuth decides the event, and the first *Error decides the
// reason and the code.
type Authorizer interface {
	Authorize(ctx context.Context, r AuthRequest) error
}

// Errors that an Authorizer can return.
var (
	ErrNeedAuth = errors.New("pushy: authentication needed")
	ErrDenied   = errors.New("pushy: invalid credentials")
	// ErrNoHistory allows a subscription without past events.
	ErrNoHistory = errors.New("pushy: past events are not allowed")
)

// authorize asks the Authorizer and gives its answer to the hub.
func (s *Server) authorize(ctx context.Context, r hub.AuthRequest) (hub.Grant, error) {
	now := s.now()
	request := AuthRequest{
		Conn:     hostConn(r.Conn),
		Channel:  r.Channel,
		Private:  r.Private,
		Auth:     r.Auth,
		Protocol: r.Conn.Protocol(),
		Data:     r.Data,
		Since:    r.Past,
		Grant:    &Grant{},
	}
	if r.Conn.IsForeign() {
		if reason, banned := s.takeClaims(&request, &r); banned {
			return hub.Grant{}, &hub.RefusedError{
				Reason: reason,
				Code:   codeBanned,
			}
		}
	} else if err := s.verify(&request); err != nil {
		return hub.Grant{}, s.refusedSubscription(ctx, r, err)
	}
	grant := request.Grant
	err := s.askAuthorizer(ctx, request)
	noPast := errors.Is(err, ErrNoHistory)
	if err != nil && !noPast {
		return hub.Grant{}, s.refusedSubscription(ctx, r, err)
	}
	data := grant.Data
	if data == nil {
		data = r.Data
	}
	if reason, banned := s.bannedMember(r.Conn, r.Private, data); banned {
		return hub.Grant{}, &hub.RefusedError{
			Reason: reason,
			Code:   codeBanned,
		}
	}
	if !grant.Expires.IsZero() && !now.Before(grant.Expires) {
		return hub.Grant{}, &hub.RefusedError{
			Reason:   hub.ReasonExpired,
			NeedAuth: true,
		}
	}
	return hub.Grant{
		Expires:      grant.Expires,
		ClientEvents: grant.ClientEvents,
		NoPast:       noPast,
		Data:         grant.Data,
	}, nil
}

// refusedSubscription returns the hub's error for an error of the Authorizer.
func (s *Server) refusedSubscription(ctx context.Context, r hub.AuthRequest, err error) error {
	seen := visible(err)
	switch {
	case errors.Is(err, ErrNeedAuth):
		refused := &hub.RefusedError{NeedAuth: true}
		if seen != nil {
			refused.Reason, refused.Code = seen.Message, seen.Code
		}
		return refused
	case seen != nil:
		return &hub.RefusedError{
			Reason: cmp.Or(seen.Message, pushyjson.ReasonDenied),
			Code:   seen.Code,
		}
	case errors.Is(err, ErrDenied):
		return hub.ErrDenied
	case ctx.Err() != nil:
		return hub.ErrClosed
	case !errors.Is(err, errAuthorizerFailed):
		s.notices.Warn("Options.Authorizer failed", "",
			slog.String("channel", r.Channel),
			slog.String("conn", r.Conn.ID()),
			slog.String("error", err.Error()),
			slog.String("hint", "to refuse a client return pushy.ErrDenied, pushy.ErrNeedAuth or an *pushy.Error"))
	}
	return &hub.UnavailableError{}
}

var errAuthorizerFailed = errors.New("pushy: Authorizer failed")

func (s *Server) askAuthorizer(ctx context.Context, r AuthRequest) error {
	if own, is := s.opts.Authorizer.(*tokens); is {
		return own.Authorize(ctx, r) // it needs no goroutine of its own
	}
	return s.askHost(ctx, r)
}

func (s *Server) askHost(ctx context.Context, r AuthRequest) (err error) {
	err = errAuthorizerFailed // unless it returns
	s.decide("Options.Authorizer", func() { err = readable(s.opts.Authorizer.Authorize(ctx, r)) })
	return err
}

// SignChannel returns the token that allows the connection connID to subscribe to a private
// channel with the given presence data, or with none if data is nil. data is encoded as
// JavaScript's JSON.stringify would encode it, and the client must receive that same value.
// A token is valid as long as the connection. SignChannel returns an error if connID is not
// a UUID v4, or if the channel's name is not allowed (PROTOCOL.md, section 5), because such
// values could give the token another meaning.
func SignChannel(secretKey, connID, channel string, data any) (auth string, err error) {
	raw, err := jsvalue.EncodePresence(data)
	if err == nil {
		auth, err = sign.Token(secretKey, connID, channel, raw)
	}
	if err != nil {
		return "", fmt.Errorf("pushy: sign: %w", err)
	}
	return auth, nil
}

// SignTrigger returns the auth_key of a trigger (PROTOCOL.md, section 7). body is the JSON
// body, byte for byte as it will be sent; timestamp is in Unix seconds.
func SignTrigger(secretKey, channel, event string, timestamp int64, body []byte) (authKey string, err error) {
	if authKey, err = sign.TriggerKey(secretKey, channel, event, timestamp, body); err != nil {
		return "", fmt.Errorf("pushy: sign: %w", err)
	}
	return authKey, nil
}
