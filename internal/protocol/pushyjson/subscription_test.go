package pushyjson_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/protocol/pushyjson"
)

func TestMalformedSubscription(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		`{"since":1}`:                                             "since: must be an object, not a number",
		`{"since":{"epoch":"e"}}`:                                 "since.offset: is missing",
		`{"since":{"offset":1}}`:                                  "since.epoch: is missing",
		`{"since":{"epoch":"e","offset":"1"}}`:                    "since.offset: must be a number, not a string",
		`{"since":{"epoch":"e","offset":-1}}`:                     "since.offset: must be from 0 to 2^53-1",
		`{"since":{"epoch":"e","offset":9007199254740993}}`:       "since.offset: must be from 0 to 2^53-1",
		`{"was":"a"}`:                                             "was: must be an array, not a string",
		`{"was":["","","","","","","","",""]}`:                    "was: has 9 ids, at most 8 are allowed",
		`{"was":[1]}`:                                             "was[0]: must be a string, not a number",
		`{"rewind":-1}`:                                           "rewind: must be from 0 to 500",
		`{"rewind":{"events":501}}`:                               "rewind.events: must be from 0 to 500",
		`{"rewind":{"seconds":0}}`:                                "rewind.seconds: must be from 1 to 31622400",
		`{"partial":1}`:                                           "partial: must be true or false, not a number",
		`{"hold":"yes"}`:                                          "hold: must be true or false, not a string",
		`{"member":{"id":1}}`:                                     "member.id: must be a string, not a number",
		`{"presence":"all"}`:                                      `presence: must be "list", "diff", "count" or "none"`,
		`{"presence":{"mode":"diff","limit":0}}`:                  "presence.limit: must be from 1 to 500",
		`{"presence":{"mode":"diff","since":"e"}}`:                `presence.since: must have the form "epoch.number"`,
		`{"presence":{"mode":"diff","page":1}}`:                   "presence.page: unknown field",
		`{"channel":"news","hold":1,"since":{"epoch":"e"},"x":1}`: "hold: must be true or false, not a number",
	} {
		_, err := pushyjson.ParseSubscription([]byte(data))
		if assert.Error(t, err, data) {
			assert.Equal(t, want, err.Error(), data)
		}
	}
	s, err := pushyjson.ParseSubscription([]byte(`{"channel":"c","since":{"epoch":"","offset":7},"was":["a"],` +
		`"rewind":{"seconds":5},"partial":true,"hold":true,"member":{"id":"m","key":"k"},"presence":{"mode":"diff","since":"e.5"}}`))
	require.NoError(t, err)
	assert.Equal(t, uint64(7), s.Past.Since.Offset)
	assert.Equal(t, []string{"a"}, s.Past.Was)
	assert.Equal(t, 500, s.Past.Rewind.Events)
	assert.Equal(t, "e.5", s.Presence.Since.String())
	s, err = pushyjson.ParseSubscription([]byte(`{"channel":1,"auth":2}`))
	require.NoError(t, err)
	assert.Empty(t, s.Channel)
}
