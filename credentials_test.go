package pushy_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
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
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
)

// apiBodies has a valid body for each call of the signed API. None of them changes what the
// clients of the tests have.
var apiBodies = map[string]string{
	"publish":     `{"events":[{"channels":["nobody"],"event":"news"}]}`,
	"channels":    `{}`,
	"members":     `{"channel":"private-nobody"}`,
	"connections": `{"user":"nobody"}`,
	"history":     `{"channel":"kept"}`,
	"position":    `{"channel":"kept"}`,
	"kick":        `{"target":"user:nobody"}`,
	"unban":       `{"target":"user:nobody"}`,
	"bans":        `{}`,
	"send":        `{"user":"nobody","event":"x"}`,
}

const (
	oldPeerKey  = "an older secret of sixteen bytes"
	hostSession = "the host's session of ann"
	victim      = "42" // the Conn.UserID of the clients of credentialBench
)

// credentialBench is a Server with everything that accepts a credential. All of it belongs to
// one user, so that only the kind of a credential can be what is refused.
type credentialBench struct {
	t     testing.TB
	srv   *pushy.Server
	web   string
	heard *recorder // what srv answers over HTTP
	auth  http.Handler
	conn  *peer  // of the user; in private-room with a token that expires
	held  member // of the user, in private-held
	// session is a SockJS session over HTTP.
	session string
	// position is that of the channel kept.
	position string
}

type member struct{ id, key string }

// newCredentialBench starts a Server with these options and those that it needs.
func newCredentialBench(t *testing.T, o pushy.Options) *credentialBench {
	t.Helper()
	o.OldSecretKeys = []string{oldPeerKey}
	o.Grace = time.Hour
	o.Broker = lasting(newCluster().Broker()) // its Ledger remembers ids
	o.Limits = pushy.Limits{CommandRate: -1, JoinRate: -1}
	o.Channel = func(name string) (o pushy.ChannelOptions) {
		if strings.HasPrefix(name, "kept") {
			o.Keep = broker.Keep{Size: 10, TTL: time.Hour}
		}
		return o
	}
	srv := startServer(t, o)
	heard := &recorder{Handler: srv}
	web := serveHandler(t, srv, heard)
	b := &credentialBench{
		t:       t,
		srv:     srv,
		web:     web,
		heard:   heard,
		session: "session-of-ann",
		auth: srv.AuthHandler(func(r *http.Request, _, _ string) (any, error) {
			if cookie, err := r.Cookie("session"); err != nil || cookie.Value != url.QueryEscape(hostSession) {
				return nil, pushy.ErrDenied
			}
			return nil, nil
		}),
	}
	require.NoError(t, srv.Publish(t.Context(), "kept", "first", nil))
	position, err := srv.Position(t.Context(), "kept")
	require.NoError(t, err)
	b.position = position.String()
	stream, err := http.Post(web+"/pushy/socket/000/"+b.session+"/xhr_streaming", "text/plain", nil)
	require.NoError(t, err)
	require.Equal(t, 200, stream.StatusCode)
	t.Cleanup(func() { _ = stream.Body.Close() }) // it keeps the session open

	b.conn = connectUser(t, srv, victim)
	success := b.conn.subscribeWith("private-room", b.conn.expiring("private-room", time.Hour, ""), "")
	require.Equal(t, "pushy:subscription-success", success.Event, "%s", success)

	holder := connectUser(t, srv, victim)
	f := holder.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-held","auth":%q,"hold":true}}`,
		holder.expiring("private-held", time.Hour, "")))
	b.held = member{f.field("memberId"), f.field("key")}
	require.NotEmpty(t, b.held.key, "%s", f)
	holder.Abort()
	wait(t, peerPatience, "the end of the holder", func() { <-holder.Done() })
	return b
}

// post sends a request to the server over a socket and returns the status.
func (b *credentialBench) post(path, body string) int {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", b.web+path, strings.NewReader(body))
	require.NoError(b.t, err)
	r.Header.Set("Content-Type", "application/json")
	return b.status(r)
}

