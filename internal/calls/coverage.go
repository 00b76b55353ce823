package calls

// Coverage says which nodes an answer is from.
type Coverage struct {
	Nodes  int      `json:"nodes"`
	Silent []string `json:"silent"` // never null
}

// Page selects a part of a list.
type Page struct {
	After string `json:"after,omitempty"`
	Limit *int   `json:"limit,omitempty"`
}

// Optional returns a pointer to the value of a field that is optional, or nil for the zero value.
func Optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
