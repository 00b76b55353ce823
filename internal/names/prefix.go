package names

import (
	"errors"
	"net/url"
	"path"
	"strings"
)

// Prefix validates a path prefix and returns it without a trailing slash, so the root is "".
// If prefix is empty, it returns otherwise.
func Prefix(prefix, otherwise string) (string, error) {
	if prefix == "" {
		return otherwise, nil
	}
	// The prefix is compared with the escaped path, so it must not have characters that need
	// an escape.
	if prefix[0] != '/' || strings.ContainsAny(prefix, "{}") || strings.Contains(prefix, "//") ||
		(&url.URL{Path: prefix}).EscapedPath() != prefix {
		return "", errors.New("must be a plain path that begins with a slash")
	}
	trimmed := strings.TrimSuffix(prefix, "/")
	if trimmed != "" && path.Clean(trimmed) != trimmed {
		return "", errors.New("must be a plain path that begins with a slash: " +
			"clients resolve the segments . and .. themselves")
	}
	return trimmed, nil
}
