package strictjson_test

import (
	"encoding/json"
	"errors"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/strictjson"
)

// textual has an UnmarshalText that refuses strings of three bytes.
type textual struct{ said string }

func (x *textual) UnmarshalText(text []byte) error {
	if len(text) == 3 {
		return errors.New("three bytes: " + string(text))
	}
	x.said += string(text)
	return nil
}

type octet uint8

type octets []byte

// many has more than 64 fields, and those of all that lacks some kinds.
type many struct {
	A00, A01, A02, A03, A04, A05, A06, A07, A08, A09 int
	A10, A11, A12, A13, A14, A15, A16, A17, A18, A19 *string
	A20, A21, A22, A23, A24, A25, A26, A27, A28, A29 bool
	A30, A31, A32, A33, A34, A35, A36, A37, A38, A39 any
	A40, A41, A42, A43, A44, A45, A46, A47, A48, A49 float64
	A50, A51, A52, A53, A54, A55, A56, A57, A58, A59 uint16

	B octets               `json:"é"`
	C []octet              `json:"c"`
	D map[textual]*textual `json:"d"`
	E map[uint16][]int     `json:"e"`
	F *int                 `json:"f,string"`
	G string               `json:"g,string"`
	H *bool                `json:"h,string"`
	I [3]any               `json:"i"`
	J *json.RawMessage     `json:"j"`
	K *time.Time           `json:"k"`
	L big.Int              `json:"l"`
	M netip.Addr           `json:"m"`
	N float32              `json:"n,string"`
	O uint8                `json:"o,string"`
	P []json.RawMessage    `json:"p"`
	Q json.Number
}

// compare decodes a text with a Decoder, and with encoding/json, token by token.
func compare[T any](t *testing.T, d *strictjson.Decoder[T], text string) {
	t.Helper()
	got, err := d.Decode([]byte(text))
	want, wanted := strictjson.Reference[T]([]byte(text))
	if wanted == nil {
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		return
	}
	require.EqualError(t, err, wanted.Error(), text)
	// The reasons of encoding/json itself are different for numbers, and no one sees them.
	if cause := errors.Unwrap(err); cause != nil {
		require.EqualError(t, errors.Unwrap(wanted), cause.Error(), text)
	}
}

// comparison returns a func that compares texts for several types.
func comparison(t testing.TB) func(t *testing.T, text string) {
	a, errA := strictjson.New[all]()
	m, errM := strictjson.New[many]()
	i, errI := strictjson.New[any]()
	l, errL := strictjson.New[[]map[string]map[string]*string]()
	require.NoError(t, errors.Join(errA, errM, errI, errL))
	return func(t *testing.T, text string) {
		compare(t, a, text)
		compare(t, m, text)
		compare(t, i, text)
		compare(t, l, text)
	}
}

// writer writes random JSON, with the names and values of the fields of all and many.
type writer struct {
	*rand.Rand
	strings.Builder
}

var (
	someNames = strings.Split(`id Twice Note move moves pair maybe scores byId any raw big bytes at addr number picky tree `+
		`Plain plain Hidden - x y name kids A00 A19 A21 A35 A48 A51 \u004101 é c d e f g h i j k l m n o p Q q +1 01 1 abc \ud800`, " ")
	someValues = []string{
		`null`, `true`, `false`, `0`, `-0`, `1`, `-1`, `127`, `128`, `255`, `256`, `70000`, `1.5`, `1e2`, `1e39`, `1e999`, `9223372036854775808`,
		`""`, `"yes"`, `"abc"`, `"x"`, `"1"`, `" 1"`, `"true"`, `"null"`, `"\"x\""`, `"aGk="`, `"*"`, `"aG\nk="`, `"2026-11-24T23:00:00Z"`, `"::1"`,
		`"\ud83d\ude00\u0000\/"`, `"\ud83d"`, "\"\xff\xe2\x82\\n\"", "\"\\ud83d\xff\\ude00é\"",
	}
)

func (w *writer) value(depth int) {
	kind := w.IntN(10)
	switch {
	case depth > 4 || kind < 5:
		w.WriteString(someValues[w.IntN(len(someValues))])
	case kind < 7:
		w.list("[]", func() { w.value(depth + 1) })
	default:
		w.list("{}", func() {
			w.WriteString(`"` + someNames[w.IntN(len(someNames))] + `"`)
			w.blank()
			w.WriteByte(':')
			w.blank()
			w.value(depth + 1)
		})
	}
}

func (w *writer) list(brackets string, each func()) {
	w.WriteByte(brackets[0])
	w.blank()
	for i := range w.IntN(4) {
		if i > 0 {
			w.WriteByte(',')
			w.blank()
		}
		each()
		w.blank()
	}
	w.WriteByte(brackets[1])
}

func (w *writer) blank() {
	if w.IntN(20) == 0 {
		w.WriteString(" \t\r\n"[:1+w.IntN(4)])
	}
}

// member writes an object of one or two fields, which are probably of the right type.
func (w *writer) member() {
	fields := strings.Split(`"id":7|"move":{"x":-128,"y":2.5}|"moves":[{"x":1},{"y":1e3}]|"pair":[true,false]|"maybe":{"x":3}|"maybe":null|"any":[{}]|`+
		`"scores":{"a":255}|"byId":{"-3":"x"}|"raw":[1, 2 ]|"big":"-12"|"bytes":"aGk="|"at":"2026-11-24T23:00:00Z"|"addr":"::1"|"number":1.50e3|`+
		`"picky":"yes"|"tree":{"name":"é","kids":[null,{"kids":[]}]}|"-":"d"|"Plain":"\ud800"|"Note":"n"|"A00":1|"A19":"x"|"A21":true|"A35":{"a":[1]}|`+
		`"A48":1.5|"A51":65535|"é":"aGk="|"c":"aGk="|"d":{"a":"b","":null}|"e":{"1":[1,2]}|"f":"1"|"f":null|"g":"\"x\""|"h":"true"|"i":[1,[],{}]|"j":{"a":1}|`+
		`"k":"2026-11-24T23:00:00Z"|"l":12|"m":""|"n":"1.5"|"o":"255"|"p":[1,{"a":2}]|"Q":1`, "|")
	w.list("{}", func() {
		field := fields[w.IntN(len(fields))]
		if w.IntN(4) > 0 {
			w.WriteString(field)
			return
		}
		w.WriteString(field[:strings.Index(field, ":")+1])
		w.value(1)
	})
}

func (w *writer) text() string {
	w.Reset()
	if w.IntN(2) == 0 {
		w.member()
	} else {
		w.value(0)
	}
	return w.String()
}

// A Decoder accepts and refuses the same texts as encoding/json does token by token, with the same
// values and messages.
func TestDecoderIsAsEncodingJSON(t *testing.T) {
	t.Parallel()
	check := comparison(t)
	w := &writer{Rand: rand.New(rand.NewPCG(17, 3))}
	for range 5000 {
		check(t, w.text())
	}
}

func FuzzDecoderIsAsEncodingJSON(f *testing.F) {
	w := &writer{Rand: rand.New(rand.NewPCG(17, 4))}
	for range 100 {
		f.Add(w.text())
	}
	f.Add(`{"Move":{}}{"move":null`)
	check := comparison(f)
	f.Fuzz(func(t *testing.T, text string) { check(t, text) })
}
