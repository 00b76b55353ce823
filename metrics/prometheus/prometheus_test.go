package prometheus_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/metrics"
	"github.com/gopushy/pushy/metrics/internal/table"
	"github.com/gopushy/pushy/metrics/prometheus"
	"github.com/gopushy/pushy/pushytest"
)

func newServer(t *testing.T, o pushy.Options) *pushy.Server {
	t.Helper()
	o.SecretKey = "the secret key of a test"
	srv, err := pushy.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// scrape returns what Handler writes, as client_golang parses it.
func scrape(t *testing.T, srv *pushy.Server) (text string, families map[string]*dto.MetricFamily) {
	t.Helper()
	w := httptest.NewRecorder()
	metrics.Handler(srv).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, 200, w.Code)
	require.Equal(t, expfmt.TypeTextPlain, expfmt.ResponseFormat(w.Result().Header).FormatType())
	text = w.Body.String()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err, text)
	return text, families
}

// gather returns what a registry has of a Collector.
func gather(t *testing.T, srv *pushy.Server) map[string]*dto.MetricFamily {
	t.Helper()
	registry := client.NewPedanticRegistry()
	require.NoError(t, registry.Register(prometheus.NewCollector(srv)))
	all, err := registry.Gather()
	require.NoError(t, err)
	families := map[string]*dto.MetricFamily{}
	for _, family := range all {
		families[family.GetName()] = family
	}
	return families
}

// series counts the series of all families.
func series(families map[string]*dto.MetricFamily) (n int) {
	for _, family := range families {
		n += len(family.Metric)
	}
	return n
}

// value returns the value of the counter or gauge with these labels, in the order of their names.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	family := families[name]
	require.NotNil(t, family, name)
	for _, m := range family.Metric {
		var values []string
		for _, label := range m.Label {
			values = append(values, label.GetValue())
		}
		if strings.Join(values, "\x00") == strings.Join(labels, "\x00") {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	require.Fail(t, "no such series", "%s %q", name, labels)
	return 0
}

// The handler's text and the Collector have the same metrics, which follow the conventions.
func TestOutputsAreEqual(t *testing.T) {
	t.Parallel()
	srv := newServer(t, pushy.Options{})
	srv.RegisterCommand("odd \"name\"\\\n", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {})
	kit := pushytest.New(t, srv)
	c := kit.Connect()
	c.Subscribe("news")
	require.NoError(t, srv.Publish(t.Context(), "news", "e", 1))
	c.ExpectEvent("news", "e", nil)
	kit.Connect().Close(4321)

	var text string
	var parsed map[string]*dto.MetricFamily
	require.Eventually(t, func() bool {
		text, parsed = scrape(t, srv)
		return value(t, parsed, "pushy_connections_closed_total", "other") == 1
	}, 30*time.Second, time.Millisecond)
	var gathered strings.Builder
	encoder := expfmt.NewEncoder(&gathered, expfmt.NewFormat(expfmt.TypeTextPlain))
	all := gather(t, srv)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		require.NoError(t, encoder.Encode(all[name]))
	}
	assert.Equal(t, strings.Split(gathered.String(), "\n"), strings.Split(text, "\n"))
	assert.Len(t, parsed, len(table.Metrics))
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	assert.Equal(t, 2., value(t, parsed, "pushy_connections_opened_total"))
	assert.Equal(t, 1., value(t, parsed, "pushy_connections"))
	assert.Equal(t, 1., value(t, parsed, "pushy_deliveries_total"))
	assert.Equal(t, 1., value(t, parsed, "pushy_joins_total", "joined"))
	assert.Equal(t, 1., value(t, parsed, "pushy_command_duration_seconds", "subscribe"))
	assert.Equal(t, 0., value(t, parsed, "pushy_command_duration_seconds", "odd \"name\"\\\n"))
	assert.Equal(t, 1., value(t, parsed, "pushy_ready"))
	assert.Equal(t, 1., value(t, parsed, "pushy_broker_up"))
}

