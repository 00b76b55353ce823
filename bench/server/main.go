// Command server is the pushy server that the benchmark measures. It has the default options,
// with all limits.
package main

import (
	"flag"
	"log"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/bench/internal/load"
	"github.com/gopushy/pushy/bench/internal/serve"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/deflate"
	"github.com/gopushy/pushy/metrics"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/sse"
)

var (
	redisAddr = flag.String("redis", "", "HOST:PORT of a Redis that nodes share")
	natsAddr  = flag.String("nats", "", "HOST:PORT of a NATS server that nodes share")
	accepts   = flag.Int("accept-rate", 0, "Limits.AcceptRate")
	withApp   = flag.Bool("pusher", false, "serve the Pusher protocol")
	scraped   = flag.Bool("metrics", false, "serve /metrics")
	latest    = flag.Bool("latest", false, "POST /publish publishes with Event.Latest")
	unlimited = flag.Bool("unlimited", false, "Limits.CommandRate and JoinRate are off")
	compress  = flag.Int("compress", 0, "bytes from which events are compressed; 0: they are not")
	keep      = flag.Int("keep", 0, "events that each channel keeps whose name begins with kept")
)

func main() {
	flag.Parse()
	options := pushy.Options{
		SecretKey: load.Secret,
		Broker:    shared(),
		Compress:  deflate.From(*compress),
		Limits:    pushy.Limits{AcceptRate: *accepts},
	}
	if *unlimited {
		options.Limits.CommandRate = -1
		options.Limits.JoinRate = -1
	}
	if *keep > 0 {
		options.Channel = kept
	}
	if *withApp {
		options.Channel = pusher.Channels(options.Channel)
	}
	srv, err := pushy.New(options)
	if err != nil {
		log.Fatal(err)
	}
	addCommands(srv)
	counters := func() map[string]int64 {
		stats := srv.Stats()
		return map[string]int64{
			"buffered":    stats.Buffered,
			"connections": int64(stats.Connections),
		}
	}
	endpoints := []serve.Endpoint{
		{
			Pattern: "POST /bench/publish",
			Handler: publish(srv),
		},
		{
			Pattern: "POST /publish",
			Handler: post(srv, *latest),
		},
		{
			Pattern: "GET /pushy/events",
			Handler: sse.New(srv, sse.Options{}).ServeHTTP,
		},
	}
	if *withApp {
		adapter, err := pusher.New(srv, pusher.Options{
			App:    "1",
			Key:    load.PusherKey,
			Secret: "the secret of the benchmark's application",
		})
		if err != nil {
			log.Fatal(err)
		}
		endpoints = append(endpoints, serve.Endpoint{
			Pattern: "/app/",
			Handler: adapter.Handler().ServeHTTP,
		})
	}
	if *scraped {
		endpoints = append(endpoints, serve.Endpoint{
			Pattern: "GET /metrics",
			Handler: metrics.Handler(srv).ServeHTTP,
		})
	}
	serve.Main(srv, counters, endpoints...)
}

// kept is the Options.Channel of the flag -keep.
func kept(name string) pushy.ChannelOptions {
	if !strings.HasPrefix(name, "kept") {
		return pushy.ChannelOptions{}
	}
	return pushy.ChannelOptions{
		Keep: broker.Keep{
			Size: *keep,
			TTL:  5 * time.Minute,
		},
	}
}

// shared returns the broker of the flags, or nil. The server does not start without it, because
// a node that serves its clients alone would have lower costs.
func shared() broker.Broker {
	switch {
	case *redisAddr != "":
		return redis.New(redis.Options{Addresses: []string{*redisAddr}, RequireAtStart: true})
	case *natsAddr != "":
		return nats.New(nats.Options{URL: "nats://" + *natsAddr, RequireAtStart: true})
	}
	return nil
}
