package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/calls"
	"github.com/gopushy/pushy/internal/hub"
)

const (
	askConnections = "pushy:connections"
	// maxConnChannels is the number of channels that are listed of one connection.
	maxConnChannels = 200
)

// ConnQuery selects connections for Server.Connections. Exactly one of User, Conn and Channel is
// set.
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

// ConnList is the result of Server.Connections.
type ConnList struct {
	Conns []ConnInfo // sorted by ID
	Next  string     // for Page.After; "" if no connections follow
	Coverage
}

// Connections returns the connections of a user, one connection, or the connections in a channel,
// on all nodes. Those whose Connect hook has not returned are not listed. The errors are those of
// ListChannels.
func (s *Server) Connections(ctx context.Context, q ConnQuery) (ConnList, error) {
	question, field, err := s.checkConns(q)
	if err != nil {
		return ConnList{}, callError("list connections", fmt.Errorf("%s: %w", field, err))
	}
	merged, err := askPages(ctx, s, askConnections, question, merging[calls.Connection]{
		key: func(c *calls.Connection) string { return c.ID },
		valid: func(c *calls.Connection) error {
			if len(c.ID) > maxUserID || len(c.User) > maxUserID || len(c.Node) > maxUserID || c.Waiting < 0 ||
				len(c.Channels) > maxConnChannels || c.ChannelCount < len(c.Channels) {
				return errors.New("is not one that a node has")
			}
			return nil
		},
		after: question.After,
		limit: question.Limit,
	})
	list := ConnList{Coverage: merged.Coverage, Next: merged.next}
	for _, c := range merged.items {
		list.Conns = append(list.Conns, ConnInfo{
			ID:           c.ID,
			User:         c.User,
			Node:         c.Node,
			Protocol:     c.Transport,
			Since:        time.UnixMilli(c.Since),
			Channels:     c.Channels,
			ChannelCount: c.ChannelCount,
			Waiting:      c.Waiting,
		})
	}
	return list, callError("list connections", err)
}

// connQuestion is the data of askConnections.
type connQuestion struct {
	User    string `json:"user,omitempty"`
	Conn    string `json:"conn,omitempty"`
	Channel string `json:"channel,omitempty"`
	After   string `json:"after"`
	Limit   int    `json:"limit"`
}

func (s *Server) checkConns(q ConnQuery) (question connQuestion, field string, err error) {
	page, field, err := q.Page.check()
	if err != nil {
		return question, field, err
	}
	set := 0
	for _, value := range []string{q.User, q.Conn, q.Channel} {
		if value != "" {
			set++
		}
	}
	question = connQuestion{
		User:  q.User,
		Conn:  q.Conn,
		After: page.After,
		Limit: page.Limit,
	}
	switch {
	case set != 1:
		return question, "user", errors.New("exactly one of user, conn and channel must be set")
	case len(q.User) > maxUserID || !utf8.ValidString(q.User):
		return question, "user", fmt.Errorf("must be valid UTF-8 of at most %d bytes", maxUserID)
	case len(q.Conn) > maxUserID || !utf8.ValidString(q.Conn):
		return question, "conn", fmt.Errorf("must be valid UTF-8 of at most %d bytes", maxUserID)
	case q.Channel != "":
		if question.Channel, err = s.channelName(q.Channel); err != nil {
			return question, "channel", err
		}
	}
	return question, "", nil
}

func (s *Server) answerConnections(_ context.Context, data json.RawMessage) (any, error) {
	var q connQuestion
	if err := json.Unmarshal(data, &q); err != nil || q.Limit < 1 || q.Limit > maxPage {
		return nil, errors.New("the question is not valid")
	}
	first := hub.First[*hub.Conn]{
		After: q.After,
		Limit: q.Limit,
	}
	add := func(c *hub.Conn) {
		if first.Wants(c.ID()) {
			first.Add(c.ID(), c)
		}
	}
	switch {
	case q.User != "":
		for _, c := range s.hub.ConnsOf(q.User) {
			add(c)
		}
	case q.Conn != "":
		if c := s.hub.Conn(q.Conn); c != nil {
			add(c)
		}
	case q.Channel != "":
		if ch := s.hub.Lookup(q.Channel); ch != nil {
			for c := range ch.Conns() {
				add(c)
			}
		}
	}
	conns, more := first.Result()
	answer := nodePage[calls.Connection]{More: more}
	size := maxPageBytes
	for _, c := range conns {
		info := s.describeConn(c)
		size -= 200 + len(info.User)
		for _, name := range info.Channels {
			size -= len(name) + 3
		}
		if size < 0 && len(answer.Items) > 0 {
			answer.More = true
			break
		}
		answer.Items = append(answer.Items, info)
	}
	return answer, nil
}

func (s *Server) describeConn(c *hub.Conn) calls.Connection {
	channels := c.Channels()
	if channels == nil {
		channels = []string{}
	}
	return calls.Connection{
		ID:           c.ID(),
		User:         c.UserID(),
		Node:         s.node,
		Transport:    c.Transport(),
		Since:        c.Since(),
		Channels:     channels[:min(len(channels), maxConnChannels)],
		ChannelCount: len(channels),
		Waiting:      c.Waiting(),
	}
}
