// Package control sends questions to all nodes that share a broker and collects their
// answers. Questions and answers are events of one channel of the broker, whose name
// clients cannot use.
//
// Every program that can write to the broker can ask and answer. So all messages are
// validated: their sizes are bounded, and invalid ones are skipped.
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
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/names"
)

const (
	// Channel is the name of the channel. No protocol permits a colon in a channel's name.
	Channel = ":nodes"

	// DefaultTimeout is the time limit of a question whose context has no deadline, and
	// MaxTimeout the maximum time limit.
	DefaultTimeout = 500 * time.Millisecond
	MaxTimeout     = 10 * time.Second

	// MaxName is the maximum length of a question's name in bytes.
	MaxName = 128

	maxRunning = 64       // questions of other nodes that this node answers concurrently
	maxError   = 1024     // bytes of an answer that is an error
	maxID      = 128      // bytes of the id of a node or of a question
	maxBytes   = 16 << 20 // the other nodes' answers to one question
	maxNodes   = 10_000

	eventAsk    = "ask"
	eventAnswer = "answer"
)

// Options configure Nodes. All fields must be set, except Broker.
type Options struct {
	Node string
	// Broker carries the questions. If it is nil, this node is the only one.
	Broker broker.Broker
	// Answer answers a question on this node. Unless the question is prompt, it must return
	// soon after ctx has ended.
	Answer func(ctx context.Context, name string, data []byte) ([]byte, error)
	// Run runs a func in a goroutine. It returns false if the node has begun to shut down.
	Run func(func(ctx context.Context)) bool
	// Notice logs a fault of another node or of the broker.
	Notice func(kind string, reason error)
}

// Nodes asks the other nodes and answers them. All methods are safe for concurrent use.
type Nodes struct {
	o       Options
	running chan struct{} // has an element for each answer under way

	open    atomic.Bool  // set when the node can answer
	timeout atomic.Int64 // DefaultTimeout, or what SetTimeout has set

	mu        sync.Mutex
	questions map[string]*question // of this node, by id
	followErr error                // why the broker does not follow the channel
}

// New returns Nodes, which Open connects to the broker.
func New(o Options) *Nodes {
	n := &Nodes{
		o:         o,
		running:   make(chan struct{}, maxRunning),
		questions: map[string]*question{},
	}
	n.SetTimeout(DefaultTimeout)
	return n
}

// SetTimeout replaces DefaultTimeout. Tests with several nodes in real time need it, because any
// of them can be without a processor for longer.
func (n *Nodes) SetTimeout(d time.Duration) { n.timeout.Store(int64(d)) }

// Answer is the answer of one node.
type Answer struct {
	Node string
	Data json.RawMessage // nil if Err is set
	Err  string
}

// Question is what all nodes are asked.
type Question struct {
	Name string
	Data []byte
	// Prompt means that Options.Answer only computes, and waits for nothing. So this node's own
	// answer has no time limit: if it is late, this process has not been given the processor, and
	// the node would be reported as silent although it carries out the question.
	Prompt bool
}

// question collects the answers to one question.
type question struct {
	complete chan struct{} // closed when known is set and missing is empty
	self     string        // the node that asked
	answered chan struct{} // closed when self has answered

	mu      sync.Mutex
	answers map[string]Answer   // by node
	size    int                 // bytes of the other nodes' answers
	missing map[string]struct{} // nodes that have not answered
	known   bool                // missing includes all nodes that have not answered
}

// message is the JSON in the data of the events.
type message struct {
	Version int             `json:"v"`
	ID      string          `json:"id"`
	Name    string          `json:"name,omitempty"` // only in a question
	Millis  int64           `json:"ms,omitempty"`   // the time limit of a question
	Data    json.RawMessage `json:"data,omitempty"`
	Err     string          `json:"error,omitempty"`
}

const version = 1

