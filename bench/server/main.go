// Command server is pushy as the benchmark measures it: all options as they
// come, every safety on.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/bench/internal/load"
	"github.com/gopushy/pushy/bench/internal/serve"
	"github.com/gopushy/pushy/brokers/nats"
	"github.com/gopushy/pushy/brokers/redis"
)

var (
	redisAddr = flag.String("redis", "", "HOST:PORT of a Redis that nodes share")
	natsAddr  = flag.String("nats", "", "HOST:PORT of a NATS server that nodes share")
)

func main() {
	flag.Parse()
	options := pushy.Options{SecretKey: load.Secret}
	if err := share(&options); err != nil {
		log.Fatal(err)
	}
	srv, err := pushy.New(options)
	if err != nil {
		log.Fatal(err)
	}
	serve.Main(srv, func() map[string]int64 {
		stats := srv.Stats()
		return map[string]int64{"buffered": stats.Buffered, "connections": int64(stats.Connections)}
	})
}

// share connects to what the flags name. It must be there: a node that serves
// its clients alone would look cheap.
func share(options *pushy.Options) error {
	switch {
	case *redisAddr != "":
		shared, err := redis.New(context.Background(), redis.Options{Addresses: []string{*redisAddr}, RequireAtStart: true})
		if err != nil {
			return err
		}
		options.Broker, options.Presence = shared, shared
	case *natsAddr != "":
		shared, err := nats.New(context.Background(), nats.Options{URL: "nats://" + *natsAddr, RequireAtStart: true})
		if err != nil {
			return err
		}
		options.Broker, options.Presence = shared, shared
	}
	return nil
}
