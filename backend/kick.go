package backend

import (
	"context"
	"time"

	"github.com/gopushy/pushy/internal/calls"
)

// Kick says whom Client.Kick removes.
type Kick struct {
	// Target is "user:" and a Conn.UserID, "conn:" and the id of a connection, or "channel:" and
	// the name of a channel.
	Target string
	// Reason is for the clients, at most 123 bytes. Default "Removed".
	Reason string
	// Until makes a ban: until then, the user cannot connect, or nobody can subscribe to the
	// channel. It is in the future, at most 366 days, and counts in whole seconds, by the clock of
	// each node. Zero: the target can return at once. Not allowed for a connection, because its id
	// does not return.
	Until time.Time
	// ID is the id of the call, as Batch.ID. Default: a random one.
	ID string
}

// Kicked is the result of Client.Kick.
type Kicked struct {
	// Closed is the number of connections that were closed or, for a channel, of subscriptions
	// that were ended, on the nodes that have answered, in all tries.
	Closed int
	Coverage
}

// Kick removes a user, a connection, or all subscribers of a channel, on all nodes. Server.Kick of
// package pushy says what clients see, and how bans work.
//
// The errors are those of Publish. The server refuses a ban with ErrUnavailable and the status 501
// if its Broker cannot keep bans, and with 503 if 9,900 bans are stored. If it cannot ask its other
// nodes, the target was removed from one node, and a ban is stored; Kick tries again, and if that
// does not succeed in time, the error comes with what was done. All calls can be repeated.
func (c *Client) Kick(ctx context.Context, k Kick) (Kicked, error) {
	if err := validUTF8("target", k.Target, "reason", k.Reason); err != nil {
		return Kicked{}, failed("kick", err)
	}
	body := calls.Kick{
		Target: k.Target,
		Reason: k.Reason,
	}
	if !k.Until.IsZero() {
		until := k.Until.Unix()
		body.Until = &until
	}
	var result Kicked
	err := change(ctx, c, "kick", k.ID, body, func(a calls.KickAnswer) {
		result.Closed += a.Closed // a connection is closed once, so each try counts others
		result.Coverage = coverage(a.Coverage)
	})
	return result, err
}
