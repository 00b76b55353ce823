package load

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// The rule of this tree is that of the browser client: its own source computes the same times.
func TestToldIsTheRuleOfTheBrowserClient(t *testing.T) {
	t.Parallel()
	ms := func(n float64) *float64 { return &n }
	ends := []End{
		{Code: 1006},
		{Code: 1006, ReturnWithin: ms(4800)},
		{Code: 1006, ReturnWithin: ms(60_000)},
		{Code: 1006, ReturnWithin: ms(7)},
		{Code: 1012, ReturnWithin: ms(60_000)},
		{Code: 1012, ReturnWithin: ms(70_000)},
		{Code: 1012, ReturnWithin: ms(5000), ReturnIn: ms(0)},
		{Code: 1012, ReturnWithin: ms(5000), ReturnIn: ms(4200)},
		{Code: 1012, ReturnWithin: ms(5000), ReturnIn: ms(-1)},
		{Code: 1012, ReturnIn: ms(1e9)},
		{Code: 1006, Failures: 1},
		{Code: 1006, Failures: 9},
		{Code: 1013, Failures: 0},
		{Code: 1013, Failures: 1},
	}
	const random = 0.3
	const program = `
		import { delay } from "../../../client/src/retry.js";
		Math.random = () => 0.3;
		const ends = JSON.parse(process.argv[1]);
		console.log(JSON.stringify(ends.map((e) =>
			delay(e.Failures, {}, { returnIn: e.ReturnIn ?? undefined, returnWithin: e.ReturnWithin ?? undefined }, e.Code))));`
	input, err := json.Marshal(ends)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", program, string(input)).Output()
	require.NoError(t, err)
	var want []float64
	require.NoError(t, json.Unmarshal(out, &want))
	var got []float64
	for _, e := range ends {
		got = append(got, float64(Told.Wait(e, random).Milliseconds()))
	}
	assert.Equal(t, want, got)
}

// The clients of f76b4aa were not told anything: they wait 0.5 s to 1 s, and twice as long at most
// after each failure.
func TestUntold(t *testing.T) {
	t.Parallel()
	told := 4800.0
	for failures, want := range []time.Duration{650, 950, 1550, 2750, 5150, 6350, 6350} {
		e := End{
			Code:         1012,
			Failures:     failures,
			ReturnWithin: &told,
			ReturnIn:     &told,
		}
		assert.Equal(t, want*time.Millisecond, Untold.Wait(e, 0.3), failures)
	}
}

// All clients return to the other server, with the code and the time that the first one has sent.
func TestStorm(t *testing.T) {
	t.Parallel()
	const clients = 50
	for name, c := range map[string]struct {
		end  func(srv *pushy.Server) error
		code int
		told int
	}{
		"shutdown": {
			end: func(srv *pushy.Server) error {
				go srv.Shutdown(context.Background())
				return nil
			},
			code: 1012,
			told: clients,
		},
		"close": {
			end:  (*pushy.Server).Close,
			code: 1006,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, cfg := startKeeper(t)
			other, otherCfg := startKeeper(t)
			s, err := NewStorm(Told, clients)
			require.NoError(t, err)
			defer s.Close()
			require.NoError(t, s.Connect(t.Context(), cfg.Addr))
			assert.Equal(t, clients, srv.Stats().Connections)
			require.NoError(t, s.Listen(t.Context(), time.Millisecond))
			r, err := s.Return(t.Context(), otherCfg.Addr, func() error { return c.end(srv) })
			require.NoError(t, err)
			assert.Equal(t, clients, other.Stats().Connections)
			assert.Equal(t, map[int]int{c.code: clients}, r.Codes)
			assert.Equal(t, c.told, r.Told)
			assert.Len(t, r.Attempts, clients)
			assert.Zero(t, r.Failed)
			assert.GreaterOrEqual(t, r.Last, slices.Max(r.Attempts))
		})
	}
}

// Clients whose server has not started yet try again.
func TestStormTriesAgain(t *testing.T) {
	t.Parallel()
	srv, cfg := startKeeper(t)
	_, otherCfg := startKeeper(t)
	const clients = 20
	s, err := NewStorm(Told, clients)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Connect(t.Context(), cfg.Addr))
	nobody := httptest.NewServer(nil)
	refuses := configFor(t, nobody).Addr
	nobody.Close()
	s.rule.Wait = func(e End, _ float64) time.Duration {
		if e.Failures > 0 {
			s.to = otherCfg.Addr
		}
		return 0
	}
	r, err := s.Return(t.Context(), refuses, srv.Close)
	require.NoError(t, err)
	assert.NotZero(t, r.Failed)
	assert.Len(t, r.Attempts, clients+r.Failed)
}
