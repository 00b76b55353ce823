package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// entry is one listed origin, in the form that browsers send.
type entry struct {
	scheme string
	host   string // for a wildcard, without the star: ".example.com"
	port   string // "" for the default port of the scheme
	star   bool   // it is a wildcard: it allows hosts that end in host
}

func (e entry) String() string {
	star := ""
	if e.star {
		star = "*"
	}
	s := e.scheme + "://" + star + e.host
	if e.port != "" {
		s += ":" + e.port
	}
	return s
}

// allows reports whether e is the origin with those parts, or a wildcard that includes it.
func (e entry) allows(scheme, host, port string) bool {
	if e.scheme != scheme || e.port != port {
		return false
	}
	if !e.star {
		return e.host == host
	}
	labels, covered := strings.CutSuffix(host, e.host)
	return covered && checkLabels(labels) == nil
}

// defaultPorts are the ports that browsers omit.
var defaultPorts = map[string]string{"http": "80", "https": "443"}

// pageless has the schemes that an Origin header never has, with an explanation.
var pageless = map[string]string{
	"ws":         `pages have http: write "http://…"`,
	"wss":        `pages have https: write "https://…"`,
	"blob":       "browsers send the origin that made the blob",
	"data":       "browsers send null for it",
	"about":      "browsers send null for it",
	"javascript": "it is not the scheme of a page",
	"ftp":        "browsers do not show pages with it",
}

// parseEntry converts an origin to the form that browsers send. The error says why no
// browser can send it.
func parseEntry(s string) (entry, error) {
	scheme, rest, found := strings.Cut(s, "://")
	e := entry{scheme: strings.ToLower(scheme)}
	switch {
	case s == "null":
		return e, errors.New("any page can make its origin null, in a sandboxed iframe; Options.AllowOrigin can allow it")
	case !found:
		return e, errors.New(`has no scheme: write it like "https://app.example.com"`)
	case !isScheme(e.scheme):
		return e, fmt.Errorf("%q is not a scheme", scheme)
	case pageless[e.scheme] != "":
		return e, fmt.Errorf("no page has an origin with the scheme %s: %s", e.scheme, pageless[e.scheme])
	case e.scheme == "file":
		if strings.Trim(rest, "/") != "" {
			return e, errors.New(`browsers do not send the path of a file: write "file://"`)
		}
		return e, nil
	}
	if at := strings.IndexAny(rest, `/?#\`); at >= 0 {
		if strings.Trim(rest[at:], "/") != "" {
			return e, errors.New("an origin ends after the host and port: without a path, query or fragment")
		}
		rest = rest[:at]
	}
	if strings.Contains(rest, "@") {
		return e, errors.New("an origin has no user name or password")
	}
	host, port, err := splitPort(rest)
	if err != nil {
		return e, err
	}
	if e.port, err = plainPort(e.scheme, port); err != nil {
		return e, err
	}
	host = strings.ToLower(host)
	if strings.Contains(host, "*") {
		e.star = true
		e.host, err = wildcardEnd(e.scheme, host)
		return e, err
	}
	if host == "." && defaultPorts[e.scheme] == "" {
		e.host = host // many Electron apps have the origin app://.
		return e, nil
	}
	e.host, err = plainHost(host)
	return e, err
}

// isScheme reports whether s is a valid URL scheme in lower case.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

// splitPort splits host and port. An IPv6 address keeps its brackets.
func splitPort(s string) (host, port string, err error) {
	at := strings.LastIndexByte(s, ':')
	if end := strings.LastIndexByte(s, ']'); end >= 0 || strings.HasPrefix(s, "[") {
		if end < 0 || s[0] != '[' || end != len(s)-1 && at != end+1 {
			return "", "", errors.New(`an IPv6 address is written like "http://[::1]:8080"`)
		}
		if at < end {
			return s, "", nil
		}
		return s[:at], s[at+1:], nil
	}
	if strings.Count(s, ":") > 1 {
		return "", "", errors.New(`an IPv6 address is written like "http://[::1]:8080"`)
	}
	if at < 0 {
		return s, "", nil
	}
	return s[:at], s[at+1:], nil
}

// plainPort returns a port without leading zeros, or "" for the default port of the scheme.
func plainPort(scheme, port string) (string, error) {
	if port == "" {
		return "", nil
	}
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return "", fmt.Errorf("%q is not a port", port)
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("the port %s is not between 1 and 65535", port)
	}
	port = strconv.FormatUint(n, 10)
	if port == defaultPorts[scheme] {
		port = ""
	}
	return port, nil
}

// wildcardEnd validates a host such as "*.example.com" and returns ".example.com".
func wildcardEnd(scheme, host string) (string, error) {
	const rule = "a star stands for one label or more at the front of a name, with two labels or more after it, " +
		`as in "https://*.example.com"`
	end, ok := strings.CutPrefix(host, "*.")
	if !ok || strings.Contains(end, "*") || defaultPorts[scheme] == "" {
		return "", errors.New(rule + `; "*" alone allows any origin`)
	}
	name := strings.TrimSuffix(end, ".")
	if !strings.Contains(name, ".") {
		return "", errors.New(rule)
	}
	plain, err := plainHost(end)
	if err == nil && plain != end || endsInNumber(name) {
		return "", errors.New("a star cannot precede an IP address")
	}
	return "." + end, err
}

// plainHost returns a host, which must be in lower case, in the form that browsers send.
func plainHost(host string) (string, error) {
	if address, ok := strings.CutPrefix(host, "["); ok {
		return plainIPv6(strings.TrimSuffix(address, "]"))
	}
	name := strings.TrimSuffix(host, ".")
	switch {
	case name == "":
		return "", errors.New("has no host")
	case strings.Contains(host, "%"):
		return "", errors.New("has a percent sign: write the host without escapes")
	}
	for _, r := range host {
		if r > 0x7f {
			return "", errors.New("has a letter that is not ASCII: write the host in Punycode, as browsers send it " +
				`("xn--…"; the page's location.origin shows it)`)
		}
	}
	if err := checkLabels(name); err != nil {
		return "", err
	}
	if endsInNumber(name) {
		return plainIPv4(name)
	}
	return host, nil
}

