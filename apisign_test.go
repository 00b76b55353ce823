package pushy_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// signatureVectors are the vectors that the tests of publishers in other languages read, too.
func signatureVectors(t *testing.T) (vectors []struct {
	Name, Secret, KeyID, ID, Path, BodyBase64, Header string
	Time                                              int64
}) {
	t.Helper()
	raw, err := os.ReadFile("testdata/api-signatures.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &struct{ Vectors any }{&vectors}))
	require.Greater(t, len(vectors), 50)
	return vectors
}

// api.md, acceptance test 1: a server accepts each signature, and none for which one byte of the
// body differs.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	servers := map[string]*pushy.Server{}
	for _, v := range signatureVectors(t) {
		srv := servers[v.Secret]
		if srv == nil {
			srv = startServer(t, pushy.Options{SecretKey: v.Secret, Broker: newCluster().Broker()})
			servers[v.Secret] = srv
		}
		srv.SetClock(func() time.Time { return time.Unix(v.Time, 0) })
		body, err := base64.StdEncoding.DecodeString(v.BodyBase64)
		require.NoError(t, err)
		status := func(body, header string) int {
			r := httptest.NewRequest("POST", "/pushy"+v.Path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Pushy-Signature", header)
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			return w.Code
		}
		assert.True(t, strings.HasPrefix(v.Header, "v2 "+v.KeyID+" "+strconv.FormatInt(v.Time, 10)+" "+v.ID+" "), v.Name)
		if v.Path != "/api/publish" {
			continue // another call may not be there
		}
		assert.Contains(t, []int{200, 400}, status(string(body), v.Header), v.Name)
		assert.Equal(t, 403, status(string(body)+"\n", v.Header), v.Name)
		if len(body) > 0 {
			body[len(body)/2] ^= 1
			assert.Equal(t, 403, status(string(body), v.Header), v.Name)
		}
	}
}

// api.md, acceptance test 3: what TestEveryPartIsSigned and TestDisableV1RefusesTokens do not show.
func TestVersionsDoNotMix(t *testing.T) {
	t.Parallel()
	srv := triggerServer(t, pushy.Options{})
	p := connectPeer(t, srv)
	p.subscribe("room", "")
	// A v2 header does not help at the trigger.
	r := signedCall{body: "{}"}.request()
	r.URL.Path, r.URL.RawQuery = "/pushy/channel/room/trigger", "event=x"
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	_, message := errorOfAnswer(t, w)
	assert.Equal(t, 400, w.Code)
	assert.Equal(t, "Missing required parameters", message)
	// Parameters of version 1 do not help at the signed API.
	r = signedCall{body: "{}", header: "-"}.request()
	r.URL.RawQuery = "event=told&timestamp=1700000000&auth_key=" + ownSum("room:told:1700000000:{}:"+peerKey)
	w = httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	assert.Equal(t, 401, w.Code)
	p.quiet()

	off := triggerServer(t, pushy.Options{DisableV1: true})
	w = call{body: "{}"}.do(off)
	_, message = errorOfAnswer(t, w)
	assert.Equal(t, 404, w.Code)
	assert.Equal(t, "triggers are disabled here: Options.DisableV1 is set; POST a signed request to /pushy/api/publish", message)
	assert.Equal(t, 200, signedCall{body: helloBody}.do(off).Code)

	open := startServer(t, pushy.Options{DisableTrigger: true, Authorizer: authorizerFunc(func(context.Context, pushy.AuthRequest) error { return nil })})
	w = signedCall{body: helloBody}.do(open)
	_, message = errorOfAnswer(t, w)
	assert.Equal(t, 404, w.Code)
	assert.Equal(t, "the signed API is off here: Options.SecretKey is not set", message)
}

// api.md, acceptance test 4.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	const next = "the next secret of this server"
	old := ownSumWith(peerKey, "pushy2-key-id")[:8]
	both := triggerServer(t, pushy.Options{SecretKey: next, OldSecretKeys: []string{peerKey}})
	assert.Equal(t, 200, signedCall{body: helloBody}.do(both).Code)
	assert.Equal(t, 200, call{body: "{}"}.do(both).Code)
	keys := both.Stats().Keys
	require.Len(t, keys, 4)
	for i, want := range []pushy.KeyUse{
		{Version: 1, KeyID: ownSumWith(next, "pushy2-key-id")[:8]},
		{Version: 2, KeyID: ownSumWith(next, "pushy2-key-id")[:8]},
		{Version: 1, KeyID: old, Uses: 1, Last: time.Unix(triggerNow, 0)},
		{Version: 2, KeyID: old, Uses: 1, Last: time.Unix(triggerNow, 0)},
	} {
		assert.Equal(t, want, keys[i])
	}
	w := signedCall{body: helloBody, keyID: ownSumWith(next, "pushy2-key-id")[:8]}.do(both)
	_, message := errorOfAnswer(t, w)
	assert.Equal(t, 403, w.Code, "the id of one key with the HMAC of the other")
	assert.Equal(t, "Wrong signature with key "+keys[1].KeyID, message)
	assert.Equal(t, keys, both.Stats().Keys)
	after := triggerServer(t, pushy.Options{SecretKey: next})
	w = signedCall{body: helloBody}.do(after)
	_, message = errorOfAnswer(t, w)
	assert.Equal(t, 403, w.Code)
	assert.Equal(t, "Unknown key "+old, message)
}
