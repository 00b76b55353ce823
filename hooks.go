package pushy

// Hooks are called when something happens. Any of them can be nil. They are called from
// many goroutines at once and with no lock held, and can use every method of this package,
// except as documented below. A hook delays only the connection or channel for which it is
// called. For one connection, Connect is the first hook and Disconnect the last, except that
// the Unsubscribe of a membership that outlives its connection comes later. If a hook panics
// or calls runtime.Goexit, this is logged with the stack, and the hook counts as returned. A
// hook cannot refuse anything: use Options.Accept and Options.Authorizer for that.
//
// Connect and Disconnect are called for connections. Subscribe, Unsubscribe, ChannelOccupied
// and ChannelVacated are called for memberships, which can outlive a connection by
// Options.Grace: if the client returns to the same node within that time, only Resume is
// called; if it does not return, Unsubscribe is called when the time has passed, after the
// Disconnect hook of its last connection. A member that moves to another node causes an
// Unsubscribe here and a Subscribe there, with a Conn whose method Resumed returns true.
type Hooks struct {
	// Connect is called once for each connection, when it is accepted and before the client
	// receives anything. The Server sends pushy:connect when Connect has returned, and
	// after that the messages that Connect has sent. Until Connect has returned, no command
	// of the client is read, and Server.Conn does not find the connection.
	Connect func(conn *Conn)
	// Disconnect is called once for each connection, when the connection has ended and its
	// Unsubscribe hooks have returned. If those hooks have not returned at the deadline of
	// a Shutdown, Disconnect is called without waiting for them. The client receives no
	// more messages, the methods of conn return ErrClosed, and Server.Conn does not find
	// the connection. code is the close code that ended the connection: the code of the
	// client, a code of the Server, or 1006 if the connection was lost. For a Shutdown it
	// is CloseShutdown on all transports.
	Disconnect func(conn *Conn, code int, reason string)
	// Subscribe is called after each successful subscription, when conn is a member and
	// pushy:subscription-success is queued. The client may have received that message, and
	// events of the channel, before Subscribe is called. The command that subscribed, or
	// the call of Channels.Join, returns after Subscribe, and a membership that ends
	// meanwhile ends after Subscribe has returned.
	Subscribe func(conn *Conn, ch *Channel)
	// Unsubscribe is called once for each membership that has ended, after the Subscribe
	// hook of the same membership has returned. At that time conn is not a member,
	// pushy:subscription-end is queued if the connection is still open, and the Broker has
	// appended the leave or has failed. After Channel.Remove the client can join again at
	// once, so the Subscribe hook of its next membership can run at the same time.
	Unsubscribe func(conn *Conn, ch *Channel)
	// Resume is called instead of Subscribe if conn has taken over a membership on this node
	// from the connection oldConnID, which has ended or is replaced (Options.Grace). conn is a
	// member then. What the documentation of Subscribe says applies to Resume as well.
	Resume func(conn *Conn, ch *Channel, oldConnID string)
	// ChannelOccupied is called before the first subscriber of the channel on this node
	// becomes a member, or receives events as a Listener. All clients that subscribe to the
	// channel wait for it, so it must not wait for one of them. If the first subscription
	// fails, ChannelVacated follows without a Subscribe.
	ChannelOccupied func(ch *Channel)
	// ChannelVacated is called after the last subscriber of the channel on this node has
	// left and its Unsubscribe hook has returned. With Options.Broker set, it is called
	// about 1 s later, and not if a client has subscribed again by then. Clients that
	// subscribe while it runs wait for it, and then ChannelOccupied is called again. For
	// one channel, the two hooks never run at the same time.
	ChannelVacated func(ch *Channel)
}
