package fanout_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// notice renders the notices of one channel.
type notice string

func (n notice) Dropped(count int64) *fanout.Frame {
	return frame(fmt.Sprintf("%s dropped %d", n, count))
}

func omittable(text, latest string, droppable bool) *fanout.Frame {
	channel, _, _ := strings.Cut(text, " ")
	return fanout.NewOmittable([]byte(text), &fanout.Omit{
		Latest:    latest,
		Droppable: droppable,
		Notice:    notice(channel),
	})
}

// puller is a Puller whose test takes the frames.
type puller struct{ form fanout.Form }

func (p puller) Form() fanout.Form   { return p.form }
func (p puller) Wake() time.Duration { return 0 }

// modelFrame is a frame as the model sees it.
type modelFrame struct {
	text      string
	gate      int // of the subscription, or -1
	latest    string
	droppable bool
	list      bool
}

// model is what an Outbox must do, in a form that is easy to check: it searches the whole queue.
type model struct {
	max     int
	queue   []modelFrame
	writing int // bytes, without lists
	search  bool
	counts  map[int]int
	told    map[int]time.Time
	open    map[int]bool
	dropped int
	taken   uint64 // frames
}

// bytes returns the bytes that are queued, and those of them that limits apply to.
func (m *model) bytes() (all, counted int) {
	for _, f := range m.queue {
		all += len(f.text)
		if !f.list {
			counted += len(f.text)
		}
	}
	return all, counted
}

func (m *model) omit(f modelFrame) {
	m.counts[f.gate]++
	m.dropped++
}

func (m *model) send(f modelFrame) {
	if f.gate >= 0 && !m.open[f.gate] {
		return
	}
	replaced := false
	if f.latest != "" {
		if !m.search && len(m.queue) >= 8 {
			m.search = true
			last := map[string]int{}
			for i, q := range m.queue {
				last[fmt.Sprint(q.gate, q.latest)] = i
			}
			var kept []modelFrame
			for i, q := range m.queue {
				if q.latest != "" && last[fmt.Sprint(q.gate, q.latest)] != i {
					m.omit(q)
				} else {
					kept = append(kept, q)
				}
			}
			m.queue = kept
		}
		if m.search {
			for i, q := range m.queue {
				if q.gate == f.gate && q.latest == f.latest {
					m.omit(q)
					m.queue = append(m.queue[:i:i], m.queue[i+1:]...)
					replaced = true
					break
				}
			}
		}
	}
	if _, counted := m.bytes(); f.droppable && !replaced && counted > m.max/4 {
		m.omit(f)
		return
	}
	m.queue = append(m.queue, f)
}

// take returns the texts of up to limit bytes, at least one.
func (m *model) take(limit int) (texts []string) {
	bytes := 0
	for len(m.queue) > 0 && (len(texts) == 0 || bytes < limit) {
		f := m.queue[0]
		texts = append(texts, f.text)
		bytes += len(f.text)
		m.writing += len(f.text)
		m.queue = m.queue[1:]
	}
	if len(m.queue) == 0 && len(texts) > 0 {
		m.search = false
	}
	return texts
}

// tell queues the notices that are due, in any order, when no frame is queued.
func (m *model) tell(now time.Time) (due map[string]int) {
	due = map[string]int{}
	for gate, count := range m.counts {
		if count > 0 && !m.open[gate] {
			delete(m.counts, gate)
		} else if last, told := m.told[gate]; count > 0 && (!told || now.Sub(last) >= time.Second) {
			due[fmt.Sprintf("g%d dropped %d", gate, count)] = gate
		}
	}
	return due
}

