package hub

import "time"

// ReasonExpired is the reason with which a subscription ends, or is refused, whose permission
// has expired.
const ReasonExpired = "Expired"

// AuthRequest describes a Join for Config.Authorize.
type AuthRequest struct {
	Conn    *Conn
	Channel string
	Private bool
	Auth    string // as the client sent it
	Data    []byte // presence data as the client sent it
	Past    bool   // the client asks for past events
	Claims  *Claims
}

// Claims are what a credential of another protocol says, which the protocol has verified.
type Claims struct {
	Channel string // the only channel for which it is
	User    string // the user of the member, or ""
	Data    []byte // the presence data that it covers, or nil
}

// Grant is what Config.Authorize allows. The zero value allows a membership that lasts as long
// as the connection.
type Grant struct {
	Expires      time.Time // zero for a permission that does not end before the connection
	ClientEvents bool      // the client can send events to the channel
	NoPast       bool      // the client must not receive past events
	Data         []byte    // presence data instead of what the client sent; nil keeps that
}
