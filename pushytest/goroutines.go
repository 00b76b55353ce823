package pushytest

import (
	"context"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
)

// Goroutines inherit their profiling labels from what starts them. A Kit starts a
// connection's reader with one of its own, so commands, hooks and all that these start
// can be told from everything else in the process, parallel tests too.
const labelKey = "pushytest"

var labels atomic.Int64

func newLabel() string { return "kit-" + strconv.FormatInt(labels.Add(1), 10) }

func labelled(label string, run func()) {
	pprof.Do(context.Background(), pprof.Labels(labelKey, label), func(context.Context) { run() })
}

// ownGoroutines are those that may outlive a command that was the first to need
// them: pushy's writers, what keeps the events of channels, and what the standard
// library keeps for later.
var ownGoroutines = []string{
	"github.com/gopushy/pushy/internal/fanout.",
	"github.com/gopushy/pushy/internal/hub.(*Hub).keepAll",
	"github.com/gopushy/pushy/internal/hub.(*Channel).heal",
	"github.com/gopushy/pushy/internal/transport/websocket.(*parkingLot).run",
	"github.com/gopushy/pushy.(*Server).background",
	"github.com/gopushy/pushy.hosted", // a hook that somebody waits for
	"net/http.(*persistConn).", "net/http.(*http2ClientConn).",
	"database/sql.(*DB).connection",
}

// goroutines returns the stacks of the Kit's goroutines but those allowed.
func (k *Kit) goroutines() string {
	var profile strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return "cannot list goroutines: " + err.Error()
	}
	var left strings.Builder
	for _, block := range strings.Split(profile.String(), "\n\n") {
		label := strconv.Quote(labelKey) + ":" + strconv.Quote(k.label)
		if !strings.Contains(block, "\n# labels: {") || !strings.Contains(block, label) {
			continue
		}
		if !k.allows(block) {
			left.WriteString(stack(block))
		}
	}
	return left.String()
}

func (k *Kit) allows(block string) bool {
	for _, frame := range k.allowed {
		if strings.Contains(block, frame) {
			return true
		}
	}
	return false
}

// stack gives a block of the profile as a reader wants it: how many, and one line
// a frame.
func stack(block string) string {
	count, _, _ := strings.Cut(block, " ")
	var b strings.Builder
	b.WriteString(count + " goroutine(s):\n")
	for line := range strings.Lines(block) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == "#" && strings.HasPrefix(fields[1], "0x") {
			b.WriteString("\t" + strings.Join(fields[2:], "  ") + "\n")
		}
	}
	return b.String()
}
