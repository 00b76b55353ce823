package pushy_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// credentialConn is the id of the connection in the tests of chosen parts, and credentialUser its
// user.
const (
	credentialConn = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"
	credentialUser = "victim"
)

// signedText is what somebody has signed with peerKey.
type signedText struct {
	value string
	// The text that was hashed, without the secret key of version 1. Both are "" if the value was
	// made up.
	sha256, hmac string
	claims       string // of a token of version 2
}

func signedV1(parts ...string) signedText {
	text := strings.Join(parts, ":")
	return signedText{value: ownSum(text + ":" + peerKey), sha256: text}
}

func signedV2(lines ...string) signedText {
	text := strings.Join(lines, "\n")
	return signedText{value: ownSumWith(peerKey, text), hmac: text}
}

func signedToken(value string) signedText {
	s := signedText{value: value}
	if parts := strings.Split(value, "."); len(parts) == 4 {
		s.hmac = "pushy2-token\n" + parts[1] + "\n" + parts[2]
		claims, _ := base64.RawURLEncoding.DecodeString(parts[2])
		s.claims = string(claims)
	}
	return s
}

// signer signs parts that an attacker has chosen.
type signer struct {
	name string
	sign func(srv *pushy.Server, a, b, c, d string) signedText
	// The kinds of credentials that it can give to an attacker.
	request, token, key bool
	ownClock            bool // it signs with the time of the process
}

