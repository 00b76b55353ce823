package pushy

import (
	"iter"

	"github.com/gopushy/pushy/internal/hub"
)

// Channel is a channel as this node knows it. All methods are safe for concurrent use.
type Channel struct{ ch *hub.Channel }

func hostChannel(ch *hub.Channel) *Channel { return ch.Host().(*Channel) }

// Name returns the channel's name, in lower case.
func (ch *Channel) Name() string { return ch.ch.Name() }

// Private reports whether the channel is private (Options.Channel).
func (ch *Channel) Private() bool { return ch.ch.Policy().Private }

// Len returns the number of members on this node.
func (ch *Channel) Len() int { return ch.ch.Len() }

// Conns yields the members on this node, in no order. Members that join or leave during the
// iteration may or may not be included.
func (ch *Channel) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for c := range ch.ch.Conns() {
			if !yield(hostConn(c)) {
				return
			}
		}
	}
}

// Has reports whether conn is a member.
func (ch *Channel) Has(conn *Conn) bool { return ch.ch.Has(conn.c) }

// Remove ends conn's membership. The client receives pushy:subscription-end with the
// reason, if the reason is not empty. If conn is joining, its membership ends when the join
// is complete. The error is ErrNotMember.
func (ch *Channel) Remove(conn *Conn, reason string) error {
	if conn.c.Hub() != ch.ch.Hub() || conn.c.Leave(ch.ch.Name(), reason, nil) != nil {
		return ErrNotMember
	}
	return nil
}
