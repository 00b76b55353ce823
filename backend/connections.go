package backend

import (
	"context"
	"iter"
	"time"

	"github.com/gopushy/pushy/internal/calls"
)

// ConnQuery selects connections for Connections. Exactly one of User, Conn and Channel is set.
type ConnQuery struct {
	User    string // the Conn.UserID
	Conn    string // the id of a connection
	Channel string // the connections that are in the channel; case-insensitive
	Page
}

// ConnInfo describes a connection on any node.
type ConnInfo struct {
	ID       string
	User     string // the Conn.UserID, or ""
	Node     string // the id of the node
	Protocol string // the transport's name, such as "websocket"
	Since    time.Time
	// Channels has the names of the first 200 channels that the connection is in, sorted, and
	// ChannelCount the number of all.
	Channels     []string
	ChannelCount int
	Waiting      int64 // the bytes that are queued for the client
}

// ConnList is the result of Connections.
type ConnList struct {
	Conns []ConnInfo // sorted by ID
	Next  string     // for Page.After; "" if no connections follow
	Coverage
}

// Connections returns the connections of a user, one connection, or the connections in a channel,
// on all nodes. The errors are those of ListChannels.
func (c *Client) Connections(ctx context.Context, q ConnQuery) (ConnList, error) {
	if err := validUTF8("user", q.User, "conn", q.Conn, "channel", q.Channel, "after", q.After); err != nil {
		return ConnList{}, failed("connections", err)
	}
	answer, err := query[calls.ConnectionsAnswer](ctx, c, "connections", calls.Connections{
		User:    q.User,
		Conn:    q.Conn,
		Channel: q.Channel,
		Page:    q.Page.body(),
	})
	list := ConnList{
		Next:     answer.Next,
		Coverage: coverage(answer.Coverage),
	}
	for _, conn := range answer.Connections {
		list.Conns = append(list.Conns, ConnInfo{
			ID:           conn.ID,
			User:         conn.User,
			Node:         conn.Node,
			Protocol:     conn.Transport,
			Since:        time.UnixMilli(conn.Since),
			Channels:     conn.Channels,
			ChannelCount: conn.ChannelCount,
			Waiting:      conn.Waiting,
		})
	}
	return list, err
}

// ConnectionPages returns all pages of Connections, from q.After on. The loop ends after an error,
// which comes with what Connections has returned with it.
func (c *Client) ConnectionPages(ctx context.Context, q ConnQuery) iter.Seq2[ConnList, error] {
	return pages(q.After, func(after string) (ConnList, string, error) {
		page := q
		page.After = after
		list, err := c.Connections(ctx, page)
		return list, list.Next, err
	})
}
