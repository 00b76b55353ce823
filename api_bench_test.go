package pushy_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// publishRequest is a request that publishes to channels without subscribers. make returns the
// n-th request: its path with the query, its signature for the header, and its body.
type publishRequest struct {
	name   string
	events int
	make   func(n uint64) (path, signature, body string)
}

// publishRequests are the ways to publish that the benchmarks compare.
func publishRequests() []publishRequest {
	one := `{"events":[` + benchSignedEvent("room") + `]}`
	events := make([]string, 100)
	for i := range events {
		events[i] = benchSignedEvent("room-" + strconv.Itoa(i))
	}
	hundred := `{"events":[` + strings.Join(events, ",") + `]}`
	kid := ownSumWith(peerKey, "pushy2-key-id")[:8]
	signed := func(body string) func(n uint64) (string, string, string) {
		return func(n uint64) (string, string, string) {
			// Requests of the second in which the Server started are refused.
			stamp := strconv.FormatInt(time.Now().Unix()+2, 10)
			id := "bench-" + strconv.FormatUint(n, 10)
			sum := ownSumWith(peerKey, "pushy2-request\n"+kid+"\n"+stamp+"\n"+id+"\n/api/publish\n"+body)
			return "/api/publish", "v2 " + kid + " " + stamp + " " + id + " " + sum, body
		}
	}
	return []publishRequest{
		{"version1", 1, func(uint64) (string, string, string) {
			at := time.Now().Unix()
			key, err := pushy.SignTrigger(peerKey, "room", "told", at, benchEvent)
			if err != nil {
				panic(err)
			}
			query := url.Values{
				"event":     {"told"},
				"timestamp": {strconv.FormatInt(at, 10)},
				"auth_key":  {key},
			}
			return "/channel/room/trigger?" + query.Encode(), "", string(benchEvent)
		}},
		{"version2", 1, signed(one)},
		{"version2of100events", 100, signed(hundred)},
	}
}

func benchSignedEvent(channel string) string {
	return `{"channels":["` + channel + `"],"event":"told","data":` + string(benchEvent) + `}`
}

// BenchmarkPublishRequest is the CPU of a Server for a request that publishes to channels without
// subscribers. The signature of the publisher is included.
func BenchmarkPublishRequest(b *testing.B) {
	for _, request := range publishRequests() {
		b.Run(request.name, func(b *testing.B) {
			srv := startServer(b, pushy.Options{SecretKey: peerKey})
			n := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				n++
				path, signature, body := request.make(n)
				r := httptest.NewRequest("POST", "/pushy"+path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				if signature != "" {
					r.Header.Set("Pushy-Signature", signature)
				}
				w := answerWriter{header: http.Header{}}
				srv.ServeHTTP(&w, r)
				if w.status > 299 {
					b.Fatal(w.status)
				}
			}
		})
	}
}

// BenchmarkPublishRequestHTTP is the same over 16 connections of HTTP, with the client in this
// process. requests/s counts what all processors do together.
func BenchmarkPublishRequestHTTP(b *testing.B) {
	for _, request := range publishRequests() {
		b.Run(request.name, func(b *testing.B) {
			server := httptest.NewServer(startServer(b, pushy.Options{SecretKey: peerKey}))
			defer server.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			defer client.CloseIdleConnections()
			var n atomic.Uint64
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					path, signature, body := request.make(n.Add(1))
					r, err := http.NewRequest("POST", server.URL+"/pushy"+path, strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Content-Type", "application/json")
					if signature != "" {
						r.Header.Set("Pushy-Signature", signature)
					}
					resp, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_ = resp.Body.Close()
					if resp.StatusCode > 299 {
						b.Error(resp.StatusCode)
						return
					}
				}
			})
			elapsed := b.Elapsed().Seconds()
			require.Positive(b, elapsed)
			b.ReportMetric(float64(b.N)/elapsed, "requests/s")
			b.ReportMetric(float64(b.N*request.events)/elapsed, "events/s")
		})
	}
}
