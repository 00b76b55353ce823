package pushy_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/session"
)

// returning is a listener that sends commands.
type returning struct {
	listener
	commands chan []byte
}

func (r *returning) Receive() ([]byte, error) {
	select {
	case command := <-r.commands:
		return command, nil
	case <-r.over:
		return nil, &session.CloseError{Cause: session.Stopped}
	}
}

// BenchmarkResume is one client of an established connection that subscribes again: to a
// channel that keeps nothing, and to one that keeps events, with 0 to 100 of 200 bytes missed.
// The difference to "off" is the cost of coming back.
func BenchmarkResume(b *testing.B) {
	for _, missed := range []int{-1, 0, 20, 100} {
		name := strconv.Itoa(missed)
		if missed < 0 {
			name = "off"
		}
		b.Run(name, func(b *testing.B) {
			o := keeping(200, time.Hour)
			o.Limits = pushy.Limits{CommandRate: -1}
			var joined atomic.Int64
			there := make(chan struct{}, 1)
			o.Hooks.Subscribe = func(*pushy.Conn, *pushy.Channel) {
				joined.Add(1)
				there <- struct{}{}
			}
			srv := startServer(b, o)
			in := &audience{there: make(chan struct{}, 1)}
			stays := &returning{listener: listener{in: in, over: make(chan struct{})}, commands: make(chan []byte, 1)}
			srv.Connect2(stays)
			stays.commands <- []byte(`{"command":"subscribe","data":{"channel":"news"}}`)
			<-there
			for range 200 {
				require.NoError(b, srv.Publish(context.Background(), "news", "told", benchEvent))
			}
			top, err := srv.Position(context.Background(), "news")
			require.NoError(b, err)
			join := []byte(`{"command":"subscribe","data":{"channel":"off"}}`)
			leave := []byte(`{"command":"unsubscribe","data":{"channel":"off"}}`)
			if missed >= 0 {
				join = fmt.Appendf(nil, `{"command":"subscribe","data":{"channel":"news","since":{"epoch":%q,"offset":%d}}}`,
					top.Epoch, top.Offset-uint64(missed))
				leave = []byte(`{"command":"unsubscribe","data":{"channel":"news"}}`)
			}
			comes := &returning{listener: listener{in: in, over: make(chan struct{})}, commands: make(chan []byte, 1)}
			srv.Connect2(comes)
			b.ReportAllocs()
			for b.Loop() {
				comes.commands <- join
				<-there
				comes.commands <- leave
			}
			require.Positive(b, joined.Load())
		})
	}
}

// BenchmarkPublishKept is one event to the members of a channel, with and without history.
func BenchmarkPublishKept(b *testing.B) {
	for _, channel := range []string{"off", "news"} {
		for _, n := range []int{1, 1000} {
			b.Run(channel+"/"+strconv.Itoa(n), func(b *testing.B) {
				conns := make(chan *pushy.Conn, n)
				o := keeping(100, time.Hour)
				o.Limits = pushy.Limits{Connections: -1, ConnBuffer: -1}
				o.MaxBuffered = -1
				o.Hooks.Connect = func(c *pushy.Conn) { conns <- c }
				srv := startServer(b, o)
				in := &audience{there: make(chan struct{}, 1)}
				for range n {
					srv.Connect2(&listener{in: in, over: make(chan struct{})})
					require.NoError(b, srv.Channels().Join(<-conns, channel, nil))
				}
				b.ReportAllocs()
				for b.Loop() {
					require.NoError(b, srv.Publish(context.Background(), channel, "told", benchEvent))
				}
			})
		}
	}
}
