package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
)

// SignatureHeader is the header field that signs a request to the signed API.
const SignatureHeader = "Pushy-Signature"

const (
	// SignedWindow is the largest difference between the time of a signed request and the
	// time of the server.
	SignedWindow = 300 * time.Second
	// SignedBytes is the largest size of the body of a signed request.
	SignedBytes = 1 << 20
)

// Call is a request to the signed API whose signature is valid (PROTOCOL.md, section 15).
type Call struct {
	Path  string // after the prefix, such as "/api/publish"
	KeyID string
	Time  int64 // Unix seconds
	ID    string
	Body  []byte

	signature string
}

// SigningKey is a secret key with its id.
type SigningKey struct {
	ID     string // sign.KeyID
	Secret string
}

// SignedReader reads requests to the signed API and verifies their signatures. All fields must
// be set.
type SignedReader struct {
	Keys        []SigningKey
	BodyTimeout time.Duration
	Now         func() time.Time
	// Started refuses requests that were signed before it, unless it is zero, which means that
	// ids outlive this process. The time of a request has no fractions, so a request of the
	// second of the start may be older than it: it is refused, too, but with 503, after which
	// publishers sign it anew.
	Started func() time.Time
}

// Read reads the request for path, which is what follows the prefix. The order of the checks
// is that of PROTOCOL.md, section 15.
func (rd *SignedReader) Read(w http.ResponseWriter, r *http.Request, path string) (*Call, *Refusal) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(rd.BodyTimeout))
	if r.Method != http.MethodPost {
		refused := Refuse(http.StatusMethodNotAllowed, "Method not allowed: POST a signed request")
		refused.Header = [2]string{"Allow", http.MethodPost}
		return nil, refused
	}
	c, refused := parseSignature(r.Header.Values(SignatureHeader))
	if refused != nil {
		return nil, refused
	}
	c.Path = path
	if refused = rd.checkTime(c.Time); refused != nil {
		return nil, refused
	}
	c.Body, refused = readBody(w, r, bodyRules{
		max:  SignedBytes,
		cure: "divide it into several requests",
		allowed: func(header string) bool {
			isJSON, _ := bodyType(header)
			return isJSON
		},
		unknown: "Content-Type must be application/json",
	})
	if refused != nil {
		return nil, refused
	}
	// The body has been read. If the deadline expired later, it would end r's context.
	_ = rc.SetReadDeadline(time.Time{})
	if refused = rd.verify(c); refused != nil {
		return nil, refused
	}
	return c, nil
}

func parseSignature(values []string) (*Call, *Refusal) {
	switch len(values) {
	case 0:
		return nil, Refuse(http.StatusUnauthorized, SignatureHeader+" is missing")
	case 1:
	default:
		return nil, Refuse(http.StatusUnauthorized, SignatureHeader+" given twice")
	}
	malformed := func(why string) (*Call, *Refusal) {
		return nil, Refuse(http.StatusUnauthorized, SignatureHeader+" is malformed: "+why)
	}
	fields := strings.Split(values[0], " ")
	if fields[0] != "v2" {
		return malformed(`must begin with "v2 "`)
	}
	if len(fields) != 5 {
		return malformed("must be v2, the key id, the time, the id and the signature, with one space between them")
	}
	c := &Call{
		KeyID:     fields[1],
		ID:        fields[3],
		signature: fields[4],
	}
	var ok bool
	switch c.Time, ok = unixSeconds(fields[2]); {
	case !sign.IsHex(c.KeyID, sign.KeyIDLength):
		return malformed("the key id must be 8 hexadecimal digits in lower case")
	case !ok:
		return malformed("the time must be a number of seconds")
	case !names.IsToken(c.ID):
		return malformed("the id must be 1 to 64 of A-Z a-z 0-9 _ -")
	case !sign.IsHex(c.signature, 64):
		return malformed("the signature must be 64 hexadecimal digits in lower case")
	}
	return c, nil
}

func (rd *SignedReader) checkTime(at int64) *Refusal {
	now := rd.Now()
	const window = int64(SignedWindow / time.Second)
	skew := at - now.Add(time.Second/2).Unix() // rounded to the nearest second
	message := ""
	started := rd.Started()
	switch {
	case skew > window:
		message = fmt.Sprintf("Clock %d s ahead, at most %d", skew, window)
	case -skew > window:
		message = fmt.Sprintf("Clock %d s behind, at most %d", -skew, window)
	case !time.Unix(at, 0).Before(started):
		return nil
	case at == started.Unix():
		return RefuseRetry(time.Second, "Signed in the second in which this server started: sign it anew")
	default:
		message = "Signed before this server started, which may have answered it: sign it anew"
	}
	refused := Refuse(http.StatusForbidden, message)
	refused.Code = "501"
	refused.Header = [2]string{"Date", now.UTC().Format(http.TimeFormat)}
	refused.Hint = fmt.Sprintf("%s (the request's time is %d and this server's is %d)", message, at, now.Unix())
	return refused
}

// verify compares the signature with that of the key which the request names.
func (rd *SignedReader) verify(c *Call) *Refusal {
	for _, key := range rd.Keys {
		if key.ID != c.KeyID {
			continue
		}
		if sign.Equal(c.signature, sign.Request(key.Secret, c.KeyID, c.Time, c.ID, c.Path, c.Body)) {
			return nil
		}
		refused := Refuse(http.StatusForbidden, "Wrong signature with key "+c.KeyID)
		refused.Hint = "the signature does not fit the key id, time, id, path and body: " +
			"compare the path, which begins after Options.Prefix, and the body byte by byte"
		return refused
	}
	refused := Refuse(http.StatusForbidden, "Unknown key "+c.KeyID)
	refused.Hint = "no key of Options.SecretKey and OldSecretKeys has the id " + c.KeyID
	return refused
}