// signers check nothing if their name says so. The others are pushy's own functions, whose errors
// give nothing.
var signers = []signer{
	{
		name: "nobody",
		sign: func(_ *pushy.Server, a, _, _, _ string) signedText { return signedText{value: a} },
	},
	{
		name:  "endpoint of version 1 that checks nothing",
		sign:  func(_ *pushy.Server, a, b, _, _ string) signedText { return signedV1(a, b) },
		token: true,
		key:   true, // this is why version 1 can be disabled
	},
	{
		name:  "endpoint of version 1 that checks nothing, with data",
		sign:  func(_ *pushy.Server, a, b, c, _ string) signedText { return signedV1(a, b, c) },
		token: true,
		key:   true,
	},
	{
		name:  "publisher of version 1 that checks nothing",
		sign:  func(_ *pushy.Server, a, b, c, d string) signedText { return signedV1(a, b, c, d) },
		token: true,
		key:   true,
	},
	{
		name: "endpoint of version 2 that signs any string",
		sign: func(_ *pushy.Server, a, b, _, _ string) signedText { return signedV2("pushy2-token", a, b) },
	},
	{
		name:  "endpoint of version 2 that signs any claims",
		sign:  func(_ *pushy.Server, a, _, _, _ string) signedText { return signedToken(ownTokenV2(peerKey, a)) },
		token: true,
	},
	{
		name: "publisher of version 2 that checks nothing",
		sign: func(_ *pushy.Server, a, b, c, d string) signedText {
			return signedV2("pushy2-request", a, b, c, "/api/publish", d)
		},
		request: true,
	},
	{
		name: "AuthHandler",
		sign: func(srv *pushy.Server, a, b, c, _ string) signedText {
			form := url.Values{"channel": {a}, "connection_id": {b}, "data": {c}, "v": {"2"}}
			r := httptest.NewRequest("POST", "/pushy/auth", strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(w, r)
			var answer struct{ Auth string }
			_ = json.Unmarshal(w.Body.Bytes(), &answer)
			return signedToken(answer.Auth)
		},
		token: true,
	},
	{
		name: "SignToken",
		sign: func(_ *pushy.Server, a, b, c, _ string) signedText {
			value, _ := pushy.SignToken(peerKey, pushy.Token{Channels: []string{a}, Conn: b, User: c})
			return signedToken(value)
		},
		token:    true,
		ownClock: true,
	},
	{
		name: "SignChannel",
		sign: func(_ *pushy.Server, a, b, c, _ string) signedText {
			value, err := pushy.SignChannel(peerKey, a, b, json.RawMessage(c))
			if err != nil {
				return signedText{}
			}
			return signedText{value: value, sha256: a + ":" + strings.ToLower(b)}
		},
		token: true,
	},
	{
		name: "SignTrigger",
		sign: func(_ *pushy.Server, a, b, c, _ string) signedText {
			value, err := pushy.SignTrigger(peerKey, a, b, triggerNow, []byte(c))
			if err != nil {
				return signedText{}
			}
			return signedText{value: value, sha256: strings.ToLower(a) + ":" + b + ":" + strconv.Itoa(triggerNow) + ":" + c}
		},
		key: true,
	},
}

// request sends the credential as the signature of a request to the signed API, whose id and body
// the attacker chooses, and returns the status.
func requestWith(srv *pushy.Server, credential, call, id, body string) int {
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	r := signedCall{
		call:   call,
		body:   body,
		header: "v2 " + kid + " " + strconv.Itoa(triggerNow) + " " + id + " " + credential,
	}.request()
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w.Code
}

// triggerWith sends the credential as the key of a trigger.
func triggerWith(srv *pushy.Server, credential, channel, event, body string) int {
	path := "/pushy/channel/" + url.PathEscape(channel) + "/trigger"
	r := &http.Request{
		Method: "POST",
		URL: &url.URL{
			Path:     "/pushy/channel/" + channel + "/trigger",
			RawPath:  path,
			RawQuery: url.Values{"event": {event}, "timestamp": {strconv.Itoa(triggerNow)}, "auth_key": {credential}}.Encode(),
		},
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
		Host:          "example.com",
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w.Code
}

// checkChosenParts has a signer sign four parts, and uses the result at every endpoint that accepts
// a credential, with parts that the attacker chooses, too. What is accepted must be what was signed.
// The result says as which kinds of credentials it was accepted.
func checkChosenParts(t *testing.T, by signer, a, b, c, d, call, x, y, z string) (request, token, key bool) {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: peerKey,
		Broker:    lasting(newCluster().Broker()), // ids are remembered there, so that all times are valid
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer srv.Close()
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	srv.SetConnIDs(func() string { return credentialConn })
	signed := by.sign(srv, a, b, c, d)
	if signed.value == "" {
		return false, false, false
	}

	status := requestWith(srv, signed.value, call, x, y)
	if status != 401 && status != 403 && status != 404 && status != 413 {
		kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
		require.True(t, by.request, "%s: a signature of a request", by.name)
		require.Equal(t, signed.hmac, strings.Join([]string{
			"pushy2-request", kid, strconv.Itoa(triggerNow), x, "/api/" + call, y,
		}, "\n"), "%s", by.name)
		request = true
		require.True(t, call == "publish" || status >= 400, "%s: the call %s was signed for publish", by.name, call)
	}
	r := signedCall{call: call, body: y, header: signed.value}.request()
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	require.Contains(t, []int{401, 404, 413}, w.Code, "%s: the value as the whole header", by.name)

	if status = triggerWith(srv, signed.value, x, y, z); status < 300 {
		key = true
		body := z
		if body == "" {
			body = "{}"
		}
		require.True(t, by.key, "%s: the key of a trigger", by.name)
		require.True(t, strings.HasPrefix(signed.sha256, strings.ToLower(x)+":"+y+":"+strconv.Itoa(triggerNow)+":"),
			"%s: %q of %q", by.name, body, signed.sha256)
	}

	if by.ownClock {
		srv.SetClock(time.Now)
	}
	p := connectUser(t, srv, credentialUser)
	data := ""
	if json.Valid([]byte(z)) {
		data = strings.TrimSpace(z)
	}
	const target = "private-target"
	for _, f := range []frame{
		p.subscribeWith(target, signed.value, data),
		p.ask(`{"command":"pushy:refresh","data":{"channel":"` + target + `","auth":` + quoted(t, signed.value) + `},"id":"1"}`),
	} {
		if f.Event != "pushy:subscription-success" && f.Event != "pushy:reply" {
			continue
		}
		token = true
		require.True(t, by.token, "%s: a token", by.name)
		if signed.sha256 != "" {
			require.True(t, strings.HasPrefix(signed.sha256, credentialConn+":"+target), "%s: %q", by.name, signed.sha256)
			continue
		}
		var says struct {
			Sub        []string
			Conn, User string
		}
		require.NoError(t, json.Unmarshal([]byte(signed.claims), &says), "%s", by.name)
		require.True(t, slices.ContainsFunc(says.Sub, func(s string) bool { return strings.EqualFold(s, target) }), signed.claims)
		require.True(t, says.Conn != "" || says.User != "", signed.claims)
		require.Contains(t, []string{"", credentialConn}, says.Conn)
		require.Contains(t, []string{"", credentialUser}, says.User)
	}
	return request, token, key
}

func quoted(t *testing.T, s string) string {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	return string(text)
}

// chosenParts has parts of signed strings with which one credential could become another: a, b, c
// and d are signed; x, y and z are used at the endpoints.
func chosenParts() [][7]string {
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	stamp := strconv.Itoa(triggerNow)
	const (
		kick  = `{"target":"user:victim"}`
		event = `{"events":[{"channels":["nobody"],"event":"x"}]}`
	)
	request := func(id, body string) string {
		return "pushy2-request\n" + kid + "\n" + stamp + "\n" + id + "\n/api/kick\n" + body
	}
	claims := `{"sub":["private-target"],"conn":"` + credentialConn + `","iat":` + stamp + `}`
	payload := base64.RawURLEncoding.EncodeToString([]byte(claims))
	return [][7]string{
		{credentialConn, "private-target", "", "", "id", event, ""},
		{credentialConn, "private-target", `{"a":1}`, "", "id", kick, `{"a":1}`},
		{"private-target", credentialConn, "", "", "id", kick, ""},
		{"private-target", "", credentialUser, "", "id", kick, ""},
		{request("id", kick), "", "", "", "id", kick, ""},
		{request("id", ""), kick, "", "", "id", kick, ""},
		{"pushy2-request", kid, stamp, "id\n/api/kick\n" + kick, "id", kick, ""},
		{kid, stamp, "id", event, "id", event, ""},
		{kid, stamp, "id", event, "id", kick, ""},
		{kid, stamp, "id\n/api/kick\n" + kick, event, "id", kick + "\n/api/publish\n" + event, ""},
		{kid, stamp, "id\n/api/publish\n" + event, "", "id", event + "\n/api/publish\n", ""},
		{kid, payload, "", "", "id", kick, ""},
		{kid + "\n" + payload, "", "", "", "id", kick, ""},
		{"pushy2-request\n" + kid, stamp + "\nid\n/api/kick\n" + kick, "", "", "id", kick, ""},
		{claims, "", "", "", "id", kick, ""},
		{`{"sub":["private-target"],"user":"victim","iat":` + stamp + `,"exp":` + strconv.Itoa(triggerNow+60) + `}`, "", "", "", "id", kick, ""},
		{"room", "told", stamp, "{}", "room", "told", "{}"},
		{"room", "told", "{}", "", "room", "told", "{}"},
		{"room:told", stamp, "{}", "", "room", "told", "{}"},
		{"room", "told:" + stamp, "{}", "", "room", "told", "{}"},
		{"room:told:" + stamp, "{}", "", "", "room", "told", "{}"},
		{credentialConn, "private-target", stamp, "{}", "room", "told", `{}`},
		{credentialConn, "private-target", `"{\"a\"`, `1}"`, "room", "told", `"{\"a\":1}"`},
		{credentialConn + ":private-target", "", "", "", "room", "told", ""},
		{"pushy2-token\n" + kid + "\n" + payload, "", "", "", "id", kick, ""},
		{"v2." + kid + "." + payload + ".", "", "", "", "id", kick, ""},
		{"pushy2-key-id", "", "", "", "id", kick, ""},
		{"member:private-target:m:id:victim", "", "", "", "id", kick, ""},
		{"a\x00b", "private-target\x00", "\x00", "\x00", "a\x00b", "\x00", "\x00"},
		{"private-target\n", credentialConn + "\n", "\n", "\n", "id\n", "\n", "\n"},
		{"", "", "", "", "", "", ""},
	}
}

// api.md, acceptance test 5: what is signed for parts that an attacker has chosen is never another
// credential. So no endpoint for tokens, whatever it signs, gives the signature of a request of
// version 2.
func TestChosenPartsOfCredentials(t *testing.T) {
	t.Parallel()
	for _, by := range signers {
		t.Run(by.name, func(t *testing.T) {
			t.Parallel()
			anyRequest, anyToken, anyKey := false, false, false
			for _, p := range chosenParts() {
				for call := range apiBodies {
					request, token, key := checkChosenParts(t, by, p[0], p[1], p[2], p[3], call, p[4], p[5], p[6])
					anyRequest, anyToken, anyKey = anyRequest || request, anyToken || token, anyKey || key
				}
			}
			assert.Equal(t, by.request, anyRequest, "requests")
			assert.Equal(t, by.token, anyToken, "tokens")
			assert.Equal(t, by.key, anyKey, "keys of triggers")
		})
	}
}

// FuzzCredentials: whatever an attacker chooses to be signed, and wherever it is used, only what was
// signed is accepted.
func FuzzCredentials(f *testing.F) {
	calls := slices.Sorted(maps.Keys(apiBodies))
	for _, p := range chosenParts() {
		for by := range signers {
			f.Add(uint8(by), uint8(by), p[0], p[1], p[2], p[3], p[4], p[5], p[6])
		}
	}
	f.Fuzz(func(t *testing.T, by, call uint8, a, b, c, d, x, y, z string) {
		checkChosenParts(t, signers[int(by)%len(signers)], a, b, c, d, calls[int(call)%len(calls)], x, y, z)
	})
}