func (b *credentialBench) status(r *http.Request) int {
	b.t.Helper()
	w, err := http.DefaultClient.Do(r)
	require.NoError(b.t, err)
	defer func() { _ = w.Body.Close() }()
	_, err = io.Copy(io.Discard, w.Body)
	require.NoError(b.t, err)
	return w.StatusCode
}

// signedRequest is a request to a call of the signed API, in which the credential is the
// signature, or the whole header.
func (b *credentialBench) signedRequest(call, credential string, whole bool, at int64) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", b.web+"/pushy/api/"+call+
		"?auth_key="+url.QueryEscape(credential), strings.NewReader(apiBodies[call]))
	require.NoError(b.t, err)
	header := credential
	if !whole {
		kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
		header = "v2 " + kid + " " + strconv.FormatInt(at, 10) + " credential-" + call + " " + credential
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Pushy-Signature", header)
	return r
}

// endpoints returns all places where the server accepts a credential. Each func reports whether
// the server accepts the credential there. The rest of the request is valid.
func (b *credentialBench) endpoints(at int64) map[string]func(credential string) bool {
	stamp := strconv.FormatInt(at, 10)
	unknown := 0
	all := map[string]func(string) bool{
		"trigger": func(credential string) bool {
			return b.post("/pushy/channel/nobody/trigger?event=told&timestamp="+stamp+"&auth_key="+url.QueryEscape(credential), "{}") < 300
		},
		"subscribe": func(credential string) bool {
			f := b.conn.subscribeWith("private-other", credential, "")
			if f.Event != "pushy:subscription-success" {
				return false
			}
			b.conn.ask(`{"command":"unsubscribe","data":{"channel":"private-other"}}`)
			return true
		},
		"refresh": func(credential string) bool {
			quoted, err := json.Marshal(credential)
			require.NoError(b.t, err)
			f := b.conn.ask(`{"command":"pushy:refresh","data":{"channel":"private-room","auth":` + string(quoted) + `},"id":"1"}`)
			return f.Event == "pushy:reply"
		},
		"member": func(credential string) bool {
			p := connectUser(b.t, b.srv, victim)
			key, err := json.Marshal(credential)
			require.NoError(b.t, err)
			f := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-held","auth":%q,"hold":true,"member":{"id":%q,"key":%s}}}`,
				p.expiring("private-held", time.Hour, ""), b.held.id, key))
			accepted := f.field("memberId") == b.held.id
			if !accepted && f.Event == "pushy:subscription-success" {
				p.ask(`{"command":"unsubscribe","data":{"channel":"private-held"}}`)
			}
			p.Abort()
			wait(b.t, peerPatience, "the end of the client", func() { <-p.Done() })
			return accepted
		},
		"since": func(credential string) bool {
			channel := "kept"
			if credential != b.position {
				// The server compares unknown epochs once a second for each channel.
				unknown++
				channel = fmt.Sprint("kept-", unknown)
			}
			epoch, offset, _ := strings.Cut(credential, ".")
			if _, err := strconv.Atoi(offset); err != nil {
				epoch, offset = credential, "1"
			}
			quoted, err := json.Marshal(epoch)
			require.NoError(b.t, err)
			f := b.conn.ask(`{"command":"subscribe","data":{"channel":"` + channel + `","since":{"epoch":` + string(quoted) + `,"offset":` + offset + `}}}`)
			if f.Event == "pushy:subscription-success" {
				b.conn.ask(`{"command":"unsubscribe","data":{"channel":"` + channel + `"}}`)
			}
			return strings.Contains(string(f.Data), `"recovered":true`)
		},
		"receiver of webhooks": func(credential string) bool {
			r := httptest.NewRequest("POST", "/webhooks", strings.NewReader(webhookBody))
			r.Header.Set("Webhook-Id", "msg_credential")
			r.Header.Set("Webhook-Timestamp", stamp)
			r.Header.Set("Webhook-Signature", credential)
			_, err := backend.VerifyWebhook(r, webhookSecret)
			return err == nil
		},
		"session": func(credential string) bool {
			return b.post("/pushy/socket/000/"+url.PathEscape(credential)+"/xhr_send", `["{}"]`) < 300
		},
	}
	for name, set := range map[string]func(r *http.Request, credential string){
		"auth endpoint": func(r *http.Request, credential string) {
			r.AddCookie(&http.Cookie{Name: "session", Value: url.QueryEscape(credential)})
		},
		"auth endpoint, bearer": func(r *http.Request, credential string) {
			r.Header.Set("Authorization", "Bearer "+strings.ReplaceAll(credential, "\n", " "))
		},
	} {
		all[name] = func(credential string) bool {
			form := url.Values{"channel": {"private-other"}, "connection_id": {b.conn.id}, "auth": {credential}, "auth_key": {credential}}
			r := httptest.NewRequest("POST", "/pushy/auth", strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			set(r, credential)
			w := httptest.NewRecorder()
			b.auth.ServeHTTP(w, r)
			return w.Code == 200
		}
	}
	for call := range apiBodies {
		all["api "+call] = func(credential string) bool { return b.status(b.signedRequest(call, credential, false, at)) < 300 }
		all["api "+call+", header"] = func(credential string) bool {
			return b.status(b.signedRequest(call, credential, true, at)) < 300
		}
	}
	return all
}

