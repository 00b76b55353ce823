// Package serve is the common part of the measured Go servers: flags, the address that they
// print, counters, and a CPU profile.
package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

var (
	addr    = flag.String("addr", "127.0.0.1:0", "address to listen on")
	overTLS = flag.Bool("tls", false, "serve TLS, with a certificate that is made at the start")
	core    = flag.Int("core", -1, "run only on this core")
	profile = flag.String("cpuprofile", "", "write a CPU profile to this file at the end")
)

// Endpoint is an additional endpoint of a server.
type Endpoint struct {
	Pattern string // of http.ServeMux
	Handler http.HandlerFunc
}

// Main prints the address and serves h until the process receives a signal. /bench/counters has
// counters; extra, if not nil, adds to them. POST /bench/heap collects garbage, and returns the
// size of the heap. Call flag.Parse before Main.
func Main(h http.Handler, extra func() map[string]int64, more ...Endpoint) {
	log.SetFlags(0)
	if err := serve(h, extra, more); err != nil {
		log.Fatal(err)
	}
}

func serve(h http.Handler, extra func() map[string]int64, more []Endpoint) error {
	if *core >= 0 {
		if err := load.Pin(*core); err != nil {
			return err
		}
		runtime.GOMAXPROCS(1)
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	address := l.Addr()
	if *overTLS {
		cert, err := certificate()
		if err != nil {
			return err
		}
		// Sessions are never resumed here, so no data is kept for them.
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /bench/counters", func(w http.ResponseWriter, _ *http.Request) { counters(w, extra) })
	mux.HandleFunc("POST /bench/heap", heap)
	for _, e := range more {
		mux.HandleFunc(e.Pattern, e.Handler)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Println(address)
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// counters writes one counter a line, its name and value: the allocations of the process, and
// the counters of extra.
func counters(w http.ResponseWriter, extra func() map[string]int64) {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(samples)
	values := map[string]int64{
		"mallocs": int64(samples[0].Value.Uint64()), "bytes": int64(samples[1].Value.Uint64()),
		"gcs": int64(samples[2].Value.Uint64()), "goroutines": int64(runtime.NumGoroutine()),
	}
	if extra != nil {
		for name, value := range extra() {
			values[name] = value
		}
	}
	for name, value := range values {
		_, _ = fmt.Fprintln(w, name, value)
	}
}

// heap collects garbage, and writes the number of bytes and objects that are left. The second
// collection frees what finalizers and pools still had.
func heap(w http.ResponseWriter, _ *http.Request) {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	_, _ = fmt.Fprintf(w, "heap %d\nobjects %d\n", stats.HeapAlloc, stats.HeapObjects)
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
