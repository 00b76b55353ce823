package pushy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The README of the original prints a wrong signature; this is the right one.
func TestWorkedSignature(t *testing.T) {
	t.Parallel()
	const key = "fc7da7a7f1e50f242f6b57975ea4914aba1e6c31b56165948cd3d090b7ff0625"
	require.Equal(t, key, sha256Hex("hello:test:123456789:{}:secret"))
	for _, body := range []string{"", "{}"} {
		made, err := pushy.SignTrigger("secret", "Hello", "test", 123456789, []byte(body))
		require.NoError(t, err)
		assert.Equal(t, key, made)
	}
	srv, baseURL := serve(t, pushy.Options{})
	srv.SetClock(func() time.Time { return time.Unix(123456789, 0) })
	got := roundTrip(t, baseURL, "POST", "/pushy/channel/Hello/trigger?event=test&timestamp=123456789&auth_key="+key, nil, nil)
	assert.Equal(t, triggered(200), got)
}

// A token is a hash over text that the browser chose in part. What an unchecking
// auth endpoint signs must not be a trigger (section 7).
func TestForgedTrigger(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{})
	srv.SetClock(goldenClock)
	const connID, channel = "victims:evil:1700000000:a=1", "private-room"
	token := sha256Hex(connID + ":" + channel + ":secret") // a foreign endpoint's

	_, err := pushy.SignChannel("secret", connID, channel, nil)
	require.ErrorContains(t, err, "UUID")
	granted := httptest.NewRecorder()
	form := url.Values{"connection_id": {connID}, "channel": {channel}}.Encode()
	r := httptest.NewRequest("POST", "/auth", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(granted, r)
	assert.Equal(t, http.StatusBadRequest, granted.Code)
	assert.NotContains(t, granted.Body.String(), token)

	victim := dial(t, baseURL, true)
	victim.Send(`{"command":"SUBSCRIBE","data":{"channel":"victims"}}`)
	require.Contains(t, victim.Receive(), "pushy:subscription-success")
	trigger := func(key, contentType string) reply {
		headers := map[string]string{}
		if contentType != "" {
			headers["Content-Type"] = contentType
		}
		return roundTrip(t, baseURL, "POST", "/pushy/channel/victims/trigger?event=evil&timestamp=1700000000&auth_key="+key,
			headers, []byte("a=1:private-room"))
	}
	assert.Equal(t, refused(403, "403", "Invalid credentials ("+token+")"), trigger(token, "application/x-www-form-urlencoded"))
	for contentType, want := range map[string]reply{"application/json": badJSON, "text/plain": badType, "": badType} {
		assert.Empty(t, want.differs(trigger(token, contentType)), contentType)
	}
	// The same request is taken with a trigger's key, which is over the JSON,
	// and it is the first thing that the victim hears.
	right := sha256Hex(`victims:evil:1700000000:{"a":"1:private-room"}:secret`)
	assert.Equal(t, triggered(201), trigger(right, "application/x-www-form-urlencoded"))
	assert.Equal(t, `{"event":"evil","channel":"victims","data":{"a":"1:private-room"}}`, victim.Receive())
}

// The recording private-delimiter-confusion passes: the string that was hashed
// is the one of a channel with data, whoever meant what by it. It cannot come
// from pushy's own helpers.
func TestDelimiterConfusion(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{})
	c := dial(t, baseURL, false)
	const name = `private-room:"{\"username\":\"admin\"}"`
	_, err := pushy.SignChannel("secret", c.id, name, nil)
	require.ErrorContains(t, err, "channel name")
	_, err = pushy.SignChannel("secret", c.id, "private-room", json.RawMessage(`"{\"username\":\"admin\"}"`))
	require.NoError(t, err, "the honest way to the same token")
	form := url.Values{"connection_id": {c.id}, "channel": {name}}.Encode()
	r := httptest.NewRequest("POST", "/auth", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	granted := httptest.NewRecorder()
	srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(granted, r)
	assert.Equal(t, http.StatusBadRequest, granted.Code)
}

func subscribePrivate(c *client, channel, auth string) string {
	c.t.Helper()
	c.Send(fmt.Sprintf(`{"command":"SUBSCRIBE","data":{"channel":%q,"auth":%q}}`, channel, auth))
	return c.Receive()
}

func TestTokenIsOfOneConnection(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		pathA, pathB string
		framed       bool
	}{
		{"bare", "/pushy/socket/websocket", "/pushy/socket/websocket", false},
		{"otherSession", "/pushy/socket/000/one/websocket", "/pushy/socket/000/two/websocket", true},
		{"sameSession", "/pushy/socket/000/same/websocket", "/pushy/socket/000/same/websocket", true},
		{"sameSessionOtherServer", "/pushy/socket/000/same/websocket", "/pushy/socket/111/same/websocket", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, baseURL := serve(t, pushy.Options{})
			a := dial(t, baseURL, test.framed, withPath(test.pathA))
			b := dial(t, baseURL, test.framed, withPath(test.pathB))
			require.NotEqual(t, a.id, b.id)
			token, err := pushy.SignChannel("secret", a.id, "private-room", nil)
			require.NoError(t, err)
			const failed = `{"event":"pushy:subscription-failed","data":{"channel":"private-room","reason":"Invalid credentials"}}`
			assert.Equal(t, failed, subscribePrivate(b, "private-room", token), "before its owner")
			assert.Contains(t, subscribePrivate(a, "private-room", token), "pushy:subscription-success")
			assert.Equal(t, failed, subscribePrivate(b, "private-room", token), "beside its owner")
			assert.Equal(t, strings.Replace(failed, "room", "other", 1), subscribePrivate(a, "private-other", token))
			require.Equal(t, 1000, a.Close(1000, ""))
			assert.Equal(t, failed, subscribePrivate(b, "private-room", token), "after its owner")
		})
	}
}

