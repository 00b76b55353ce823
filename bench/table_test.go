package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A ratio is computed for each round, so a machine that becomes slower does not change it.
func TestChecks(t *testing.T) {
	t.Parallel()
	var records []Record
	for round, slow := range []float64{1, 2, 10} {
		for kind, v := range map[string]float64{"pushy": .5, "centrifuge": 2.5, "centrifugetuned": 1, "bare": .25 * (1 + float64(round))} {
			records = append(records, Record{
				Section: "bursts", Kind: kind, Round: round, Clients: 1000, Channels: 1, What: "w8", Size: 200,
				Value: map[string]float64{cpu: v * slow},
			})
		}
	}
	rows := map[string]checkRow{}
	for _, row := range rowsOf(burstChecks(), records) {
		rows[strings.TrimLeft(row.measured, "0123456789.")] = row
	}
	assert.Len(t, rows, 3, "nothing else was measured")
	for of, want := range map[string][3]string{
		" of centrifuge":        {"0.20 of centrifuge", "0.20–0.20", met},
		" of centrifuge, tuned": {"0.50 of centrifuge, tuned", "0.50–0.50", notMet},
		" of the bare loop":     {"1.00 of the bare loop", "0.67–2.00", notMet},
	} {
		row := rows[of]
		assert.Equal(t, want, [3]string{row.measured, row.spread, row.verdict}, of)
	}
	assert.Empty(t, behind(burstChecks(), records), "it is not ahead, and not behind")
	for i := range records {
		if records[i].Kind == "bare" {
			records[i].Value[cpu] /= 2
		}
	}
	assert.Equal(t, []string{"server CPU a delivery, bursts of 8 events (2.00 of the bare loop)"}, behind(burstChecks(), records))
}

// If the rate was not kept, this is shown beside the latency, and the worst round counts.
func TestLatencyChecks(t *testing.T) {
	t.Parallel()
	var records []Record
	for round := range 3 {
		for kind, v := range map[string]map[string]float64{"pushy": {p99: 4, kept: min(1, float64(round))}, "centrifugetuned": {p99: 400, kept: 0}} {
			records = append(records, Record{
				Section: "latency", Kind: kind, Round: round, Clients: 1000, Channels: 1, What: "r300", Size: 200,
				Value: v,
			})
		}
	}
	rows := rowsOf(latencyChecks(), records)
	require.Len(t, rows, 2)
	assert.Equal(t, met, rows[0].verdict)
	assert.Equal(t, "4.00 to 400 (behind)", rows[0].detail)
	assert.Equal(t, [2]string{"0.00", notMet}, [2]string{rows[1].measured, rows[1].verdict}, "the first round did not keep it")
}

