package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/control"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// An AskFunc answers a question on one node. data is the JSON of the value that was passed
// to Server.Ask, or nil for nil, and must not be changed. The answer is encoded as
// encoding/json does. ctx ends when the time limit of the question has passed, and when
// Shutdown begins. Every program that can write to the broker can ask, so an AskFunc must
// validate data as any other input.
type AskFunc func(ctx context.Context, data json.RawMessage) (answer any, err error)

// Answer is the answer of one node to Server.Ask.
type Answer struct {
	Node string // the node's id, see Server.Node
	// Data is the answer, or nil if Err is set.
	Data json.RawMessage
	// Err says why there is no answer: it is the error of the node's AskFunc, shortened
	// to 1,024 bytes, or says that the node has no AskFunc of that name or that the
	// answer is too large. It is "" if there is an answer.
	Err string
}

// Answers is the result of Server.Ask.
type Answers struct {
	// Answers begins with the answer of this node. The others are sorted by node.
	Answers []Answer
	// Silent has the ids of the nodes that did not answer in time, sorted: nodes that are
	// shutting down, stopped or disconnected, and nodes that died less than Options.Grace ago. A node
	// whose Shutdown has returned is not in it, unless it could not reach the broker. It is
	// nil if all nodes answered. If the Broker does not implement broker.Cluster, only this
	// node can be in it.
	Silent []string
}

// Node returns the id of this node, 16 hexadecimal digits, which is random and new for
// each Server.
func (s *Server) Node() string { return s.node }

// HandleAsk registers the func that answers a question on this node. The name has 1 to
// 128 bytes of UTF-8 and does not begin with "pushy:". HandleAsk panics if the name is not
// allowed or is registered, and if the func is nil. A node answers at most 64 questions of
// other nodes at once; it logs and does not answer those over that limit.
func (s *Server) HandleAsk(name string, answer AskFunc) {
	if answer == nil {
		panic("pushy: HandleAsk: nil func for question " + name)
	}
	if err := askName(name); err != nil {
		panic("pushy: HandleAsk: " + err.Error())
	}
	s.setAnswer(name, askable{run: answer})
}

// askable answers a question on this node.
type askable struct {
	run    AskFunc
	prompt bool // see control.Question
}

func (s *Server) setAnswer(name string, a askable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.askable[name]; taken {
		panic("pushy: question " + name + " is taken")
	}
	s.askable[name] = a
}

// Ask sends a question to all nodes that share the Broker, this one included. It returns
// their answers when all nodes have answered or ctx ends. The time limit is 500 ms if ctx
// has no deadline, and at most 10 s. data is encoded as encoding/json does. Use Ask for
// figures that each node has only for itself, such as the number of connections:
//
//	srv.HandleAsk("connections", func(context.Context, json.RawMessage) (any, error) {
//		return srv.Stats().Connections, nil
//	})
//	answers, err := srv.Ask(ctx, "connections", nil)
//
// A node that does not answer is listed in Answers.Silent and is not an error. Ask
// returns an error if the name is not allowed, if data cannot be encoded, and if the
// Broker is away or refuses the question; in the last case Answers has the answer of
// this node. After Shutdown has begun it returns ErrClosed.
//
// The answers of the other nodes are limited to 16 MiB together; an answer over that
// limit has Answer.Err set. Every program that can write to the broker can answer in the
// name of a node.
func (s *Server) Ask(ctx context.Context, name string, data any) (Answers, error) {
	if err := askName(name); err != nil {
		return Answers{}, callError("ask", err)
	}
	answers, err := s.ask(ctx, name, data)
	return answers, callError("ask", err)
}

// reservedAsk begins the names of the Server's own questions.
const reservedAsk = "pushy:"

func askName(name string) error {
	switch {
	case name == "" || len(name) > control.MaxName || !utf8.ValidString(name):
		return fmt.Errorf("the name %q does not have 1 to %d bytes of UTF-8", name, control.MaxName)
	case strings.HasPrefix(name, reservedAsk):
		return fmt.Errorf("the name %q is not allowed: names that begin with %q are reserved", name, reservedAsk)
	}
	return nil
}

// ask is Ask with any name. Its errors do not name the call.
func (s *Server) ask(ctx context.Context, name string, data any) (Answers, error) {
	var raw []byte
	if data != nil {
		var err error
		if raw, err = jsvalue.Encode(data); err != nil {
			return Answers{}, err
		}
	}
	s.mu.RLock()
	prompt := s.askable[name].prompt
	s.mu.RUnlock()
	answers, silent, err := s.nodes.Ask(ctx, control.Question{
		Name:   name,
		Data:   raw,
		Prompt: prompt,
	})
	result := Answers{Silent: silent}
	for _, a := range answers {
		result.Answers = append(result.Answers, Answer(a))
	}
	return result, err
}

// newNodes returns the part of this node that asks the others and answers them.
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
	return control.New(o)
}

// openNodes connects this node with the others.
func (s *Server) openNodes() {
	s.hub.Reserve(control.Channel, &hub.Reserved{
		Entry: s.nodes.Deliver,
		Reset: func(broker.State) { s.wakeBans() },
	})
	s.nodes.Open(context.Background())
}

// answer runs the AskFunc of that name.
func (s *Server) answer(ctx context.Context, name string, data []byte) (out []byte, err error) {
	s.mu.RLock()
	run := s.askable[name].run
	s.mu.RUnlock()
	if run == nil {
		return nil, errors.New("this node has no AskFunc of that name")
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
