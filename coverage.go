package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/gopushy/pushy/broker"
)

// Coverage says which nodes a result is from.
type Coverage struct {
	Nodes int // the number of nodes that have answered, this one included
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. What only they
	// have is missing from the result, and whether they have carried out the call is not known.
	// The 500 ms are for the other nodes: this node is in it only if ctx ended before its answer.
	Silent []string
}

// gather asks all nodes a question of the Server's own, and calls add with each answer. A node
// whose answer has another form, or for which add returns false, counts as silent: it has another
// version, or another program has answered in its name. The time limit of the other nodes is
// control.DefaultTimeout; this node is silent only if ctx ends first. If the other nodes cannot be
// asked, the error says why, and add has had the answer of this node.
func gather[T any](ctx context.Context, s *Server, question string, data any, add func(T) bool) (Coverage, error) {
	answers, err := s.ask(ctx, question, data)
	c := Coverage{Silent: answers.Silent}
	for _, a := range answers.Answers {
		var answer T
		if a.Err != "" || json.Unmarshal(a.Data, &answer) != nil || !add(answer) {
			c.Silent = append(c.Silent, a.Node)
			continue
		}
		c.Nodes++
	}
	slices.Sort(c.Silent)
	return c, err
}

// askTotal asks all nodes a question whose answer is a number, and returns the sum.
func (s *Server) askTotal(ctx context.Context, question string, data any) (total int, c Coverage, err error) {
	c, err = gather(ctx, s, question, data, func(n int) bool {
		total += max(n, 0)
		return n >= 0
	})
	return total, c, err
}

// callError returns the error of a call that uses the Broker. The result names the call, unless
// it is ErrClosed.
func callError(call string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrClosed), errors.Is(err, broker.ErrClosed):
		return ErrClosed
	}
	return fmt.Errorf("pushy: %s: %w", call, err)
}
