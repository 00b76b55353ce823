package backend

// Coverage says which nodes a result is from.
type Coverage struct {
	Nodes int // the number of nodes that have answered
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. What only they
	// have is missing from the result, and whether they have carried out the call is not known.
	Silent []string
}

type coverageAnswer struct {
	Nodes  int      `json:"nodes"`
	Silent []string `json:"silent"`
}

func (a coverageAnswer) coverage() Coverage {
	if len(a.Silent) == 0 {
		a.Silent = nil
	}
	return Coverage(a)
}
