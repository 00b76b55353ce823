package strictjson_test

import (
	"encoding/json"
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/strictjson"
)

type point struct {
	X int8    `json:"x"`
	Y float32 `json:"y"`
}

type tree struct {
	Name string  `json:"name"`
	Kids []*tree `json:"kids"`
}

type base struct {
	ID    int `json:"id"`
	Twice int
}

type Other struct {
	Note  string
	Twice int
}

// picky has an UnmarshalJSON that accepts only "yes".
type picky struct{ said bool }

var errPicky = errors.New("the secret reason")

func (p *picky) UnmarshalJSON(raw []byte) error {
	if string(raw) != `"yes"` {
		return errPicky
	}
	p.said = true
	return nil
}

type all struct {
	base
	*Other
	Move   point            `json:"move"`
	Moves  []point          `json:"moves"`
	Pair   [2]bool          `json:"pair"`
	Maybe  *point           `json:"maybe"`
	Scores map[string]uint8 `json:"scores"`
	ByID   map[int8]string  `json:"byId"`
	Any    any              `json:"any"`
	Raw    json.RawMessage  `json:"raw"`
	Big    int64            `json:"big,string,omitempty"`
	Bytes  []byte           `json:"bytes"`
	At     time.Time        `json:"at"`
	Addr   netip.Addr       `json:"addr"`
	Number json.Number      `json:"number"`
	Picky  picky            `json:"picky"`
	Tree   tree             `json:"tree"`
	Plain  string
	Hidden string `json:"-"`
	//lint:ignore SA5008 unusual names must work, too
	Dash string `json:"-,"`
	own  string // not exported, so it must be ignored
}

func decode[T any](t *testing.T, text string) (T, error) {
	t.Helper()
	d, err := strictjson.New[T]()
	require.NoError(t, err)
	return d.Decode([]byte(text))
}

func TestFaultsNameTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, says string }{
		{"empty", ``, "data must be one JSON value"},
		{"broken", `{"move":`, "data must be one JSON value"},
		{"trailing", `{} {}`, "data must be one JSON value"},
		{"trailingComma", `{},`, "data must be one JSON value"},
		{"null", `null`, "data must be an object, not null"},
		{"array", ` [1]`, "data must be an object, not an array"},
		{"text", `"{}"`, "data must be an object, not a string"},
		{"number", `-1`, "data must be an object, not a number"},
		{"true", `false`, "data must be an object, not true or false"},
		{"unknown", `{"speed":1}`, "speed: unknown field"},
		{"unknownDeep", `{"moves":[{"x":1},{"z":1}]}`, "moves[1].z: unknown field"},
		{"otherCase", `{"Move":{}}`, "Move: unknown field; did you mean move?"},
		{"otherCaseUntagged", `{"plain":""}`, "plain: unknown field; did you mean Plain?"},
		{"hidden", `{"Hidden":""}`, "Hidden: unknown field"},
		{"unexported", `{"own":""}`, "own: unknown field"},
		{"annulledByEmbedding", `{"Twice":1}`, "Twice: unknown field"},
		{"embeddedTypeName", `{"Other":{}}`, "Other: unknown field"},
		{"twice", `{"move":{"x":1,"y":2,"x":1}}`, "move.x: duplicate field"},
		{"twiceEscaped", `{"Plain":"","\u0050lain":""}`, "Plain: duplicate field"},
		{"twiceInMap", `{"scores":{"a":1,"a":1}}`, "scores.a: duplicate field"},
		{"twiceInAny", `{"any":[{"a":{"b":1,"b":1}}]}`, "any[0].a.b: duplicate field"},
		{"twiceInIntMap", `{"byId":{"1":"","+1":""}}`, `byId["+1"]: duplicate field`},
		{"nullObject", `{"move":null}`, "move: must be an object, not null"},
		{"nullNumber", `{"move":{"x":null}}`, "move.x: must be a number, not null"},
		{"nullText", `{"Plain":null}`, "Plain: must be a string, not null"},
		{"nullArray", `{"moves":null}`, "moves: must be an array, not null"},
		{"nullMap", `{"scores":null}`, "scores: must be an object, not null"},
		{"nullElement", `{"moves":[{},null]}`, "moves[1]: must be an object, not null"},
		{"nullTime", `{"at":null}`, "at: must be a string, not null"},
		{"textForNumber", `{"move":{"x":"1"}}`, "move.x: must be a number, not a string"},
		{"numberForText", `{"Plain":1}`, "Plain: must be a string, not a number"},
		{"objectForArray", `{"moves":{"0":{}}}`, "moves: must be an array, not an object"},
		{"fraction", `{"move":{"x":1.5}}`, "move.x: must be a whole number from -128 to 127"},
		{"exponent", `{"move":{"x":1e1}}`, "move.x: must be a whole number from -128 to 127"},
		{"over", `{"move":{"x":128}}`, "move.x: must be a whole number from -128 to 127"},
		{"negative", `{"scores":{"a":-1}}`, "scores.a: must be a whole number from 0 to 255"},
		{"overFloat", `{"move":{"y":1e39}}`, "move.y: must be a number that fits in 32 bits"},
		{"overAny", `{"any":1e999}`, "any: must be a number that fits in 64 bits"},
		{"shortArray", `{"pair":[true]}`, "pair: must have 2 elements"},
		{"longArray", `{"pair":[true,true,true]}`, "pair: must have 2 elements"},
		{"arrayElement", `{"pair":[true,1]}`, "pair[1]: must be true or false, not a number"},
		{"pointed", `{"maybe":{"x":[]}}`, "maybe.x: must be a number, not an array"},
		{"key", `{"scores":{"a b":null}}`, `scores["a b"]: must be a number, not null`},
		{"keyThatIsNoNumber", `{"byId":{"x":""}}`, "byId.x: is not an allowed name"},
		{"longKey", `{"scores":{"` + strings.Repeat("é", 100) + `":""}}`, `scores["` + strings.Repeat("é", 40) + `…"]: must be a number, not a string`},
		{"quotedBare", `{"big":1}`, "big: must be a string, not a number"},
		{"quotedBroken", `{"big":"x"}`, "big: must be a string that contains a value"},
		{"quotedBlank", `{"big":" 1"}`, "big: must be a string that contains a value"},
		{"quotedOther", `{"big":"true"}`, "big: must be a number, not true or false"},
		{"base64", `{"bytes":"*"}`, "bytes: must be bytes in base64"},
		{"time", `{"at":"yesterday"}`, "at: must be a time such as 2006-01-02T15:04:05Z"},
		{"readsText", `{"addr":"1.2.3"}`, "addr: is not valid"},
		{"readsTextNoText", `{"addr":{}}`, "addr: must be a string, not an object"},
		{"numberText", `{"number":"1"}`, "number: must be a number, not a string"},
		{"ownSecret", `{"picky":"no"}`, "picky: is not valid"},
		{"recursive", `{"tree":{"kids":[null,{"kids":[{"name":1}]}]}}`, "tree.kids[1].kids[0].name: must be a string, not a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := decode[all](t, c.text)
			require.EqualError(t, err, c.says)
			var f *strictjson.Fault
			require.ErrorAs(t, err, &f)
		})
	}
	_, err := decode[all](t, `{"picky":0}`)
	assert.ErrorIs(t, err, errPicky, "for the log")
}

