package fanout_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// tagged is the Encoding of a Frame whose clients receive the number of their form before the text.
// It counts its uses.
type tagged struct {
	text string
	uses int
}

// Bytes implements fanout.Encoding.
func (e *tagged) Bytes(form fanout.Form) []byte {
	e.uses++
	return append([]byte{'0' + byte(form-taggedForm)}, e.text...)
}

// Has implements fanout.Encoding.
func (e *tagged) Has(fanout.Form) bool { return true }

// Size implements fanout.Encoding.
func (e *tagged) Size() int { return len(e.text) }

var taggedForm = fanout.NewFamily(func(text []byte) fanout.Encoding { return &tagged{text: string(text)} })

// formed is a socket with a form of its own.
type formed struct {
	socket
	form fanout.Form
}

func (f *formed) Form() fanout.Form { return f.form }

// The frames of one pass are joined once for each form, in whatever order the connections are. Each
// connection receives its form, also if it has other frames queued than those beside it.
func TestFramesAreJoinedOnceForEachForm(t *testing.T) {
	t.Parallel()
	const forms, connections, events = 3, 30, 4
	synctest.Test(t, func(t *testing.T) {
		e := fanout.New(fanout.Config{
			MaxBytes:     wide,
			MaxTotal:     wide,
			WriteTimeout: time.Second,
			Flushers:     1,
		})
		sockets := make([]*formed, connections)
		boxes := make([]*fanout.Outbox, connections)
		gates := make([]fanout.Gate, connections)
		for i := range sockets {
			sockets[i] = &formed{
				socket: socket{room: wide},
				form:   taggedForm + fanout.Form(i%forms),
			}
			boxes[i] = e.NewOutbox(sockets[i], func(code int, reason string) { t.Error(code, reason) })
			require.True(t, boxes[i].Open(&gates[i], fanout.RawFrame([]byte("open;"))))
		}
		synctest.Wait()

		queue := func(text string, to func(i int) bool) *tagged {
			f := frame(text)
			for i, o := range boxes {
				if to(i) {
					require.True(t, o.SendThrough(&gates[i], f))
				}
			}
			return f.Encoding(taggedForm).(*tagged)
		}
		everyone := func(int) bool { return true }
		var encodings []*tagged
		for range events {
			encodings = append(encodings, queue("event;", everyone))
		}
		for _, each := range encodings {
			each.uses = 0
		}
		e.Flush()
		synctest.Wait()
		for _, each := range encodings {
			assert.LessOrEqual(t, each.uses, 2*forms, "for its size and for its bytes")
		}

		queue("for all;", everyone)
		queue("for some;", func(i int) bool { return i%4 == 0 })
		e.Flush()
		boxes[1].Control(fanout.Pong, []byte("pong;")) // before, between or after the frames
		synctest.Wait()
		for i, s := range sockets {
			tag := string(rune('0' + i%forms))
			want := "open;" + strings.Repeat(tag+"event;", events)
			want += tag + "for all;"
			if i%4 == 0 {
				want += tag + "for some;"
			}
			got := s.all()
			if i == 1 {
				require.Equal(t, 1, strings.Count(got, "pong;"))
				got = strings.Replace(got, "pong;", "", 1)
			}
			assert.Equal(t, want, got)
			assert.Zero(t, boxes[i].Waiting())
			boxes[i].Discard()
		}
		e.Wait()
		assert.Zero(t, e.Waiting())
	})
}
