package fanout_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
)

// fire is a socket that accepts a random part of each write, and notices calls that overlap.
type fire struct {
	t       *testing.T
	form    fanout.Form
	busy    atomic.Int32
	mu      sync.Mutex
	r       *rand.Rand
	got     []byte
	broken  bool
	fails   int // out of 1000 writes
	finish  int
	discard atomic.Bool
}

func (f *fire) Form() fanout.Form     { return f.form }
func (f *fire) Direct() fanout.Direct { return f }
func (f *fire) Broken()               {}

func (f *fire) enter() {
	if f.busy.Add(1) != 1 {
		f.t.Error("two writers")
	}
}

func (f *fire) leave() { f.busy.Add(-1) }

func (f *fire) write(p []byte, part bool) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.finish > 0 {
		f.t.Error("a write after Finish")
	}
	if f.broken && !f.discard.Load() {
		f.t.Error("a write after an error")
	}
	n = len(p)
	if part && f.r.IntN(4) == 0 {
		n = f.r.IntN(len(p) + 1)
	}
	f.got = append(f.got, p[:n]...)
	if f.r.IntN(1000) < f.fails {
		f.broken = true
		return n, errors.New("broken by the test")
	}
	return n, nil
}

func (f *fire) TryWrite(p []byte) (int, error) {
	f.enter()
	defer f.leave()
	return f.write(p, true)
}

func (f *fire) dice(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r.IntN(n)
}

func (f *fire) Write(p []byte, timeout time.Duration) error {
	f.enter()
	defer f.leave()
	if f.dice(3) == 0 {
		time.Sleep(time.Duration(f.dice(int(timeout / 2))))
	}
	_, err := f.write(p, false)
	return err
}

func (f *fire) Finish(int, string, time.Duration) {
	f.enter()
	defer f.leave()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.finish++; f.finish > 1 {
		f.t.Error("two calls of Finish")
	}
}

// guardedFire is a fire whose writes can wait.
type guardedFire struct {
	fire
}

func (f *guardedFire) Direct() fanout.Direct { return f }

func (f *guardedFire) TryWrite(p []byte) (int, error) {
	f.enter()
	defer f.leave()
	if f.dice(4) > 0 {
		return 0, fanout.ErrGuard
	}
	return 0, nil
}

func (f *guardedFire) WriteNow(p []byte) error {
	f.enter()
	defer f.leave()
	if f.dice(20) == 0 {
		time.Sleep(time.Duration(f.dice(int(20 * time.Millisecond))))
	}
	_, err := f.write(p, false)
	return err
}

func (f *guardedFire) Waits(time.Duration) {}
func (f *guardedFire) Waited()             {}

// texts returns the messages that were written, and whether the last one is whole.
func (f *fire) texts() (all []string, whole bool) {
	b := f.got
	for len(b) >= 2 {
		n, head := int(b[1]), 2
		switch {
		case n == 126 && len(b) >= 4:
			n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case n >= 126:
			return all, false
		}
		if len(b) < head+n {
			return all, false
		}
		if b[0] != 0x81 {
			f.t.Errorf("not a frame: %q", b[:min(20, len(b))])
			return all, false
		}
		all = append(all, string(b[head:head+n]))
		b = b[head+n:]
	}
	return all, len(b) == 0
}

// party has what is sent to one connection.
type party struct {
	*fire
	o    *fanout.Outbox
	gate atomic.Pointer[fanout.Gate]
	end  atomic.Int32 // the code of onDisconnect
}

