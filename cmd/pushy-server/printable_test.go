package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile is text with what must never reach a terminal.
const hostile = "a\x1b[31m\x07\x00\x7f\u0085\u009b2J\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff\u3164\U000e0041z"

// assertPrintable fails for text that a terminal would not show as it is.
func assertPrintable(t *testing.T, text string) {
	t.Helper()
	assert.True(t, utf8.ValidString(text), "%q", text)
	for line := range strings.Lines(text) {
		for _, r := range strings.TrimSuffix(line, "\n") {
			assert.False(t, unprintable(r), "U+%04X in %q", r, text)
		}
	}
}

// Issue 11, number 28.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain":                    "plain",
		"Zoë, 東京　👋🏽 \u00a0 \ufe0f": "Zoë, 東京　👋🏽 \u00a0 \ufe0f",
		"\ufffd":                   "\ufffd",
		"two\nlines\r\n\ttab":      `two\nlines\r\n\ttab`,
		"\x1b[2J\x9b\xc2":          `\x1b[2J\x9b\xc2`,
		"\x00\x7f\u009b":           `\x00\x7f\u009b`,
		"\u202eevil\u2066\u200f":   `\u202eevil\u2066\u200f`,
		"\u2028\u2029\ufeff":       `\u2028\u2029\ufeff`,
		"\U000e0001":               `\U000e0001`,
		`back\slash`:               `back\slash`,
	} {
		assert.Equal(t, want, printable(text))
	}
	assertPrintable(t, printable(hostile))
}

// Issue 11, number 28.
func TestPrintableJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a": "b"}`:                          `{"a":"b"}`,
		"{\n\t\"a\":\r\n[1,\n2]}\n":           `{"a":[1,2]}`,
		`"\u001b[31m\n"`:                      `"\u001b[31m\n"`,
		"\"\u009b\u202e\u2028\"":              `"\u009b\u202e\u2028"`,
		"\"\U000e0041 👋\"":                    `"\udb40\udc41 👋"`,
		"\"\xff\"":                            `"\ufffd"`,
		"{\"\u200bkey\":\"\\\\\u200bvalue\"}": `{"\u200bkey":"\\\u200bvalue"}`,
	} {
		got, err := printableJSON([]byte(text))
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
		var before, after any
		require.NoError(t, json.Unmarshal([]byte(text), &before))
		require.NoError(t, json.Unmarshal(got, &after))
		assert.Equal(t, before, after, "the value stays the same")
	}
	_, err := printableJSON([]byte("{"))
	require.Error(t, err)
}

// startHostile serves one WebSocket after the other: each receives the messages of
// its turn, in which $id is the id of the subscription, and a close frame with this code and reason. The handler of anything else
// answers with a hostile body.
func startHostile(t *testing.T, messages []string, code ws.StatusCode, reason string) (url string) {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/websocket") {
			w.WriteHeader(http.StatusForbidden)
			body, _ := json.Marshal(map[string]any{"error": map[string]any{"code": "403", "message": hostile}})
			_, _ = w.Write(body)
			return
		}
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = wsutil.WriteServerText(conn, []byte(`{"event":"pushy:connect","data":{"socketId":"6ba7b810-9dad-41d1-80b4-00c04fd430c8"}}`))
		text, _ := wsutil.ReadClientText(conn)
		var subscription struct{ ID json.RawMessage }
		_ = json.Unmarshal(text, &subscription)
		for _, m := range messages {
			_ = wsutil.WriteServerText(conn, []byte(strings.ReplaceAll(m, "$id", string(subscription.ID))))
		}
		if code != 0 {
			_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason)))
		}
		_, _ = io.Copy(io.Discard, conn)
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// hostileMessage is an event of the server with hostile strings, or, without a channel, a direct message
// that answers the subscription.
func hostileMessage(t *testing.T, event, channel string, data map[string]any) string {
	t.Helper()
	m := map[string]any{"event": event, "data": data}
	if channel != "" {
		m["channel"] = channel
	}
	text, err := json.Marshal(m)
	require.NoError(t, err)
	// encoding/json escapes C0 and U+2028; the protocol allows the others as they are.
	if channel == "" {
		return strings.TrimSuffix(string(text), "}") + `,"id":$id}`
	}
	return string(text)
}

const subscribed = `{"event":"pushy:subscription-success","data":{"channel":"lobby","memberId":"m","id":$id}}`

// Issue 11, number 28: whatever a server sends, listen prints one line that a terminal
// shows as it is, into a pipe too, and its JSON has the same value.
func TestListenPrintsNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	event := hostileMessage(t, hostile, "lobby", map[string]any{hostile: []string{hostile}})
	spaced := "{\n\"event\":\t\"two\",\r\n\"channel\":\"lobby\",\n \"data\":{\n}}"
	url := startHostile(t, []string{
		subscribed,
		event,
		spaced,
	}, 0, "")
	tm := newTerminal(nil).start("listen", "-url", url, "-n", "2", "lobby")
	assert.Equal(t, exitOK, tm.end(t))
	assertPrintable(t, tm.out.String())
	assertPrintable(t, tm.err.String())
	lines := strings.Split(strings.TrimSuffix(tm.out.String(), "\n"), "\n")
	require.Len(t, lines, 2)
	assert.JSONEq(t, event, lines[0])
	assert.Equal(t, `{"event":"two","channel":"lobby","data":{}}`, lines[1])
}

