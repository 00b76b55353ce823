package load

import (
	"fmt"
	"sync"
	"time"
)

// Requests is the result of Triggers.
type Requests struct {
	Count   int64
	Elapsed time.Duration
	CPU     time.Duration // of the server
}

// Triggers publishes to a channel without subscribers over many keep-alive connections. Each
// connection sends one request after another.
func Triggers(cfg Config, connections, size int, warm, d time.Duration) (Requests, error) {
	counts := make([]int64, connections)
	errs := make([]error, connections)
	began := time.Now()
	var publishers []*publisher
	for range connections {
		p, err := newPublisher(&cfg)
		if err != nil {
			return Requests{}, err
		}
		defer p.sock.abort()
		p.body = payload(nil, 0, size)
		publishers = append(publishers, p)
	}
	var wg sync.WaitGroup
	for i, p := range publishers {
		wg.Go(func() {
			req := request(nil, &cfg, "empty", p.body, time.Now()) // its timestamp is valid for minutes
			for since := time.Duration(0); since < warm+d; since = time.Since(began) {
				if _, err := p.conn.Write(req); err != nil {
					errs[i] = fmt.Errorf("trigger: %w", err)
					return
				}
				if errs[i] = p.answer(); errs[i] != nil {
					return
				}
				if since > warm {
					counts[i]++
				}
			}
		})
	}
	time.Sleep(warm - time.Since(began))
	cpu, from := CPU(cfg.PID), time.Now()
	wg.Wait()
	r := Requests{Elapsed: time.Since(from), CPU: CPU(cfg.PID) - cpu}
	for i := range counts {
		if errs[i] != nil {
			return r, errs[i]
		}
		r.Count += counts[i]
	}
	return r, nil
}
