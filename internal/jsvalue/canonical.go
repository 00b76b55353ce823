package jsvalue

import (
	"bytes"
	"cmp"
	"math"
	"slices"
)

// Canonical appends the result of JSON.stringify(JSON.parse(src)) in JavaScript and returns
// the extended slice: no whitespace; of duplicate names, the first place with the last value;
// names that are array indexes first, in ascending order; numbers in the shortest form of the
// double; escapes only for quotes, backslashes, control characters and lone surrogates. After
// an error, which is a *SyntaxError or a *LimitError, the slice is dst without changes.
func Canonical(dst, src []byte, lim Limits) ([]byte, error) {
	c := canonicalizer{scanner: newScanner(src, lim), dst: dst}
	c.blanks()
	if err := c.value(1); err != nil {
		return dst, err
	}
	if err := c.end(); err != nil {
		return dst, err
	}
	return c.dst, nil
}

type canonicalizer struct {
	scanner
	dst     []byte
	members []member // of the objects that are not complete, innermost last
	scratch []byte
}

// member is the position of a member of an object in dst: `"name"` up to colon, then `:` and
// the value. The name is in canonical form. Each UTF-16 string, including those with lone
// surrogates, has exactly one canonical form, so names are equal if and only if their bytes
// are.
type member struct {
	start, colon, end int
	index             uint32 // the array index that the name is, or notIndex
}

func (c *canonicalizer) value(depth int) error {
	if err := c.count(); err != nil {
		return err
	}
	from := c.pos
	var err error
	switch b := c.peek(); b {
	case '"':
		return c.str()
	case '{':
		return c.object(depth)
	case '[':
		return c.array(depth)
	case 't':
		err = c.literal("true")
	case 'f':
		err = c.literal("false")
	case 'n':
		err = c.literal("null")
	default:
		if b != '-' && b-'0' > 9 {
			return c.fail("a value")
		}
		if err = c.number(); err == nil {
			c.dst = appendNumber(c.dst, c.src[from:c.pos])
		}
		return err
	}
	c.dst = append(c.dst, c.src[from:c.pos]...)
	return err
}

func (c *canonicalizer) str() error {
	t, err := c.scanner.str()
	if err != nil {
		return err
	}
	if !t.escaped && !t.broken {
		c.dst = append(c.dst, c.src[t.start-1:t.end+1]...)
		return nil
	}
	c.dst = append(c.dst, '"')
	c.dst = appendRequoted(c.dst, c.src[t.start:t.end])
	c.dst = append(c.dst, '"')
	return nil
}

func (c *canonicalizer) array(depth int) error {
	if err := c.enter(depth); err != nil {
		return err
	}
	c.pos++
	c.dst = append(c.dst, '[')
	c.blanks()
	if c.peek() == ']' {
		c.pos++
		c.dst = append(c.dst, ']')
		return nil
	}
	for {
		c.blanks()
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.blanks()
		b := c.peek()
		if b != ',' && b != ']' {
			return c.fail("',' or ']'")
		}
		c.pos++
		c.dst = append(c.dst, b)
		if b == ']' {
			return nil
		}
	}
}

func (c *canonicalizer) object(depth int) error {
	if err := c.enter(depth); err != nil {
		return err
	}
	c.pos++
	c.dst = append(c.dst, '{')
	c.blanks()
	if c.peek() == '}' {
		c.pos++
		c.dst = append(c.dst, '}')
		return nil
	}
	if c.members == nil {
		c.members = make([]member, 0, 8)
	}
	first := len(c.members)
	for {
		c.blanks()
		m := member{start: len(c.dst)}
		if err := c.str(); err != nil {
			return err
		}
		m.index = arrayIndex(c.dst[m.start+1 : len(c.dst)-1])
		m.colon = len(c.dst)
		c.blanks()
		if c.peek() != ':' {
			return c.fail("':'")
		}
		c.pos++
		c.dst = append(c.dst, ':')
		c.blanks()
		if err := c.value(depth + 1); err != nil {
			return err
		}
		m.end = len(c.dst)
		c.members = append(c.members, m)
		c.blanks()
		switch c.peek() {
		case ',':
			c.pos++
			c.dst = append(c.dst, ',')
		case '}':
			c.pos++
			c.sortMembers(first)
			c.members = c.members[:first]
			c.dst = append(c.dst, '}')
			return nil
		default:
			return c.fail("',' or '}'")
		}
	}
}

// sortMembers removes duplicates from the members from first on, which are at the end of dst,
// and sorts them in the order of JavaScript.
func (c *canonicalizer) sortMembers(first int) {
	members := c.members[first:]
	start := members[0].start
	all := len(members)
	members = c.dropRepeated(members)
	if len(members) == all && inOrder(members) {
		return
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.index, b.index) })
	c.scratch = append(c.scratch[:0], c.dst[start:]...)
	c.dst = c.dst[:start]
	for i, m := range members {
		if i > 0 {
			c.dst = append(c.dst, ',')
		}
		c.dst = append(c.dst, c.scratch[m.start-start:m.end-start]...)
	}
}

func inOrder(members []member) bool {
	for i := 1; i < len(members); i++ {
		if members[i].index < members[i-1].index {
			return false
		}
	}
	return true
}

// fewMembers is the largest number of members that are compared with each other. For more
// members, a map keeps the work linear for all inputs.
const fewMembers = 16

// dropRepeated leaves one member for each name, in the first place and with the last value,
// and returns the shortened slice.
func (c *canonicalizer) dropRepeated(members []member) []member {
	kept := members[:0]
	if len(members) <= fewMembers {
		for _, m := range members {
			name := c.dst[m.start:m.colon]
			i := slices.IndexFunc(kept, func(k member) bool {
				return bytes.Equal(c.dst[k.start:k.colon], name)
			})
			if i < 0 {
				kept = append(kept, m)
			} else {
				kept[i] = m
			}
		}
		return kept
	}
	start := members[0].start
	all := string(c.dst[start:])
	seen := make(map[string]int, len(members))
	for _, m := range members {
		name := all[m.start-start : m.colon-start]
		if i, ok := seen[name]; ok {
			kept[i] = m
			continue
		}
		seen[name] = len(kept)
		kept = append(kept, m)
	}
	return kept
}

// notIndex sorts names that are not array indexes after those that are.
const notIndex = math.MaxUint32

// arrayIndex returns the array index that name is: 0 to 4294967294, without leading zeros.
// For other names it returns notIndex.
func arrayIndex(name []byte) uint32 {
	if len(name) == 0 || len(name) > 10 || name[0] == '0' && len(name) > 1 {
		return notIndex
	}
	n := uint64(0)
	for _, c := range name {
		if c-'0' > 9 {
			return notIndex
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(min(n, notIndex))
}
