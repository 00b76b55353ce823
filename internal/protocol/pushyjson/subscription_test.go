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
		`{"presence":{"mode":"diff","since":"e"}}`:                `presence.since: must be a revision of members`,
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

// What JSON.stringify writes is parsed in another way than the same values in other spellings.
// The results are equal.
func TestSubscriptionSpellings(t *testing.T) {
	t.Parallel()
	for plain, others := range map[string][]string{
		`{"since":{"epoch":"k3Xa9Q","offset":1030}}`: {
			`{"since":{"epoch":"\u006b3Xa9Q","offset":1030}}`,
			`{"since":{ "offset" : 1030, "epoch" : "k3\u0058a9Q" }}`,
		},
		`{"since":{"epoch":"","offset":0}}`:                 {`{"since":{"epoch":"","offset":-0}}`},
		`{"since":{"epoch":"e","offset":9007199254740991}}`: {`{"since":{"epoch":"\u0065","offset":9007199254740991}}`},
		`{"was":[]}`:                                           {`{"was":[ ]}`},
		`{"was":["a"]}`:                                        {`{"was":[ "a" ]}`, `{"was":["\u0061"]}`},
		`{"was":["a","","b,c]"]}`:                              {`{"was":["a" ,"","b,c]"]}`, `{"was":["a","","b\u002cc]"]}`},
		`{"hold":true,"partial":false}`:                        {`{"partial":true,"partial":false,"hold":true}`},
		`{"member":{"id":"m","key":"k-_"}}`:                    {`{"member":{"key":"k-\u005f","id":"m"}}`},
		`{"presence":{"mode":"diff"}}`:                         {`{"presence":{"mode":"dif\u0066"}}`},
		`{"presence":{"mode":"diff","since":"e.5","limit":7}}`: {`{"presence":{"mode":"diff","since":"e.\u0035","limit":7}}`},
	} {
		want, err := pushyjson.ParseSubscription([]byte(plain))
		require.NoError(t, err, plain)
		for _, other := range others {
			got, err := pushyjson.ParseSubscription([]byte(other))
			require.NoError(t, err, other)
			assert.Equal(t, want, got, "%s and %s", plain, other)
		}
	}
	for data, want := range map[string]string{
		`{"since":{"epoch":"e","offset":1,"offset":2}}`:     "since.offset: duplicate field",
		`{"since":{"epoch":"e","offset":01}}`:               "",
		`{"since":{"epoch":"e","offset":9007199254740992}}`: "since.offset: must be from 0 to 2^53-1",
		`{"since":{"Epoch":"e","offset":1}}`:                "since.Epoch: unknown field; did you mean epoch?",
		`{"since":null}`:                                    "since: must be an object, not null",
		`{"was":["a",null]}`:                                "was[1]: must be a string, not null",
		`{"was":[["a"]]}`:                                   "was[0]: must be a string, not an array",
		`{"member":{"id":"m","key":null}}`:                  "member.key: must be a string, not null",
		`{"presence":{"mode":"diff","limit":501}}`:          "presence.limit: must be from 1 to 500",
		`{"presence":{"since":"e.5"}}`:                      `presence.mode: must be "list", "diff", "count" or "none"`,
	} {
		_, err := pushyjson.ParseSubscription([]byte(data))
		if want == "" {
			assert.NoError(t, err, data) // it is not JSON, so nothing is taken from it
			continue
		}
		if assert.Error(t, err, data) {
			assert.Equal(t, want, err.Error(), data)
		}
	}
	// It would be 1 in 32 bits.
	_, err := pushyjson.ParseSubscription([]byte(`{"presence":{"mode":"diff","limit":4294967297}}`))
	assert.ErrorContains(t, err, "presence.limit: must be ")
}
