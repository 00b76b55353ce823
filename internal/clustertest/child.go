package clustertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/testproc"
)

// childEnv says to a test binary that it is a node, and how to join.
const childEnv = "PUSHY_CLUSTERTEST_NODE"

// Child is a node in a process of its own.
type Child struct {
	URL string
	cmd *exec.Cmd
}

// Start runs the test binary again as a node; how is what its Serve is told.
func Start(how string) (*Child, error) {
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
	c := &Child{cmd: cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.Kill()
		return nil, fmt.Errorf("the node's process ended: %w", err)
	}
	c.URL = strings.TrimSpace(line)
	return c, nil
}

// Kill ends it as kill -9 does.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// CPU returns the time that the process has used.
func (c *Child) CPU() (time.Duration, error) {
	var used time.Duration
	return used, c.call("/cpu", &used)
}

// Publish has the process publish n events of 200 bytes to a channel, at most 100 a
// second.
func (c *Child) Publish(channel string, n int) error {
	var done bool
	return c.call("/publish?channel="+channel+"&n="+strconv.Itoa(n), &done)
}

func (c *Child) call(path string, answer any) error {
	r, err := http.Get(c.URL + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the node answers %s", r.Status)
	}
	return json.NewDecoder(r.Body).Decode(answer)
}

// Serve serves a node until it is killed, if this process is one that Start made: a
// TestMain calls it first. join makes what it shares with others, as Start was told;
// nil for nothing.
func Serve(join func(how string) (broker.Broker, error)) {
	how, is := os.LookupEnv(childEnv)
	if !is {
		return
	}
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared, err := join(how)
	if err != nil {
		fail(err)
	}
	srv, err := pushy.New(options(shared, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))))
	if err != nil {
		fail(err)
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
	mux.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		data := map[string]string{"text": strings.Repeat("x", 180)}
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for range n {
			<-pace.C
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
	fmt.Printf("http://%s\n", listener.Addr())
	fail(http.Serve(listener, mux))
}
