package pushy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// Issue 11, number 35: the vectors of PROTOCOL.md, section 13, are used as they are
// printed there, each against a server.

// vectorKey is the secret key of all vectors.
const vectorKey = "secret"

// printedVector is one of the document's, its lines by their names.
type printedVector struct {
	title string
	lines map[string]string
}

// printedVectors returns the document's vectors: of tokens, and of triggers.
func printedVectors(t *testing.T) (tokens, triggers []printedVector) {
	t.Helper()
	blocks := strings.Split(protocolSection(t, "## 13. Test vectors"), "```text\n")
	require.Len(t, blocks, 3)
	var all [2][]printedVector
	for i, block := range blocks[1:] {
		block, _, closed := strings.Cut(block, "\n```")
		require.True(t, closed)
		for _, record := range strings.Split(block, "\n\n") {
			title, rest, _ := strings.Cut(record, "\n")
			v := printedVector{title: strings.TrimPrefix(title, "# "), lines: map[string]string{}}
			for line := range strings.Lines(rest) {
				name, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
				require.True(t, found, "%s", line)
				v.lines[name] = value
			}
			require.Equal(t, vectorKey, v.lines["signed"][strings.LastIndexByte(v.lines["signed"], ':')+1:])
			all[i] = append(all[i], v)
		}
	}
	require.Len(t, all[0], 7)
	require.Len(t, all[1], 7)
	return all[0], all[1]
}

// changed returns a signature with its last digit changed.
func changed(signature string) string {
	last := "0"
	if strings.HasSuffix(signature, last) {
		last = "1"
	}
	return signature[:len(signature)-1] + last
}