// fireRun does everything with the outboxes of an Engine at the same time. With ends, connections end during
// it: their writes fail, they are too slow, or the host closes them.
func fireRun(t *testing.T, seed uint64, guarded, ends bool, total int64) {
	r := rand.New(rand.NewPCG(seed, 9))
	most, fails := 1<<20, 0
	if ends {
		most, fails = 3000, r.IntN(3)
	}
	e := fanout.New(fanout.Config{
		MaxBytes:     most,
		MaxTotal:     total,
		WriteTimeout: 100 * time.Millisecond,
		MaxGather:    5 * time.Millisecond,
		Flushers:     1 + r.IntN(3),
	})
	var all []*party
	for i := range 12 {
		p := &party{}
		var end fanout.Endpoint
		if guarded && i%2 == 0 {
			g := &guardedFire{}
			p.fire = &g.fire
			end = g
		} else {
			p.fire = &fire{}
			end = p.fire
		}
		p.t = t
		p.form = fanout.Bare
		p.r = rand.New(rand.NewPCG(seed, uint64(100+i)))
		p.fails = fails
		p.o = e.NewOutbox(end, func(code int, _ string) { p.end.Store(int32(code)) })
		p.gate.Store(&fanout.Gate{})
		p.o.Hold()
		all = append(all, p)
	}
	pad := func(r *rand.Rand) string {
		n := r.IntN(30)
		if r.IntN(10) == 0 {
			n = r.IntN(400)
		}
		return strings.Repeat("x", n)
	}
	var running sync.WaitGroup
	var fan sync.Mutex // of the channel
	events := 0
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	pause := func(r *rand.Rand) {
		switch r.IntN(6) {
		case 0:
			time.Sleep(time.Duration(r.IntN(int(3 * time.Millisecond))))
		case 1:
			time.Sleep(time.Duration(r.IntN(int(100 * time.Microsecond))))
		}
	}
	running.Go(func() { // publishes
		r := rand.New(rand.NewPCG(seed, 10))
		for !stopped() {
			fan.Lock()
			events++
			f := fanout.NewFrame([]byte(fmt.Sprintf("E%d %s", events, pad(r))))
			if r.IntN(5) == 0 {
				f = fanout.NewOmittable([]byte(fmt.Sprintf("L%d %s", events, pad(r))),
					&fanout.Omit{Latest: strconv.Itoa(r.IntN(3)), Droppable: r.IntN(2) == 0, Notice: notice("N ")})
				events--
			}
			out := e.Fan(f)
			for _, p := range all {
				out.Touch(p.o)
				out.Send(p.o, p.gate.Load())
			}
			out.Flush()
			fan.Unlock()
			pause(r)
		}
	})
	for i, p := range all {
		running.Go(func() { // the reader
			r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
			n, opens := 0, 0
			in := false
			p.o.Control(fanout.Response, []byte("\x81\x01R"))
			p.o.SendDirect([]byte("D0"))
			p.o.ReleaseNow()
			direct := func(send func(text []byte) bool) {
				n++
				send([]byte(fmt.Sprintf("D%d %s", n, pad(r))))
			}
			for !stopped() {
				if r.IntN(2) == 0 {
					p.o.Cork()
				}
				for range r.IntN(5) {
					switch r.IntN(7) {
					case 0, 1:
						direct(p.o.SendDirect)
					case 2, 3:
						direct(p.o.SendNow)
					case 4:
						direct(func(text []byte) bool { return p.o.Send(fanout.NewDirect(text, fanout.Bare)) })
					case 5:
						release, err := p.o.AwaitRoom(context.Background(), 500)
						if err == nil {
							direct(func(text []byte) bool { return p.o.Send(fanout.NewList(text)) })
							release()
						}
					case 6:
						if in {
							p.o.ShutNow(p.gate.Load(), fanout.NewDirect([]byte(fmt.Sprint("S", opens)), fanout.Bare))
						} else {
							opens++
							g := &fanout.Gate{}
							p.gate.Store(g)
							if r.IntN(2) == 0 {
								p.o.OpenNow(g, []byte(fmt.Sprint("O", opens)))
							} else {
								fan.Lock()
								p.o.Open(g, fanout.NewFrame([]byte(fmt.Sprint("O", opens))), fanout.NewList([]byte("M")))
								fan.Unlock()
							}
						}
						in = !in
					}
					if r.IntN(5) == 0 {
						pause(r)
					}
				}
				p.o.Uncork()
				pause(r)
			}
		})
		running.Go(func() { // the host
			r := rand.New(rand.NewPCG(seed, uint64(2000+i)))
			n := 0
			for !stopped() {
				n++
				text := []byte(fmt.Sprintf("H%d %s", n, pad(r)))
				switch r.IntN(4) {
				case 0:
					p.o.Send(fanout.NewFrame(text))
				case 1:
					p.o.SendNow(text)
				case 2:
					p.o.SendDirect(text)
				case 3:
					n--
					p.o.Control(fanout.Pong, []byte("\x81\x01C"))
				}
				if ends && r.IntN(300) == 0 {
					switch r.IntN(3) {
					case 0:
						p.o.Close(1000, "over")
					case 1:
						p.discard.Store(true)
						p.o.Discard()
					case 2:
						p.discard.Store(true)
						p.o.Lost(os.ErrDeadlineExceeded)
					}
				}
				pause(r)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	running.Wait()
	time.Sleep(3 * time.Second)
	synctest.Wait()
	written := uint64(0)
	for _, p := range all {
		assert.Zero(t, p.o.Waiting())
		written += uint64(len(p.got))
	}
	assert.Zero(t, e.Waiting())
	assert.Zero(t, e.Census())
	for _, p := range all {
		p.o.Close(1001, "")
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for i, p := range all {
		select {
		case <-p.o.Done():
		default:
			assert.Fail(t, "not done")
		}
		p.check(i)
	}
	if !ends {
		assert.Equal(t, written, e.Sent().Bytes)
	}
	e.Wait()
}

func (p *party) check(i int) {
	t := p.t
	texts, whole := p.texts()
	next := map[byte]int{'H': 1}
	event := 0 // the last one, or 0
	in := false
	for _, text := range texts {
		word, _, _ := strings.Cut(text, " ")
		n, _ := strconv.Atoi(word[1:])
		switch word[0] {
		case 'R', 'C', 'M':
		case 'D', 'H':
			require.Equal(t, next[word[0]], n, "%d: %q", i, text)
			next[word[0]]++
		case 'O':
			require.False(t, in)
			in, event = true, 0
		case 'S':
			require.True(t, in)
			in = false
		case 'E':
			require.True(t, in, "an event outside")
			if event > 0 {
				require.Equal(t, event+1, n)
			}
			event = n
		case 'L':
			require.True(t, in, "an event outside")
		default: // a notice
		}
	}
	if !p.broken && !p.discard.Load() {
		assert.True(t, whole)
		assert.Equal(t, 1, p.finish)
	}
}

// Whatever connections, their readers, the host and a channel do at the same time: a connection has one
// writer, its messages are in order and whole, those of the channel are within the subscription, and
// nothing stays queued.
func TestEverythingUnderFire(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fireRun(t, seed, seed%2 == 0, seed > 1, []int64{1 << 30, 6000}[seed/4])
			})
		})
	}
}
