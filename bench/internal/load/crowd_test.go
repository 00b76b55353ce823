package load

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

func startKeeper(t *testing.T) (*pushy.Server, CrowdConfig) {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: Secret,
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 100}}
		},
	})
	require.NoError(t, err)
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		assert.NoError(t, srv.Close())
		web.Close()
	})
	return srv, CrowdConfig{
		Addr:     configFor(t, web).Addr,
		Channel:  "kept",
		Channels: 1,
		Clients:  20,
	}
}

func tell(t *testing.T, srv *pushy.Server, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		data := map[string]any{
			"n": n,
			"p": "x",
		}
		require.NoError(t, srv.Publish(context.Background(), "kept", "m", data))
	}
}

// left waits until the server has noticed that clients were disconnected.
func left(t *testing.T, c *Crowd, srv *pushy.Server, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); srv.Stats().Connections != n; {
		require.NoError(t, c.Listen(t.Context(), time.Millisecond))
		require.False(t, time.Now().After(end), "%d connections, not %d", srv.Stats().Connections, n)
	}
}

// Clients that return receive what they have missed, and then what follows.
func TestCrowd(t *testing.T) {
	t.Parallel()
	srv, cfg := startKeeper(t)
	crowd, err := NewCrowd(cfg)
	require.NoError(t, err)
	defer crowd.Close()
	arrival, err := crowd.Arrive(t.Context(), Enter)
	require.NoError(t, err)
	assert.Equal(t, 20, arrival.Clients)
	tell(t, srv, 1, 2)
	require.NoError(t, crowd.Expect(t.Context(), 2))

	for i, connectFirst := range []bool{false, true} {
		crowd.Drop(1)
		left(t, crowd, srv, 1)
		last := 2 + 4*i
		tell(t, srv, last+1, last+3)
		if connectFirst {
			_, err := crowd.Arrive(t.Context(), ConnectOnly)
			require.NoError(t, err)
		}
		arrival, err = crowd.Arrive(t.Context(), Resume)
		require.NoError(t, err)
		assert.Equal(t, []int64{19, 19, 57, 0}, []int64{
			int64(arrival.Clients), int64(arrival.Recovered), arrival.Replayed, int64(arrival.Closed),
		})
		tell(t, srv, last+4, last+4)
		require.NoError(t, crowd.Expect(t.Context(), uint64(last+4)))
	}

	closed, ok := srv.Conn(crowd.all[3].id)
	require.True(t, ok)
	closed.Close(3900, "enough")
	for n := 0; n == 0; n, _ = crowd.Closed() {
		require.NoError(t, crowd.Listen(t.Context(), time.Millisecond))
	}
	n, why := crowd.Closed()
	assert.Equal(t, 1, n)
	assert.Contains(t, why, "enough")
}

// Members that are held return as the same members, and nobody receives anything.
func TestHeldCrowd(t *testing.T) {
	t.Parallel()
	srv, cfg := startKeeper(t)
	cfg.Channel = "private-hold"
	cfg.Hold = true
	crowd, err := NewCrowd(cfg)
	require.NoError(t, err)
	defer crowd.Close()
	_, err = crowd.Arrive(t.Context(), Enter)
	require.NoError(t, err)
	require.NoError(t, crowd.Settle(t.Context(), 20))
	before := crowd.Messages()
	crowd.Drop(1)
	left(t, crowd, srv, 1)
	arrival, err := crowd.Arrive(t.Context(), Resume)
	require.NoError(t, err)
	require.NoError(t, crowd.Listen(t.Context(), 500*time.Millisecond))
	assert.Equal(t, 19, arrival.Resumed)
	assert.Zero(t, arrival.Changes)
	assert.Equal(t, before, crowd.Messages())
}

// Events that are lost, repeated, out of order or changed are detected, and so is a replay that
// is not what the success says.
func TestCrowdFaults(t *testing.T) {
	t.Parallel()
	event := func(offset, n int) string {
		return fmt.Sprintf(`{"event":"m","channel":"kept","data":{"n":%d,"p":"x"},"offset":%d}`, n, offset)
	}
	const resumed = `{"event":"pushy:subscription-success","data":{"channel":"kept","epoch":"e","offset":%d,"recovered":true,"replay":%d}}`
	for name, c := range map[string]struct {
		messages []string
		error    string
	}{
		"lost":       {[]string{fmt.Sprintf(resumed, 7, 2), event(7, 7)}, "got event 7 after 5"},
		"repeated":   {[]string{fmt.Sprintf(resumed, 5, 0), event(5, 5)}, "got event 5 after 5"},
		"changed":    {[]string{fmt.Sprintf(resumed, 5, 0), event(6, 7)}, "event 6 has other data"},
		"fewer":      {[]string{fmt.Sprintf(resumed, 7, 1), event(6, 6)}, "the replay ended at 6, not at 7"},
		"none":       {[]string{fmt.Sprintf(resumed, 7, 0)}, "the replay ended at 5, not at 7"},
		"unknown":    {[]string{`{"event":"pushy:error","data":{}}`}, "pushy:error"},
		"not offset": {[]string{fmt.Sprintf(resumed, 5, 0), `{"event":"m","channel":"kept","data":{}}`}, "got "},
		"good":       {[]string{fmt.Sprintf(resumed, 7, 2), event(6, 6), event(7, 7), event(8, 8)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crowd := &Crowd{
				entry:   Resume,
				waiting: 1,
			}
			a := &attendant{
				state: asking,
				epoch: "e",
				at:    5,
			}
			var err error
			for _, m := range c.messages {
				if err == nil {
					err = a.handle(crowd, 1, []byte(m))
				}
			}
			if c.error == "" {
				require.NoError(t, err)
				assert.Zero(t, crowd.waiting)
				return
			}
			require.ErrorContains(t, err, c.error)
		})
	}
}

// A frame is found wherever the bytes are split.
func TestFrame(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 5, 125, 126, 70_000} {
		wire := []byte{0x81}
		switch {
		case n < 126:
			wire = append(wire, byte(n))
		case n < 1<<16:
			wire = append(wire, 126, byte(n>>8), byte(n))
		default:
			wire = append(wire, 127, 0, 0, 0, 0, 0, byte(n>>16), byte(n>>8), byte(n))
		}
		wire = append(wire, make([]byte, n)...)
		for _, cut := range []int{0, 1, 2, len(wire) - 1} {
			if cut < len(wire) {
				_, _, size := frame(wire[:cut])
				assert.Zero(t, size, "%d of %d bytes", cut, len(wire))
			}
		}
		opcode, payload, size := frame(append(wire, 0x89))
		assert.Equal(t, byte(1), opcode)
		assert.Len(t, payload, n)
		assert.Equal(t, len(wire), size)
	}
}
