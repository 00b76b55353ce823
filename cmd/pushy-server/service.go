package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
	"github.com/gopushy/pushy/sse"
	"github.com/gopushy/pushy/webhook"
)

const (
	readHeaderTimeout = 10 * time.Second // also for the TLS handshake
	readTimeout       = 30 * time.Second // also for bodies that no handler reads
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// httpShare is the part of a shutdown's time that is reserved for HTTP requests in
	// progress: a fifth.
	httpShare = 5
	// defaultDrainTimeout is longer than the 5 s within which connections are closed and the 5 s
	// in which a client can answer its close frame.
	defaultDrainTimeout = 15 * time.Second
)

// service is a pushy.Server with its listener.
type service struct {
	log        *slog.Logger
	cert       *certificate // nil without TLS
	brokerCert *certificate // nil if there is none for the broker
	listener   net.Listener
	pushy      *pushy.Server
	hooks      *webhook.Sender // nil without webhooks
	pusher     http.Handler    // nil without the key pusher
	http       *http.Server
	delay      time.Duration // between the signal and the shutdown
	timeout    time.Duration // of the shutdown
	console    http.Handler  // nil: off
	events     http.Handler  // Server-Sent Events; nil: off
	eventsPath string
	closing    atomic.Bool
	metrics    http.Handler // of /metrics on the listener; nil if there is none
	monitoring *monitoring  // /metrics on a listener of its own; nil if there is none
}

// newService creates the listener and the Server, and logs the address.
func newService(c *config, log *slog.Logger) (*service, error) {
	listener, err := net.Listen("tcp", c.address())
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	options := c.serverOptions()
	options.Logger = log
	options.Broker = c.broker(log)
	srv, err := pushy.New(options) // its error is one line, and may be about the broker
	if err != nil {
		_ = listener.Close()
		return nil, byKey(err)
	}
	s := &service{
		log:        log,
		cert:       c.cert,
		brokerCert: c.brokerCert,
		listener:   listener,
		pushy:      srv,
		delay:      c.drainDelay,
		timeout:    cmp.Or(c.drainTimeout, defaultDrainTimeout),
	}
	if c.console != nil {
		if s.console, err = c.console.handler(srv, c.clientAddress, log); err != nil {
			_ = listener.Close()
			return nil, errors.Join(err, srv.Close())
		}
		log.Info("console", "path", consolePath, "readOnly", c.console.readOnly, "hosts", c.console.hosts)
	}
	if c.events {
		s.events = sse.New(srv, sse.Options{})
		s.eventsPath = strings.TrimSuffix(options.Prefix, "/") + "/events"
	}
	if c.pusher != nil {
		adapter, err := pusher.New(srv, c.pusher.options)
		if err != nil {
			_ = listener.Close()
			return nil, errors.Join(pusherKeys(err), srv.Close())
		}
		s.pusher = adapter.Handler()
		log.Info("pusher", "app", c.pusher.options.App, "clientEvents", c.pusher.clientEvents)
	}
	if c.webhooks != nil {
		if s.hooks, err = webhook.New(srv, c.webhooks.options); err != nil {
			_ = srv.Close()
			_ = listener.Close()
			return nil, webhookKeys(err)
		}
	}
	if err := s.offerMetrics(c.metrics); err != nil {
		_ = listener.Close()
		_ = srv.Close()
		return nil, err
	}
	s.http = s.httpServer(s)
	if c.cert != nil {
		s.http.TLSConfig = c.cert.config()
	}
	if !c.originsGiven {
		log.Warn("pages of any origin can connect, as with the original; the config's key origins limits them")
	}
	log.Info("listening", "address", listener.Addr().String(), "tls", c.cert != nil,
		"prefix", options.Prefix, "sockjs", options.SockJS.Prefix, "origins", c.originRule())
	return s, nil
}

