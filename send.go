package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
)

const askSend = "pushy:send"

// Sent is the result of SendUser and SendConn.
type Sent struct {
	Sent int // the connections for which the message was queued, on the nodes that have answered
	Coverage
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
		return Sent{}, callError("send", fmt.Errorf("data: %w", err))
	}
	m.Event = event
	m.Data = raw
	field, err := s.checkDirect(&m)
	if err == nil {
		field, err = "data", s.checkSize(raw)
	}
	if err != nil {
		return Sent{}, callError("send", fmt.Errorf("%s: %w", field, err))
	}
	return s.send(ctx, m)
}

// checkDirect checks a message, except its data.
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
	return "", nil
}

func (s *Server) send(ctx context.Context, m directMessage) (Sent, error) {
	sent, coverage, err := s.askTotal(ctx, askSend, m)
	result := Sent{
		Sent:     sent,
		Coverage: coverage,
	}
	return result, callError("send", err)
}

func (s *Server) answerSend(_ context.Context, data json.RawMessage) (any, error) {
	var m directMessage
	err := json.Unmarshal(data, &m)
	if err == nil {
		err = names.Received(m.Event)
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
		conns = s.hub.ConnsOf(m.User)
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
