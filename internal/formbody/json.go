package formbody

import (
	"fmt"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// appendJSON appends the JSON of the node. The members of objects are in the order in which
// they were set.
func (n *node) appendJSON(dst []byte) []byte {
	if n == nil {
		return append(dst, "null"...)
	}
	switch n.kind {
	case text:
		return jsvalue.AppendQuote(dst, n.text)
	case list:
		dst = append(dst, '[')
		for i, item := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.appendJSON(dst)
		}
		return append(dst, ']')
	default:
		dst = append(dst, '{')
		for i, name := range n.names {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendName(dst, name)
			dst = append(dst, ':')
			dst = n.members[name].appendJSON(dst)
		}
		return append(dst, '}')
	}
}

// appendName appends a name as a JSON string. The name can end in a lone surrogate, encoded
// as WTF-8.
func appendName(dst []byte, name string) []byte {
	if i := len(name) - 3; i >= 0 && name[i] == 0xED && name[i+1] >= 0xA0 {
		dst = jsvalue.AppendQuote(dst, name[:i])
		return fmt.Appendf(dst[:len(dst)-1], `\u%04x"`, 0xD000|rune(name[i+1]&0x3F)<<6|rune(name[i+2]&0x3F))
	}
	return jsvalue.AppendQuote(dst, name)
}