func TestProtocolTokenVectors(t *testing.T) {
	t.Parallel()
	tokens, _ := printedVectors(t)
	for _, v := range tokens {
		t.Run(v.title, func(t *testing.T) {
			t.Parallel()
			id, channel, data, auth := v.lines["socketId"], v.lines["channel"], v.lines["data"], v.lines["auth"]
			assert.Equal(t, ownSum(v.lines["signed"]), auth)

			srv, baseURL := serve(t, pushy.Options{SecretKey: vectorKey})
			srv.SetConnIDs(func() string { return id })
			c := dial(t, baseURL, false)
			require.Equal(t, id, c.id)
			with := ""
			if data != "" {
				with = `,"data":` + data
			}
			subscribe := func(auth string) string {
				c.Send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q,"auth":%q%s}}`, channel, auth, with))
				return c.Receive()
			}
			refused := fmt.Sprintf(`{"event":"pushy:subscription-failed","data":{"channel":%q,"reason":"Invalid credentials"}}`,
				strings.ToLower(channel))
			assert.Equal(t, refused, subscribe(changed(auth)))
			assert.Equal(t, refused, subscribe(strings.ToUpper(auth)))
			success := subscribe(auth)
			assert.Contains(t, success, `{"event":"pushy:subscription-success","data":{"channel":"`+strings.ToLower(channel)+`"`)
			assert.Equal(t, data != "", strings.Contains(success, `"presence":[{"n`), "%s", success)
		})
	}
}

// What signs tokens makes the document's: the public func, and the auth handler for
// the request that a client sends. Both sign the canonical form of the data.
func TestProtocolTokenVectorsAreSigned(t *testing.T) {
	t.Parallel()
	tokens, _ := printedVectors(t)
	signed := 0
	for _, v := range tokens {
		id, channel, auth := v.lines["socketId"], v.lines["channel"], v.lines["auth"]
		var data any
		if text := v.lines["data"]; text != "" {
			data = json.RawMessage(text)
		}
		own, err := pushy.SignChannel(vectorKey, id, channel, data)
		require.NoError(t, err)
		if strings.Contains(v.title, "PHP") || strings.Contains(v.title, "signed as sent") {
			assert.NotEqual(t, auth, own, v.title)
			continue
		}
		signed++
		assert.Equal(t, auth, own, v.title)
	}
	assert.Equal(t, 5, signed)
}

// The example of section 11 is the answer of the auth handler.
func TestProtocolAuthExample(t *testing.T) {
	t.Parallel()
	section := protocolSection(t, "## 11. The auth endpoint")
	_, request, _ := strings.Cut(section, "urlencoded\n\n")
	request, _, _ = strings.Cut(request, "\n")
	_, want, _ := strings.Cut(section, "```json\n")
	want, _, _ = strings.Cut(want, "\n")
	srv := startServer(t, pushy.Options{SecretKey: vectorKey})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	h := srv.AuthHandler(func(*http.Request, string, string) (any, error) {
		return map[string]string{"name": "Ann"}, nil
	})
	r := httptest.NewRequest("POST", "/auth", strings.NewReader(request))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	assert.Equal(t, want, w.Body.String())
}

// The vectors of triggers are for a certain second, so they are sent in it: in a
// bubble, whose time the test sets.
func TestProtocolTriggerVectors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, triggers := printedVectors(t)
		time.Sleep(time.Until(time.Unix(triggerNow, 0)))
		srv, err := pushy.New(pushy.Options{SecretKey: vectorKey, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = srv.Close() })
		kit := pushytest.New(t, srv)
		send := func(v printedVector, edit func(target string) string) (int, string) {
			target, is := strings.CutPrefix(v.lines["request"], "POST ")
			require.True(t, is)
			r := httptest.NewRequest("POST", edit(target), strings.NewReader(v.lines["body"]))
			if contentType := v.lines["content-type"]; contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			body, err := io.ReadAll(w.Body)
			require.NoError(t, err)
			return w.Code, string(body)
		}
		asPrinted := func(target string) string { return target }
		for _, v := range triggers {
			t.Log(v.title)
			u, err := url.Parse(strings.TrimPrefix(v.lines["request"], "POST "))
			require.NoError(t, err)
			parameters := u.Query()
			auth, event := parameters.Get("auth_key"), parameters.Get("event")
			assert.Equal(t, ownSum(v.lines["signed"]), auth)
			channel := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/pushy/channel/"), "/trigger")

			status, body := send(v, asPrinted)
			assert.Equal(t, 200, status, "nobody is subscribed: %s", body)
			c := kit.Connect()
			c.Subscribe(channel)
			status, body = send(v, asPrinted)
			require.Equal(t, 201, status, "%s", body)
			got := c.ExpectEvent(strings.ToLower(channel), event, nil)
			assert.Equal(t, v.lines["data"], string(got.Data))
			status, body = send(v, func(target string) string { return strings.Replace(target, auth, changed(auth), 1) })
			assert.Equal(t, 403, status)
			assert.Contains(t, body, "Invalid credentials")
			c.ExpectNone(strings.ToLower(channel), event)
			c.Close(1000)

			if v.lines["content-type"] != "application/x-www-form-urlencoded" && !strings.Contains(v.title, "canonical") &&
				!strings.Contains(v.title, "PHP") {
				own, err := pushy.SignTrigger(vectorKey, channel, event, triggerNow, []byte(v.lines["body"]))
				require.NoError(t, err)
				assert.Equal(t, auth, own)
			}
		}
		for _, v := range triggers { // until its timestamp is too old
			time.Sleep(time.Until(time.Unix(triggerNow+599, 0)))
			status, _ := send(v, asPrinted)
			assert.Equal(t, 200, status, v.title)
		}
		time.Sleep(time.Second)
		for _, v := range triggers {
			status, body := send(v, asPrinted)
			assert.Equal(t, 403, status, v.title)
			assert.Contains(t, body, `"code":"501"`)
		}
	})
}

// The example request of section 7 is the first vector.
func TestProtocolTriggerExample(t *testing.T) {
	t.Parallel()
	_, triggers := printedVectors(t)
	_, example, found := strings.Cut(protocolSection(t, "## 7. Trigger"), "```http\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "\n```")
	head, body, _ := strings.Cut(example, "\n\n")
	assert.Equal(t, triggers[0].lines["request"]+" HTTP/1.1", strings.Split(head, "\n")[0])
	assert.Equal(t, triggers[0].lines["body"], body)
	assert.Contains(t, head, fmt.Sprintf("Content-Length: %d", len(body)))
}
