//go:build unix

package console_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/console"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// maxAnswer is the largest size of an answer with data.
const maxAnswer = 50 << 10

// All answers have at most 50 KiB, whatever clients have chosen. encoding/json writes each "<" with
// six bytes.
func TestAnswersAreSmall(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	page := open(t, n.Server, console.Options{})
	user := func(i int) string { return fmt.Sprintf("%03d%s", i%2, strings.Repeat("<", 125)) }
	channel := func(i int) string { return fmt.Sprintf("presence-%03d%s", i, strings.Repeat("<", 188)) }
	for i := range 70 {
		n.connect(user(i), stalled(), channel(i), "presence-all")
		gone := inmem.NewSink()
		n.connect(user(i), gone)
		gone.End(&session.CloseError{Cause: session.Closed, Code: 4000, Reason: strings.Repeat("<", 123)})
	}
	require.NoError(t, n.Publish(t.Context(), "presence-all", "e", "x"))
	for n.Stats().Connections > 70 { // the ends are recorded a moment later
		runtime.Gosched()
	}
	for _, path := range []string{
		"/data", "/channels", "/connections?user=" + user(0), "/connections?channel=presence-all", "/ends", "/members?channel=presence-all",
	} {
		w := call(page, http.MethodGet, path, "")
		assert.Equal(t, http.StatusOK, w.Code, path)
		assert.LessOrEqual(t, w.Body.Len(), maxAnswer, path)
		assert.Greater(t, w.Body.Len(), 5<<10, path)
	}
	// A page that is cut by its size continues where it was cut.
	seen := map[any]bool{}
	after := ""
	for more := true; more; more = after != "" {
		p := get(t, page, "/channels?after="+after)
		for _, name := range rowsOf(p, "rows", "name") {
			assert.False(t, seen[name])
			seen[name] = true
		}
		after = p["next"].(string)
	}
	assert.Len(t, seen, 71)
}

// With 100,000 connections (PUSHY_SOAK; otherwise 2,000) and five pages that are open, an answer
// has at most 50 KiB and takes at most 20 ms of processor time.
func TestCostOfAnOpenConsole(t *testing.T) {
	conns, rounds := 2_000, 2
	soak := os.Getenv("PUSHY_SOAK") != ""
	if soak {
		conns, rounds = 100_000, 10
	}
	n := startNode(t)
	page := open(t, n.Server, console.Options{})
	for i := range conns {
		c := inmem.NewSink()
		if i%100 == 0 {
			c.Stall()
		}
		n.connect(fmt.Sprint("user-", i), c, "all", fmt.Sprint("channel-", i%1000))
	}
	require.NoError(t, n.Publish(t.Context(), "all", "e", strings.Repeat("x", 200)))
	cpu := func() time.Duration {
		var used syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
		return time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	measure := func(name string, answers int, pause time.Duration, paths ...string) {
		var used time.Duration
		size := 0
		for range rounds {
			timer := time.NewTimer(pause)
			<-timer.C
			before := cpu()
			for i := range answers {
				w := call(page, http.MethodGet, paths[i%len(paths)], "")
				require.Equal(t, http.StatusOK, w.Code)
				size = max(size, w.Body.Len())
			}
			used += cpu() - before
		}
		each := used / time.Duration(rounds*answers)
		t.Logf("%s, %d connections: %v of processor time an answer, at most %d bytes", name, conns, each, size)
		assert.LessOrEqual(t, size, maxAnswer)
		if soak {
			assert.LessOrEqual(t, each, 20*time.Millisecond)
		}
	}
	pause := time.Duration(0)
	if soak {
		pause = 2100 * time.Millisecond
	}
	measure("five pages", 5, pause, "/data")
	measure("one page", 1, pause, "/data")
	measure("connections of a channel", 1, 0, "/connections?channel=all")
	measure("channels", 1, 0, "/channels?prefix=channel-")
	measure("a user", 1, 0, "/connections?user=user-7")
	measure("ends", 1, 0, "/ends?user=user-7")
}
