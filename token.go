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

// tokens is the default Authorizer: public channels are open, private ones take
// a token (PROTOCOL.md, section 6).
type tokens struct {
	srv  *Server // set by New
	keys token.Keys
}

var _ Authorizer = (*tokens)(nil)

func (t *tokens) Authorize(_ context.Context, r AuthRequest) error {
	if !r.Private {
		return nil
	}
	if strings.TrimSpace(r.Auth) == "" {
		return ErrNeedAuth
	}
	if strings.HasPrefix(r.Auth, token.Prefix) {
		return t.authorizeV2(r)
	}
	if t.srv.opts.DisableV1 {
		t.warn(r, "the token has version 1", "Options.DisableV1 is set: "+
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

// authorizeV2 decides about a token of version 2. What has expired is refused by the caller.
func (t *tokens) authorizeV2(r AuthRequest) error {
	c, keyID, err := t.keys.Verify(r.Auth, t.srv.now())
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
		err = errors.New("the token is for other channels")
		hint = "the claim sub must have the name of the channel"
	case r.Data != nil && !sameJSON(r.Data, c.Data):
		err = errors.New("the presence data is not that of the token")
		hint = "the client must send the data that the token has, or none"
	}
	if err != nil {
		t.warn(r, err.Error(), hint)
		return ErrDenied
	}
	t.srv.usedKey(2, keyID)
	r.Grant.Expires = c.Expires
	r.Grant.ClientEvents = c.Publish
	r.Grant.Data = c.Data
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

// warn logs why a token is refused, at most once a minute for each reason. The log never has the
// token.
func (t *tokens) warn(r AuthRequest, reason, hint string) {
	t.srv.notices.Warn("a token was refused", reason,
		slog.String("channel", r.Channel),
		slog.String("conn", r.Conn.ID()),
		slog.String("reason", reason),
		slog.String("hint", hint))
}
