package backend

import (
	"fmt"
	"time"

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
	// ClientEvents lets the client send events to the channels.
	ClientEvents bool
}

// SignToken returns a token for clients, as pushy.SignToken does, without a request to a server.
// Use it in the auth endpoint of a process that has no pushy.Server (PROTOCOL.md, section 11); the
// endpoint decides whether its user may enter the channels. secretKey is that of the server. The
// error says which field is not valid. The token can have at most 8 KiB.
func SignToken(secretKey string, t Token) (string, error) {
	signed, err := token.Spec(t).Sign(secretKey, time.Now())
	if err != nil {
		return "", fmt.Errorf("backend: sign token: %w", err)
	}
	return signed, nil
}