// Acceptance test 1 of the metrics: names that clients choose add no series, not even 100,000. The
// race detector makes each of them fifteen times as expensive, so it sees a part of them, and
// ci/unit.sh also runs the test without it.
func TestClientsAddNoSeries(t *testing.T) {
	t.Parallel()
	const conns = 10
	users, channels, commands := 2_000, 48_000, 50_000
	if raceDetector {
		users, channels, commands = 500, 2_000, 2_500
	}
	srv := newServer(t, pushy.Options{
		Accept: func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		Limits: pushy.Limits{
			CommandRate:  -1,
			JoinRate:     -1,
			Channels:     -1,
			ConnBuffer:   -1,
			MessageBytes: 1 << 20,
		},
		MaxBuffered: -1,
	})
	kit := pushytest.New(t, srv)
	kit.Patience = time.Minute
	all := make([]*pushytest.Client, conns)
	for i := range all {
		all[i] = kit.Connect()
	}
	all[0].Subscribe("news")
	// A command of each kind has been counted before.
	_ = all[0].Exec("no such command", nil, nil)
	before, _ := scrape(t, srv)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range users {
		kit.Connect(func(r *http.Request) { r.Header.Set("X-User", odd(random)) }).Close(4000 + i%1000)
	}
	for i := range channels {
		all[i%conns].SendText(`{"command":"subscribe","data":{"channel":` + quoted(odd(random)) + `}}`)
	}
	for i := range commands {
		all[i%conns].SendText(`{"command":` + quoted(odd(random)) + `,"data":{}}`)
	}
	for _, c := range all { // the commands of a connection are carried out in their order
		_ = c.Exec("last", nil, nil)
	}
	after, families := scrape(t, srv)
	assert.Equal(t, names(before), names(after))
	assert.Equal(t, float64(commands+conns+1), value(t, families, "pushy_command_duration_seconds", "unknown"))
	assert.Equal(t, float64(channels+1), value(t, families, "pushy_command_duration_seconds", "subscribe"))
	assert.Equal(t, float64(conns+users), value(t, families, "pushy_connections_opened_total"))
	assert.Less(t, series(families), 150)
	assert.Equal(t, series(families), series(gather(t, srv)))
}

// odd returns a name with characters that have a meaning in some output.
func odd(random *rand.Rand) string {
	const signs = "\\\"\n{}=, #'<>\x00\u202e\u00e9é💥 _:"
	var b strings.Builder
	runes := []rune(signs)
	for range 1 + random.IntN(4) {
		b.WriteRune(runes[random.IntN(len(runes))])
	}
	fmt.Fprintf(&b, "%d", random.Int64())
	return b.String()
}

func quoted(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// names returns the lines of the text format without the values.
func names(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			line = line[:strings.LastIndexByte(line, ' ')]
		}
		lines = append(lines, line)
	}
	return lines
}

// Scrapes and clients at the same time: the race detector finds nothing, and counters only grow.
func TestScrapesBesideTraffic(t *testing.T) {
	t.Parallel()
	srv := newServer(t, pushy.Options{})
	kit := pushytest.New(t, srv)
	c := kit.Connect()
	c.Subscribe("news")
	var others sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		others.Go(func() {
			last := 0.
			for {
				_, families := scrape(t, srv)
				now := value(t, families, "pushy_deliveries_total")
				assert.GreaterOrEqual(t, now, last)
				last = now
				gather(t, srv)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	const events = 500
	for i := range events {
		require.NoError(t, srv.Publish(t.Context(), "news", "e", i))
		srv.RegisterCommand(fmt.Sprint("command", i), func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {})
		c.ExpectEvent("news", "e", nil)
	}
	close(done)
	others.Wait()
	_, families := scrape(t, srv)
	assert.Equal(t, float64(events), value(t, families, "pushy_deliveries_total"))
	assert.Positive(t, value(t, families, "pushy_sent_bytes_total"))
}

func TestNilServer(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { prometheus.NewCollector(nil) })
	assert.Panics(t, func() { metrics.Handler(nil) })
}
