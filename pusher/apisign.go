package pusher

import (
	"crypto/md5" // the protocol's digest of a body; the signature is an HMAC
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxClock is how far the clock of a publisher may differ.
const maxClock = 600 * time.Second

// refused is the answer to a request that is not carried out.
type refused struct {
	status int
	text   string
	retry  time.Duration // for Retry-After, if it is not 0
}

func refuseAPI(status int, format string, args ...any) *refused {
	return &refused{
		status: status,
		text:   fmt.Sprintf(format, args...),
	}
}

// parameters returns the parameters of a request, with keys in lower case. Each must be there once.
func parameters(r *http.Request) (map[string]string, *refused) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuseAPI(http.StatusBadRequest, "the query cannot be parsed")
	}
	all := make(map[string]string, len(values))
	for key, list := range values {
		lower := strings.ToLower(key)
		if _, twice := all[lower]; twice || len(list) != 1 {
			return nil, refuseAPI(http.StatusBadRequest, "the parameter %q is given twice", lower)
		}
		all[lower] = list[0]
	}
	return all, nil
}

// verify verifies the signature of a request.
func (a *Adapter) verify(r *http.Request, params map[string]string, body []byte) *refused {
	now := a.parts.Now()
	at, err := strconv.ParseInt(params["auth_timestamp"], 10, 64)
	signature, version, key := params["auth_signature"], params["auth_version"], params["auth_key"]
	switch {
	case key == "" || signature == "" || params["auth_timestamp"] == "":
		return refuseAPI(http.StatusUnauthorized, "auth_key, auth_timestamp, auth_version and auth_signature are needed")
	case key != a.key:
		return refuseAPI(http.StatusUnauthorized, "there is no application with this auth_key")
	case version != "1.0":
		return refuseAPI(http.StatusUnauthorized, "auth_version must be 1.0")
	case err != nil:
		return refuseAPI(http.StatusUnauthorized, "auth_timestamp must be a number of seconds")
	case time.Unix(at, 0).Before(now.Add(-maxClock)), time.Unix(at, 0).After(now.Add(maxClock)):
		return refuseAPI(http.StatusUnauthorized, "auth_timestamp is over %d s away from the server's time, which is %d",
			int(maxClock.Seconds()), now.Unix())
	}
	digest := md5.Sum(body)
	if md5Of, sent := params["body_md5"]; sent || len(body) > 0 {
		if md5Of != hex.EncodeToString(digest[:]) {
			return refuseAPI(http.StatusUnauthorized, "body_md5 is not the MD5 of the body, in lower-case hexadecimal digits")
		}
	}
	text := ""
	for _, path := range signedPaths(r) {
		text = r.Method + "\n" + path + "\n" + signedQuery(params)
		if a.signed(text, signature) {
			return nil
		}
	}
	return refuseAPI(http.StatusUnauthorized, "auth_signature is not valid; the server's time is %d, and it has signed:\n%s",
		now.Unix(), text)
}

// signedPaths returns the paths that can be signed: as received, and from /apps/ on, because some
// SDKs sign without the path under which an application is mounted; and both without escapes, because
// SDKs sign the ids of users as they are, and their HTTP clients escape them.
func signedPaths(r *http.Request) []string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if u, err := url.ParseRequestURI(path); err == nil {
		path = u.EscapedPath()
	}
	if path == "" {
		path = r.URL.EscapedPath()
	}
	paths := []string{path}
	if plain, err := url.PathUnescape(path); err == nil && plain != path {
		paths = append(paths, plain)
	}
	for _, path := range paths {
		if i := strings.Index(path, "/apps/"); i > 0 {
			paths = append(paths, path[i:])
		}
	}
	return paths
}

// signedQuery returns the parameters in the form in which they are signed.
func signedQuery(params map[string]string) string {
	pairs := make([]string, 0, len(params))
	for key, value := range params {
		if key != "auth_signature" {
			pairs = append(pairs, key+"="+value)
		}
	}
	// By key: a key can be the beginning of another one.
	slices.SortFunc(pairs, func(x, y string) int {
		keyX, _, _ := strings.Cut(x, "=")
		keyY, _, _ := strings.Cut(y, "=")
		return strings.Compare(keyX, keyY)
	})
	return strings.Join(pairs, "&")
}