// credentials returns every credential that the user, or a backend, can have, with the endpoints
// at which it must be accepted.
func (b *credentialBench) credentials(at int64) map[string]credential {
	b.t.Helper()
	stamp := strconv.FormatInt(at, 10)
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	v2 := func(claims string) string {
		return ownTokenV2(peerKey, `{"sub":["private-other","private-room"],`+claims+`"iat":`+stamp+`,"exp":`+strconv.FormatInt(at+3600, 10)+`}`)
	}
	conn, user := `"conn":"`+b.conn.id+`",`, `"user":"`+victim+`",`
	all := map[string]credential{
		"v1 trigger key":             {ownSum("nobody:told:" + stamp + ":{}:" + peerKey), []string{"trigger"}},
		"v1 trigger key, old secret": {ownSum("nobody:told:" + stamp + ":{}:" + oldPeerKey), []string{"trigger"}},
		"v1 trigger key, other body": {ownSum("nobody:told:" + stamp + ":[]:" + peerKey), nil},
		"v1 token":                   {ownToken(b.conn.id, "private-other", ""), []string{"subscribe"}},
		"v1 token, same channel":     {ownToken(b.conn.id, "private-room", ""), []string{"refresh"}},
		"v1 token, data":             {ownToken(b.conn.id, "private-other", `{"name":"Ann"}`), nil},
		"v1 token, public channel":   {ownToken(b.conn.id, "nobody", ""), nil},
		"v2 token, conn":             {v2(conn), []string{"subscribe", "refresh"}},
		"v2 token, user":             {v2(user), []string{"subscribe", "refresh"}},
		"v2 token, conn and user":    {v2(conn + user), []string{"subscribe", "refresh"}},
		"v2 token, client events":    {v2(conn + `"pub":true,`), []string{"subscribe", "refresh"}},
		"v2 token, other conn":       {v2(`"conn":"` + someID + `",`), nil},
		"v2 token, other user":       {v2(`"user":"43",`), nil},
		"v2 token, expired":          {ownTokenV2(peerKey, `{"sub":["private-other","private-room"],`+conn+`"iat":1,"exp":2}`), nil},
		"v2 token's signature":       {strings.Split(v2(conn), ".")[3], nil},
		"member's key":               {b.held.key, []string{"member"}},
		"member's id":                {b.held.id, nil},
		"connection's id":            {b.conn.id, nil},
		"SockJS session":             {b.session, []string{"session"}},
		"position":                   {b.position, []string{"since"}},
		"key id":                     {kid, nil},
		"user id":                    {victim, nil},
		"the host's session":         {hostSession, []string{"auth endpoint"}},
		"the secret key":             {peerKey, nil},
		"the secret of webhooks":     {webhookSecret, nil},
		"a webhook's signature":      {ownWebhookSignature("msg_credential", stamp, webhookBody), []string{"receiver of webhooks"}},
		"a webhook, other id":        {ownWebhookSignature("msg_other", stamp, webhookBody), nil},
		"a Pusher signature":         {ownPusherSignature(b.conn.id + ":private-other"), nil},
		"a Pusher signature, user":   {ownPusherSignature(b.conn.id + `::user::{"id":"` + victim + `"}`), nil},
		"a Pusher request":           {strings.TrimPrefix(ownPusherSignature("POST\n/apps/1/events\nauth_key=app-key"), "app-key:"), nil},
		"a Pusher webhook":           {ownSumWith(pusherSecret, `{"time_ms":1,"events":[]}`), nil},
		"the secret of Pusher":       {pusherSecret, nil},
		"nothing":                    {"", nil},
	}
	for call, body := range apiBodies {
		signed := "v2 " + kid + " " + stamp + " credential-" + call + " "
		signature := ownSumWith(peerKey, "pushy2-request\n"+kid+"\n"+stamp+"\ncredential-"+call+"\n/api/"+call+"\n"+body)
		all["v2 request "+call] = credential{signature, []string{"api " + call}}
		all["v2 request "+call+", header"] = credential{signed + signature, []string{"api " + call + ", header"}}
		all["v2 request "+call+", other body"] = credential{
			ownSumWith(peerKey, "pushy2-request\n"+kid+"\n"+stamp+"\ncredential-"+call+"\n/api/"+call+"\n"+body+" "), nil,
		}
	}
	return all
}

var webhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("thirty-two bytes for webhooks..."))

const webhookBody = `{"type":"pushy.events","timestamp":"2026-11-26T12:00:03.120Z","data":{"events":[]}}`

// pusherSecret is another secret than those of the server: pusher.New refuses these.
const pusherSecret = "the secret of an application"

func ownPusherSignature(text string) string {
	return "app-key:" + ownSumWith(pusherSecret, text)
}

func ownWebhookSignature(id, stamp, body string) string {
	h := hmac.New(sha256.New, []byte("thirty-two bytes for webhooks..."))
	h.Write([]byte(id + "." + stamp + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

type credential struct {
	value    string
	accepted []string // the names of the endpoints
}

// api.md, acceptance test 5: every credential is used at every place where any is accepted.
func TestCredentialsAgainstEndpoints(t *testing.T) {
	t.Parallel()
	for name, disableV1 := range map[string]bool{"both versions": false, "version 2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCredentialBench(t, pushy.Options{DisableV1: disableV1})
			at := time.Now().Unix()
			endpoints := b.endpoints(at)
			pairs, accepted := 0, 0
			for name, c := range b.credentials(at) {
				for _, endpoint := range c.accepted {
					require.Contains(t, endpoints, endpoint)
				}
				for endpoint, accepts := range endpoints {
					pairs++
					want := slices.Contains(c.accepted, endpoint) && (!disableV1 || !strings.HasPrefix(name, "v1 "))
					assert.Equal(t, want, accepts(c.value), "the credential %q at the endpoint %q", name, endpoint)
					if want {
						accepted++
					} else if upper := strings.ToUpper(c.value); upper != c.value &&
						(!strings.HasPrefix(endpoint, "api ") || endpoint == "api publish") { // the calls have one reader
						assert.False(t, accepts(upper), "the credential %q in upper case at the endpoint %q", name, endpoint)
					}
				}
			}
			t.Logf("%d pairs, %d of them accepted", pairs, accepted)
			require.GreaterOrEqual(t, pairs, 1540)
			want := 2*len(apiBodies) + 17
			if disableV1 {
				want -= 4
			}
			require.Equal(t, want, accepted)
		})
	}
}
