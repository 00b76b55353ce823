package pusher_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
)

// The HTTP APIs. Each reports whether the call was carried out. A call that publishes names its event
// after the attempt.
var apis = []door{
	{
		name:  "trigger",
		enter: callTrigger,
	},
	{
		name:  "signed API: publish",
		enter: callPublish,
	},
	{
		name:  "signed API: members",
		enter: callMembers,
	},
	{
		name:    "Pusher API: events",
		adapter: true,
		enter:   callPusherEvents,
	},
	{
		name:    "Pusher API: channel",
		adapter: true,
		enter:   callPusherChannel,
	},
	{
		name:  "auth endpoint",
		enter: callAuth,
	},
	{
		name:    "Pusher auth endpoint",
		adapter: true,
		enter:   callPusherAuth,
	},
}

func sumWith(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// signedChannel is the channel that the signature of the attempt is for.
func (a attempt) signedChannel() string {
	if a.with == "other channel's" {
		return a.channel + "-other"
	}
	return a.channel
}

// eventOf is the name of the event that an API publishes in an attempt.
func (a attempt) eventOf(api string) string {
	words := strings.FieldsFunc(api+"-"+a.with, func(c rune) bool { return c < 'A' || c > 'z' })
	return strings.Join(words, "-")
}

func callTrigger(t *testing.T, n *node, a attempt) bool {
	event := a.eventOf("trigger")
	now := time.Now().Unix()
	body := []byte(`{"n":1}`)
	key, err := pushy.SignTrigger(secretKey, a.signedChannel(), event, now, body)
	require.NoError(t, err)
	query := url.Values{
		"event":     {event},
		"timestamp": {strconv.FormatInt(now, 10)},
		"auth_key":  {key},
	}
	path := "/pushy/channel/" + url.PathEscape(a.channel) + "/trigger"
	header := []string{"Content-Type", "application/json"}
	ask := func() bool {
		r := newRequest(t, http.MethodPost, path+"?"+query.Encode(), body, header...)
		return n.answerOf(t, r) < 300
	}
	switch a.with {
	case "none":
		query.Del("auth_key")
	case "wrong":
		query.Set("auth_key", strings.Repeat("0", len(key)))
	case "other protocol's":
		// What is signed, with Pusher's secret; the parameters of Pusher's API; the header of the signed API.
		text := strings.Join([]string{strings.ToLower(a.channel), event, query.Get("timestamp"), string(body), ""}, ":")
		query.Set("auth_key", sumWith(appSecret, text+appSecret))
		withSecret := ask()
		query.Set("auth_key", sumWith(appSecret, text+secretKey))
		withSecret = ask() || withSecret
		call := signedAPI{
			method: http.MethodPost,
			path:   path,
			body:   string(body),
			query:  map[string]string{"event": event},
			at:     time.Now(),
		}
		asPusher := n.answerOf(t, newRequest(t, http.MethodPost, strings.TrimPrefix(call.url(), "http://pushy.test"), body,
			header...)) < 300
		query.Del("auth_key")
		header = append(header, "Pushy-Signature", signatureOf(secretKey, "/channel/"+a.channel+"/trigger", body))
		return ask() || withSecret || asPusher
	}
	return ask()
}

// signatureOf returns the header Pushy-Signature of a request.
func signatureOf(secret, path string, body []byte) string {
	keyID := sumWith(secret, "pushy2-key-id")[:8]
	now := strconv.FormatInt(time.Now().Unix(), 10)
	id := "m" + strconv.FormatInt(sockJSSessions.Add(1), 10)
	text := strings.Join([]string{"pushy2-request", keyID, now, id, path, string(body)}, "\n")
	return strings.Join([]string{"v2", keyID, now, id, sumWith(secret, text)}, " ")
}

// callSigned makes a call of the signed API. body returns the body of the call for a channel.
func callSigned(t *testing.T, n *node, a attempt, call string, body func(channel string) []byte) bool {
	path := "/api/" + call
	sent := body(a.channel)
	ask := func(header ...string) bool {
		r := newRequest(t, http.MethodPost, "/pushy"+path, sent, append(header, "Content-Type", "application/json")...)
		return n.answerOf(t, r) < 300
	}
	switch a.with {
	case "none":
		return ask()
	case "wrong":
		right := signatureOf(secretKey, path, sent)
		return ask("Pushy-Signature", right[:len(right)-64]+strings.Repeat("0", 64))
	case "other protocol's":
		// Signed with Pusher's secret, with the key id of each; the key of a trigger; a token.
		foreign := strings.Fields(signatureOf(appSecret, path, sent))
		borrowed := append([]string{"v2", sumWith(secretKey, "pushy2-key-id")[:8]}, foreign[2:]...)
		key, err := pushy.SignTrigger(secretKey, a.channel, a.eventOf("x"), time.Now().Unix(), sent)
		require.NoError(t, err)
		token, err := pushy.SignToken(secretKey, pushy.Token{Channels: []string{a.channel}, User: matrixUser})
		require.NoError(t, err)
		asKey := append([]string{}, borrowed...)
		asKey[4] = key
		passed := false
		for _, header := range []string{strings.Join(foreign, " "), strings.Join(borrowed, " "), strings.Join(asKey, " "), token} {
			passed = ask("Pushy-Signature", header) || passed
		}
		return ask("Authorization", "Bearer "+token) || passed
	}
	return ask("Pushy-Signature", signatureOf(secretKey, path, body(a.signedChannel())))
}

func callPublish(t *testing.T, n *node, a attempt) bool {
	return callSigned(t, n, a, "publish", func(channel string) []byte {
		body, err := json.Marshal(map[string]any{"events": []any{map[string]any{
			"channels": []string{channel},
			"event":    a.eventOf("publish"),
			"data":     1,
		}}})
		require.NoError(t, err)
		return body
	})
}

func callMembers(t *testing.T, n *node, a attempt) bool {
	return callSigned(t, n, a, "members", func(channel string) []byte {
		body, err := json.Marshal(map[string]any{"channel": channel})
		require.NoError(t, err)
		return body
	})
}

// callPusher makes a call of Pusher's API. signed is the call whose signature is sent.
func callPusher(t *testing.T, n *node, a attempt, sent, signed signedAPI) bool {
	sent.at = time.Now()
	signed.at = sent.at
	target := signed.url()
	query := target[strings.IndexByte(target, '?')+1:]
	ask := func(query string, header ...string) bool {
		path := sent.path
		if query != "" {
			path += "?" + query
		}
		return n.answerOf(t, newRequest(t, sent.method, path, []byte(sent.body), header...)) < 300
	}
	values, err := url.ParseQuery(query)
	require.NoError(t, err)
	switch a.with {
	case "none":
		values.Del("auth_signature")
		return ask("") || ask(values.Encode())
	case "wrong":
		values.Set("auth_signature", strings.Repeat("0", 64))
	case "other protocol's":
		// Signed with the secret of pushy's APIs; the header of the signed API; a trigger's key.
		sum := values.Get("auth_signature")
		values.Set("auth_signature", sumWith(secretKey, sum))
		withSecret := ask(values.Encode())
		key, err := pushy.SignTrigger(secretKey, a.channel, a.eventOf("x"), sent.at.Unix(), []byte(sent.body))
		require.NoError(t, err)
		values.Set("auth_signature", key)
		return ask(values.Encode(), "Pushy-Signature", signatureOf(secretKey, sent.path, []byte(sent.body))) || withSecret
	}
	return ask(values.Encode())
}

func callPusherEvents(t *testing.T, n *node, a attempt) bool {
	call := func(channel string) signedAPI {
		body, err := json.Marshal(map[string]any{
			"name":     a.eventOf("events"),
			"channels": []string{channel},
			"data":     "1",
		})
		require.NoError(t, err)
		return signedAPI{
			method: http.MethodPost,
			path:   "/apps/3/events",
			body:   string(body),
		}
	}
	return callPusher(t, n, a, call(a.channel), call(a.signedChannel()))
}

func callPusherChannel(t *testing.T, n *node, a attempt) bool {
	call := func(channel string) signedAPI {
		return signedAPI{
			method: http.MethodGet,
			path:   "/apps/3/channels/" + channel,
		}
	}
	sent := call(url.PathEscape(a.channel))
	signed := call(a.signedChannel()) // as SDKs sign, which do not escape
	if a.with != "other channel's" {
		signed = sent
	}
	return callPusher(t, n, a, sent, signed)
}

// session is the cookie of a page whose user may enter one channel.
func (a attempt) session() string {
	switch a.with {
	case "none":
		return ""
	case "wrong":
		return "forged"
	case "other protocol's":
		return sumWith(appSecret, a.channel)
	}
	return "may enter " + strings.ToLower(a.signedChannel())
}

// mayEnter is what a host gives to its auth endpoints.
func mayEnter(r *http.Request, channel string) error {
	cookie, err := r.Cookie("session")
	if err != nil || cookie.Value != "may enter "+strings.ToLower(channel) {
		return pushy.ErrDenied
	}
	return nil
}

// authEndpoints serves the auth endpoints of the host.
func (n *node) authEndpoints(mux *http.ServeMux) {
	mux.Handle("/auth", n.srv.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		return nil, mayEnter(r, channel)
	}))
	if n.p == nil {
		return
	}
	mux.Handle("/pusher/auth", n.p.AuthHandler(func(r *http.Request, channel string) (*pusher.Member, error) {
		return &pusher.Member{ID: matrixUser}, mayEnter(r, channel)
	}))
}

func callForm(t *testing.T, n *node, a attempt, path string, form url.Values) bool {
	r := newRequest(t, http.MethodPost, path, []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	if session := a.session(); session != "" {
		r.Header.Set("Cookie", fmt.Sprintf("session=%q", session))
	}
	return n.answerOf(t, r) < 300
}

func callAuth(t *testing.T, n *node, a attempt) bool {
	return callForm(t, n, a, "/auth", url.Values{
		"channel":       {a.channel},
		"connection_id": {"6c0a9a2e-7d3b-4c1e-8a55-0f2f8f0c1d2e"},
	})
}

func callPusherAuth(t *testing.T, n *node, a attempt) bool {
	return callForm(t, n, a, "/pusher/auth", url.Values{
		"channel_name": {a.channel},
		"socket_id":    {"1.2"},
	})
}
