package console

import (
	"context"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/seam"
)

// The questions that the nodes ask each other.
const (
	askSample = "console:sample"
	askCounts = "console:counts"
	askConn   = "console:connection"
)

// agent is the part of the consoles that each node has once. It answers for its node.
type agent struct {
	srv     *pushy.Server
	hub     *hub.Hub
	samples shared[nodeSample]
	counted counts // of the last sample; only sample uses it
	ends    ends
	watches watches
}

// agentKey is the key of the agent among seam.Server.Extras.
type agentKey struct{}

// agentOf returns the agent of a Server. The first call makes it.
func agentOf(srv *pushy.Server) *agent {
	parts := seam.Of(srv)
	made := &agent{
		srv:     srv,
		hub:     parts.Hub,
		samples: newShared[nodeSample](),
	}
	if known, loaded := parts.Extras.LoadOrStore(agentKey{}, made); loaded {
		return known.(*agent)
	}
	parts.HandlePrompt(askSample, made.answerSample)
	parts.HandlePrompt(askCounts, made.answerCounts)
	parts.HandlePrompt(askConn, made.answerConn)
	parts.HandlePrompt(askEnds, made.answerEnds)
	parts.HandlePrompt(askRemove, made.answerRemove)
	parts.HandlePrompt(askWatch, made.answerWatch)
	parts.HandlePrompt(askDecisions, made.answerDecisions)
	srv.OnEnding(made.ends.add)
	return made
}

func (a *agent) answerSample(ctx context.Context, _ json.RawMessage) (any, error) {
	return a.samples.get(ctx, a.sample)
}

// countQuestion is the data of askCounts.
type countQuestion struct {
	Channels []string `json:"channels"`
}

// answerCounts returns the number of subscribers of each channel on this node.
func (a *agent) answerCounts(_ context.Context, data json.RawMessage) (any, error) {
	var q countQuestion
	if json.Unmarshal(data, &q) != nil || len(q.Channels) > 2*maxTop {
		return nil, errInvalid
	}
	counts := make([]int, len(q.Channels))
	for i, name := range q.Channels {
		if ch := a.hub.Lookup(name); ch != nil {
			counts[i] = ch.Subscribers()
		}
	}
	return counts, nil
}

var errInvalid = errors.New("the question is not valid")

// connQuestion is the data of the questions about one connection.
type connQuestion struct {
	Conn string `json:"conn"`
}

// connDetail is what a node answers to askConn if the connection is on it.
type connDetail struct {
	connRow
	Address string `json:"address"`
	Agent   string `json:"agent"`
}

func (a *agent) answerConn(_ context.Context, data json.RawMessage) (any, error) {
	var q connQuestion
	if json.Unmarshal(data, &q) != nil || !validID(q.Conn) {
		return nil, errInvalid
	}
	c := a.hub.Conn(q.Conn)
	if c == nil {
		return nil, nil
	}
	row := a.row(c)
	row.Channels = row.Channels[:min(len(row.Channels), 200)]
	return &connDetail{
		connRow: row,
		Address: c.Address(),
		Agent:   c.Agent(),
	}, nil
}

// maxID is the largest number of bytes of the id of a user or a connection.
const maxID = 128

func validID(id string) bool { return id != "" && len(id) <= maxID && utf8.ValidString(id) }
