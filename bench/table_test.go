package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A ratio is computed for each round, so a machine that becomes slower does not change it.
func TestChecks(t *testing.T) {
	t.Parallel()
	var records []Record
	for round, slow := range []float64{1, 2, 10} {
		for kind, v := range map[string]float64{"pushy": .5, "centrifuge": 2.5, "centrifugetuned": 1, "bare": 1} {
			records = append(records, Record{
				Section: "table", Kind: kind, Round: round, Clients: 1000, Channels: 1, What: "w8", Size: 200,
				Value: map[string]float64{cpu: v * slow},
			})
		}
	}
	rows := map[string]checkRow{}
	for _, row := range musts()[0].rows(records) {
		rows[row.figure+" "+row.limit] = row
	}
	assert.Len(t, rows, len(checks()), "each check has its own name")
	assert.Empty(t, musts()[1].rows(records), "nothing of it was measured")
	const figure = "server CPU a delivery, 1,000 subscribers, window 8 at most "
	for limit, want := range map[string][2]string{
		"0.25 of centrifuge": {"0.20", "ok"}, "0.40 of tuned": {"0.50", "**no**"}, "0.45 of the bare loop": {"0.50", "**no**"},
	} {
		row := rows[figure+limit]
		assert.Equal(t, want, [2]string{row.value, row.verdict}, limit)
	}
	assert.Equal(t, "–", rows["server CPU a delivery, 1,000 subscribers, window 64 at most 0.40 of tuned"].verdict, "not measured")
}

// If the rate was not kept, this is shown beside the latency.
func TestBrokerChecks(t *testing.T) {
	t.Parallel()
	var records []Record
	for kind, v := range map[string]map[string]float64{"pushy/redis": {p99: 4, kept: 1}, "centrifuge/redis": {p99: 400, kept: 0}} {
		records = append(records, Record{Section: "brokers", Kind: kind, Clients: 1000, Channels: 1, What: "r300", Size: 200, Value: v})
	}
	rows := map[string]checkRow{}
	for _, row := range musts()[1].rows(records) {
		rows[row.figure+" "+row.limit] = row
	}
	assert.Len(t, rows, len(brokerChecks()), "each check has its own name")
	row := rows["p99 at 300 events a second, pushy over Redis at most 0.80 of centrifuge/redis"]
	assert.Equal(t, "ok", row.verdict)
	assert.Equal(t, "4.00 to 400 (behind)", row.detail)
}

// All kinds of the sections exist, and all sittings are too short for centrifuge to miss an
// answer to its ping.
func TestPlan(t *testing.T) {
	t.Parallel()
	for _, quick := range []bool{false, true} {
		plan, err := fullPlan(sectionNames(), quick)
		require.NoError(t, err)
		for _, b := range plan {
			for _, s := range b.sittings {
				_, known := find(s.kind)
				assert.True(t, known, s.kind)
				took := settle
				for _, l := range s.loads {
					took += l.Warm + l.Time
				}
				assert.Less(t, took.Seconds(), 15.0, "%+v", s)
			}
		}
	}
	_, err := fullPlan([]string{"nothing"}, true)
	assert.Error(t, err)
}

func TestReport(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "results.jsonl")
	k, err := newKeeper(file)
	require.NoError(t, err)
	for _, n := range []int{100, 12_000} {
		require.NoError(t, k.keep(Record{
			Section: "curves", Kind: "pushy", Clients: n, Channels: 1, What: "w8", Size: 200,
			Value: map[string]float64{cpu: 1.5, rate: 250_000},
		}))
	}
	k.close()
	records, err := readRecords(file)
	require.NoError(t, err)
	require.NoError(t, report(folder, records))
	text, err := os.ReadFile(filepath.Join(folder, "RESULTS.md"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "| subscribers | 100 | 12,000 |")
	assert.Contains(t, string(text), "| pushy | 1.50 | 1.50 |")
	assert.Contains(t, string(text), "![Server CPU a delivery](cpu.svg)")
	assert.FileExists(t, filepath.Join(folder, "cpu.svg"))
	assert.NoFileExists(t, filepath.Join(folder, "memory.svg"), "nothing of it was measured")
}
