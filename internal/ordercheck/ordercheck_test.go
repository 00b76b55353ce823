package ordercheck_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/ordercheck"
)

// play lets a client receive the messages of a script, one a line: "success {…}", "resync {…}",
// or "OFFSET data". It returns the first error.
func play(t *testing.T, log *ordercheck.Log, script string) (*ordercheck.Follower, error) {
	t.Helper()
	f := log.Follower()
	for line := range strings.Lines(script) {
		kind, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		require.True(t, ok, line)
		var err error
		switch kind {
		case "success":
			err = f.Success(json.RawMessage(rest))
		case "resync":
			err = f.Resync(json.RawMessage(rest))
		default:
			offset, _ := strconv.ParseUint(kind, 10, 64)
			err = f.Event(offset, rest)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

const good = `success {"epoch":"a","offset":2}
3 c
4 d
success {"epoch":"a","offset":7,"recovered":true,"replay":3}
5 e
6 f
success {"epoch":"a","offset":8,"recovered":true,"replay":2}
7 g
8 h
success {"epoch":"a","offset":8,"recovered":true,"replay":0}
9 i
resync {"reason":"restarted","epoch":"b","offset":1}
2 k
success {"epoch":"b","offset":9,"recovered":false,"reason":"trimmed","replay":2}
8 l
9 m
10 n
success {"epoch":"b","offset":12,"recovered":false,"reason":"large","replay":0}
13 o`

func TestFollower(t *testing.T) {
	t.Parallel()
	log := &ordercheck.Log{}
	f, err := play(t, log, good)
	require.NoError(t, err)
	assert.Equal(t, broker.Position{Epoch: "b", Offset: 13}, *f.At)
	assert.Equal(t, []string{"restarted", "trimmed", "large"}, f.Breaks)
	assert.Equal(t, 12, f.Events)
	assert.Equal(t, 6, f.Replayed)
	_, err = play(t, log, good)
	require.NoError(t, err, "a second client sees the same")
}

// The checker must be able to fail, at each of its rules.
func TestFollowerSeesEveryRule(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, broken string }{
		"eventFirst":         {`success {"epoch":"a","offset":2}`, "1 a", "before the success"},
		"lost":               {"3 c\n", "", "event 4 after a.2"},
		"repeated":           {"3 c\n", "3 c\n3 c\n", "event 3 after a.3"},
		"misordered":         {"3 c\n4 d", "4 d\n3 c", "event 4 after a.2"},
		"lostInReplay":       {"5 e\n", "", "event 6 after a.4"},
		"repeatedReplay":     {"5 e\n", "4 d\n", "event 4 after a.4"},
		"lostAtEndOfReplay":  {"8 h\n", "", "does not lead from a.7"},
		"replayTooShort":     {`"offset":8,"recovered":true,"replay":2`, `"offset":9,"recovered":true,"replay":2`, "does not lead"},
		"replayTooLong":      {`"offset":8,"recovered":true,"replay":2`, `"offset":7,"recovered":true,"replay":2`, "does not lead"},
		"otherEpoch":         {`"epoch":"a","offset":7`, `"epoch":"b","offset":7`, "another epoch"},
		"noEpoch":            {`"epoch":"a","offset":7`, `"epoch":"","offset":7`, "the epoch"},
		"noRecovered":        {`"recovered":true,"replay":3`, `"replay":3`, "recovered must be present"},
		"recoveredUnasked":   {`"offset":2}`, `"offset":2,"recovered":true}`, "recovered must be present"},
		"noReason":           {`"recovered":false,"reason":"trimmed",`, `"recovered":false,`, "without a reason"},
		"reasonAndRecovered": {`"recovered":true,"replay":0`, `"recovered":true,"reason":"x","replay":0`, "although"},
		"partMisordered":     {"8 l\n9 m", "9 m\n8 l", "in a replay"},
		"partBeyond":         {"8 l\n9 m", "8 l\n10 m", "in a replay"},
		"partEndsEarly":      {"8 l\n9 m", "7 l\n8 m", "ends with 8"},
		"resyncWithout":      {`"reason":"restarted",`, "", "a resync without"},
		"resyncInReplay":     {"9 m\n", `resync {"reason":"epoch","epoch":"c","offset":0}` + "\n", "within a replay"},
		"otherData":          {"9 i", "9 z", "two events have the position a.9"},
		"twoPositions":       {"4 d", "4 c", "has two positions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, good, c.old, "the edit does not apply")
			log := &ordercheck.Log{}
			require.NoError(t, log.Published(broker.Position{Epoch: "a", Offset: 9}, "i"))
			_, err := play(t, log, strings.Replace(good, c.old, c.new, 1))
			require.ErrorContains(t, err, c.broken)
		})
	}
}

// Publishers and clients must agree.
func TestPublished(t *testing.T) {
	t.Parallel()
	log := &ordercheck.Log{}
	at := broker.Position{Epoch: "a", Offset: 1}
	require.NoError(t, log.Published(at, "x"))
	require.NoError(t, log.Published(at, "x"))
	require.ErrorContains(t, log.Published(at, "y"), "two events")
	require.ErrorContains(t, log.Published(broker.Position{Epoch: "b", Offset: 1}, "x"), "two positions")
}
