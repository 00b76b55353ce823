package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/metrics/internal/table"
)

const operations = "../docs/operations/"

var (
	metricName = regexp.MustCompile(`\bpushy_[a-z_]+\b`)
	labelsOf   = regexp.MustCompile(`\b(?:by|without) \(([a-z_, ]+)\)`)
	matcher    = regexp.MustCompile(`[{,]([a-z_]+)(?:=|!=|=~|!~)"`)
	alertName  = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	alertExpr  = regexp.MustCompile(`(?m)^ +expr: (.+)$`)
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(operations + name)
	require.NoError(t, err)
	return string(text)
}

// series are the names of all series that the metrics have, with their labels.
func series() map[string][]string {
	all := map[string][]string{}
	for _, m := range table.Metrics {
		if m.Kind != table.Histogram {
			all[m.Name] = m.Labels
			continue
		}
		all[m.Name+"_bucket"] = append([]string{"le"}, m.Labels...)
		all[m.Name+"_sum"] = m.Labels
		all[m.Name+"_count"] = m.Labels
	}
	return all
}

// checkExpr checks that an expression of PromQL uses only series and labels that exist.
func checkExpr(t *testing.T, expr string, used map[string]bool) {
	t.Helper()
	known := series()
	labels := map[string]bool{"instance": true, "job": true}
	names := metricName.FindAllString(expr, -1)
	for _, name := range names {
		has, ok := known[name]
		assert.True(t, ok, "%s is no series: %s", name, expr)
		for _, label := range has {
			labels[label] = true
		}
		used[name] = true
	}
	for _, found := range labelsOf.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(found[1], ", ") {
			assert.True(t, labels[label], "no metric has the label %s: %s", label, expr)
		}
	}
	for _, found := range matcher.FindAllStringSubmatch(expr, -1) {
		assert.True(t, labels[found[1]], "no metric has the label %s: %s", found[1], expr)
	}
	assert.Equal(t, strings.Count(expr, "("), strings.Count(expr, ")"), expr)
}

func TestDashboardUsesMetricsThatExist(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Query any }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &dashboard))
	used := map[string]bool{}
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			require.NotEmpty(t, metricName.FindString(target.Expr), target.Expr)
			checkExpr(t, target.Expr, used)
		}
	}
	for _, m := range table.Metrics { // it shows everything
		assert.True(t, used[m.Name] || used[m.Name+"_bucket"], m.Name)
	}
}

func TestAlertsUseMetricsThatExist(t *testing.T) {
	t.Parallel()
	text := read(t, "alerts.yml")
	used := map[string]bool{}
	exprs := alertExpr.FindAllStringSubmatch(text, -1)
	alerts := alertName.FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, alerts)
	require.Len(t, exprs, len(alerts))
	for _, expr := range exprs {
		checkExpr(t, expr[1], used)
	}
	require.NotEmpty(t, used)
	page := read(t, "README.md")
	for _, alert := range alerts {
		assert.Contains(t, page, "\n### "+alert[1]+"\n", "README.md says what an alert means")
	}
	assert.Equal(t, len(alerts), strings.Count(page, "\n### Pushy"))
}

func TestPageNamesAllMetrics(t *testing.T) {
	t.Parallel()
	page := read(t, "README.md")
	known := map[string]bool{}
	for _, m := range table.Metrics {
		known[m.Name] = true
		assert.Contains(t, page, "`"+m.Name+"`")
	}
	for _, name := range metricName.FindAllString(page, -1) {
		assert.True(t, known[name], name)
	}
}