// Open follows the channel. If the broker refuses, Open retries in the background until the
// node shuts down. Until it succeeds, this node receives neither questions nor answers.
func (n *Nodes) Open(ctx context.Context) {
	n.open.Store(true)
	if n.o.Broker == nil {
		return
	}
	err := n.follow(ctx)
	if err == nil {
		return
	}
	n.o.Run(func(ctx context.Context) {
		for pause := time.Second; err != nil; pause = min(2*pause, time.Minute) {
			n.o.Notice("cannot follow the channel for questions between nodes; pushy retries", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			err = n.follow(ctx)
		}
	})
}

// follow also returns nil if the broker is away, because it follows the channel when it can
// be reached again.
func (n *Nodes) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, MaxTimeout)
	defer cancel()
	_, err := n.o.Broker.Follow(ctx, Channel)
	if errors.Is(err, broker.ErrAway) || errors.Is(err, broker.ErrClosed) {
		err = nil
	}
	n.mu.Lock()
	n.followErr = err
	n.mu.Unlock()
	return err
}

// Ask asks all nodes. It returns their answers, this node's first and the others sorted by
// node, and the nodes that did not answer in time. silent is nil if all nodes answered, or
// if the broker does not know its nodes. If the question cannot be sent, the error says
// why, and this node's answer is the only one. If the node shuts down, the error is
// broker.ErrClosed.
//
// The time limit is the deadline of ctx, but at most MaxTimeout, and DefaultTimeout if there is
// none or if the question is prompt. This node's answer to a prompt question ends only with ctx
// or with the node.
func (n *Nodes) Ask(ctx context.Context, ask Question) (answers []Answer, silent []string, err error) {
	timeout := n.timeoutOf(ctx, ask)
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limited, cancelTimeout := context.WithTimeout(call, timeout)
	defer cancelTimeout()
	q := &question{
		complete: make(chan struct{}),
		self:     n.o.Node,
		answered: make(chan struct{}),
		answers:  map[string]Answer{},
		missing:  map[string]struct{}{n.o.Node: {}},
		known:    n.o.Broker == nil,
	}
	if !n.o.Run(func(nodeCtx context.Context) {
		defer context.AfterFunc(nodeCtx, func() { cancel(broker.ErrClosed) })()
		own := limited
		if ask.Prompt {
			own = call
		}
		q.add(n.answer(n.o.Answer(own, ask.Name, ask.Data)))
		<-call.Done() // a Shutdown ends the wait for the other nodes, too
	}) {
		return nil, nil, broker.ErrClosed
	}
	if n.o.Broker != nil {
		id := names.RandomHex(8)
		n.mu.Lock()
		n.questions[id] = q
		n.mu.Unlock()
		defer func() {
			n.mu.Lock()
			delete(n.questions, id)
			n.mu.Unlock()
		}()
		err = n.askOthers(limited, q, message{
			Version: version,
			ID:      id,
			Name:    ask.Name,
			Millis:  max(timeout.Milliseconds(), 1),
			Data:    ask.Data,
		})
		if err != nil {
			q.expect(nil)
		}
	}
	select {
	case <-q.complete:
	case <-limited.Done():
	}
	if ask.Prompt {
		select {
		case <-q.answered:
		case <-call.Done():
		}
	}
	if errors.Is(context.Cause(call), broker.ErrClosed) {
		err = broker.ErrClosed
	}
	answers, silent = q.result()
	return answers, silent, err
}

// timeoutOf returns the time limit of a question.
func (n *Nodes) timeoutOf(ctx context.Context, ask Question) time.Duration {
	timeout := time.Duration(n.timeout.Load())
	deadline, ok := ctx.Deadline()
	switch {
	case !ok:
		return timeout
	case ask.Prompt:
		return min(time.Until(deadline), timeout)
	}
	return min(time.Until(deadline), MaxTimeout)
}

