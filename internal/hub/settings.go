package hub

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gopushy/pushy/broker"
)

// compareKeep compares how a node that has published an event keeps it with the policy of this
// node. Options.Channel is a func, which nodes cannot compare, so this is found only when both
// use the channel.
func (ch *Channel) compareKeep(e *broker.Entry) {
	var here broker.Keep
	if ch.history != nil {
		here = ch.history.keep
	}
	kept := e.At.Offset > 0
	switch {
	case kept && e.Keep.Size <= 0:
		return // the broker does not deliver the Keep
	case kept == (ch.history != nil) && sameKeep(here, e.Keep):
		return
	case !kept && e.From != "":
		return // a GapEvent, or an event that a client has sent: these are never kept
	case ch.keepDiffers.Swap(true):
		return
	}
	// The log handler of the host must not run under locks of the broker. The goroutine does not
	// use e, which would then be allocated for every event.
	there := e.Keep
	h := ch.hub
	if !h.tasks.Start() {
		return
	}
	go func() {
		defer h.tasks.End()
		h.cfg.Notices.Warn("nodes have different settings", "ChannelOptions.Keep "+ch.name,
			slog.String("option", "ChannelOptions.Keep, Limits.KeepBytes"),
			slog.String("channel", ch.name),
			slog.String("here", keepText(here)),
			slog.String("elsewhere", keepText(there)))
	}()
}

// sameKeep compares what matters. TTLs are rounded to milliseconds when they are sent.
func sameKeep(a, b broker.Keep) bool {
	return a.Size == b.Size && a.Bytes == b.Bytes && (a.TTL-b.TTL).Abs() <= time.Millisecond
}

func keepText(k broker.Keep) string {
	if k.Size <= 0 {
		return "none"
	}
	return fmt.Sprintf("%d events, %v, %d bytes", k.Size, k.TTL, k.Bytes)
}
