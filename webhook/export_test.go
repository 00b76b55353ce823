package webhook

import "time"

// Fill pushes n events of a size into a queue that nobody empties, and then takes all of them. It
// returns the number of events that the queue kept, and what the EventsLost say.
func Fill(n, size int) (kept, lost int) {
	q := newQueue(func(count int, _ string) item { return item{json: []byte("{}"), count: -count} })
	for range n {
		q.push(item{json: make([]byte, size), count: 1})
	}
	for {
		items, _ := q.batch(time.Now(), true)
		if len(items) == 0 {
			return kept, lost
		}
		for _, it := range items {
			if it.count < 0 {
				lost -= it.count
			} else {
				kept++
			}
		}
		q.done(len(items))
	}
}
