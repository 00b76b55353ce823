package pushy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/testlog"
)

// secretPart is the length of a part of a secret that must not be found.
const secretPart = 12

// secrets finds parts of secrets in what others can read.
type secrets struct {
	parts map[string]string // each part of secretPart bytes, and the name of its secret
}

// add adds a secret, and its other spellings.
func (s *secrets) add(name, secret string) {
	if s.parts == nil {
		s.parts = map[string]string{}
	}
	for _, spelling := range []string{secret, strings.ToUpper(secret), strings.ToLower(secret), url.QueryEscape(secret), strconv.Quote(secret)} {
		for i := 0; i+secretPart <= len(spelling); i++ {
			s.parts[spelling[i:i+secretPart]] = name
		}
	}
}

// in returns the names of the secrets of which text has a part, with the line that has it.
func (s *secrets) in(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		for i := 0; i+secretPart <= len(line); i++ {
			if name, is := s.parts[line[i:i+secretPart]]; is {
				found[name] = strings.TrimSpace(line)
			}
		}
	}
	return found
}

// recorder is an http.Handler that keeps what a handler answers.
type recorder struct {
	http.Handler
	mu      sync.Mutex
	answers bytes.Buffer
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.Handler.ServeHTTP(recordingWriter{w, r}, q)
}

type recordingWriter struct {
	http.ResponseWriter
	to *recorder
}

func (w recordingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w recordingWriter) Write(p []byte) (int, error) {
	w.to.mu.Lock()
	fmt.Fprintf(&w.to.answers, "%v\n%s\n", w.Header(), p)
	w.to.mu.Unlock()
	return w.ResponseWriter.Write(p)
}

// keptFrom are the credentials that must stay secret. The others are ids.
func keptFrom(name string) bool {
	switch name {
	case "member's id", "connection's id", "position", "key id", "user id", "nothing":
		return false
	}
	return true
}

// api.md, acceptance test 8: all kinds of requests, good and bad, with every credential, at Debug
// level. No log line, answer, error, Stats or panic has a part of any of them.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	debug := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := newCredentialBench(t, pushy.Options{Logger: debug})
	at := time.Now().Unix()
	credentials := b.credentials(at)
	endpoints := b.endpoints(at)
	var all secrets
	all.add("secret key", peerKey)
	all.add("old secret key", oldPeerKey)
	for name, c := range credentials {
		if keptFrom(name) && !strings.HasSuffix(name, ", header") { // its secret is the signature, which is there, too
			all.add(name, c.value)
		}
	}
	for _, c := range credentials {
		for endpoint, accepts := range endpoints {
			if endpoint == "session" && c.value != b.session {
				continue // in the path of a session that is not there, it is not a secret
			}
			accepts(c.value)
			if endpoint != "member" && !strings.HasPrefix(endpoint, "api ") || endpoint == "api publish" {
				accepts(c.value + "x")
				accepts("v2." + c.value)
			}
		}
	}
	shown := fmt.Sprintf("%+v", b.srv.Stats())
	require.NoError(t, b.srv.Close())
	b.heard.mu.Lock()
	answers := b.heard.answers.String()
	b.heard.mu.Unlock()
	require.NotEmpty(t, log.With("signed request refused"))
	require.NotEmpty(t, log.With("a token was refused"))
	require.NotEmpty(t, log.With("trigger refused"))
	require.NotEmpty(t, log.With("the key is wrong"))
	assert.Empty(t, all.in(strings.Join(log.With(""), "")), "the log")
	assert.Empty(t, all.in(shown), "Stats")
	// A publisher of version 1 is shown its own key if it is wrong (PROTOCOL.md, section 7).
	answered := ""
	for line := range strings.Lines(answers) {
		if !strings.Contains(line, `"Invalid credentials (`) {
			answered += line
		}
	}
	require.Contains(t, answered, "Wrong signature with key")
	assert.Empty(t, all.in(answered), "the answers")
}

