package names

import (
	"errors"
	"net/url"
	"path"
	"strings"
)

// Prefix checks a path prefix and returns it without a slash at its end: "" for
// the root, and otherwise if it is empty.
func Prefix(prefix, otherwise string) (string, error) {
	if prefix == "" {
		return otherwise, nil
	}
	// It is matched on the path as it is escaped, so nothing in it may need that.
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
