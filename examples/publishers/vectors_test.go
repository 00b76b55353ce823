package publishers_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requestVector is an entry of testdata/api-signatures.json.
type requestVector struct {
	Name       string
	Secret     string
	Time       json.Number
	ID         string
	Path       string
	BodyBase64 string
	Header     string
}

// tokenVector is an entry of testdata/v2/tokens.json.
type tokenVector struct {
	Name   string
	Secret string // the key with which the programs sign
	Claims string // "" if they are not UTF-8, so that JSON cannot have them
	Token  string
}

func readVectors(t *testing.T, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/" + file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, into))
}

// notSigned are the tokens that no signer with the keys of the vectors makes, because their form or
// their signature is wrong. The claims of the others can be wrong, too, but their signature is right.
var notSigned = []string{
	"unknownKey", "keyIDOfAnotherKey", "oneBitOfClaims", "signatureUpperCase", "signatureCut", "signatureLonger",
	"noSignature", "threeParts", "secondDot", "dotInClaims", "padded", "lineFeedInClaims", "base64NotURL",
	"otherVersion", "keyIDUpperCase", "keyIDShort", "space", "trailingBits",
}

// api.md, acceptance tests 1 and 10: PHP, node and Python sign as Go does, byte by byte.
func TestVectors(t *testing.T) {
	t.Parallel()
	var requests struct{ Vectors []requestVector }
	readVectors(t, "api-signatures.json", &requests)
	require.Greater(t, len(requests.Vectors), 50)
	var all struct {
		Secret    string
		OldSecret string `json:"old_secret"`
		Vectors   []tokenVector
	}
	readVectors(t, "v2/tokens.json", &all)
	require.Greater(t, len(all.Vectors), 75)
	var tokens []tokenVector
	for _, v := range all.Vectors {
		if v.Claims == "" {
			continue
		}
		v.Secret = all.Secret
		if v.Name == "oldKey" {
			v.Secret = all.OldSecret
		}
		tokens = append(tokens, v)
	}
	// The time is a string, because JavaScript rounds numbers of more than 15 digits.
	quoted := make([]struct {
		requestVector
		Time string
	}, len(requests.Vectors))
	for i, v := range requests.Vectors {
		quoted[i].requestVector = v
		quoted[i].Time = v.Time.String()
	}
	input, err := json.Marshal(map[string]any{"Requests": quoted, "Tokens": tokens})
	require.NoError(t, err)

	for name, program := range signers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := sign(t, program, input)
			require.Len(t, got.Requests, len(requests.Vectors))
			for i, v := range requests.Vectors {
				assert.Equal(t, v.Header, got.Requests[i], v.Name)
			}
			require.Len(t, got.Tokens, len(tokens))
			var differ []string
			for i, v := range tokens {
				if v.Token != got.Tokens[i] {
					differ = append(differ, v.Name)
				}
			}
			assert.ElementsMatch(t, notSigned, differ)
		})
	}
}

// signers are programs that sign what their input has.
var signers = map[string][]string{
	"php":    {"php", "testdata/sign.php"},
	"node":   {"node", "testdata/sign.mjs"},
	"python": {"python3", "-B", "testdata/sign.py"},
}

func sign(t *testing.T, program []string, input []byte) (signed struct{ Requests, Tokens []string }) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program[0], program[1:]...)
	var failures bytes.Buffer
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = &failures
	out, err := cmd.Output()
	require.NoError(t, err, failures.String())
	require.NoError(t, json.Unmarshal(out, &signed))
	return signed
}
