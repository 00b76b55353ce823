package streams_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gosse "github.com/tmaxmax/go-sse"
	"gopkg.in/cenkalti/backoff.v1"
)

// clients are the clients for Go. Each reads a URL, and reconnects, until ctx ends.
var clients = map[string]func(ctx context.Context, url string, in *inbox) error{
	"go-sse": func(ctx context.Context, url string, in *inbox) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		client := gosse.Client{Backoff: gosse.Backoff{MaxRetries: 0}}
		conn := client.NewConnection(r)
		conn.Buffer(nil, 1<<20)
		conn.SubscribeToAll(func(e gosse.Event) { in.add(e.Type, e.Data) })
		return conn.Connect()
	},
	"r3labs": func(ctx context.Context, url string, in *inbox) error {
		client := r3labs.NewClient(url, r3labs.ClientMaxBufferSize(1<<20))
		// Its own strategy waits longer after each break, up to a minute, in which more events are published than
		// a client is sent when it returns.
		client.ReconnectStrategy = backoff.NewConstantBackOff(time.Second)
		return client.SubscribeRawWithContext(ctx, func(e *r3labs.Event) { in.add(string(e.Event), string(e.Data)) })
	},
}

// run runs a client until the test ends.
func run(t *testing.T, name, url string) *inbox {
	t.Helper()
	in := &inbox{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- clients[name](ctx, url, in) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return in
}

// S1: no event is lost or repeated over breaks of the connection, also before the first event and
// during the replay. With PUSHY_SOAK it is 10,000 events over 20 breaks and more.
func TestEventsOverBreaks(t *testing.T) {
	events, breaks := 300, 2
	if os.Getenv("PUSHY_SOAK") != "" {
		events, breaks = 10_000, 20
	}
	for name := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, 2*events)
			in := run(t, name, s.url+"?channel=a&channel=b")
			until(t, "it does not connect", func() bool { return len(in.named("pushy:open")) == 1 })
			s.cut() // before the first event
			published := make(chan error, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := 1; i <= events; i++ {
					for _, channel := range []string{"a", "b"} {
						if err := s.node().Publish(t.Context(), channel, channel, i); err != nil {
							published <- err
							return
						}
					}
					wait(t, 15*time.Millisecond)
				}
				published <- nil
			}()
			for i := range breaks {
				opened := len(in.named("pushy:open"))
				until(t, "it does not return", func() bool { return len(in.named("pushy:open")) > opened })
				if i%2 == 0 { // otherwise during the replay
					got := len(in.named("a"))
					until(t, "no event", func() bool {
						n := len(in.named("a"))
						return n > got+20 || n == events
					})
				}
				s.cut()
			}
			<-done
			require.NoError(t, <-published)
			for _, channel := range []string{"a", "b"} {
				until(t, "events are missing", func() bool { return len(in.named(channel)) >= events })
				for i, data := range in.named(channel) {
					require.Equal(t, strconv.Itoa(i+1), data)
				}
			}
			assert.Empty(t, in.named("pushy:gap"))
			requests := s.asked()
			assert.GreaterOrEqual(t, len(requests), breaks+1)
			for _, r := range requests[1:] {
				assert.NotEmpty(t, r.lastID)
			}
		})
	}
}

// S2: strings arrive as they are, with CR and CRLF as LF, and exactly as JSON.
func TestStrings(t *testing.T) {
	for name := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, 100)
			raw, exact := run(t, name, s.url+"?channel=a"), run(t, name, s.url+"?channel=a&data=json")
			for _, in := range []*inbox{raw, exact} {
				until(t, "it does not connect", func() bool { return len(in.named("pushy:open")) == 1 })
			}
			texts := []string{
				"", " ", "  x", "\n", "\n\n", "\r", "\r\n", "\r\r\n\n", "a\rb", "a\nb", "a\r\nb", "a\n", "\na",
				":", ": x", "data:", "data: x", "data: x\ndata: y", "event: x\n\ndata: z", "id: 7\nretry: 1",
				"\u2028\u2029\u0085", "a\x00b", "\x00", "\U0001F600 é", "\ufeffx", "\ufeff", "{\"a\":1}", "null", "1",
				strings.Repeat("0123456789abcdefé\n", 200<<10/18),
			}
			for _, text := range texts {
				s.publish("a", "x", text)
			}
			for _, in := range []*inbox{raw, exact} {
				until(t, "strings are missing", func() bool { return len(in.named("x")) >= len(texts) })
			}
			for i, text := range texts {
				want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
				assert.Equal(t, want, raw.named("x")[i])
				var got string
				require.NoError(t, json.Unmarshal([]byte(exact.named("x")[i]), &got))
				assert.Equal(t, text, got)
			}
		})
	}
}
