package pushyjson_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		kind       pushyjson.Kind
		command    string
		data, id   string
	}{
		{"command", ` {"command":"x","data":{"a":1},"id":"i"} `, pushyjson.Command, "x", `{"a":1}`, `"i"`},
		{"escapedKey", `{"\u0063ommand":"x"}`, pushyjson.Command, "x", "", ""},
		{"otherCase", `{"Command":"x"}`, pushyjson.Bogus, "", "", ""},
		{"lastCounts", `{"command":1,"command":"x","data":1,"data":null,"id":1,"id":{}}`, pushyjson.Command, "x", "null", ""},
		{"event", `{"event":"x"}`, pushyjson.Emitted, "", "", ""},
		{"both", `{"event":"x","command":"y"}`, pushyjson.Bogus, "", "", ""},
		{"nullEvent", `{"event":null,"command":"y"}`, pushyjson.Command, "y", "", ""},
		{"neither", `{}`, pushyjson.Bogus, "", "", ""},
		{"text", `"command"`, pushyjson.Bogus, "", "", ""},
		{"trailing", `{"command":"x"}x`, pushyjson.Bogus, "", "", ""},
		{"empty", ``, pushyjson.Bogus, "", "", ""},
		{"deep", `{"command":"x","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, pushyjson.Bogus, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := pushyjson.Parse([]byte(c.text))
			require.Equal(t, c.kind, m.Kind)
			if c.kind == pushyjson.Command {
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
			e := hub.Event{
				Kind:    hub.Direct,
				Name:    `e"`,
				Data:    []byte(c.data),
				Request: id,
			}
			assert.Equal(t, c.want, string(new(pushyjson.Protocol).Append(nil, e)))
		})
	}
	e := hub.Event{
		Kind:    hub.Published,
		Name:    "e",
		Channel: `c\`,
		Data:    []byte("[]"),
	}
	assert.Equal(t, `{"event":"e","channel":"c\\","data":[]}`, string(new(pushyjson.Protocol).Append(nil, e)))
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
		fields, refused := pushyjson.PresenceFields([]byte(c.data), 64)
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
		got := new(pushyjson.Protocol).AppendMember(nil, &hub.Member{
			ID:     "m",
			Data:   fields,
			Joined: time.UnixMilli(5),
		})
		assert.Equal(t, c.want, string(got))
	}
}
