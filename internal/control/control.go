// Package control lets the nodes that share a broker ask each other questions. Questions
// and answers are events of one channel of the broker, which no client can name.
//
// Whoever can write to the broker can ask and answer, too, so nothing that arrives is
// trusted further than an event is: sizes are bounded, and what is broken is skipped.
package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/names"
)

const (
	// Channel is the name of the channel. No protocol allows a colon in one.
	Channel = ":nodes"

	// DefaultTimeout is how long the nodes have to answer a question whose context
	// has no deadline, and MaxTimeout how long they have at most.
	DefaultTimeout = 500 * time.Millisecond
	MaxTimeout     = 10 * time.Second

	// MaxName bounds a question's name in bytes.
	MaxName = 128

	maxRunning = 64   // questions of other nodes that are being answered
	maxError   = 1024 // bytes of an answer that is an error
	maxNodes   = 10_000

	eventAsk    = "ask"
	eventAnswer = "answer"
)

// Options configure a Channel. All fields must be set.
type Options struct {
	Node string
	// Broker carries the questions, or is nil: then this node is the only one.
	Broker broker.Broker
	// Answer answers a question on this node. It returns soon after ctx has ended.
	Answer func(ctx context.Context, name string, data []byte) ([]byte, error)
	// Run runs a func in a goroutine, unless the node has begun to shut down.
	Run func(func(ctx context.Context)) bool
	// Notice logs what other nodes, or the broker, cause.
	Notice func(kind string, reason error)
}

// Nodes is one node's end of the channel. All methods are safe for concurrent use.
type Nodes struct {
	o       Options
	running chan struct{} // has an element for each answer under way

	mu        sync.Mutex
	questions map[string]*question // that this node asked, by id
}

// New returns the node's end. Open connects it.
func New(o Options) *Nodes {
	return &Nodes{
		o:         o,
		running:   make(chan struct{}, maxRunning),
		questions: map[string]*question{},
	}
}

// Answer is what one node answered.
type Answer struct {
	Node string
	Data json.RawMessage // nil if Err is set
	Err  string
}

// question waits for its answers.
type question struct {
	mu       sync.Mutex
	answers  map[string]Answer   // by node
	missing  map[string]struct{} // nodes that have not answered
	known    bool                // missing is all of them
	complete chan struct{}       // closed when none is missing, if they are known
}

// message is the data of an event of the channel.
type message struct {
	Version int             `json:"v"`
	ID      string          `json:"id"`
	Name    string          `json:"name,omitempty"` // of a question, with Millis
	Millis  int64           `json:"ms,omitempty"`   // that the nodes have to answer
	Data    json.RawMessage `json:"data,omitempty"`
	Err     string          `json:"error,omitempty"`
}

const version = 1

// Open follows the channel. A broker that is away, or refuses, is tried again in the
// background until the node ends: meanwhile this node hears no question.
func (n *Nodes) Open(ctx context.Context) {
	if n.o.Broker == nil {
		return
	}
	err := n.follow(ctx)
	if err == nil {
		return
	}
	n.o.Run(func(ctx context.Context) {
		for pause := time.Second; err != nil; pause = min(2*pause, time.Minute) {
			n.o.Notice("cannot follow the channel on which nodes ask each other; it is tried again", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			err = n.follow(ctx)
		}
	})
}

// follow returns nil, too, if the broker follows the channel as soon as it is back.
func (n *Nodes) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, MaxTimeout)
	defer cancel()
	_, err := n.o.Broker.Follow(ctx, Channel)
	if errors.Is(err, broker.ErrAway) || errors.Is(err, broker.ErrClosed) {
		return nil
	}
	return err
}