// Issue 11, number 28.
func TestListenReportsInPrintableLines(t *testing.T) {
	t.Parallel()
	reason := "\u202e\u009b\x1b[2J\nforged: line"
	for _, test := range []struct {
		name     string
		messages []string
		code     ws.StatusCode
		says     string
	}{
		{"closeReason", nil, 3500, `3500 \u202e\u009b\x1b[2J\nforged: line`},
		{"error", []string{hostileMessage(t, "pushy:error", "", map[string]any{"message": reason})}, 0, `\nforged: line`},
		{"failed", []string{hostileMessage(t, "pushy:subscription-failed", "", map[string]any{"channel": hostile, "reason": reason})}, 0, `\nforged: line`},
		{"end", []string{
			subscribed,
			hostileMessage(t, "pushy:subscription-end", "", map[string]any{"channel": "lobby", "reason": reason}),
		}, 0, `\nforged: line`},
		{"notPushy", []string{"\x1b[2J\u202e"}, 0, "not a pushy server"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tm := newTerminal(nil).start("listen", "-once", "-url", startHostile(t, test.messages, test.code, reason), "lobby")
			assert.Equal(t, exitFailed, tm.end(t))
			assertPrintable(t, tm.err.String())
			assert.Contains(t, tm.err.String(), test.says)
			assert.Empty(t, tm.out.String())
		})
	}
}

// Issue 11, numbers 28 and 29: listen names every close code, those too that its WebSocket
// package does not know.
func TestListenNamesCloseCodes(t *testing.T) {
	t.Parallel()
	for _, code := range []ws.StatusCode{1000, 1001, 1008, 1011, 1012, 1013, 1014, 3001, 3500, 4001} {
		tm := newTerminal(nil).start("listen", "-once", "-url", startHostile(t, nil, code, "a reason"), "lobby")
		assert.Equal(t, exitFailed, tm.end(t))
		assert.Equal(t, fmt.Sprintf("pushy-server: the server closed the connection: %d a reason\n", code), tm.err.String())
	}
}

// Issue 11, number 28.
func TestPublishReportsInPrintableLines(t *testing.T) {
	t.Parallel()
	url := startHostile(t, nil, 0, "")
	tm := newTerminal(withSecret()).start("publish", "-url", url, "lobby", "news")
	assert.Equal(t, exitFailed, tm.end(t))
	assertPrintable(t, tm.err.String())
	assert.Contains(t, tm.err.String(), `a\x1b[31m`)
	assert.Equal(t, 1, strings.Count(tm.err.String(), "\n"))

	tm = newTerminal(withSecret()).start("publish", "-url", "http://"+hostile, "lobby", "news")
	assert.NotEqual(t, exitOK, tm.end(t))
	assertPrintable(t, tm.err.String())
}

// Issue 11, number 28: messages about a config file that somebody else wrote.
func TestConfigErrorsArePrintable(t *testing.T) {
	t.Parallel()
	quoted, err := json.Marshal(hostile)
	require.NoError(t, err)
	for _, config := range []string{
		`{"secretKey":"s",` + string(quoted) + `:1}`,
		`{"secretKey":"s","origins":[` + string(quoted) + `]}`,
		`{"secretKey":"s","ssl":true,"cert":` + string(quoted) + `,"key":"k"}`,
		`{"secretKey":"s","broker":{"nats":{"url":` + string(quoted) + `}}}`,
	} {
		status, stdout, stderr := runProgram(t, "-check", writeConfig(t, config))
		assert.Equal(t, exitUsage, status)
		assertPrintable(t, stdout+stderr)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

// Issue 11, number 28: the server's log, on a terminal and elsewhere, in messages, keys
// and values, and in what net/http reports.
func TestLogIsPrintable(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{true, false} {
		out := newLogText()
		logger := newLogger(out, terminal)
		logger.Info(hostile, hostile, hostile, "error", errors.New(hostile), slog.Group("group"+hostile, "bytes", []byte(hostile)))
		log.New(slog.NewLogLogger(logger.Handler(), slog.LevelWarn).Writer(), "", 0).Print("http: TLS handshake error: " + hostile)
		logger.Info("invalid \xff\x9b", "value", "\xff\x9b")
		assertPrintable(t, out.String())
		assert.Equal(t, 3, strings.Count(out.String(), "\n"))
		if !terminal {
			lines, _ := out.lines(t)
			assert.Equal(t, hostile, lines[0]["msg"], "JSON keeps the value")
			assert.Equal(t, hostile, lines[0][hostile])
		}
	}
}

func FuzzPrintableJSON(f *testing.F) {
	seed, err := json.Marshal(map[string]any{hostile: []any{hostile, 1, nil}})
	require.NoError(f, err)
	f.Add(seed)
	for _, text := range []string{`"\\\u200b"`, "\"\xff\xfe\"", "[ 1 ,\t2 ]", "\"\u2028\"", "{", os.DevNull} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := printableJSON(text)
		if !json.Valid(text) {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		assertPrintable(t, string(got))
		assert.NotContains(t, string(got), "\n")
		var before, after any
		require.Equal(t, json.Unmarshal(text, &before), json.Unmarshal(got, &after))
		assert.Equal(t, before, after)
	})
}