// httpServer returns an http.Server with the limits that all listeners have.
func (s *service) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// ServeHTTP answers /healthz, /readyz, /metrics and what is under /console/, and passes all other requests to pushy.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case s.console != nil && (path+"/" == consolePath || strings.HasPrefix(path, consolePath)):
		s.console.ServeHTTP(w, r)
	case s.events != nil && path == s.eventsPath:
		s.events.ServeHTTP(w, r)
	case s.pusher != nil && (strings.HasPrefix(path, "/app/") || strings.HasPrefix(path, "/apps/")):
		s.pusher.ServeHTTP(w, r)
	case path == "/metrics" && s.metrics != nil:
		s.metrics.ServeHTTP(w, r)
	case path != "/healthz" && path != "/readyz":
		s.pushy.ServeHTTP(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed, "")
	case path == "/healthz":
		answer(w, http.StatusOK, "ok")
	default:
		status, text := s.readiness()
		answer(w, status, text)
	}
}

// readiness returns whether load balancers should send clients here, and the reason. A broker that
// cannot be reached is none, because then no server would be left.
func (s *service) readiness() (status int, text string) {
	switch {
	case s.closing.Load():
		return http.StatusServiceUnavailable, "shutting down"
	case s.pushy.Ready() != nil:
		return http.StatusServiceUnavailable, "overloaded: limits.maxMemory is nearly reached"
	}
	return http.StatusOK, "ok"
}

// serve serves until a signal ends it, and returns the exit status.
func (s *service) serve(signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go logKeyUses(ctx, s.log, func() []pushy.KeyUse { return s.pushy.Stats().Keys })
	served := make(chan error, 1)
	go func() {
		if s.cert != nil {
			served <- s.http.ServeTLS(s.listener, "", "")
		} else {
			served <- s.http.Serve(s.listener)
		}
	}()
	s.monitoring.serve(s.log)
	defer s.monitoring.close()
	var ended chan int // nil until a signal
	for {
		select {
		case err := <-served:
			if errors.Is(err, http.ErrServerClosed) {
				served = nil
				continue
			}
			s.log.Error("cannot serve", "error", err)
			_ = s.pushy.Close()
			return exitFailed
		case status := <-ended:
			return status
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				s.reload()
			case ended == nil:
				s.log.Info("shutting down", "signal", sig.String(), "delay", s.delay.String())
				ended = make(chan int, 1)
				go func() { ended <- s.shutdown(ctx) }()
			default:
				s.log.Warn("ended immediately", "signal", sig.String())
				return exitFailed
			}
		}
	}
}

// shutdown ends the connections, then the listener. Before that it serves as always for the delay,
// so that load balancers, which /readyz tells, stop sending clients here. It gives up the delay
// when serving ends.
func (s *service) shutdown(serving context.Context) int {
	s.closing.Store(true)
	select {
	case <-time.After(s.delay):
	case <-serving.Done():
		return exitFailed
	}
	s.log.Info("closing connections", "connections", s.pushy.Stats().Connections, "timeout", s.timeout.String())
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	// This deadline is earlier, so that some time remains for requests in progress.
	pushyCtx, pushyCancel := context.WithTimeout(ctx, s.timeout-s.timeout/httpShare)
	defer pushyCancel()
	status := exitOK
	if err := s.pushy.Shutdown(pushyCtx); err != nil {
		s.log.Error("not all connections could be closed in time", "error", err)
		status = exitFailed
	}
	hooks := make(chan error, 1)
	go func() {
		if s.hooks == nil {
			hooks <- nil
			return
		}
		hooks <- s.hooks.Close(ctx)
	}()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		s.log.Error("not all requests could be answered in time", "error", err)
		status = exitFailed
	}
	if err := <-hooks; err != nil {
		s.log.Error("not all webhooks could be sent in time", "error", err)
		status = exitFailed
	}
	s.log.Info("stopped")
	return status
}

// reload reads the certificates again.
func (s *service) reload() {
	if s.cert == nil && s.brokerCert == nil {
		s.log.Info("nothing to reload: no certificate")
		return
	}
	for _, c := range []struct {
		of   string
		cert *certificate
	}{
		{"server", s.cert},
		{"broker", s.brokerCert},
	} {
		if c.cert == nil {
			continue
		}
		if err := c.cert.load(); err != nil {
			s.log.Error("cannot reload the certificate; the old one remains in use", "of", c.of, "error", err)
		} else {
			s.log.Info("certificate reloaded", "of", c.of, "notAfter", c.cert.notAfter())
		}
	}
}
