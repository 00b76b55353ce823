package pushyjson_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

func TestStateOfTheLog(t *testing.T) {
	t.Parallel()
	p := &pushyjson.Protocol{}
	for _, s := range []hub.MemberState{
		{},
		{Idle: true},
		{State: []byte(`{"typing":true}`), StateAt: 5},
		{State: []byte(`{}`), StateAt: 1 << 50, Idle: true},
	} {
		assert.Equal(t, s, p.ParseState(p.AppendState(nil, s)))
	}
	assert.Nil(t, p.AppendState(nil, hub.MemberState{}), "the entry of a member without a state is as before")
	for _, invalid := range []string{"", "[]", "x", `{"state":1,"idle":"true","at":"5"}`, `{"idle":true`} {
		assert.Zero(t, p.ParseState([]byte(invalid)), invalid)
	}
	assert.True(t, p.ParseState([]byte(`{"new":1,"idle":true}`)).Idle, "fields of newer nodes are skipped")
}

func TestUserOfData(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		`{"user":"7"}`:  "s7",
		`{"user":7}`:    "n7",
		`{"user":null}`: "",
		`{"user":{}}`:   "",
		`{"User":"7"}`:  "",
		`{}`:            "",
		``:              "",
	} {
		assert.Equal(t, want, pushyjson.User([]byte(data)), data)
	}
}

// FuzzState: a state is in canonical form, or the error names the place; and the log returns
// what was put into it.
func FuzzState(f *testing.F) {
	for _, text := range []string{`{"a":1}`, `null`, `[]`, `{"a":`, `{"b":{},"a":"\u2028"}`, `"x"`, ` {} `} {
		f.Add(text, true, int64(5))
	}
	p := &pushyjson.Protocol{}
	f.Fuzz(func(t *testing.T, text string, idle bool, at int64) {
		_ = p.ParseState([]byte(text)) // whatever another program has written
		state, err := pushyjson.State([]byte(text), pushyjson.MaxState)
		if err != nil {
			require.Contains(t, err.Error(), "state: ")
			return
		}
		s := hub.MemberState{
			State:   state,
			StateAt: max(0, at),
			Idle:    idle,
		}
		if state != nil {
			require.True(t, json.Valid(state), "%q", state)
			again, err := pushyjson.State(state, 0)
			require.NoError(t, err)
			require.Equal(t, state, again)
		}
		logged := p.AppendState(nil, s)
		require.True(t, logged == nil || json.Valid(logged), "%q", logged)
		require.Equal(t, s, p.ParseState(logged))
	})
}