// All kinds of the sections exist, each check has its own line, and all sittings are too short for
// centrifuge to miss an answer to its ping.
func TestPlan(t *testing.T) {
	t.Parallel()
	for _, quick := range []bool{false, true} {
		plan, err := planOf(append(sectionNames(false), sectionNames(true)...), quick)
		require.NoError(t, err)
		require.Len(t, plan, len(sections))
		for _, p := range plan {
			assert.NotEmpty(t, p.batches, p.section)
			for _, b := range p.batches {
				assert.NotEmpty(t, b.sittings, p.section)
				for _, s := range b.sittings {
					_, known := find(s.kind)
					assert.True(t, known, s.kind)
					assert.Equal(t, p.section, s.section)
					took := settle
					for _, l := range s.loads {
						took += l.Warm + l.Time
					}
					assert.Less(t, took.Seconds(), 15.0, "%+v", s)
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, s := range sections {
		if s.checks == nil {
			continue
		}
		for _, c := range s.checks() {
			line := s.name + c.figure + c.unit
			assert.False(t, seen[line], line)
			seen[line] = true
		}
	}
	_, err := planOf([]string{"nothing"}, true)
	assert.Error(t, err)
}

// Each bar of the chart is measured.
func TestChartGroups(t *testing.T) {
	t.Parallel()
	for _, g := range chartGroups {
		plan, err := planOf([]string{g.section}, false)
		require.NoError(t, err, g.title)
		found := map[string]bool{}
		for _, b := range plan[0].batches {
			for _, s := range b.sittings {
				if s.clients == g.clients {
					found[s.kind] = true
				}
			}
		}
		for _, k := range g.kinds {
			assert.True(t, found[k], "%s: %s", g.title, k)
		}
	}
}

// sample has records of two sections, which were measured at different commits.
func sample(quick bool) []Record {
	of := func(section, kind, what string, clients int, value map[string]float64) Record {
		return Record{
			Section:  section,
			Kind:     kind,
			Clients:  clients,
			Channels: 1,
			What:     what,
			Size:     200,
			Value:    value,
		}
	}
	begun := func(section, commit string, hour int) Record {
		return Record{
			Section: section,
			What:    begun,
			Run: &Run{
				Time:     time.Date(2026, 11, 28, hour, 0, 0, 0, time.UTC),
				Seconds:  20,
				Commit:   commit,
				Machine:  "a machine",
				Versions: []string{"centrifuge v1.2.3"},
				Quick:    quick,
			},
		}
	}
	return []Record{
		of("few", "pushy", "w8", 100, map[string]float64{cpu: .5, p50: 3, p99: 5}),
		of("few", "centrifuge", "w8", 100, map[string]float64{cpu: 1, p50: 1, p99: 5}),
		begun("few", "abc", 9),
		of("commands", "pushy/bare", "typed 1", commandClients, map[string]float64{commandCPU: 12}),
		begun("commands", "def", 10),
	}
}

// RESULTS.md has the sections that were measured, what was not met, and how each section was measured.
func TestReport(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "results.jsonl")
	unknown := Record{
		Section:  "brokers",
		Kind:     "pushy",
		Clients:  1000,
		Channels: 1,
		What:     "w8",
		Value:    map[string]float64{cpu: 1},
	}
	require.NoError(t, saveRecords(file, append(sample(false), unknown)))
	records, err := savedRecords(file)
	require.NoError(t, err)
	require.Equal(t, sample(false), records, "nobody knows how the section brokers was measured")
	require.NoError(t, report(folder, records))
	text, err := os.ReadFile(filepath.Join(folder, "RESULTS.md"))
	require.NoError(t, err)
	page := string(text)
	for _, want := range []string{
		"Measured on 28 November 2026, 09:00 UTC at commit abc, on a machine.",
		"Versions: centrifuge v1.2.3.",
		"2 of 3 limits are met. Not met:\n\n- median latency, bursts of 8 events, 100 subscribers: 3.00 of centrifuge, at most 1.50\n",
		"Where another server is ahead of pushy: median latency, bursts of 8 events, 100 subscribers (3.00 of centrifuge).",
		"`make bench ARGS='-only few'` repeats this.\nRounds: 1, in 20 s.\n",
		"| median latency, bursts of 8 events, 100 subscribers | 3.00 of centrifuge | 3.00–3.00 | at most 1.50 | **no** | 3.00 to 1.00 |",
		"| bursts of 8 events | pushy | 0.50 | 3.00 | 5.00 |",
		"This section: Measured on 28 November 2026, 10:00 UTC at commit def, on a machine.",
		"| typed 1 | pushy, bare WebSocket | 12.0 |",
	} {
		assert.Contains(t, page, want)
	}
	assert.NotContains(t, page, "## TLS", "nothing of it was measured")
	assert.NotContains(t, page, "-quick")
	svg, err := os.ReadFile(filepath.Join(folder, chartFile))
	require.NoError(t, err)
	assert.Contains(t, string(svg), "Few subscribers")
	assert.NotContains(t, string(svg), "TLS")
	assert.Contains(t, string(resultsPage(sample(true))), "these figures mean nothing")
}

// A section that is measured again replaces its records and no others.
func TestReplaced(t *testing.T) {
	t.Parallel()
	all := replaced(sample(false), "few", sample(true)[:3])
	assert.Len(t, all, 5)
	again, ok := runOf(all, "few")
	assert.True(t, ok && again.Quick)
	before, ok := runOf(all, "commands")
	assert.True(t, ok && !before.Quick)
	assert.False(t, again.same(before))
	assert.True(t, before.same(before))
	_, ok = runOf(all, "tls")
	assert.False(t, ok)
	none, err := savedRecords(filepath.Join(t.TempDir(), "none"))
	assert.NoError(t, err)
	assert.Empty(t, none)
}

// The part of README.md between the two lines is replaced; a page without them is left alone.
func TestReadme(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(file, []byte("before\n"+readmeBegin+"old\n"+readmeEnd+"after\n"), 0o600))
	for range 2 {
		require.NoError(t, writeReadme(file, sample(false)))
	}
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "before\n"+readmeBegin+"![Server CPU, latency and memory of pushy and other servers](bench/chart.svg)\n\n"+
		"pushy is not ahead everywhere. Another server is ahead in: median latency, bursts of 8 events, 100 subscribers (3.00 of centrifuge).\n"+readmeEnd+"after\n", string(page))
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	assert.ErrorContains(t, writeReadme(file, sample(false)), "has no part between")
	root, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	assert.Contains(t, string(root), readmeBegin)
}