// Ask asks all nodes and returns their answers, this node's first and the others in the
// order of their ids, and the nodes that have not answered in time. silent is nil if
// all have, or if the broker does not know its nodes. Without the broker the error says
// so, and there is this node's answer alone.
func (n *Nodes) Ask(ctx context.Context, name string, data []byte) (answers []Answer, silent []string, err error) {
	timeout := DefaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(time.Until(deadline), MaxTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := &question{
		answers:  map[string]Answer{},
		missing:  map[string]struct{}{n.o.Node: {}},
		complete: make(chan struct{}),
	}
	if n.o.Broker == nil {
		q.known = true
	} else {
		id := names.RandomHex(8)
		n.mu.Lock()
		n.questions[id] = q
		n.mu.Unlock()
		defer func() {
			n.mu.Lock()
			delete(n.questions, id)
			n.mu.Unlock()
		}()
		err = n.spread(ctx, q, message{
			Version: version,
			ID:      id,
			Name:    name,
			Millis:  max(timeout.Milliseconds(), 1),
			Data:    data,
		})
		if err != nil {
			q.expect([]string{n.o.Node})
		}
	}
	if !n.o.Run(func(nodeCtx context.Context) {
		defer context.AfterFunc(nodeCtx, cancel)()
		answer, err := n.o.Answer(ctx, name, data)
		q.add(n.answer(answer, err))
	}) {
		return nil, nil, broker.ErrClosed
	}
	select {
	case <-q.complete:
	case <-ctx.Done():
	}
	answers, silent = q.result(n.o.Node)
	return answers, silent, err
}

// spread asks the other nodes.
func (n *Nodes) spread(ctx context.Context, q *question, m message) error {
	if cluster, ok := n.o.Broker.(broker.Cluster); ok {
		nodes, err := cluster.Nodes(ctx)
		if err != nil {
			return fmt.Errorf("list the nodes: %w", err)
		}
		if len(nodes) > maxNodes {
			return fmt.Errorf("the broker names %d nodes, over the limit of %d", len(nodes), maxNodes)
		}
		q.expect(append(nodes, n.o.Node))
	}
	if err := n.send(ctx, eventAsk, m); err != nil {
		return fmt.Errorf("ask the other nodes: %w", err)
	}
	return nil
}

func (n *Nodes) send(ctx context.Context, event string, m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = n.o.Broker.Append(ctx, Channel, broker.Entry{
		Kind:  broker.Event,
		Event: event,
		From:  n.o.Node,
		Data:  data,
	})
	return err
}

// Deliver takes what the broker delivers for the channel. It does not block.
func (n *Nodes) Deliver(e broker.Entry) {
	if e.Kind != broker.Event || e.From == "" || e.From == n.o.Node {
		return // this node has answered itself
	}
	var m message
	err := json.Unmarshal(e.Data, &m)
	if err == nil && m.Version != version {
		return // of a later release, which asks again in this version if it needs to
	}
	if err == nil && m.ID == "" {
		err = errors.New("it has no id")
	}
	if err != nil {
		n.o.Notice("skipped a broken message between nodes", err)
		return
	}
	switch e.Event {
	case eventAsk:
		n.asked(m)
	case eventAnswer:
		n.mu.Lock()
		q := n.questions[m.ID]
		n.mu.Unlock()
		if q != nil {
			q.add(Answer{
				Node: e.From,
				Data: m.Data,
				Err:  m.Err,
			})
		}
	}
}

// asked answers another node's question.
func (n *Nodes) asked(m message) {
	reply := message{
		Version: version,
		ID:      m.ID,
	}
	timeout := min(time.Duration(min(m.Millis, MaxTimeout.Milliseconds()))*time.Millisecond, MaxTimeout)
	if timeout <= 0 || len(m.Name) > MaxName {
		n.o.Notice("skipped a broken message between nodes", errors.New("a question without a name or a time"))
		return
	}
	select {
	case n.running <- struct{}{}:
	default:
		n.o.Notice("a question of another node was not answered",
			fmt.Errorf("%d questions are being answered, which is the limit", maxRunning))
		return
	}
	started := n.o.Run(func(ctx context.Context) {
		defer func() { <-n.running }()
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		answer := n.answer(n.o.Answer(ctx, m.Name, m.Data))
		reply.Data, reply.Err = answer.Data, answer.Err
		err := n.send(ctx, eventAnswer, reply)
		if errors.Is(err, broker.ErrTooLarge) {
			reply.Data, reply.Err = nil, "the answer is too large for the broker"
			err = n.send(ctx, eventAnswer, reply)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, broker.ErrAway) {
			n.o.Notice("cannot answer another node's question", err)
		}
	})
	if !started {
		<-n.running
	}
}

func (n *Nodes) answer(data []byte, err error) Answer {
	a := Answer{Node: n.o.Node}
	if err != nil {
		a.Err = shortened(cmp.Or(err.Error(), "failed"))
		return a
	}
	a.Data = data
	return a
}

func shortened(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") // without the half of a character
	}
	return text
}

// expect sets the nodes that are to answer.
func (q *question) expect(nodes []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known = true
	clear(q.missing)
	for _, node := range nodes {
		if _, answered := q.answers[node]; !answered {
			q.missing[node] = struct{}{}
		}
	}
	q.checkLocked()
}

// add takes an answer. The first of a node counts.
func (q *question) add(a Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, twice := q.answers[a.Node]; twice || len(q.answers) >= maxNodes {
		return
	}
	q.answers[a.Node] = a
	delete(q.missing, a.Node)
	q.checkLocked()
}

func (q *question) checkLocked() {
	if !q.known || len(q.missing) > 0 {
		return
	}
	select {
	case <-q.complete:
	default:
		close(q.complete)
	}
}

func (q *question) result(self string) (answers []Answer, silent []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	answers = slices.SortedFunc(maps.Values(q.answers), func(a, b Answer) int {
		switch {
		case a.Node == self:
			return -1
		case b.Node == self:
			return 1
		}
		return cmp.Compare(a.Node, b.Node)
	})
	if len(q.missing) > 0 {
		silent = slices.Sorted(maps.Keys(q.missing))
	}
	return answers, silent
}
