package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/bench/internal/load"
)

// publishing is what a request to /bench/publish asks for: Server.Publish for some time, or for
// a number of events in each channel.
type publishing struct {
	channel  string
	channels int
	first    int // the number in the data of the first event
	count    int // of events for each channel
	size     int // bytes of an event's data
	workers  int // goroutines that publish, each one event after another
	time     time.Duration
}

// publish answers with one value a line: the number of events, the time in nanoseconds, and
// the allocations.
func publish(srv *pushy.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := publishing{
			channel:  r.FormValue("channel"),
			channels: number(r, "channels"),
			first:    number(r, "first"),
			count:    number(r, "count"),
			size:     number(r, "size"),
			workers:  number(r, "workers"),
			time:     time.Duration(number(r, "ns")),
		}
		before := allocations()
		began := time.Now()
		published, err := p.run(r.Context(), srv)
		took := time.Since(began)
		after := allocations()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintf(w, "published %d\nns %d\nmallocs %d\nbytes %d\n", published, took.Nanoseconds(),
			after[0]-before[0], after[1]-before[1])
	}
}

// post publishes the body of a request, as the peers do. With latest, all events of a channel have
// one Latest.
func post(srv *pushy.Server, latest bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e := pushy.Event{
			Channel: r.FormValue("channel"),
			Name:    "m",
			Data:    json.RawMessage(data),
		}
		if latest {
			e.Latest = "m"
		}
		if _, err := srv.PublishEvent(r.Context(), e); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// number returns a number of the query, or 0.
func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.FormValue(name))
	return n
}

// allocations returns the number of allocations of the process so far, and their bytes.
func allocations() [2]uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return [2]uint64{samples[0].Value.Uint64(), samples[1].Value.Uint64()}
}

func (p *publishing) run(ctx context.Context, srv *pushy.Server) (int64, error) {
	each := p.untilEnd
	if p.time == 0 {
		each = p.all
	}
	var published atomic.Int64
	errs := make([]error, max(p.workers, 1))
	var wg sync.WaitGroup
	for worker := range errs {
		wg.Go(func() {
			for channel, i := range each(worker) {
				if errs[worker] = p.event(ctx, srv, channel, i); errs[worker] != nil {
					return
				}
				published.Add(1)
			}
		})
	}
	wg.Wait()
	return published.Load(), errors.Join(errs...)
}

// all yields the events of a worker. A channel has one worker, so that its events are in order.
func (p *publishing) all(worker int) iter.Seq2[int, int] {
	return func(yield func(channel, i int) bool) {
		for i := range p.count {
			for channel := worker; channel < p.channels; channel += max(p.workers, 1) {
				if !yield(channel, i) {
					return
				}
			}
		}
	}
}

// untilEnd yields events of all channels, in turn, until the time has passed.
func (p *publishing) untilEnd(worker int) iter.Seq2[int, int] {
	return func(yield func(channel, i int) bool) {
		end := time.Now().Add(p.time)
		for i := worker; time.Now().Before(end); i++ {
			if !yield(i%p.channels, i) {
				return
			}
		}
	}
}

// event publishes event i of a channel.
func (p *publishing) event(ctx context.Context, srv *pushy.Server, channel, i int) error {
	name := p.channel
	if p.channels > 1 {
		name = load.ChannelName(p.channel, channel)
	}
	data := fmt.Appendf(nil, `{"n":%d,"p":"`, p.first+i)
	const tail = `"}`
	data = append(data, strings.Repeat("x", max(0, p.size-len(data)-len(tail)))...)
	return srv.Publish(ctx, name, "m", json.RawMessage(append(data, tail...)))
}