// As TestNoSecretIsShown, but everything of the host's fails: hooks, Accept and Broker panic or
// return errors.
func TestNoSecretIsShownByFaults(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errBroker },
		"panic": func() error { panic("the host's") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &testlog.Log{}
			failing := publishing(func(context.Context, string, broker.Entry) (broker.Appended, error) {
				return broker.Appended{}, fail()
			})
			hook := func(*pushy.Conn, *pushy.Channel) { _ = fail() }
			srv := startServer(t, pushy.Options{
				OldSecretKeys: []string{oldPeerKey},
				Broker:        failing,
				Logger:        slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				Accept:        func(*http.Request) (any, error) { return nil, fail() },
				Hooks: pushy.Hooks{
					Connect:     func(*pushy.Conn) { _ = fail() },
					Disconnect:  func(*pushy.Conn, int, string) { _ = fail() },
					Subscribe:   hook,
					Unsubscribe: hook,
				},
			})
			srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
			web := &recorder{Handler: srv}
			auth := &recorder{Handler: srv.AuthHandler(func(*http.Request, string, string) (any, error) { return nil, fail() })}
			var all secrets
			all.add("secret key", peerKey)
			all.add("old secret key", oldPeerKey)
			do := func(h http.Handler, r *http.Request) {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			p := connectPeer(t, srv)
			token := ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["private-room"],"conn":%q,"iat":%d}`, p.id, triggerNow))
			all.add("token", token)
			all.add("token of version 1", ownToken(p.id, "private-room", ""))
			require.Contains(t, p.subscribeWith("private-room", token, "").Event, "success")
			p.ask(`{"command":"pushy:refresh","data":{"channel":"private-room","auth":` + quoted(t, token) + `},"id":"1"}`)
			p.ask(`{"command":"unsubscribe","data":{"channel":"private-room"}}`)
			p.subscribeWith("private-room", ownToken(p.id, "private-room", ""), "")
			for _, key := range []string{peerKey, oldPeerKey} {
				for call, body := range apiBodies {
					r := signedCall{key: key, call: call, body: body, id: call}.request()
					all.add("signature", strings.Fields(r.Header.Get("Pushy-Signature"))[4])
					do(web, r)
				}
				sum := ownSum("room:told:" + strconv.Itoa(triggerNow) + ":{}:" + key)
				all.add("trigger", sum)
				do(web, httptest.NewRequest("POST", "/pushy/channel/room/trigger?event=told&timestamp="+
					strconv.Itoa(triggerNow)+"&auth_key="+sum, nil))
			}
			for _, path := range []string{"/pushy/socket/websocket", "/pushy/socket/000/s/xhr", "/pushy/nothing?auth_key=" + token, "/pushy/auth"} {
				r := httptest.NewRequest("POST", path, nil)
				r.Header.Set("Cookie", "session="+url.QueryEscape(hostSession))
				r.Header.Set("Authorization", "Bearer "+token)
				do(web, r)
			}
			all.add("session", hostSession)
			form := url.Values{"channel": {"private-room"}, "connection_id": {p.id}, "auth": {token}}
			r := httptest.NewRequest("POST", "/pushy/auth?auth="+token, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Cookie", "session="+url.QueryEscape(hostSession))
			do(auth, r)

			failures := []any{
				srv.Publish(t.Context(), "room", "told", nil),
				errorOf(srv.Kick(t.Context(), pushy.Kick{Target: "x"})),
				errorOf(pushy.New(pushy.Options{SecretKey: peerKey, OldSecretKeys: []string{peerKey, ""}, Origins: []string{"x"}})),
				errorOf(pushy.SignToken(peerKey, pushy.Token{})),
				errorOf(pushy.SignChannel(peerKey, "x", "private-room", nil)),
				errorOf(pushy.SignTrigger(peerKey, ":", "told", triggerNow, nil)),
			}
			p.Abort()
			require.NoError(t, srv.Close())
			if name == "panic" {
				require.NotEmpty(t, log.With("the host's"), "the panics")
			}
			assert.Empty(t, all.in(strings.Join(log.With(""), "")), "the log")
			assert.Empty(t, all.in(fmt.Sprint(failures...)), "errors")
			assert.Empty(t, all.in(fmt.Sprintf("%+v", srv.Stats())), "Stats")
			assert.Empty(t, all.in(web.answers.String()), "the answers")
			assert.Empty(t, all.in(auth.answers.String()), "the answers of the auth endpoint")
			require.NotEmpty(t, web.answers.String())
			require.NotEmpty(t, auth.answers.String())
		})
	}
}

func errorOf[T any](_ T, err error) error { return err }
