package pushy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// goldenRows reads one of the recorded files.
func goldenRows[T any](f *testing.F, name string) (rows []T) {
	f.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	require.NoError(f, err)
	require.NoError(f, json.Unmarshal(text, &rows))
	require.NotEmpty(f, rows)
	return rows
}

// FuzzClientMessage: whatever a client sends gets exactly one answer, or none
// if it is an event of its own, and the Server goes on.
func FuzzClientMessage(f *testing.F) {
	type transcript struct {
		Steps []struct {
			Dir   string          `json:"dir"`
			Frame json.RawMessage `json:"frame"`
		} `json:"steps"`
	}
	for _, row := range goldenRows[transcript](f, "transcripts.json") {
		for _, step := range row.Steps {
			var text string
			if step.Dir == "send" && json.Unmarshal(step.Frame, &text) == nil {
				var messages []string
				if json.Unmarshal([]byte(text), &messages) != nil {
					messages = []string{text}
				}
				for _, m := range messages {
					f.Add(m)
				}
			}
		}
	}
	f.Add(`{"command":"subscribe","id":1.5e3,"data":{"channel":"İstanbul"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer srv.Close()
		session, client := inmem.Pipe("websocket")
		srv.Connect(session, nil)
		p := &peer{t: t, Client: client}
		require.Equal(t, "pushy:connect", p.next().Event)
		p.send(text)
		p.send(`{"command":"fence","id":"fence"}`)
		ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
		defer cancel()
		answers := 0
		for {
			answer, err := p.Receive(ctx)
			require.NoError(t, err, "the connection ended")
			require.True(t, utf8.ValidString(answer) && json.Valid([]byte(answer)), "not JSON: %q", answer)
			parsed, err := parseFrame(answer)
			require.NoError(t, err)
			if parsed.field("id") == "fence" && !strings.Contains(text, "fence") || answers == 2 {
				break
			}
			if strings.Contains(text, "fence") && parsed.field("id") == "fence" && parsed.field("code") == "200" && answers == 1 {
				break
			}
			require.True(t, strings.HasPrefix(parsed.Event, "pushy:"), "%s", answer)
			answers++
			if strings.Contains(text, "fence") {
				return // cannot tell its answers from ours
			}
		}
		require.LessOrEqual(t, answers, 1)
		var message map[string]json.RawMessage
		if answers == 0 && utf8.ValidString(text) {
			require.NoError(t, json.Unmarshal([]byte(text), &message))
			require.Contains(t, message, "event", "no answer to %s", text)
		}
	})
}

// FuzzMemberCommand: whatever the data of a command about members is, there is exactly one
// answer, and the connection goes on.
func FuzzMemberCommand(f *testing.F) {
	for _, data := range []string{
		`{"channel":"private-room"}`,
		`{"channel":"private-room","after":"k3Xa9Q.2","limit":500}`,
		`{"channel":"private-room","users":["u7","u9"]}`,
		`{"channel":"private-room","state":{"typing":true}}`,
		`{"channel":"private-room","state":null}`,
		`{"idle":true}`,
		`{"channel":"private-room","after":null,"limit":1e2,"users":[]}`,
		`[]`,
	} {
		for command := range 3 {
			f.Add(command, data)
		}
	}
	f.Fuzz(func(t *testing.T, command int, data string) {
		if !utf8.ValidString(data) || !json.Valid([]byte(data)) {
			return // FuzzClientMessage sends such messages
		}
		names := []string{"pushy:members", "pushy:update", "pushy:idle"}
		name := names[uint(command)%uint(len(names))]
		srv := startServer(t, presence(pushy.PresenceOptions{PerUser: true, ClientState: true}))
		defer srv.Close()
		p := connectPeer(t, srv)
		p.subscribe("private-room", `{"user":"u7"}`)
		p.send(fmt.Sprintf(`{"command":%q,"data":%s,"id":"fuzz"}`, name, data))
		var answer frame
		for answer.Event == "" || answer.Channel != "" { // of the user's own member
			answer = p.next()
		}
		require.Contains(t, []string{"pushy:reply", "pushy:error"}, answer.Event, "%s", answer)
		require.Equal(t, "fuzz", answer.field("id"), "%s", answer)
		if answer.Event == "pushy:error" {
			require.Contains(t, []string{"300", "301", "400", "403", "404"}, answer.field("code"), "%s", answer)
		}
		if name != "pushy:update" {
			p.quiet()
		}
	})
}

// FuzzTrigger: whatever comes in gets a documented answer, and nothing is
// delivered but by 200 and 201.
func FuzzTrigger(f *testing.F) {
	type vector struct {
		Kind, Name, Channel, Event, SHA256 string
		Timestamp                          json.Number
		ContentType                        string `json:"content_type"`
		BodyRaw                            string `json:"body_raw"`
	}
	var all []json.RawMessage
	all = append(all, goldenRows[json.RawMessage](f, "signatures.json")...)
	seeds := 0
	for _, raw := range all {
		var v vector
		if json.Unmarshal(raw, &v) != nil || v.Kind != "trigger" {
			continue
		}
		seeds++
		f.Add("POST", v.Channel, "event="+url.QueryEscape(v.Event)+"&timestamp="+v.Timestamp.String()+"&auth_key="+v.SHA256, v.ContentType, "", []byte(v.BodyRaw))
	}
	require.NotZero(f, seeds)
	statuses := map[int]string{200: "", 201: "", 400: "400", 403: "403", 405: "405", 413: "413", 415: "415"}
	srv, err := pushy.New(pushy.Options{SecretKey: "secret", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(f, err)
	f.Cleanup(func() { _ = srv.Close() })
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	f.Fuzz(func(t *testing.T, method, channel, query, contentType, encoding string, body []byte) {
		before := srv.Stats().Published
		r := &http.Request{Method: method, Header: http.Header{"Content-Type": {contentType}}, Host: "example.com",
			URL:  &url.URL{Path: "/pushy/channel/" + channel + "/trigger", RawPath: "/pushy/channel/" + url.PathEscape(channel) + "/trigger", RawQuery: query},
			Body: http.NoBody, ContentLength: int64(len(body)), ProtoMajor: 1, ProtoMinor: 1}
		r.Body = http.MaxBytesReader(nil, bodyOf(body), 1<<30)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		want, documented := statuses[w.Code]
		require.True(t, documented, "status %d: %s", w.Code, w.Body)
		require.True(t, json.Valid(w.Body.Bytes()) && utf8.Valid(w.Body.Bytes()), "body %q", w.Body)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		published := srv.Stats().Published - before
		if want == "" {
			require.EqualValues(t, 1, published)
			require.Equal(t, `{"status":{"code":`+strconv.Itoa(w.Code)+`,"message":"Ok"}}`, w.Body.String())
			return
		}
		require.Zero(t, published)
		var answer struct {
			Error struct{ Code, Message string }
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		if answer.Error.Code == "501" {
			want = "501"
		}
		require.Equal(t, want, answer.Error.Code)
		require.NotEmpty(t, answer.Error.Message)
		require.NotContains(t, answer.Error.Message, "goroutine")
	})
}

type closableBody struct{ *bytes.Reader }

func (closableBody) Close() error { return nil }

func bodyOf(b []byte) closableBody { return closableBody{bytes.NewReader(b)} }

// FuzzToken: a private channel opens only to a token that is the SHA-256 of
// this connection, this name and this data.
func FuzzToken(f *testing.F) {
	for _, raw := range goldenRows[json.RawMessage](f, "signatures.json") {
		var v struct {
			Kind, Channel, SHA256 string
			Data                  json.RawMessage
		}
		if json.Unmarshal(raw, &v) == nil && v.Kind != "trigger" {
			f.Add(v.Channel, v.SHA256, []byte(v.Data), true)
		}
	}
	f.Add("private-x", "", []byte(`{"a":1}`), true)
	f.Add("private-x", strings.Repeat("0", 64), []byte(``), false)
	const connID = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"
	f.Fuzz(func(t *testing.T, channel, auth string, data []byte, right bool) {
		srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer srv.Close()
		srv.SetConnIDs(func() string { return connID })
		p := connectPeer(t, srv)
		if !json.Valid(data) {
			data = nil
		}
		data = bytes.TrimSpace(data) // as a value within the message
		name, _ := json.Marshal(channel)
		if strings.ToLower(channel) != channel || !strings.HasPrefix(channel, "private-") || !utf8.ValidString(channel) {
			return
		}
		signed := string(data)
		if signed == "null" {
			signed = ""
		}
		want := ownToken(connID, channel, signed)
		if right {
			auth = want
		}
		token, _ := json.Marshal(auth)
		command := `{"command":"subscribe","data":{"channel":` + string(name) + `,"auth":` + string(token)
		if len(data) > 0 {
			command += `,"data":` + string(data)
		}
		answer := p.ask(command + "}}")
		allowed := answer.Event == "pushy:subscription-success" || strings.HasPrefix(answer.field("reason"), "Invalid presence") ||
			answer.field("reason") == "Presence data too large"
		var canonical bytes.Buffer
		if auth != want && allowed {
			// The other form that counts is JavaScript's, which is shorter or as
			// long; only a fuzzer that breaks SHA-256 could come upon it.
			_ = json.Compact(&canonical, data)
			require.Equal(t, ownToken(connID, channel, canonical.String()), auth, "allowed: %s", answer)
		}
		if auth == want && len(data) < 60<<10 && utf8.Valid(data) {
			require.True(t, allowed || answer.field("code") == "301", "refused: %s", answer)
		}
	})
}