// The Outbox does with random frames exactly what the model does, and its bytes are exact after
// each step.
func TestOmitIsExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { checkOmit(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func checkOmit(t *testing.T, r *rand.Rand) {
	e := fanout.New(fanout.Config{MaxBytes: 4000, MaxTotal: 1 << 20, WriteTimeout: time.Second})
	o := e.NewOutbox(puller{}, func(code int, reason string) {})
	m := &model{
		max:    4000,
		counts: map[int]int{},
		told:   map[int]time.Time{},
		open:   map[int]bool{},
	}
	gates := []*fanout.Gate{}
	subscribe := func() {
		f := modelFrame{
			text: fmt.Sprintf("g%d success", len(gates)),
			gate: -1,
		}
		gates = append(gates, &fanout.Gate{})
		m.open[len(gates)-1] = true
		m.send(f)
		require.True(t, o.Open(gates[len(gates)-1], frame(f.text)))
	}
	keys := r.IntN(40) + 1
	calm := r.IntN(20) // the more, the fewer frames wait
	subscribe()
	subscribe()
	for i := range 600 {
		if _, counted := m.bytes(); counted > 3800 || r.IntN(30) < calm { // what is over the limit is another test
			takeAll(t, r, o, m)
			for range r.IntN(7) {
				tick(t, o, m)
			}
		}
		gate := r.IntN(len(gates))
		f := modelFrame{
			text: fmt.Sprintf("g%d %d%s", gate, i, strings.Repeat("x", r.IntN(30))),
			gate: gate,
		}
		switch r.IntN(12) {
		case 0: // not omittable, such as presence
		case 1, 2:
			f.droppable = true
		case 3:
			f.droppable = true
			f.latest = fmt.Sprint(r.IntN(keys))
		case 4:
			f.list = true
		case 5:
			if r.IntN(5) == 0 {
				f = modelFrame{
					text: fmt.Sprintf("g%d end", gate),
					gate: gate,
				}
				m.send(f)
				assert.Equal(t, m.open[gate], o.Shut(gates[gate], frame(f.text)))
				m.open[gate] = false
				subscribe()
				continue
			}
		default:
			f.latest = fmt.Sprint(r.IntN(keys))
		}
		m.send(f)
		switch {
		case f.list:
			o.SendThrough(gates[gate], fanout.NewList([]byte(f.text)))
		case f.latest != "" || f.droppable:
			o.SendThrough(gates[gate], omittable(f.text, f.latest, f.droppable))
		default:
			o.SendThrough(gates[gate], frame(f.text))
		}
		checkBytes(t, e, o, m)
	}
	for range 3 {
		for len(m.queue) > 0 {
			takeAll(t, r, o, m)
		}
		for range 12 {
			tick(t, o, m)
		}
	}
	assert.Empty(t, m.queue)
	for gate, count := range m.counts {
		assert.True(t, count == 0 || !m.open[gate], "the client was told of all")
	}
	assert.Equal(t, uint64(m.dropped), e.Dropped())
	o.Discard()
	e.Wait()
	assert.Zero(t, e.Waiting())
}

// tick lets time pass. All notices are at a multiple of a tick.
func tick(t *testing.T, o *fanout.Outbox, m *model) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	tellAll(t, o, m)
}

func checkBytes(t *testing.T, e *fanout.Engine, o *fanout.Outbox, m *model) {
	t.Helper()
	all, _ := m.bytes()
	require.Equal(t, int64(all), o.Waiting())
	require.Equal(t, int64(all), e.Waiting())
	require.Equal(t, uint64(m.dropped), e.Dropped())
	require.Equal(t, m.taken, e.Sent().Messages)
}

// takeAll takes frames once, and checks them.
func takeAll(t *testing.T, r *rand.Rand, o *fanout.Outbox, m *model) {
	t.Helper()
	limit := []int{1, 100, 1000, 1 << 20}[r.IntN(4)]
	want := m.take(limit)
	frames, end := o.Take(nil, limit)
	require.Nil(t, end)
	var got []string
	for _, f := range frames {
		got = append(got, string(f.Bytes(fanout.Text)))
	}
	require.Equal(t, want, got)
	m.taken += uint64(len(got))
	o.Written()
	tellAll(t, o, m)
}

// tellAll takes the notices that the model has due while no frame is queued. The Outbox queues
// them at once, in the order of the first omissions.
func tellAll(t *testing.T, o *fanout.Outbox, m *model) {
	t.Helper()
	if len(m.queue) > 0 {
		return
	}
	due := m.tell(time.Now())
	if len(due) == 0 {
		return
	}
	var frames []*fanout.Frame
	defer func() { m.taken += uint64(len(frames)) }()
	for {
		more, _ := o.Take(nil, 1<<20) // a notice can wait for another one
		o.Written()
		if len(more) == 0 {
			break
		}
		frames = append(frames, more...)
	}
	for _, f := range frames {
		text := string(f.Bytes(fanout.Text))
		gate, ok := due[text]
		require.True(t, ok, "%q is not among %v", text, due)
		m.told[gate] = time.Now()
		m.counts[gate] = 0
		delete(due, text)
	}
	require.Empty(t, due, "these were not sent")
}

// A frame that is removed between two that are each larger than a write leaves nothing behind.
func TestRemovedBetweenLargeFrames(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]func(s *socket) fanout.Endpoint{
		"writer": func(s *socket) fanout.Endpoint { return &s.sink },
		"socket": func(s *socket) fanout.Endpoint { return s },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &socket{}
				e := wideEngine(0)
				o := e.NewOutbox(endpoint(s), func(code int, reason string) { t.Error(code, reason) })
				o.Hold()
				var g fanout.Gate
				require.True(t, o.Open(&g, frame("success;")))
				first, second := strings.Repeat("a", 70<<10)+";", strings.Repeat("b", 70<<10)+";"
				o.SendThrough(&g, frame(first))
				o.SendThrough(&g, omittable("g0 1;", "key", false))
				o.SendThrough(&g, frame(second))
				for range 8 {
					o.SendThrough(&g, frame("filler;"))
				}
				o.SendThrough(&g, omittable("g0 2;", "key", false))
				o.Release()
				synctest.Wait()
				assert.Equal(t, "success;"+first+second+strings.Repeat("filler;", 8)+"g0 2;g0 dropped 1", s.all())
				assert.Equal(t, uint64(1+2+8+1+1), e.Sent().Messages, "what was removed was not sent")
				assert.Zero(t, s.finished)
				assert.Zero(t, e.Waiting())
				o.Close(1000, "")
				<-o.Done()
				e.Wait()
				assert.Equal(t, 1000, s.finished)
			})
		})
	}
}
