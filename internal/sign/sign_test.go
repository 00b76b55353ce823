package sign_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/sign"
)

type vector struct {
	Kind            string          `json:"kind"`
	Name            string          `json:"name"`
	Secret          string          `json:"secret"`
	SocketID        string          `json:"socket_id"`
	Channel         string          `json:"channel"`
	ChannelInURL    string          `json:"channel_in_url"`
	Event           json.RawMessage `json:"event"`
	Timestamp       json.RawMessage `json:"timestamp"`
	DataPresent     bool            `json:"data_present"`
	CanonicalJSON   *string         `json:"canonical_json"`
	SignatureString *string         `json:"signature_string"`
	SHA256          *string         `json:"sha256"`
}

func TestGolden(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../testdata/golden/signatures.json")
	require.NoError(t, err)
	var vectors []vector
	require.NoError(t, json.Unmarshal(b, &vectors))
	ran := map[string]int{}
	for _, v := range vectors {
		if v.SHA256 == nil || v.SignatureString == nil {
			continue
		}
		ran[v.Kind]++
		t.Run(v.Kind+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			var got string
			var data []byte
			if v.CanonicalJSON != nil {
				data = []byte(*v.CanonicalJSON)
			}
			if v.ChannelInURL != "" { // where it stands, channel may be a description
				var err error
				v.Channel, err = url.PathUnescape(v.ChannelInURL)
				require.NoError(t, err)
			}
			if v.Kind == "subscribe" {
				got = sign.Channel(v.Secret, v.SocketID, v.Channel, data)
			} else {
				got = sign.Trigger(v.Secret, v.Channel, text(t, v.Event), text(t, v.Timestamp), data)
			}
			assert.Equal(t, hash(*v.SignatureString), *v.SHA256, "the vector itself")
			if why, ok := signedOtherwise[v.Name]; ok {
				assert.NotEqual(t, *v.SHA256, got, why)
				return
			}
			assert.Equal(t, *v.SHA256, got, "of %s", *v.SignatureString)
		})
	}
	assert.Equal(t, map[string]int{"trigger": 127, "subscribe": 37}, ran)
}

// signedOtherwise has the vectors whose hash is that of other inputs than the vector has.
var signedOtherwise = map[string]string{
	"foreign-channel-not-lowered":     "signed over the name as spelled",
	"refused-channel-not-lowered":     "signed over the name as spelled",
	"refused-data-not-double-encoded": "signed over the text itself, not its JSON",
	"refused-slash-escaped":           "signed over PHP's escapes",
	"refused-unicode-escaped":         "signed over PHP's escapes",
	"refused-empty-data-slot":         "absent data has no slot",
	"refused-wrong-socket":            "signed over another socketId",
	"php-event-amp":                   "the SDK does not escape the event: & cuts it",
	"php-event-plus":                  "the SDK does not escape the event: + is a blank",
	"spelling x e 0x6553f100":         "D12: the original hashed the number, not its spelling",
	"spelling x e abc":                "D12: the original hashed the number, not its spelling",
	"spelling x e 1700000000abc":      "D12: the original hashed the number, not its spelling",
}

// text returns a string or number of a vector in the form that it has in a query.
func text(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	if raw[0] != '"' {
		return string(raw)
	}
	var s string
	require.NoError(t, json.Unmarshal(raw, &s))
	return s
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                              string
		secret, channel, event, timestamp string
		body                              []byte
		signed                            string
	}{
		{"workedExample", "secret", "hello", "test", "123456789", []byte("{}"), "hello:test:123456789:{}:secret"},
		{"lowersChannelOnly", "SECRET", "PRİVATE-X", "Test", "1", []byte(`{"A":1}`), `pri̇vate-x:Test:1:{"A":1}:SECRET`},
		{"emptyBody", "secret", "c", "e", "1", []byte{}, "c:e:1::secret"},
		{"nilBody", "secret", "c", "e", "1", nil, "c:e:1::secret"},
		{"largeBody", "secret", "c", "e", "1", []byte(strings.Repeat("x", 1<<20)), "c:e:1:" + strings.Repeat("x", 1<<20) + ":secret"},
		{"longerThanScratch", strings.Repeat("s", 700), strings.Repeat("c", 700), "e", "1", []byte("{}"),
			strings.Repeat("c", 700) + ":e:1:{}:" + strings.Repeat("s", 700)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, hash(tt.signed), sign.Trigger(tt.secret, tt.channel, tt.event, tt.timestamp, tt.body))
		})
	}
	assert.Equal(t, "fc7da7a7f1e50f242f6b57975ea4914aba1e6c31b56165948cd3d090b7ff0625",
		sign.Trigger("secret", "hello", "test", "123456789", []byte("{}")))
}

func TestChannel(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                      string
		secret, socketID, channel string
		data                      []byte
		signed                    string
	}{
		{"noData", "secret", "id", "Private-A", nil, "id:private-a:secret"},
		{"emptyDataIsNone", "secret", "id", "private-a", []byte{}, "id:private-a:secret"},
		{"emptyText", "secret", "id", "private-a", []byte(`""`), `id:private-a:"":secret`},
		{"object", "secret", "ID", "private-a", []byte(`{"A":1}`), `ID:private-a:{"A":1}:secret`},
		{"emptySecret", "", "id", "private-a", nil, "id:private-a:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, hash(tt.signed), sign.Channel(tt.secret, tt.socketID, tt.channel, tt.data))
		})
	}
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestEqual(t *testing.T) {
	t.Parallel()
	signature := hash("x")
	tests := []struct {
		name string
		a, b string
		want bool
	}{
		{"same", signature, hash("x"), true},
		{"firstByte", signature, "x" + signature[1:], false},
		{"lastByte", signature, signature[:63] + "x", false},
		{"upperCase", signature, strings.ToUpper(signature), false},
		{"shorter", signature, signature[:63], false},
		{"longer", signature, signature + "0", false},
		{"againstEmpty", signature, "", false},
		{"bothEmpty", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, sign.Equal(tt.a, tt.b))
		})
	}
}

func BenchmarkTrigger(b *testing.B) {
	body := []byte(`{"message":"` + strings.Repeat("x", 500) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		sign.Trigger("secret", "private-room", "message", "1700000000", body)
	}
}

func BenchmarkChannel(b *testing.B) {
	data := []byte(`"{\"name\":\"x\"}"`)
	b.ReportAllocs()
	for b.Loop() {
		sign.Channel("secret", "3f0e9f4e-3c43-4d7e-9a34-0f6a51d0f2a1", "private-room", data)
	}
}
