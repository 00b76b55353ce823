package httperror_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/httperror"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	httperror.Write(w, 403, `no "<page>"`+"\n")
	assert.Equal(t, 403, w.Code)
	assert.Equal(t, `{"error":{"code":"403","message":"no \"<page>\"\n"}}`, w.Body.String())
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
}

func TestShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, sent, shown string }{
		{"plain", "https://a.example:8080", "https://a.example:8080"},
		{"empty", "", `""`},
		{"umlaut", "bücher", "bücher"},
		{"newline", "a\nlevel=ERROR", `"a\nlevel=ERROR"`},
		{"quote", `a"b`, `"a\"b"`},
		{"bidi", "a\u202eb", `"a\u202eb"`},
		{"escape", "\x1b[31m", `"\x1b[31m"`},
		{"notUTF8", "a\xffb", `"a\xffb"`},
		{"long", strings.Repeat("x", 201), strings.Repeat("x", 200) + "…"},
		{"longRunes", strings.Repeat("x", 199) + "üü", strings.Repeat("x", 199) + "…"},
		{"longNotUTF8", strings.Repeat("\x80", 300), `"` + strings.Repeat(`\x80`, 196) + `"…`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.shown, httperror.Shown(c.sent))
		})
	}
}

func FuzzShown(f *testing.F) {
	f.Add("https://a.example")
	f.Add("\x00\u2028\xff")
	f.Fuzz(func(t *testing.T, s string) {
		shown := httperror.Shown(s)
		require.LessOrEqual(t, len(shown), 10*200+5)
		require.NotContains(t, shown, "\n")
		var read struct {
			Error struct{ Code, Message string }
		}
		require.NoError(t, json.Unmarshal(httperror.Body("403", shown), &read))
		require.Equal(t, shown, read.Error.Message)
	})
}
