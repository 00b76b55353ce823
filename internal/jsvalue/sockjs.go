package jsvalue

import "unicode/utf8"

// AppendQuoteSockJS is AppendQuote with additional escapes for the HTTP transports of SockJS,
// because some browsers and proxies change these characters: U+200C to U+200F, U+2028 to
// U+202F, U+2060 to U+206F and U+FFF0 to U+FFFF.
func AppendQuoteSockJS(dst, s []byte) []byte {
	from := len(dst)
	dst = AppendQuote(dst, s)
	for i := from; i < len(dst); i++ {
		if dst[i] == 0xe2 || dst[i] == 0xef { // the first byte of all of them
			return appendFragile(dst[:i], string(dst[i:]))
		}
	}
	return dst
}

func appendFragile(dst []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x2028 && r <= 0x202f, r >= 0x2060 && r <= 0x206f, r >= 0xfff0 && r <= 0xffff:
			dst = appendUnicode(dst, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}
