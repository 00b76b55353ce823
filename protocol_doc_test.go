package pushy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Issue 11, number 35: the vectors printed in PROTOCOL.md are right as they stand.
func TestProtocolVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)## 13\\. Test vectors.*?```text\n(.*?)\n```").FindSubmatch(text)
	require.NotNil(t, block)
	lines := strings.Split(string(block[1]), "\n")
	require.Len(t, lines, 10)
	for i := 0; i < len(lines); i += 2 {
		sum := sha256.Sum256([]byte(lines[i]))
		assert.Equal(t, hex.EncodeToString(sum[:]), lines[i+1], lines[i])
	}
}