func TestPathIsBounded(t *testing.T) {
	t.Parallel()
	_, err := decode[tree](t, strings.Repeat(`{"kids":[`, 1000)+`1`+strings.Repeat(`]}`, 1000))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 300)
	assert.Regexp(t, `^….*\.kids\[0\]: must be an object, not a number$`, err.Error())
}

// Valid JSON is decoded as encoding/json does.
func TestDecodes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`,
		` { "move" : { "x" : -128 , "y" : 2.5 } } `,
		`{"id":7,"Note":"n","moves":[{"x":1},{"y":1e3}],"pair":[false,true],"maybe":{"x":3},"scores":{"a":255,"__proto__":0}}`,
		`{"maybe":null,"any":null,"raw":null,"byId":{"-3":"x"},"big":"-9223372036854775808"}`,
		`{"any":{"a":[1,"x",true,null,{}]},"raw":[1, 2 ],"bytes":"aGk=","at":"2026-11-24T23:00:00+01:00"}`,
		`{"addr":"::1","number":1.50e3,"picky":"yes","tree":{"name":"é\ud83d\ude00","kids":[{"kids":[]},null]},"-":"d"}`,
		`{"Plain":"\ud800"}`,
	} {
		got, err := decode[all](t, text)
		require.NoError(t, err, text)
		var want all
		require.NoError(t, json.Unmarshal([]byte(text), &want))
		assert.Equal(t, want, got, text)
	}
	point, err := decode[*point](t, `null`)
	require.NoError(t, err)
	assert.Nil(t, point)
	assert.Empty(t, all{}.own)
	empty, err := decode[struct{}](t, `{}`)
	require.NoError(t, err)
	assert.Equal(t, struct{}{}, empty)
	number, err := decode[big.Int](t, `123456789012345678901234567890`)
	require.NoError(t, err)
	assert.Equal(t, "123456789012345678901234567890", number.String())
	raw, err := decode[json.RawMessage](t, `{"a":1,"a":2}`)
	require.NoError(t, err)
	assert.Equal(t, `{"a":1,"a":2}`, string(raw))
}

func TestNewSaysWhatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	_, err := strictjson.New[struct {
		Inner struct{ C []chan int } `json:"inner"`
	}]()
	require.EqualError(t, err, "field inner: field C: chan int cannot be decoded from JSON")
	_, err = strictjson.New[func()]()
	require.EqualError(t, err, "func() cannot be decoded from JSON")
	_, err = strictjson.New[struct{ E error }]()
	require.EqualError(t, err, "field E: error has methods: the type to decode into is not known")
	_, err = strictjson.New[map[point]int]()
	require.EqualError(t, err, "strictjson_test.point cannot be the name of a member")
	_, err = strictjson.New[struct {
		C chan int `json:"-"`
	}]()
	require.NoError(t, err, "what is left out does not matter")
}

// FuzzDecode: no text makes the Decoder panic or take a long time, faults are short and name only
// places that exist, and a text that the Decoder accepts has the same value in encoding/json.
func FuzzDecode(f *testing.F) {
	f.Add(`{"id":7,"move":{"x":1,"y":2},"moves":[{}],"pair":[true,false],"maybe":null,"scores":{"a":1},"byId":{"1":"x"}}`)
	f.Add(`{"any":[{"a":[1e5,"\ud800"]}],"raw":{},"big":"12","bytes":"aGk=","at":"2026-11-24T23:00:00Z","addr":"::1","number":-0}`)
	f.Add(`{"picky":"yes","tree":{"kids":[null,{"name":"x","kids":[]}]},"Plain":"\u0000","-":"d","Note":"n"}`)
	f.Add(`{"Move":{}}{"move":null`)
	d, err := strictjson.New[all]()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := d.Decode([]byte(text))
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 1000)
			return
		}
		var want all
		strict := json.NewDecoder(strings.NewReader(text))
		strict.DisallowUnknownFields()
		require.NoError(t, strict.Decode(&want))
		require.Equal(t, want, got)
	})
}
