// Package httperror writes the errors of the protocol over HTTP,
// {"error":{"code":"403","message":"…"}}, and formats values that a client sent for error
// messages and log lines.
package httperror

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gopushy/pushy/internal/jsvalue"
)

// maxShown is the largest number of bytes of a value in the result of Shown.
const maxShown = 200

// Write writes an error whose code is the HTTP status.
func Write(w http.ResponseWriter, status int, message string) {
	WriteCode(w, status, strconv.Itoa(status), message)
}

// WriteCode writes an error with a separate code.
func WriteCode(w http.ResponseWriter, status int, code, message string) {
	body := Body(code, message)
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Cache-Control", "no-store") // otherwise browsers may cache a 404
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Body returns the JSON of an error.
func Body(code, message string) []byte {
	return jsvalue.Object(nil).Raw("error", jsvalue.Object(nil).Text("code", code).Text("message", message))
}

// OverMiddleware returns the message for a body that exceeds a limit of middleware.
func OverMiddleware(over *http.MaxBytesError) string {
	return "the body is over the limit of " + strconv.FormatInt(over.Limit, 10) +
		" bytes that middleware sets (http.MaxBytesHandler or http.MaxBytesReader)"
}

// Shown formats a value that a client sent for a message. It truncates the value to 200
// bytes, and quotes it if it is empty or contains quotes, control characters, bidirectional
// marks, invalid UTF-8 or other characters that are not printable.
func Shown(s string) string {
	ellipsis := ""
	if len(s) > maxShown {
		end := maxShown
		for end > maxShown-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
		ellipsis = "…"
	}
	plain := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '"' || r == utf8.RuneError || !unicode.IsPrint(r)
	})
	if s == "" || !plain {
		s = strconv.QuoteToGraphic(s)
	}
	return s + ellipsis
}