// checkLabels validates the labels of a host in lower case, which are separated by dots.
func checkLabels(labels string) error {
	if len(labels) > 253 {
		return errors.New("the host is longer than 253 characters")
	}
	for label := range strings.SplitSeq(labels, ".") {
		switch {
		case label == "":
			return errors.New("the host has an empty label")
		case len(label) > 63:
			return errors.New("the host has a label longer than 63 characters")
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("the host has the character %q", c)
			}
		}
	}
	return nil
}

func plainIPv6(address string) (string, error) {
	if strings.Contains(address, "%") {
		return "", errors.New("browsers do not send an IPv6 address with a zone")
	}
	addr, err := netip.ParseAddr(address)
	if err != nil || !addr.Is6() {
		return "", fmt.Errorf("%q is not an IPv6 address", address)
	}
	if addr.Is4In6() { // netip writes the last four bytes in decimal, browsers write them in hexadecimal
		b := addr.As16()
		return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), nil
	}
	return "[" + addr.String() + "]", nil
}

// endsInNumber reports whether browsers parse a host as an IPv4 address, which depends on
// its last label.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	_, err := ipv4Number(last)
	return err == nil
}

// plainIPv4 parses an IPv4 address as browsers do, for example 127.1, 0x7f.0.0.1 and
// 2130706433, and returns it in the usual form.
func plainIPv4(host string) (string, error) {
	wrong := fmt.Errorf("%q is not an IPv4 address", host)
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return "", wrong
	}
	var address uint64
	for i, part := range parts {
		n, err := ipv4Number(part)
		if err != nil {
			return "", wrong
		}
		bits := 8 // the last part has all remaining bits
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if n >= 1<<bits {
			return "", wrong
		}
		address = address<<bits | n
	}
	return fmt.Sprintf("%d.%d.%d.%d", byte(address>>24), byte(address>>16), byte(address>>8), byte(address)), nil
}

// ipv4Number parses a number of an IPv4 address, which is octal after 0 and hexadecimal after
// 0x.
func ipv4Number(s string) (uint64, error) {
	base := 10
	switch {
	case strings.HasPrefix(s, "0x"):
		base = 16
		s = s[2:]
		if s == "" {
			return 0, nil
		}
	case len(s) > 1 && s[0] == '0':
		base = 8
		s = s[1:]
	}
	return strconv.ParseUint(s, base, 64)
}
