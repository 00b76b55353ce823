// Package jsvalue reads and writes JSON, and lower-cases text, exactly as
// JavaScript does: what a token was signed over and which channel a name
// means must come out the same here, in browsers and in node.
//
// All functions read invalid UTF-8 as node reads it, one U+FFFD for each
// maximal broken sequence, and none keeps a reference to its input but by
// the subslices it says it returns.
package jsvalue

import "fmt"

// maxDepth bounds the recursion when Limits.Depth is zero.
const maxDepth = 10_000

// Limits bounds the work that one JSON text may cause. A zero Values is no
// limit; a zero Depth, or one above 10,000, is 10,000.
type Limits struct {
	Depth  int // containers inside one another
	Values int // values of all kinds, containers included, names not
}

// TriggerLimits are the protocol's limits for the body of a trigger.
var TriggerLimits = Limits{Depth: 256, Values: 20_000}

// A SyntaxError says where a text stops being JSON. Offset counts bytes from
// zero and may be the length of the text.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.Msg) }

// A LimitError says which limit a text goes over, and where.
type LimitError struct {
	Offset int
	Limit  string // "depth" or "values"
	Max    int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("byte %d: over the limit of %s (%d)", e.Offset, e.Limit, e.Max)
}

// KindName is what a message calls a Kind, with its article.
func KindName(kind byte) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "no JSON value"
}

// Kind tells what a raw JSON value, without blanks around it, is by its first
// byte: '{', '[', '"', 't', 'f', 'n', '0' for a number, or 0 for anything
// else. It does not check the rest.
func Kind(value []byte) byte {
	if len(value) == 0 {
		return 0
	}
	switch c := value[0]; c {
	case '{', '[', '"', 't', 'f', 'n':
		return c
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	}
	return 0
}
