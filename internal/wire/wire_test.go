package wire_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/wire"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		kind       wire.Kind
		command    string
		data, id   string
	}{
		{"command", ` {"command":"x","data":{"a":1},"id":"i"} `, wire.Command, "x", `{"a":1}`, `"i"`},
		{"escapedKey", `{"\u0063ommand":"x"}`, wire.Command, "x", "", ""},
		{"otherCase", `{"Command":"x"}`, wire.Bogus, "", "", ""},
		{"lastCounts", `{"command":1,"command":"x","data":1,"data":null,"id":1,"id":{}}`, wire.Command, "x", "null", ""},
		{"event", `{"event":"x"}`, wire.Ignored, "", "", ""},
		{"both", `{"event":"x","command":"y"}`, wire.Bogus, "", "", ""},
		{"nullEvent", `{"event":null,"command":"y"}`, wire.Command, "y", "", ""},
		{"neither", `{}`, wire.Bogus, "", "", ""},
		{"text", `"command"`, wire.Bogus, "", "", ""},
		{"trailing", `{"command":"x"}x`, wire.Bogus, "", "", ""},
		{"empty", ``, wire.Bogus, "", "", ""},
		{"deep", `{"command":"x","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, wire.Bogus, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := wire.Parse([]byte(c.text))
			require.Equal(t, c.kind, m.Kind)
			if c.kind == wire.Command {
				assert.Equal(t, []string{c.command, c.data, c.id}, []string{m.Name, string(m.Data), string(m.ID)})
			}
		})
	}
}

func TestReply(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, data, id, want string }{
		{"noID", `{"a":1}`, "", `{"event":"e\"","data":{"a":1}}`},
		{"id", `{"a":1}`, `"i"`, `{"event":"e\"","data":{"a":1,"id":"i"}}`},
		{"emptyObject", `{}`, `7`, `{"event":"e\"","data":{"id":7}}`},
		{"ownID", `{"id":1}`, `7`, `{"event":"e\"","data":{"id":1},"id":7}`},
		{"ownIDEscaped", `{"\u0069d":1}`, `7`, `{"event":"e\"","data":{"\u0069d":1},"id":7}`},
		{"deeperID", `{"a":{"id":1}}`, `7`, `{"event":"e\"","data":{"a":{"id":1},"id":7}}`},
		{"noObject", `[1]`, `7`, `{"event":"e\"","data":[1],"id":7}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var id []byte
			if c.id != "" {
				id = []byte(c.id)
			}
			assert.Equal(t, c.want, string(wire.Reply(`e"`, []byte(c.data), id)))
		})
	}
	assert.Equal(t, `{"event":"e","channel":"c\\","data":[]}`, string(wire.Event("e", `c\`, []byte("[]"))))
}

func TestPresenceFieldsAndMember(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, data, fields, reason string }{
		{"absent", ``, "", ""},
		{"null", `null`, "", ""},
		{"emptyArray", ` []`[1:], `{}`, ""},
		{"phpText", `"{\"n\":\"\\u00e9\\/\"}"`, `{"n":"é/"}`, ""},
		{"textOfText", `"\"{}\""`, "", "Invalid presence data"},
		{"largeFirst", `"` + strings.Repeat("x", 100) + `"`, "", "Presence data too large"},
	} {
		fields, refused := wire.PresenceFields([]byte(c.data), 64)
		reason := ""
		if refused != nil {
			reason = refused.Reason
			assert.NotEmpty(t, refused.Error(), c.name)
		}
		assert.Equal(t, c.fields, string(fields), c.name)
		assert.Equal(t, c.reason, reason, c.name)
	}
	for _, c := range []struct{ fields, want string }{
		{"", `{"subscribed":5,"memberId":"m","idle":false}`},
		{`{"a":1}`, `{"a":1,"subscribed":5,"memberId":"m","idle":false}`},
		{`{"idle":1,"memberId":{},"z":0}`, `{"idle":false,"memberId":"m","z":0,"subscribed":5}`},
	} {
		var fields []byte
		if c.fields != "" {
			fields = []byte(c.fields)
		}
		got, err := wire.Member(fields, []byte("5"), "m")
		require.NoError(t, err)
		assert.Equal(t, c.want, string(got))
	}
}
