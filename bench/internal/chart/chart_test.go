package chart_test

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/bench/internal/chart"
)

func TestSVG(t *testing.T) {
	t.Parallel()
	for _, logY := range []bool{false, true} {
		c := chart.Chart{Title: "a < b & c", X: "x", Y: "y", LogY: logY, Lines: []chart.Line{
			{Name: "one", Strong: true, Points: []chart.Point{{100, .7}, {1000, 3}, {12000, 40}}},
			{Name: "two & more", Points: []chart.Point{{100, 9}}},
			{Name: "none"},
		}}
		svg := c.SVG()
		texts := text(t, svg)
		for _, want := range []string{"a < b & c", "one", "two & more", "100", "1000", "12k"} {
			assert.Contains(t, texts, want)
		}
		assert.NotContains(t, texts, "none")
		assert.NotContains(t, svg, "NaN")
		assert.Contains(t, svg, "prefers-color-scheme: dark")
	}
	assert.Empty(t, chart.Chart{}.SVG())
}

// text returns the text elements of an SVG, which must be well-formed.
func text(t *testing.T, svg string) (texts []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		require.NoError(t, err)
		if data, ok := token.(xml.CharData); ok {
			texts = append(texts, string(data))
		}
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", .05: "0.05", 1: "1", 2.5: "2.5", 1000: "1000", 12000: "12k", 2.5e6: "2.5M"} {
		assert.Equal(t, want, chart.Short(v))
	}
}
