package pushy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// signedCall is one request to the signed API; its zero fields are those of a good one.
type signedCall struct {
	method string
	call   string // default "publish"
	key    string // default peerKey
	keyID  string // default that of key
	at     int64  // default triggerNow
	id     string // default "id-1"
	body   string
	header string // instead of the signature; "-" for none
	signed string // what is signed instead of the body
	path   string // what is signed instead of the path
}

func (c signedCall) request() *http.Request {
	or := func(value, other string) string {
		if value == "" {
			return other
		}
		return value
	}
	key := or(c.key, peerKey)
	call := or(c.call, "publish")
	at := c.at
	if at == 0 {
		at = triggerNow
	}
	header := c.header
	if header == "" {
		// Computed here and not by internal/sign, as a publisher in another language does.
		kid := or(c.keyID, ownSumWith(key, "pushy2-key-id")[:8])
		stamp := strconv.FormatInt(at, 10)
		id := or(c.id, "id-1")
		header = "v2 " + kid + " " + stamp + " " + id + " " +
			ownSumWith(key, "pushy2-request\n"+kid+"\n"+stamp+"\n"+id+"\n"+or(c.path, "/api/"+call)+"\n"+or(c.signed, c.body))
	}
	r := httptest.NewRequest(or(c.method, "POST"), "/pushy/api/"+call, strings.NewReader(c.body))
	if header != "-" {
		r.Header.Set("Pushy-Signature", header)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

func (c signedCall) do(srv http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, c.request())
	return w
}

// errorOfAnswer returns the code and message of an error.
func errorOfAnswer(t *testing.T, w *httptest.ResponseRecorder) (code, message string) {
	t.Helper()
	var body struct {
		Error struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body)
	return body.Error.Code, body.Error.Message
}

const helloBody = `{"events":[{"channels":["Room","other"],"event":"news","data":{"a":1}}]}`

// api.md, acceptance tests 3 and 6: the order of the checks and the answers.
func TestSignedRequestAnswers(t *testing.T) {
	t.Parallel()
	srv := triggerServer(t, pushy.Options{
		OldSecretKeys: []string{"an older secret key"},
		Broker:        lasting(newCluster().Broker()),
	})
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	oldID := ownSumWith("an older secret key", "pushy2-key-id")[:8]
	huge := strings.Repeat(" ", 1<<20+1)
	sig := strings.Repeat("0", 64)
	for _, c := range []struct {
		name    string
		call    signedCall
		status  int
		code    string
		message string
	}{
		{"unknownCall", signedCall{call: "nothing"}, 404, "404", "there is no call nothing"},
		{"slash", signedCall{call: "publish/"}, 404, "404", "there is no call publish/"},
		{"method", signedCall{method: "GET"}, 405, "405", "Method not allowed: POST a signed request"},
		{"noHeader", signedCall{header: "-"}, 401, "401", "Pushy-Signature is missing"},
		{"version", signedCall{header: "v1 a"}, 401, "401", `Pushy-Signature is malformed: must begin with "v2 "`},
		{"fields", signedCall{header: "v2 a b"}, 401, "401",
			"Pushy-Signature is malformed: must be v2, the key id, the time, the id and the signature, with one space between them"},
		{"keyID", signedCall{header: "v2 ABCDEF01 1 a " + sig}, 401, "401",
			"Pushy-Signature is malformed: the key id must be 8 hexadecimal digits in lower case"},
		{"time", signedCall{header: "v2 " + kid + " -1 a " + sig}, 401, "401",
			"Pushy-Signature is malformed: the time must be a number of seconds"},
		{"id", signedCall{header: "v2 " + kid + " 1 a.b " + sig}, 401, "401",
			"Pushy-Signature is malformed: the id must be 1 to 64 of A-Z a-z 0-9 _ -"},
		{"signature", signedCall{header: "v2 " + kid + " 1 a " + strings.ToUpper(strings.Repeat("a", 64))}, 401, "401",
			"Pushy-Signature is malformed: the signature must be 64 hexadecimal digits in lower case"},
		{"ahead", signedCall{at: triggerNow + 734}, 403, "501", "Clock 734 s ahead, at most 300"},
		{"behind", signedCall{at: triggerNow - 301}, 403, "501", "Clock 301 s behind, at most 300"},
		{"timeBeforeLength", signedCall{at: triggerNow + 301, body: huge}, 403, "501", "Clock 301 s ahead, at most 300"},
		{"length", signedCall{body: huge, keyID: "00000000"}, 413, "413", "Body too large"},
		{"unknownKey", signedCall{keyID: "00000000", body: "{"}, 403, "403", "Unknown key 00000000"},
		{"keyOfAnother", signedCall{keyID: oldID, body: helloBody}, 403, "403", "Wrong signature with key " + oldID},
		{"otherPath", signedCall{path: "/api/kick", body: helloBody}, 403, "403", "Wrong signature with key " + kid},
		{"prefixInPath", signedCall{path: "/pushy/api/publish", body: helloBody}, 403, "403", "Wrong signature with key " + kid},
		{"otherBody", signedCall{signed: helloBody + " ", body: helloBody}, 403, "403", "Wrong signature with key " + kid},
		{"signatureBeforeParse", signedCall{signed: "{}", body: "{"}, 403, "403", "Wrong signature with key " + kid},
		{"parse", signedCall{body: "{"}, 400, "400", "the body must be one JSON value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.call.do(srv)
			code, message := errorOfAnswer(t, w)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, c.code, code)
			assert.Equal(t, c.message, message)
			if c.code == "501" {
				assert.Equal(t, "Tue, 14 Nov 2023 22:13:20 GMT", w.Header().Get("Date"))
			}
		})
	}
	p.quiet()
	for i, c := range []signedCall{
		{at: triggerNow + 299, id: "ahead"},
		{at: triggerNow - 300, id: "behind"},
		{key: "an older secret key"},
	} {
		c.body = strings.Replace(helloBody, "1", strconv.Itoa(i), 1)
		w := c.do(srv)
		require.Equal(t, 200, w.Code, w.Body)
		assert.JSONEq(t, `{"events":[{"channels":{"room":{"received":true},"other":{"received":false}}}]}`, w.Body.String())
		assert.Equal(t, `news room {"a":`+strconv.Itoa(i)+`}`, p.next().String())
	}
	uses := map[string]uint64{}
	for _, use := range srv.Stats().Keys {
		uses[use.KeyID+" v"+strconv.Itoa(use.Version)] = use.Uses
	}
	assert.Equal(t, map[string]uint64{
		kid + " v1":   0,
		kid + " v2":   3,
		oldID + " v1": 0,
		oldID + " v2": 1,
	}, uses, "with the body that could not be parsed")
}
