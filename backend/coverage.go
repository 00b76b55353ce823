package backend

import "github.com/gopushy/pushy/internal/calls"

// Coverage says which nodes a result is from.
type Coverage struct {
	Nodes int // the number of nodes that have answered
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. What only they
	// have is missing from the result, and whether they have carried out the call is not known.
	Silent []string
}

// coverage returns the Coverage of an answer.
func coverage(c calls.Coverage) Coverage {
	if len(c.Silent) == 0 {
		c.Silent = nil
	}
	return Coverage(c)
}
