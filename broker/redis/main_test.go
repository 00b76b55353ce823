package redis_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/testproc"
)

// The servers that all tests share. Tests keep apart by their prefixes, and those
// that stop a server have one of their own.
var (
	server  *redistest.Server
	cluster []*redistest.Server
)

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		fmt.Fprintln(os.Stderr, child(how))
		os.Exit(1)
	}
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" || flag.Lookup("test.fuzzworker").Value.String() == "true" {
		os.Exit(m.Run()) // fuzzing needs no servers
	}
	testproc.Parallel(6) // the tests wait for leases more than they compute
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if server, err = redistest.Start(); err != nil {
		return 1, err
	}
	defer server.Close()
	cluster, err = redistest.Cluster(3)
	defer func() {
		for _, s := range cluster {
			s.Close()
		}
	}()
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}
