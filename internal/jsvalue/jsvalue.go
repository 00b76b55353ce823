// Package jsvalue reads and writes JSON, and converts strings to lower case, exactly as
// JavaScript does, because signed data and channel names must have the same form here, in
// browsers and in Node.js.
//
// All functions read invalid UTF-8 as Node.js does, with one U+FFFD for each maximal invalid
// sequence. They keep no reference to their input, except in results that are documented as
// parts of it.
package jsvalue

import "fmt"

// maxDepth limits the recursion if Limits.Depth is zero.
const maxDepth = 10_000

// Limits limits the work for one JSON text. If Values is zero, the number of values is not
// limited. If Depth is zero or above 10,000, it is 10,000.
type Limits struct {
	Depth  int // nested arrays and objects
	Values int // values of all kinds, including arrays and objects, without names
}

// TriggerLimits are the protocol's limits for the body of a trigger.
var TriggerLimits = Limits{Depth: 256, Values: 20_000}

// A SyntaxError is the error for a text that is not valid JSON. Offset is the byte, from zero,
// at which it becomes invalid, and can be the length of the text.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.Msg) }

// A LimitError is the error for a text that exceeds a limit at the byte Offset.
type LimitError struct {
	Offset int
	Limit  string // "depth" or "values"
	Max    int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("byte %d: over the limit of %s (%d)", e.Offset, e.Limit, e.Max)
}

// KindName returns the name of a Kind for messages, with an article.
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

// Kind returns the kind of a JSON value without whitespace around it: its first byte, which is
// '{', '[', '"', 't', 'f' or 'n', or '0' for a number, or 0 if it is not JSON. It does not
// validate the rest of the value.
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
