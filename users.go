package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

const (
	askSend = "pushy:send"
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
		return ConnList{}, fmt.Errorf("pushy: list connections: %s: %w", field, err)
	}
	merged, err := askPages(ctx, s, askConnections, question, merging[connInfo]{
		key: func(c *connInfo) string { return c.ID },
		valid: func(c *connInfo) error {
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
			Protocol:     c.Protocol,
			Since:        time.UnixMilli(c.Since),
			Channels:     c.Channels,
			ChannelCount: c.ChannelCount,
			Waiting:      c.Waiting,
		})
	}
	return list, listError("connections", err)
}

// connQuestion is the data of askConnections.
type connQuestion struct {
	User    string `json:"user,omitempty"`
	Conn    string `json:"conn,omitempty"`
	Channel string `json:"channel,omitempty"`
	After   string `json:"after"`
	Limit   int    `json:"limit"`
}

// connInfo is ConnInfo between nodes, and in the answers of the signed API.
type connInfo struct {
	ID           string   `json:"id"`
	User         string   `json:"user,omitempty"`
	Node         string   `json:"node"`
	Protocol     string   `json:"transport"`
	Since        int64    `json:"since"` // milliseconds
	Channels     []string `json:"channels"`
	ChannelCount int      `json:"channelCount"`
	Waiting      int64    `json:"waiting"`
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
		for _, c := range s.hub.ConnsOf(q.User, true) {
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
	answer := nodePage[connInfo]{More: more}
	size := maxPageBytes
	for _, c := range conns {
		info := s.connInfo(c)
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

func (s *Server) connInfo(c *hub.Conn) connInfo {
	channels := c.Channels()
	if channels == nil {
		channels = []string{}
	}
	return connInfo{
		ID:           c.ID(),
		User:         c.UserID(),
		Node:         s.node,
		Protocol:     c.Transport(),
		Since:        c.Since(),
		Channels:     channels[:min(len(channels), maxConnChannels)],
		ChannelCount: len(channels),
		Waiting:      c.Waiting(),
	}
}

// Sent is the result of SendUser and SendConn.
type Sent struct {
	Sent int // the connections for which the message was queued, on the nodes that have answered
	// Nodes is the number of nodes that have answered, this one included.
	Nodes int
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. Whether they
	// have sent the message is not known.
	Silent []string
}

// SendUser sends a direct message, {"event":…,"data":…}, to all connections of a user, on all
// nodes. data is encoded as encoding/json does. The event's name follows the rules of PROTOCOL.md,
// section 5. The message is not stored: a user without a connection does not receive it.
//
// The error says which value is not valid. It is ErrClosed after Shutdown has begun. If the other
// nodes could not be asked, the error says why, and the message was sent by this node only.
func (s *Server) SendUser(ctx context.Context, user, event string, data any) (Sent, error) {
	return s.sendDirect(ctx, directMessage{User: user}, event, data)
}

// SendConn is SendUser for one connection, on any node. Conn.Send is for connections on this node.
func (s *Server) SendConn(ctx context.Context, connID, event string, data any) (Sent, error) {
	return s.sendDirect(ctx, directMessage{Conn: connID}, event, data)
}

// directMessage is the data of askSend.
type directMessage struct {
	User  string          `json:"user,omitempty"`
	Conn  string          `json:"conn,omitempty"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

func (s *Server) sendDirect(ctx context.Context, m directMessage, event string, data any) (Sent, error) {
	raw, err := jsvalue.Encode(data)
	if err != nil {
		return Sent{}, fmt.Errorf("pushy: send: data: %w", err)
	}
	m.Event = event
	m.Data = raw
	if field, err := s.checkDirect(&m); err != nil {
		return Sent{}, fmt.Errorf("pushy: send: %s: %w", field, err)
	}
	return s.send(ctx, m)
}

var errDataTooLarge = errors.New("is too large (Options.Limits.TriggerBytes)")

func (s *Server) checkDirect(m *directMessage) (field string, err error) {
	for _, to := range []struct{ field, value string }{{"user", m.User}, {"conn", m.Conn}} {
		if len(to.value) > maxUserID || !utf8.ValidString(to.value) {
			return to.field, fmt.Errorf("must be valid UTF-8 of at most %d bytes", maxUserID)
		}
	}
	if (m.User == "") == (m.Conn == "") {
		return "user", errors.New("exactly one of user and conn must be set")
	}
	if err := s.eventName(m.Event); err != nil {
		return "event", err
	}
	if most := s.opts.Limits.TriggerBytes; most > 0 && len(m.Data) > most {
		return "data", errDataTooLarge
	}
	return "", nil
}

func (s *Server) send(ctx context.Context, m directMessage) (Sent, error) {
	result, err := s.tellNodes(ctx, askSend, m)
	return Sent{
		Sent:   result.Closed,
		Nodes:  result.Nodes,
		Silent: result.Silent,
	}, kickError("send", err)
}

func (s *Server) answerSend(_ context.Context, data json.RawMessage) (any, error) {
	var m directMessage
	err := json.Unmarshal(data, &m)
	if err == nil {
		err = names.Event(m.Event)
	}
	if err != nil {
		return nil, err
	}
	raw, err := jsvalue.Compact(nil, m.Data, jsvalue.Limits{})
	if err != nil {
		return nil, err
	}
	e := &hub.Event{
		Kind: hub.Direct,
		Name: m.Event,
		Data: raw,
	}
	sent := 0
	var conns []*hub.Conn
	if m.User != "" {
		conns = s.hub.ConnsOf(m.User, true)
	} else if c := s.hub.Conn(m.Conn); c != nil {
		conns = append(conns, c)
	}
	for _, c := range conns {
		if c.Send(e) == nil {
			sent++
		}
	}
	return sent, nil
}
