package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// begun is the What of the Record that says how a section was measured.
const begun = "begun"

// Run says how a section was measured.
type Run struct {
	Time     time.Time // when it began
	Seconds  float64   // how long it took
	Commit   string    // with -changed if the sources are not those of the commit
	Machine  string
	Versions []string // of the peers
	Quick    bool
}

// thisRun describes a run that begins now.
func thisRun(quick bool) Run {
	return Run{
		Time:     time.Now().UTC(),
		Commit:   commit(),
		Machine:  machine(),
		Versions: versions(),
		Quick:    quick,
	}
}

// same reports whether two sections were measured in the same way.
func (r Run) same(other Run) bool {
	return r.Commit == other.Commit && r.Machine == other.Machine && r.Quick == other.Quick && slices.Equal(r.Versions, other.Versions)
}

// runOf returns how a section was measured.
func runOf(records []Record, section string) (Run, bool) {
	for _, r := range records {
		if r.Section == section && r.What == begun && r.Run != nil {
			return *r.Run, true
		}
	}
	return Run{}, false
}

// replaced returns the records with those of a section replaced.
func replaced(records []Record, section string, by []Record) []Record {
	kept := slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return r.Section == section })
	return append(kept, by...)
}

// saveRecords writes all records. The file is replaced, so that a run that is interrupted loses only the
// section that was not complete.
func saveRecords(path string, records []Record) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path+".new", b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// savedRecords returns the records of earlier runs, if there are any. Those of sections of which it is
// not known how they were measured are left out.
func savedRecords(path string) ([]Record, error) {
	records, err := readRecords(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
		_, ok := runOf(records, r.Section)
		return !ok
	}), err
}

// results are the files that the benchmark itself writes.
var results = []string{":!bench/RESULTS.md", ":!bench/chart.svg", ":!README.md"}

func commit() string {
	head := said("git", "rev-parse", "--short", "HEAD")
	if head == "" {
		return "an unknown commit"
	}
	if said("git", append([]string{"-C", "..", "status", "--porcelain", "--", "."}, results...)...) != "" {
		head += "-changed"
	}
	return head
}

// said returns what a command prints, or "".
func said(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func machine() string {
	var u unix.Utsname
	kernel := runtime.GOOS
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// goPeers are the modules of the peers in Go.
var goPeers = []string{
	"github.com/centrifugal/centrifuge", "github.com/gobwas/ws", "github.com/gorilla/websocket", "github.com/igm/sockjs-go/v3",
	"github.com/olahol/melody", "github.com/r3labs/sse/v2",
}

var number3 = regexp.MustCompile(`\d+\.\d+\.\d+`)

// versions returns the names and versions of the peers that are installed.
func versions() []string {
	var list []string
	if info, err := buildinfo.ReadFile(filepath.Join(binDir, "peers")); err == nil {
		for _, m := range info.Deps {
			if slices.Contains(goPeers, m.Path) {
				list = append(list, strings.TrimPrefix(m.Path, "github.com/")+" "+m.Version)
			}
		}
	}
	if node := said("node", "--version"); node != "" {
		list = append(list, "Node "+strings.TrimPrefix(node, "v"))
		var manifest struct{ Dependencies map[string]string }
		if b, err := os.ReadFile("node/package.json"); err == nil && json.Unmarshal(b, &manifest) == nil {
			for _, name := range []string{"sockjs", "socket.io", "ws"} {
				list = append(list, name+" "+manifest.Dependencies[name])
			}
		}
	}
	for _, server := range []string{"redis-server", "nats-server"} {
		if version := number3.FindString(said(server, "--version")); version != "" {
			list = append(list, server+" "+version)
		}
	}
	return list
}