func TestTokenKeys(t *testing.T) {
	t.Parallel()
	srv, baseURL := serve(t, pushy.Options{
		SecretKey: "the new secret key", OldSecretKeys: []string{"the old secret key", "the oldest secret key"},
	})
	srv.SetClock(goldenClock)
	const (
		success  = `{"event":"pushy:subscription-success","data":{"channel":"private-room",`
		failed   = `{"event":"pushy:subscription-failed","data":{"channel":"private-room","reason":"Invalid credentials"}}`
		needAuth = `{"event":"pushy:subscription-needauth","data":{"channel":"private-room"}}`
	)
	same := func(token string) string { return token }
	tests := []struct {
		name, key string
		change    func(token string) string
		want      string
	}{
		{"newKey", "the new secret key", same, success},
		{"oldKey", "the old secret key", same, success},
		{"oldestKey", "the oldest secret key", same, success},
		{"wrongKey", "the wrong secret key", same, failed},
		{"keyInOtherCase", "The new secret key", same, failed},
		{"upperCaseHex", "the new secret key", strings.ToUpper, failed},
		{"oldKeyUpperCaseHex", "the old secret key", strings.ToUpper, failed},
		{"blankBefore", "the new secret key", func(token string) string { return " " + token }, failed},
		{"blankAfter", "the new secret key", func(token string) string { return token + " " }, failed},
		{"cut", "the new secret key", func(token string) string { return token[:63] }, failed},
		{"doubled", "the new secret key", func(token string) string { return token + token }, failed},
		{"lastDigit", "the new secret key", func(token string) string { return token[:63] + "g" }, failed},
		{"empty", "the new secret key", func(string) string { return "" }, needAuth},
		{"blanks", "the new secret key", func(string) string { return " \t" }, needAuth},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, baseURL, true)
			token, err := pushy.SignChannel(test.key, c.id, "Private-Room", nil)
			require.NoError(t, err)
			require.Equal(t, sha256Hex(c.id+":private-room:"+test.key), token)
			got := subscribePrivate(c, "Private-Room", test.change(token))
			assert.True(t, strings.HasPrefix(got, test.want), got)

			if test.want == needAuth {
				return
			}
			// A trigger's key is checked by the same secrets.
			key, err := pushy.SignTrigger(test.key, "room", "e", goldenTime, nil)
			require.NoError(t, err)
			answer := roundTrip(t, baseURL, "POST", "/pushy/channel/room/trigger?event=e&timestamp=1700000000&auth_key="+
				url.QueryEscape(test.change(key)), nil, nil)
			if test.want == success {
				assert.Equal(t, triggered(200), answer)
			} else {
				want := refused(403, "403", "Invalid credentials (…)")
				assert.Empty(t, want.differs(answer), "%+v", answer)
			}
		})
	}
	t.Run("oldKeysDoNotSign", func(t *testing.T) {
		t.Parallel()
		c := dial(t, baseURL, true)
		form := url.Values{"connection_id": {c.id}, "channel": {"private-room"}}.Encode()
		r := httptest.NewRequest("POST", "/auth", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		granted := httptest.NewRecorder()
		srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, nil }).ServeHTTP(granted, r)
		require.Equal(t, http.StatusOK, granted.Code, granted.Body)
		var answer struct{ Auth string }
		require.NoError(t, json.Unmarshal(granted.Body.Bytes(), &answer))
		claims := fmt.Sprintf(`{"sub":["private-room"],"conn":%q,"iat":1700000000}`, c.id)
		assert.Equal(t, ownTokenV2("the new secret key", claims), answer.Auth)
	})
}

// Data is signed as it was sent or as JavaScript writes it, nothing between.
func TestTokenForms(t *testing.T) {
	t.Parallel()
	const success, denied, badData = "pushy:subscription-success", "Invalid credentials", "Invalid presence data"
	tests := []struct {
		name, data, signed, want string // signed: with the colon before it
	}{
		{"object", `{"b": 1.0, "a":"\u00e9"}`, `:{"b": 1.0, "a":"\u00e9"}`, success},
		{"objectCanonical", `{"b": 1.0, "a":"\u00e9"}`, `:{"b":1,"a":"é"}`, success},
		{"objectCompact", `{"b": 1.0, "a":"\u00e9"}`, `:{"b":1.0,"a":"\u00e9"}`, denied},
		{"objectSorted", `{"b": 1.0, "a":"\u00e9"}`, `:{"a":"é","b":1}`, denied},
		{"objectUnsigned", `{"b":1}`, ``, denied},
		{"text", `"{\"u\":\"\u00e9\"}"`, `:"{\"u\":\"\u00e9\"}"`, success},
		{"textCanonical", `"{\"u\":\"\u00e9\"}"`, `:"{\"u\":\"é\"}"`, success},
		{"textNotTwice", `"{\"u\":1}"`, `:{"u":1}`, denied},
		{"emptyText", `""`, `:""`, badData},
		{"emptyTextNoSlot", `""`, ``, denied},
		{"emptyTextEmptySlot", `""`, `:`, denied},
		{"null", `null`, ``, success},
		{"nullSlot", `null`, `:null`, denied},
	}
	_, baseURL := serve(t, pushy.Options{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, baseURL, true)
			token := sha256Hex(c.id + ":private-" + strings.ToLower(test.name) + test.signed + ":secret")
			c.Send(fmt.Sprintf(`{"command":"SUBSCRIBE","data":{"channel":"private-%s","auth":%q,"data":%s}}`, test.name, token, test.data))
			assert.Contains(t, c.Receive(), test.want)
		})
	}
}
