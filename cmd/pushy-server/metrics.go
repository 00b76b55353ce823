package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/gopushy/pushy/metrics"
)

// minToken is the length of the shortest token, in bytes.
const minToken = 16

// metricsConfig is the object "metrics" of a config file.
type metricsConfig struct {
	given  bool
	listen string // host:port of a listener for /metrics only; "" for that of the server
	token  string // "" if none is needed
}

var metricsSettings = []setting{
	{"metrics.listen", `an address with a port, such as "127.0.0.1:9123"`, func(c *config, v json.RawMessage) bool {
		if !decode(v, &c.metrics.listen) {
			return false
		}
		_, port, err := net.SplitHostPort(c.metrics.listen)
		if err != nil || !digits.MatchString(port) {
			return false
		}
		_, err = net.ResolveTCPAddr("tcp", net.JoinHostPort("127.0.0.1", port))
		return err == nil
	}},
	{"metrics.token", "a string of at least 16 bytes", func(c *config, v json.RawMessage) bool {
		return decode(v, &c.metrics.token) && len(c.metrics.token) >= minToken
	}},
}

func (c *config) readMetrics(object json.RawMessage, at int) error {
	c.metrics.given = true
	return c.read(object, at, "metrics.", metricsSettings)
}

// check completes the config with the environment. Metrics on the listener of the server, which
// clients reach, need a token.
func (m *metricsConfig) check(getenv func(string) string) error {
	if !m.given {
		return nil
	}
	if token := getenv("PUSHY_METRICS_TOKEN"); token != "" {
		if len(token) < minToken {
			return errors.New("PUSHY_METRICS_TOKEN must be a string of at least 16 bytes")
		}
		m.token = token
	}
	if m.listen == "" && m.token == "" {
		return errors.New("metrics needs listen, for a listener of its own, or token, which can also be given in PUSHY_METRICS_TOKEN")
	}
	return nil
}

// monitoring serves /metrics on a listener of its own, until the service has ended.
type monitoring struct {
	listener net.Listener
	http     *http.Server
}

// offerMetrics serves /metrics as the config says.
func (s *service) offerMetrics(m metricsConfig) error {
	if !m.given {
		return nil
	}
	h := s.metricsHandler(m)
	if m.listen == "" {
		s.metrics = h
		return nil
	}
	listener, err := net.Listen("tcp", m.listen)
	if err != nil {
		return fmt.Errorf("cannot listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", h)
	s.monitoring = &monitoring{
		listener: listener,
		http:     s.httpServer(mux),
	}
	s.log.Info("metrics", "address", listener.Addr().String(), "token", m.token != "")
	return nil
}

func (m *monitoring) serve(log *slog.Logger) {
	if m == nil {
		return
	}
	go func() {
		if err := m.http.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("cannot serve metrics", "error", err)
		}
	}()
}

func (m *monitoring) close() {
	if m != nil {
		_ = m.http.Close()
	}
}

// metricsHandler serves /metrics to clients that have the token.
func (s *service) metricsHandler(m metricsConfig) http.Handler {
	h := metrics.Handler(s.pushy)
	if m.token == "" {
		return h
	}
	want := sha256.Sum256([]byte(m.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, "a bearer token is needed: the config's key metrics.token")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// answer writes a body that must not be cached.
func answer(w http.ResponseWriter, status int, text string) {
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
