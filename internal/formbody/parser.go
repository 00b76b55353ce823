package formbody

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser puts fields into root, which is an object.
type parser struct {
	root   node
	values int
}

// set puts a value where its name says, and returns why not, if not.
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
		if part == "" { // "[[": the rest of the name does not count
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
		if at, msg = p.child(at, part); msg != "" {
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

// setPlain puts a value under a name without brackets.
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

// push is what `name[]` does. An empty text is not pushed to a list.
func (p *parser) push(at *node, value string) string {
	switch at.kind {
	case text:
		return p.join(at, value)
	case object:
		// qs takes the number of names for a free index, free or not.
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

// add appends a text to a list.
func (p *parser) add(at *node, value string) string {
	at.items = append(at.items, &node{kind: text, text: value})
	return p.count(1)
}

// join makes a list of what is there and a text.
func (p *parser) join(at *node, value string) string {
	before := *at
	*at = node{kind: list, items: []*node{&before}}
	if msg := p.count(1); msg != "" {
		return msg
	}
	return p.add(at, value)
}

// child gives the node of that name in a list or object, a new one of kind
// none if there is none yet. A list takes numbers only.
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
	if p.values += n; p.values > MaxValues {
		return fmt.Sprintf("more than %d values", MaxValues)
	}
	return ""
}

// intoText is for a name inside of a text, where JavaScript drops what is set.
// Further inside, qs fails where it wants to make an object out of nothing.
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
		s, name, rest = "x", next, rest[1:] // a single character
	}
	return ""
}

// trimBracket cuts the last UTF-16 code unit off a part with a bracket,
// whatever it is: half of a character leaves its lone surrogate, as WTF-8.
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

// isNumber tells whether qs takes a name for an index: digits, however many.
func isNumber(name string) bool {
	return name != "" && strings.Trim(name, "0123456789") == ""
}

// listIndex gives the index that a name is for JavaScript, capped; "01" is none.
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

	// Of an object; a list keeps "01" and its like here, which are properties
	// of a JavaScript array but not part of its JSON.
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

// promote makes an object of a list, or of nothing. A list without items loses
// its names too.
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
