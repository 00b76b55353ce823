package untrusted_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/untrusted"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		err        error
	}{
		{"object", `{"a":[1,"x",null,true]}`, nil},
		{"blanks", " {} \n", nil},
		{"text", `"Zoë 😀"`, nil},
		{"number", "-1e9", nil},
		{"escapedSurrogate", `"\ud800"`, nil},
		{"empty", "", untrusted.ErrJSON},
		{"blank", " ", untrusted.ErrJSON},
		{"open", `{"a":`, untrusted.ErrJSON},
		{"two", "{}{}", untrusted.ErrJSON},
		{"list", "{},{}", untrusted.ErrJSON},
		{"bare", "hello", untrusted.ErrJSON},
		{"comma", "[1,]", untrusted.ErrJSON},
		{"singleQuotes", "{'a':1}", untrusted.ErrJSON},
		{"control", "\"a\nb\"", untrusted.ErrJSON},
		{"byteOrderMark", "\ufeff{}", untrusted.ErrJSON},
		{"notANumber", "NaN", untrusted.ErrJSON},
		{"deep", strings.Repeat("[", 1e6) + strings.Repeat("]", 1e6), untrusted.ErrJSON},
		{"binary", "\xff\xfe\x00", untrusted.ErrUTF8},
		{"invalidInText", "{\"a\":\"\xff\"}", untrusted.ErrUTF8},
		{"invalidName", "{\"\xc3\x28\":1}", untrusted.ErrUTF8},
		{"surrogateBytes", "\"\xed\xa0\x80\"", untrusted.ErrUTF8},
		{"overlong", "\"\xc0\xaf\"", untrusted.ErrUTF8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.err, untrusted.JSON([]byte(c.text)))
		})
	}
}
