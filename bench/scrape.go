package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"time"
)

// scrape requests /metrics of a server now and then again and again, until stop is called.
func (p *process) scrape(every time.Duration) (stop func()) {
	end := make(chan struct{})
	var scraper sync.WaitGroup
	scraper.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if err := p.metrics(); err != nil {
				log.Println("FAILED:", err) // the figures are those of a server that is not scraped
			}
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		scraper.Wait()
	}
}

// metrics requests /metrics once.
func (p *process) metrics() error {
	resp, err := http.Get("http://" + p.addr.String() + "/metrics")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/metrics: %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
