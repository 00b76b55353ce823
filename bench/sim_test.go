package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSimulate(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, simulate(t.Context(), 1000, &out))
	for _, row := range []string{"| connect |", "| join 10 channels of 100 |", "| join 100 channels of 10 |", "| leave the large channels |", "| 100 |", "| 1000 |"} {
		assert.Contains(t, out.String(), row)
	}
	assert.ErrorContains(t, simulate(t.Context(), 1, &out), "multiple of 100")
}
