// Package httperror writes the protocol's errors over HTTP,
// {"error":{"code":"403","message":"…"}}, and prepares what a client sent for
// being shown in them and in log lines.
package httperror

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// maxShown bounds a value that a client sent, in bytes.
const maxShown = 200

// Write answers with a status whose number is the error's code, too.
func Write(w http.ResponseWriter, status int, message string) {
	WriteCode(w, status, strconv.Itoa(status), message)
}

// WriteCode answers with a code that is not the status.
func WriteCode(w http.ResponseWriter, status int, code, message string) {
	body := Body(code, message)
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Cache-Control", "no-store") // else browsers may keep a 404
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Body returns an error's JSON.
func Body(code, message string) []byte {
	return jsvalue.Object(nil).Raw("error", jsvalue.Object(nil).Text("code", code).Text("message", message))
}

// OverMiddleware says that a body is over a limit that is not pushy's.
func OverMiddleware(over *http.MaxBytesError) string {
	return "the body is over the limit of " + strconv.FormatInt(over.Limit, 10) +
		" bytes that middleware sets (http.MaxBytesHandler or http.MaxBytesReader)"
}

// Shown returns what a client sent so that it can stand in a message: at most
// 200 bytes, and quoted with escapes if it has anything that does not print as
// itself, such as control characters, bidirectional marks or invalid UTF-8.
func Shown(s string) string {
	cut := ""
	if len(s) > maxShown {
		end := maxShown
		for end > maxShown-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s, cut = s[:end], "…"
	}
	plain := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '"' || r == utf8.RuneError || !unicode.IsPrint(r)
	})
	if s == "" || !plain {
		s = strconv.QuoteToGraphic(s)
	}
	return s + cut
}