// askOthers sends a question to the other nodes.
func (n *Nodes) askOthers(ctx context.Context, q *question, m message) error {
	n.mu.Lock()
	followErr := n.followErr
	n.mu.Unlock()
	if followErr != nil {
		return fmt.Errorf("follow the channel for questions between nodes: %w", followErr)
	}
	if cluster, ok := n.o.Broker.(broker.Cluster); ok {
		nodes, err := cluster.Nodes(ctx)
		if err != nil {
			return fmt.Errorf("list the nodes: %w", err)
		}
		if len(nodes) > maxNodes {
			return fmt.Errorf("the broker lists %d nodes, over the limit of %d", len(nodes), maxNodes)
		}
		q.expect(nodes)
	}
	if err := n.send(ctx, eventAsk, m); err != nil {
		return fmt.Errorf("send the question to the other nodes: %w", err)
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

// Deliver receives the entries of the channel from the broker. It does not block.
func (n *Nodes) Deliver(e broker.Entry) {
	if !n.open.Load() || e.Kind != broker.Event || e.From == n.o.Node {
		return // this node answers its own questions without the broker
	}
	var m message
	err := json.Unmarshal(e.Data, &m)
	if err == nil && m.Version != version {
		return // from a later release
	}
	if err == nil && (m.ID == "" || len(m.ID) > maxID || e.From == "" || len(e.From) > maxID) {
		err = fmt.Errorf("its id and its sender must have 1 to %d bytes", maxID)
	}
	if err == nil && e.Event == eventAnswer && (m.Data == nil) == (m.Err == "") {
		err = errors.New("an answer must have either data or an error")
	}
	if err != nil {
		n.o.Notice("skipped an invalid message between nodes", err)
		return
	}
	switch e.Event {
	case eventAsk:
		n.answerQuestion(m)
	case eventAnswer:
		n.mu.Lock()
		q := n.questions[m.ID]
		n.mu.Unlock()
		if q != nil {
			q.add(Answer{
				Node: e.From,
				Data: m.Data,
				Err:  truncate(m.Err),
			})
		}
	}
}

// answerQuestion answers the question of another node.
func (n *Nodes) answerQuestion(m message) {
	reply := message{
		Version: version,
		ID:      m.ID,
	}
	timeout := min(time.Duration(min(m.Millis, MaxTimeout.Milliseconds()))*time.Millisecond, MaxTimeout)
	if timeout <= 0 || m.Name == "" || len(m.Name) > MaxName {
		n.o.Notice("skipped an invalid message between nodes",
			fmt.Errorf("a question must have a time limit and a name of 1 to %d bytes", MaxName))
		return
	}
	select {
	case n.running <- struct{}{}:
	default:
		n.o.Notice("a question of another node was not answered",
			fmt.Errorf("this node already answers %d questions, which is the limit", maxRunning))
		return
	}
	started := n.o.Run(func(ctx context.Context) {
		defer func() { <-n.running }()
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		answer := n.answer(n.o.Answer(ctx, m.Name, m.Data))
		reply.Data = answer.Data
		reply.Err = answer.Err
		err := n.send(ctx, eventAnswer, reply)
		if errors.Is(err, broker.ErrTooLarge) {
			reply.Data = nil
			reply.Err = "the answer is too large for the broker"
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
		a.Err = truncate(cmp.Or(err.Error(), "failed"))
		return a
	}
	a.Data = data
	return a
}

func truncate(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") // without an incomplete character
	}
	return text
}

// expect sets the nodes that are to answer, in addition to the one that asked. Answers of
// other nodes do not count.
func (q *question) expect(nodes []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known = true
	clear(q.missing)
	q.missingLocked(q.self)
	for _, node := range nodes {
		q.missingLocked(node)
	}
	q.checkLocked()
}

func (q *question) missingLocked(node string) {
	if _, answered := q.answers[node]; !answered {
		q.missing[node] = struct{}{}
	}
}

// add records an answer. Only the first answer of a node counts.
func (q *question) add(a Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, expected := q.missing[a.Node]; !expected && (q.known || len(q.answers) >= maxNodes) {
		return
	}
	if _, answered := q.answers[a.Node]; answered {
		return
	}
	if a.Node != q.self {
		if len(a.Data) > maxBytes-q.size {
			a.Data = nil
			a.Err = fmt.Sprintf("the other nodes' answers have over %d bytes in total", maxBytes)
		}
		q.size += len(a.Data)
	}
	q.answers[a.Node] = a
	delete(q.missing, a.Node)
	if a.Node == q.self {
		close(q.answered)
	}
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

func (q *question) result() (answers []Answer, silent []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	answers = slices.SortedFunc(maps.Values(q.answers), func(a, b Answer) int {
		switch {
		case a.Node == q.self:
			return -1
		case b.Node == q.self:
			return 1
		}
		return cmp.Compare(a.Node, b.Node)
	})
	if len(q.missing) > 0 {
		silent = slices.Sorted(maps.Keys(q.missing))
	}
	return answers, silent
}
