package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"unicode/utf8"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/control"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// An AskFunc answers a question on one node. data is what Server.Ask was given, as JSON;
// it must not be changed. The answer is encoded as encoding/json does. ctx ends when
// whoever asked waits no longer, and when Shutdown begins. The nodes share the broker
// with whoever else can write to it, so data is to be checked as any other input.
type AskFunc func(ctx context.Context, data json.RawMessage) (answer any, err error)

// Answer is what one node answered to Server.Ask.
type Answer struct {
	Node string // see Server.Node
	// Data is the answer, or nil if Err is set.
	Data json.RawMessage
	// Err is why the node did not answer: the text of its AskFunc's error of at most
	// 1,024 bytes, or that it has no AskFunc of that name. It is "" if it did.
	Err string
}

// Answers is the result of Server.Ask.
type Answers struct {
	// Answers has this node's own first, and the others in the order of their ids.
	Answers []Answer
	// Silent are the ids of the nodes that have not answered in time, sorted: those that
	// are stopped or cut off, and those that died less than 15 s ago. It is nil if there
	// are none, and if the Broker is not a broker.Cluster and cannot tell.
	Silent []string
}

// Node returns the id of this node, 16 hexadecimal digits, which is random and new for
// each Server.
func (s *Server) Node() string { return s.node }

// HandleAsk makes this node answer a question that a Server asks all nodes. The name has
// 1 to 128 bytes of UTF-8. A name that is not allowed or is taken, and a nil func, panic:
// they are mistakes in the program. At most 64 questions of other nodes are answered at
// once; a node that has more to answer is silent, and logs that.
func (s *Server) HandleAsk(name string, answer AskFunc) {
	switch {
	case answer == nil:
		panic("pushy: HandleAsk: nil func for question " + name)
	case name == "" || len(name) > control.MaxName || !utf8.ValidString(name):
		panic(fmt.Sprintf("pushy: HandleAsk: the name %q does not have 1 to %d bytes of UTF-8", name, control.MaxName))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.askable[name]; taken {
		panic("pushy: question " + name + " is taken")
	}
	s.askable[name] = answer
}

// Ask asks all nodes that share the Broker, this one included, and returns what they have
// answered when all of them have, or when ctx ends. Without a deadline they have 500 ms,
// and never more than 10 s. data is encoded as encoding/json does. It is
// for what one node alone does not know, such as how many connections there are:
//
//	srv.HandleAsk("connections", func(context.Context, json.RawMessage) (any, error) {
//		return srv.Stats().Connections, nil
//	})
//	answers, err := srv.Ask(ctx, "connections", nil)
//
// A node that does not answer is named in Answers.Silent and is no error. The error says
// that data cannot be encoded, that the name is not allowed, that other nodes could not
// be asked since the Broker is away or refused, or is ErrClosed. If other nodes could not be asked
// there is this node's answer all the same.
func (s *Server) Ask(ctx context.Context, name string, data any) (Answers, error) {
	if name == "" || len(name) > control.MaxName || !utf8.ValidString(name) {
		return Answers{}, fmt.Errorf("pushy: ask: the name %q does not have 1 to %d bytes of UTF-8", name, control.MaxName)
	}
	var raw []byte
	if data != nil {
		var err error
		if raw, err = jsvalue.Encode(data); err != nil {
			return Answers{}, fmt.Errorf("pushy: ask: %w", err)
		}
	}
	answers, silent, err := s.nodes.Ask(ctx, name, raw)
	result := Answers{Silent: silent}
	for _, a := range answers {
		result.Answers = append(result.Answers, Answer(a))
	}
	switch {
	case errors.Is(err, broker.ErrClosed):
		return result, ErrClosed
	case err != nil:
		return result, fmt.Errorf("pushy: %w", err)
	}
	return result, nil
}

// newNodes returns this node's end of the channel on which nodes ask each other.
func (s *Server) newNodes(cfg *hub.Config) *control.Nodes {
	o := control.Options{
		Node:   s.node,
		Answer: s.answer,
		Run:    func(run func(context.Context)) bool { return s.hub.Go(run) },
		Notice: func(kind string, reason error) { s.notices.Warn(kind, "", slog.Any("reason", reason)) },
	}
	if !s.local {
		o.Broker = cfg.Broker
	}
	nodes := control.New(o)
	cfg.Reserved, cfg.ReservedEntry = control.Channel, nodes.Deliver
	return nodes
}

// answer runs an AskFunc of the host's.
func (s *Server) answer(ctx context.Context, name string, data []byte) (out []byte, err error) {
	s.mu.RLock()
	run := s.askable[name]
	s.mu.RUnlock()
	if run == nil {
		return nil, errors.New("this node does not answer such a question")
	}
	f := hosted(func() {
		var answer any
		answer, err = run(ctx, data)
		if err = readable(err); err == nil {
			out, err = jsvalue.Encode(answer)
		}
	})
	if f != nil {
		s.logFailure("an AskFunc", f, slog.String("question", name))
		return nil, errors.New("internal error")
	}
	return out, err
}
