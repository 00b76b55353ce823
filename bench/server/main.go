// Command server is pushy as the benchmark measures it: all options as they
// come, every safety on.
package main

import (
	"flag"
	"log"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/bench/internal/load"
	"github.com/gopushy/pushy/bench/internal/serve"
)

func main() {
	flag.Parse()
	srv, err := pushy.New(pushy.Options{SecretKey: load.Secret})
	if err != nil {
		log.Fatal(err)
	}
	serve.Main(srv, func() map[string]int64 {
		stats := srv.Stats()
		return map[string]int64{"buffered": stats.Buffered, "connections": int64(stats.Connections)}
	})
}
