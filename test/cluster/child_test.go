package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/testproc"
	"github.com/gopushy/pushy/webhook"
)

// childEnv makes a test binary a node. It has a membership as JSON, or is empty for a node
// without a broker.
const childEnv = "PUSHY_CLUSTERTEST_NODE"

// child is a node in its own process.
type child struct {
	url string
	cmd *exec.Cmd
}

// startChild runs the test binary again as a node.
func startChild(how string) (*child, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	cmd.Stderr = os.Stderr
	testproc.DieWithParent(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("the node's process ended: %w", err)
	}
	c.url = strings.TrimSpace(line)
	return c, nil
}

// kill ends the process as kill -9 does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// stop shuts the node down and waits for the end of the process.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return c.cmd.Wait()
}

// cpu returns the CPU time that the process has used.
func (c *child) cpu() (time.Duration, error) {
	var used time.Duration
	return used, c.call("/cpu", &used)
}

// publish makes the process publish n events of 200 bytes in a channel, at most 100 a second.
func (c *child) publish(channel string, n int) error {
	var done bool
	return c.call("/publish?channel="+channel+"&n="+strconv.Itoa(n), &done)
}

func (c *child) call(path string, answer any) error {
	r, err := http.Get(c.url + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the node answered %s", r.Status)
	}
	return json.NewDecoder(r.Body).Decode(answer)
}

// serveChild serves a node until the process is killed, if startChild has started the
// process. Otherwise it returns.
func serveChild() {
	how, is := os.LookupEnv(childEnv)
	if !is {
		return
	}
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var shared broker.Broker
	var m membership
	if how != "" {
		if err := json.Unmarshal([]byte(how), &m); err != nil {
			fail(err)
		}
		shared = beforeEvents(m.broker(log), func(channel string) {
			if channel == m.Hangs {
				select {} // until the process is killed
			}
		})
	}
	o := options(shared, m.Lease, log)
	o.ReturnRate = m.ReturnRate
	srv, err := pushy.New(o)
	if err != nil {
		fail(err)
	}
	seam.Of(srv).Hub.SetPatience(patience / 2)
	var hooks *webhook.Sender
	if m.Webhooks != "" {
		if hooks, err = newWebhooks(srv, m.Webhooks); err != nil {
			fail(err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/pushy/", srv)
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, _ *http.Request) {
		used, err := testproc.CPUTime()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(used)
	})
	var said atomic.Int64
	mux.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		data := map[string]string{"text": strings.Repeat("x", 150)}
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for range n {
			<-pace.C
			data["id"] = fmt.Sprintf("%08d-%08d", os.Getpid(), said.Add(1)) // no two events are equal
			if err := srv.Publish(r.Context(), r.FormValue("channel"), "said", data); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		_ = json.NewEncoder(w).Encode(true)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	web := &http.Server{Handler: mux}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := errors.Join(srv.Shutdown(ctx), web.Shutdown(ctx))
		if hooks != nil {
			err = errors.Join(err, hooks.Close(ctx))
		}
		if err != nil {
			fail(err)
		}
		os.Exit(0)
	}()
	fmt.Printf("http://%s\n", listener.Addr())
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		fail(err)
	}
	select {} // until the shutdown is complete
}
