package formbody

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser sets fields in root, which is an object.
type parser struct {
	root   node
	values int
}

// set sets a value at the place that its name describes. It returns "" or an error message.
func (p *parser) set(name, value string) string {
	if strings.IndexByte(name, ']') < 0 || name[0] == '[' {
		return p.setPlain(name, value)
	}
	parts := strings.Split(name, "[")
	if len(parts)-1 > MaxDepth {
		return fmt.Sprintf("more than %d brackets", MaxDepth)
	}
	at := &p.root
	for i, part := range parts {
		if part == "" { // "[[": the rest of the name is ignored
			break
		}
		if at.kind == none || at.kind == text && at.text == "" {
			*at = node{kind: list}
		}
		if part == "]" {
			return p.push(at, value)
		}
		part = trimBracket(part)
		if at.kind == list && !isNumber(part) {
			at.promote()
		}
		if at.kind == text {
			return intoText(at.text, part, parts[i+1:])
		}
		var msg string
		at, msg = p.child(at, part)
		if msg != "" {
			return msg
		}
	}
	switch at.kind {
	case list:
		return p.add(at, value)
	case text:
		return p.join(at, value)
	default:
		*at = node{kind: text, text: value}
		return ""
	}
}

// setPlain sets a value with a name without brackets.
func (p *parser) setPlain(name, value string) string {
	at, msg := p.child(&p.root, name)
	switch {
	case msg != "":
		return msg
	case at.kind == none:
		*at = node{kind: text, text: value}
		return ""
	case at.kind == list:
		return p.add(at, value)
	}
	return p.join(at, value)
}

// push sets a value with a name that ends in []. An empty string is not added to a list.
func (p *parser) push(at *node, value string) string {
	switch at.kind {
	case text:
		return p.join(at, value)
	case object:
		// Like qs, use the number of names as the index, even if that index is in use.
		member, msg := p.child(at, strconv.Itoa(len(at.names)))
		if msg == "" {
			*member = node{kind: text, text: value}
		}
		return msg
	}
	if value == "" {
		return ""
	}
	return p.add(at, value)
}

// add appends a string to a list.
func (p *parser) add(at *node, value string) string {
	at.items = append(at.items, &node{kind: text, text: value})
	return p.count(1)
}

// join replaces the node with a list of the node and a string.
func (p *parser) join(at *node, value string) string {
	before := *at
	*at = node{kind: list, items: []*node{&before}}
	if msg := p.count(1); msg != "" {
		return msg
	}
	return p.add(at, value)
}

// child returns the node with that name in a list or object. If there is none, it adds one of
// kind none. In a list, the name must be a number.
func (p *parser) child(at *node, name string) (*node, string) {
	if at.kind == list {
		if index, ok := listIndex(name); ok {
			if index > MaxIndex {
				return nil, fmt.Sprintf("index over %d", MaxIndex)
			}
			if more := index + 1 - len(at.items); more > 0 {
				if msg := p.count(more); msg != "" {
					return nil, msg
				}
				at.items = append(at.items, make([]*node, more)...)
			}
			if at.items[index] == nil {
				at.items[index] = &node{}
			}
			return at.items[index], ""
		}
	}
	if member, ok := at.members[name]; ok {
		return member, ""
	}
	if msg := p.count(1); msg != "" {
		return nil, msg
	}
	return at.addMember(name, &node{}), ""
}

func (p *parser) count(n int) string {
	p.values += n
	if p.values > MaxValues {
		return fmt.Sprintf("more than %d values", MaxValues)
	}
	return ""
}

// intoText handles a name inside a string, where JavaScript ignores an assignment. It returns
// an error message for deeper names for which qs fails, because it would set a property of
// undefined.
func intoText(s, name string, rest []string) string {
	for len(rest) > 0 && rest[0] != "" && rest[0] != "]" {
		next := trimBracket(rest[0])
		index, ok := listIndex(name)
		if !ok || index >= codeUnits(s) {
			if isNumber(next) {
				return ""
			}
			return "a name inside a string"
		}
		s = "x" // the value of an index of a string is a single character
		name = next
		rest = rest[1:]
	}
	return ""
}

// trimBracket removes the last UTF-16 code unit of a part with a bracket, even if it is not the
// bracket. If this splits a character, its lone surrogate remains, encoded as WTF-8.
func trimBracket(part string) string {
	if strings.IndexByte(part, ']') < 0 {
		return part
	}
	r, n := utf8.DecodeLastRuneInString(part)
	part = part[:len(part)-n]
	if r >= 0x10000 {
		high := 0xD800 + (r-0x10000)>>10
		part += string([]byte{0xED, byte(0x80 | high>>6&0x3F), byte(0x80 | high&0x3F)})
	}
	return part
}

func codeUnits(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r >= 0x10000 {
			n++
		}
	}
	return n
}

// isNumber reports whether qs uses a name as an index: any number of digits.
func isNumber(name string) bool {
	return name != "" && strings.Trim(name, "0123456789") == ""
}

// listIndex returns the index that a name is in JavaScript, at most 999,999,999. "01" is not
// an index.
func listIndex(name string) (int, bool) {
	if !isNumber(name) || name[0] == '0' && len(name) > 1 {
		return 0, false
	}
	if len(name) > 9 {
		return 999_999_999, true
	}
	n, _ := strconv.Atoi(name)
	return n, true
}

type kind byte

const (
	none kind = iota
	text
	list
	object
)

type node struct {
	kind  kind
	text  string
	items []*node // of a list; nil is a gap

	// The members of an object. A list has names such as "01" here, which are properties of a
	// JavaScript array but not part of its JSON.
	names   []string
	members map[string]*node
}

func (n *node) addMember(name string, member *node) *node {
	if n.members == nil {
		n.members = make(map[string]*node)
	}
	n.names = append(n.names, name)
	n.members[name] = member
	return member
}

// promote converts a list, or a node of kind none, to an object. A list without items also
// loses its names.
func (n *node) promote() {
	o := node{kind: object}
	for i, item := range n.items {
		if item != nil {
			o.addMember(strconv.Itoa(i), item)
		}
	}
	if len(n.items) > 0 {
		for _, name := range n.names {
			o.addMember(name, n.members[name])
		}
	}
	*n = o
}
