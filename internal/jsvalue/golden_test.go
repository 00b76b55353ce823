package jsvalue_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/jsvalue"
)

type vector struct {
	Kind          string          `json:"kind"`
	Name          string          `json:"name"`
	ContentType   string          `json:"content_type"`
	BodyRaw       *string         `json:"body_raw"`
	BodyBase64    string          `json:"body_raw_base64"`
	CanonicalJSON *string         `json:"canonical_json"`
	DataPresent   bool            `json:"data_present"`
	Data          json.RawMessage `json:"data"`
	SDK           *string         `json:"php_json_encode"`
}

func (v vector) body(t *testing.T) []byte {
	t.Helper()
	if v.BodyRaw != nil {
		return []byte(*v.BodyRaw)
	}
	b, err := base64.StdEncoding.DecodeString(v.BodyBase64)
	require.NoError(t, err)
	return b
}

func vectors(t *testing.T) []vector {
	t.Helper()
	b, err := os.ReadFile("../../testdata/golden/signatures.json")
	require.NoError(t, err)
	var vs []vector
	require.NoError(t, json.Unmarshal(b, &vs))
	return vs
}

func TestCanonicalGolden(t *testing.T) {
	t.Parallel()
	ran := map[string]int{}
	for _, v := range vectors(t) {
		if v.Kind != "trigger" || !strings.HasPrefix(v.ContentType, "application/json") || strings.HasPrefix(v.Name, "sub-") {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			body := v.body(t)
			got, err := jsvalue.Canonical(nil, body, jsvalue.TriggerLimits)
			switch {
			case strings.HasPrefix(v.Name, "foreign-"):
				// The output of another encoder: not the canonical text, but one with the same value.
				require.NoError(t, err)
				same, err := jsvalue.Canonical(nil, []byte(*v.CanonicalJSON), jsvalue.TriggerLimits)
				require.NoError(t, err)
				if v.Name == "foreign-lone-surrogate-as-fffd" {
					assert.NotEqual(t, string(got), string(same))
					return
				}
				assert.Equal(t, string(got), string(same))
				if v.Name != "foreign-channel-not-lowered" {
					assert.NotEqual(t, string(got), *v.CanonicalJSON)
				}
			case v.CanonicalJSON != nil:
				require.NoError(t, err)
				assert.Equal(t, *v.CanonicalJSON, string(got))
			case jsvalue.Kind(body) == '0' || jsvalue.Kind(body) == 'n' || jsvalue.Kind(body) == 't':
				// The original refuses a body that is not an object or array; here, the caller checks this.
				assert.NoError(t, err)
			default:
				assert.Error(t, err)
			}
		})
		ran[strings.SplitN(v.Name, "-", 2)[0]]++
	}
	assert.Positive(t, ran["json"])
	assert.Positive(t, ran["foreign"])
	assert.Positive(t, ran["malformed"])
}

func TestCanonicalGoldenSubscribe(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, v := range vectors(t) {
		if v.Kind != "subscribe" || !v.DataPresent || v.CanonicalJSON == nil {
			continue
		}
		ran++
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			got, err := jsvalue.Canonical(nil, v.Data, jsvalue.Limits{})
			require.NoError(t, err)
			assert.Equal(t, *v.CanonicalJSON, string(got))
		})
	}
	assert.Positive(t, ran)
}
