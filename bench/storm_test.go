package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHistogramOfAStorm(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	bins := histogram([]time.Duration{0, 99 * ms, 100 * ms, 350 * ms, 1000 * ms})
	assert.Equal(t, []int{2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1}, bins)
	assert.Equal(t, []int{0}, histogram(nil))
	assert.Equal(t, 200.0, windowMean(10_000))
	assert.Equal(t, 50.0, windowMean(500), "at least a second")

	var b bytes.Buffer
	printBars(&b, []int{0, 100, 200, 400, 250, 0, 0, 0, 0, 0, 200}, 200)
	assert.Equal(t, "   400    █▂\n   200  ▄███     █\n       0 s       1 s\n", b.String())
}
