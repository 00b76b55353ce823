package pushy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/token"
)

// Token describes a token of version 2 (PROTOCOL.md, section 6), with which clients subscribe
// to private channels.
type Token struct {
	// Channels has the names of the channels, 1 to 100. There are no wildcards.
	Channels []string
	// Conn is the id of the only connection that can use the token. User is the only user:
	// connections whose Conn.UserID is equal can use it. At least one of them is needed; if both
	// are set, both must fit. A token for a User can be rendered into a page, and is valid for
	// all connections of that user.
	Conn string
	User string
	// Expires is when the token ends, at most 24 hours from now, in whole seconds. Default: 1
	// hour from now, or, if Conn is set, the end of the connection. A client that subscribes
	// with the token can renew its subscription with another token (pushy:refresh), which
	// the browser client does by itself. Otherwise the subscription ends 25 s later.
	Expires time.Time
	// Data is the member's presence data, a value that is encoded as a JSON object, or nil. The
	// client need not send it; if it does, it must send the same value.
	Data any
	// ClientEvents lets the client send events to the channels (Grant.ClientEvents).
	ClientEvents bool
}

// SignToken returns a token for clients, without the help of a Server. AuthHandler makes tokens
// of the same form. The error says which field is not valid. The token can have at most 8 KiB.
func SignToken(secretKey string, t Token) (string, error) {
	signed, err := token.Spec(t).Sign(secretKey, time.Now())
	if err != nil {
		return "", fmt.Errorf("pushy: sign token: %w", err)
	}
	return signed, nil
}

// Claims is what a token of version 2 says, after its verification.
type Claims struct {
	Channels     []string        // in any case; they include that of the AuthRequest
	Conn         string          // "", or the Conn.ID of the client
	User         string          // "", or the Conn.UserID of the client
	Expires      time.Time       // zero if the token ends with the connection
	Data         json.RawMessage // the member's presence data, an object, or nil
	ClientEvents bool            // the client can send events to the channels
}

// verify sets the Claims of a request, and its Grant, if the client has sent a token of version 2.
// A token that is wrong is an error, after which no Authorizer is asked. What has expired is
// refused by the caller.
func (s *Server) verify(r *AuthRequest) error {
	if !strings.HasPrefix(r.Auth, token.Prefix) || len(s.tokenKeys) == 0 {
		return nil
	}
	c, keyID, err := s.tokenKeys.Verify(r.Auth, s.now())
	hint := "the token must be signed with Options.SecretKey or a key of OldSecretKeys (PROTOCOL.md, section 6)"
	switch {
	case errors.Is(err, token.ErrKey):
		hint = "the key id " + keyID + " is that of no key of this server: it has been removed, or it is another server's"
	case err != nil:
	case c.Conn != "" && c.Conn != r.Conn.ID():
		err = errors.New("the token is for another connection")
		hint = "the page must ask for a new token after each connect"
	case c.User != "" && c.User != r.Conn.UserID():
		err = errors.New("the token is for another user")
		hint = "the claim user must be the Conn.UserID, which is what Options.Accept returns for the connection"
	case !c.Covers(r.Channel):
		if !r.Private {
			return nil // clients can send one token for several channels, some of which need none
		}
		err = errors.New("the token is for other channels")
		hint = "the claim sub must have the name of the channel"
	case r.Private && r.Data != nil && !sameJSON(r.Data, c.Data):
		err = errors.New("the presence data is not that of the token")
		hint = "the client must send the data that the token has, or none"
	}
	if err != nil {
		s.warnOfToken(r, err.Error(), hint)
		return ErrDenied
	}
	s.usedKey(2, keyID)
	r.Claims = &Claims{
		Channels:     c.Channels,
		Conn:         c.Conn,
		User:         c.User,
		Expires:      c.Expires,
		Data:         c.Data,
		ClientEvents: c.Publish,
	}
	*r.Grant = Grant{
		Expires:      c.Expires,
		ClientEvents: c.Publish,
		Data:         c.Data,
	}
	return nil
}

// tokens is the default Authorizer: public channels are open, private ones take
// a token (PROTOCOL.md, section 6).
type tokens struct {
	srv *Server // set by New
}

var _ Authorizer = (*tokens)(nil)

func (t *tokens) Authorize(_ context.Context, r AuthRequest) error {
	switch {
	case !r.Private:
		*r.Grant = Grant{} // a token changes nothing in a channel that needs none
		return nil
	case r.Claims != nil:
		return nil
	case strings.TrimSpace(r.Auth) == "":
		return ErrNeedAuth
	}
	if t.srv.opts.DisableV1 {
		t.srv.warnOfToken(&r, "the token has version 1", "Options.DisableV1 is set: "+
			"the auth endpoint must sign tokens of version 2, as AuthHandler and SignToken do")
		return ErrDenied
	}
	key := slices.IndexFunc(t.srv.keys, func(key string) bool {
		return sign.TokenValid([]string{key}, r.Auth, r.Conn.ID(), r.Channel, r.Data)
	})
	if key < 0 {
		return ErrDenied
	}
	t.srv.keyUses.add(1, key, t.srv.now())
	// A token of version 1 does not say it. ChannelOptions.ClientEvent decides about each event.
	r.Grant.ClientEvents = true
	return nil
}

// sameJSON reports whether sent has the value of canonical, which is nil for none. Fields may have
// another order, because a client can have decoded and encoded them.
func sameJSON(sent json.RawMessage, canonical []byte) bool {
	own, err := jsvalue.Canonical(nil, sent, jsvalue.TriggerLimits)
	if err != nil || len(own) != len(canonical) {
		return false
	}
	if bytes.Equal(own, canonical) {
		return true
	}
	var a, b any
	return json.Unmarshal(own, &a) == nil && json.Unmarshal(canonical, &b) == nil && reflect.DeepEqual(a, b)
}

// warnOfToken logs why a token is refused, at most once a minute for each reason. The log never
// has the token.
func (s *Server) warnOfToken(r *AuthRequest, reason, hint string) {
	s.notices.Warn("a token was refused", reason,
		slog.String("channel", r.Channel),
		slog.String("conn", r.Conn.ID()),
		slog.String("reason", reason),
		slog.String("hint", hint))
}
