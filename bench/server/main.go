// Command server is the pushy server that the benchmark measures. It has the default options,
// with all limits.
package main

import (
	"flag"
	"log"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/bench/internal/load"
	"github.com/gopushy/pushy/bench/internal/serve"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/broker/redis"
)

var (
	redisAddr = flag.String("redis", "", "HOST:PORT of a Redis that nodes share")
	natsAddr  = flag.String("nats", "", "HOST:PORT of a NATS server that nodes share")
)

func main() {
	flag.Parse()
	srv, err := pushy.New(pushy.Options{
		SecretKey: load.Secret,
		Broker:    shared(),
	})
	if err != nil {
		log.Fatal(err)
	}
	serve.Main(srv, func() map[string]int64 {
		stats := srv.Stats()
		return map[string]int64{"buffered": stats.Buffered, "connections": int64(stats.Connections)}
	})
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
