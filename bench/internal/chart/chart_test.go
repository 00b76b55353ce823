package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSVG(t *testing.T) {
	t.Parallel()
	assert.Empty(t, Chart{Title: "nothing", Groups: []Group{{Title: "not measured"}}}.SVG())
	svg := Chart{
		Title: "a < b",
		Groups: []Group{
			{Title: "Bursts", Unit: "µs", Bars: []Bar{{Name: "pushy", Value: 1, Text: "1.00", Strong: true}, {Name: "other", Value: 4, Text: "4.00"}}},
			{Title: "not measured"},
			{Title: "Memory", Unit: "KiB", Bars: []Bar{{Name: "pushy", Text: "0.00"}}},
		},
	}.SVG()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	assert.Contains(t, svg, "a &lt; b")
	assert.Contains(t, svg, "prefers-color-scheme: dark")
	assert.NotContains(t, svg, "not measured")
	assert.Equal(t, 3, strings.Count(svg, `<rect class="bar`))
	assert.Contains(t, svg, `width="56.0" height="13"`, "a quarter of the longest bar of its group")
	assert.Contains(t, svg, `width="224.0" height="13"`)
	assert.NotContains(t, svg, "NaN")
}
