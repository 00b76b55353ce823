package prometheus_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// promtool runs Prometheus' own checker, of Debian's package prometheus.
func promtool(t *testing.T, stdin string, args ...string) (output string, err error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	require.NoError(t, err, "the package prometheus has promtool")
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPromtoolAcceptsTheAlertRules(t *testing.T) {
	t.Parallel()
	output, err := promtool(t, "", "check", "rules", "../../docs/operations/alerts.yml")
	require.NoError(t, err, output)
	assert.NotContains(t, output, " 0 rules found")
}

// promtool check metrics also fails for a metric that is not as Prometheus' rules for names and
// units want it.
func TestPromtoolAcceptsTheMetrics(t *testing.T) {
	t.Parallel()
	srv := newServer(t, pushy.Options{})
	c := pushytest.New(t, srv).Connect()
	c.Subscribe("news")
	_ = c.Exec("no such command", nil, nil)
	text, _ := scrape(t, srv)
	output, err := promtool(t, text, "check", "metrics")
	require.NoError(t, err, output)
	assert.Empty(t, output)

	output, err = promtool(t, text+"# HELP odd_seconds Odd.\n# TYPE odd_seconds counter\nodd_seconds 1\n",
		"check", "metrics")
	require.Error(t, err, "it finds a counter without _total")
	assert.Contains(t, output, "odd_seconds")
}
