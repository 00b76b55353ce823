package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gopushy/pushy/bench/internal/load"
)

// The values of the Records of handshakes.
const (
	p99Over        = "p99 over that before"
	shakesAdmitted = "admitted a second"
	shakesClosed   = "closed with 1013 a second"
	shakesRefused  = "refused a second"
	shakesFailed   = "failed handshakes"
)

const (
	shakeRate   = 2000 // handshakes a second
	acceptRate  = 200  // of the server
	established = 200  // clients, which is what the server admits at once
	shakeEvents = 50   // events a second
	shakeNice   = 10
)

// planHandshakes measures acceptance 17 of issue 14: what 2,000 handshakes a second do to the clients
// that are connected, with Limits.AcceptRate and without it.
func planHandshakes(quick bool) []batch {
	s := sitting{
		clients: established,
		loads:   opened(quick, shakeEvents, openSpan),
		program: shakeWhilePublishing,
	}
	with := s
	with.acceptRate = acceptRate
	return []batch{{times(quick, 5), append(with.each("pushy"), s.each("pushy")...)}}
}

// shakeWhilePublishing measures the latency of events before, during and after the handshakes.
func shakeWhilePublishing(ctx context.Context, s *sitter) error {
	clients, err := load.Connect(ctx, load.Config{
		Addr:       s.server.addr,
		PID:        s.server.cmd.Process.Pid,
		Dialect:    s.server.kind.dialect,
		Publishing: s.server.kind.publishing,
		Clients:    s.clients,
		Channels:   1,
	})
	if err != nil {
		return err
	}
	defer clients.Close()
	limit := "all"
	if s.acceptRate > 0 {
		limit = fmt.Sprint(s.acceptRate)
	}
	l := s.loads[0]
	before := 0.0
	for _, when := range []string{"before", "during", "after"} {
		var storm *shaking
		if when == "during" {
			if storm, err = startShaking(s.server.addr, l.Warm+l.Time+time.Second); err != nil {
				return err
			}
		}
		r, err := clients.Run(l)
		if err != nil {
			return fmt.Errorf("%s the handshakes: %w", when, err)
		}
		value := values(r)
		if before == 0 {
			before = value[p99]
		}
		value[p99Over] = value[p99] / before
		if storm != nil {
			if err := storm.figures(value); err != nil {
				return err
			}
		}
		s.record(limit+" "+when, l.Size, value)
	}
	return nil
}

// shaking is a process that makes handshakes. It is not this one, so that its work does not delay
// what reads the events.
type shaking struct {
	cmd  *exec.Cmd
	time time.Duration
	out  *json.Decoder
}

func startShaking(addr netip.AddrPort, d time.Duration) (*shaking, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-shake", addr.String(), "-time", d.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the handshakes: %w", err)
	}
	// The clients of a storm have processors of their own. Here they must not take those of the
	// server and of what reads the events.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, shakeNice)
	return &shaking{
		cmd:  cmd,
		time: d,
		out:  json.NewDecoder(out),
	}, nil
}

// shake is that process.
func shake(addr string, d time.Duration) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(load.MakeHandshakes(to, shakeRate, d))
}

// figures waits for the end and adds what has become of the handshakes.
func (s *shaking) figures(value map[string]float64) error {
	var h load.Handshakes
	if err := s.out.Decode(&h); err != nil {
		return fmt.Errorf("handshakes: %w", err)
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("handshakes: %w", err)
	}
	value[shakesAdmitted] = float64(h.Admitted) / s.time.Seconds()
	value[shakesClosed] = float64(h.Closed) / s.time.Seconds()
	value[shakesRefused] = float64(h.Refused) / s.time.Seconds()
	value[shakesFailed] = float64(h.Failed)
	return nil
}

// shakeChecks are the figures of acceptance 17.
func shakeChecks() []check {
	q := query{
		section: "shakes",
		kind:    "pushy",
		what:    fmt.Sprint(acceptRate, " during"),
		clients: established,
	}
	over := check{
		figure: "p99 of connected clients during 2,000 handshakes a second, over that before",
		limit:  1.5,
		rounds: func(all []Record) map[int]float64 { return q.rounds(all, p99Over) },
		detail: func(all []Record) string {
			return fmt.Sprintf("%s admitted, %s closed with 1013 and %s refused a second",
				q.text(all, shakesAdmitted), q.text(all, shakesClosed), q.text(all, shakesRefused))
		},
	}
	failed := single("handshakes that were neither admitted nor told to try again", shakesFailed, q, "", 0)
	failed.worst = true
	return []check{over, failed}
}
