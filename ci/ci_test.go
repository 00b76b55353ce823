// Package ci_test tests the scripts of this directory.
package ci_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// run runs a command in the project's directory, or in dir, with additional variables in its
// environment.
func run(t *testing.T, dir string, env []string, name string, args ...string) (output string, status int) {
	t.Helper()
	if dir == "" {
		dir = ".."
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, "%s: %v", name, err)
	return string(out), cmd.ProcessState.ExitCode()
}

// script writes an executable script.
func script(t *testing.T, file, text string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700))
	return file
}

// bareMachine makes a directory for PATH that has the programs that the scripts themselves use,
// and none that only the tests need. env is the entry for the environment.
func bareMachine(t *testing.T) (dir, env string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{
		"bash", "sh", "go", "sed", "cat", "dirname", "date", "sort", "head", "grep", "mktemp", "mkfifo", "nice", "rm",
		"tee", "cut", "git", "xargs",
		"flock",
	} {
		file, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(file, filepath.Join(dir, name)))
	}
	return dir, "PATH=" + dir
}

// Issue 11, number 39.
func TestMakeListsItsTargets(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(string(makefile))
	require.NotNil(t, phony)
	for _, args := range [][]string{nil, {"help"}} {
		out, status := run(t, "", []string{"MAKEFLAGS="}, "make", args...)
		assert.Zero(t, status, out)
		for target := range strings.FieldsSeq(phony[1]) {
			assert.Regexp(t, `(?m)^  `+target+` +\S.{5,}$`, out, "every target has a description")
		}
	}
	for _, file := range regexp.MustCompile(`ci/[a-z_]+\.sh`).FindAllString(string(makefile), -1) {
		info, err := os.Stat(filepath.Join("..", file))
		require.NoError(t, err)
		assert.NotZero(t, info.Mode()&0o111, "%s is not executable", file)
	}
	for _, target := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		assert.Contains(t, strings.Fields(phony[1]), target[1])
	}
}

// Issue 11, number 39: if a part fails, the others still run, and the summary lists it. The parts of a
// list run in its order.
func TestMakeTestGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	fake := script(t, filepath.Join(dir, "make"), `echo "$2" >>'`+calls+`'; echo "part $2 runs"; [ "$2" != unit ] && [ "$2" != client ]`)
	env := []string{"MAKE=" + fake}

	out, status := run(t, "", env, "ci/test.sh", "fmt unit fuzz", "client browser")
	assert.Equal(t, 1, status, out)
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	parts, _, _ := strings.Cut(out, "\n== failures of ")
	for _, list := range [][]string{{"fmt", "unit", "fuzz"}, {"client", "browser"}} {
		assert.Equal(t, list, slices.DeleteFunc(strings.Fields(string(called)), func(part string) bool {
			return !slices.Contains(list, part)
		}))
		for _, part := range list {
			assert.Equal(t, 1, strings.Count(parts, "part "+part+" runs\n"))
		}
	}
	_, summary, found := strings.Cut(out, "== summary\n")
	require.True(t, found, out)
	for part, outcome := range map[string]string{"fmt": "ok", "unit": "FAILED", "fuzz": "ok", "client": "FAILED", "browser": "ok"} {
		assert.Regexp(t, `(?m)^  `+part+` +`+outcome+` +\d+ s$`, summary)
	}
	assert.Contains(t, summary, "2 of 5 parts failed")

	out, status = run(t, "", env, "ci/test.sh", "fmt", "fuzz")
	assert.Zero(t, status, out)
	assert.NotContains(t, out, "FAILED")
}

// The failures of a part are printed again before the summary, because the output of all parts is long:
// the tests of Go and of node that failed, with what they say, or else the end of the output.
func TestMakeTestRepeatsFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fake := script(t, filepath.Join(dir, "make"), `case $2 in
unit)
	echo "ok  	example.org/a"
	echo "--- FAIL: TestA (0.01s)"
	echo "    --- FAIL: TestA/b (0.01s)"
	echo "time=2026-01-01T00:00:00Z level=INFO msg=connected"
	echo "        Error: Not equal"
	seq 100 ;;
browser)
	echo "✔ a test that passes (1 ms)"
	echo "✖ a test that does not (2 ms)"
	echo "  expected 1"
	seq 100 ;;
lint)
	seq 30
	echo "the last line" ;;
esac
[ "$2" = fmt ]`)
	out, status := run(t, "", []string{"MAKE=" + fake}, "ci/test.sh", "fmt lint", "unit browser")
	assert.Equal(t, 1, status, out)
	again := func(part string) string {
		_, text, found := strings.Cut(out, "\n== failures of make "+part+"\n")
		require.True(t, found, out)
		text, _, _ = strings.Cut(text, "\n\n== ")
		return text
	}
	const ten = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10"
	assert.Equal(t, "--- FAIL: TestA (0.01s)\n    --- FAIL: TestA/b (0.01s)\n        Error: Not equal\n"+ten, again("unit"))
	assert.Equal(t, "✖ a test that does not (2 ms)\n  expected 1\n"+ten, again("browser"))
	assert.Regexp(t, `(?s)^12\n13\n.*\n30\nthe last line$`, again("lint"))
	assert.NotContains(t, out, "failures of make fmt")
	_, summary, found := strings.Cut(out, "\n== summary\n")
	require.True(t, found, out)
	assert.Contains(t, summary, "3 of 4 parts failed")
}

// A part that hangs fails at the limit of all parts, and what it has printed is shown. Its processes end.
func TestMakeTestStopsWhatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	fake := script(t, filepath.Join(dir, "make"), `[ "$2" != browser ] || { echo "its last words"; echo $$ >'`+pid+`'; sleep 600; }`)
	out, status := run(t, "", []string{"MAKE=" + fake, "PUSHY_TEST_SECONDS=15"}, "ci/test.sh", "fmt lint", "browser fuzz")
	assert.Equal(t, 1, status, out)
	_, failures, found := strings.Cut(out, "\n== failures of make browser\n")
	require.True(t, found, out)
	assert.Contains(t, failures, "its last words\nmake browser has not ended 15 s after the begin of all parts, and is stopped\n")
	assert.Regexp(t, `(?m)^  browser +STOPPED +15 s$`, failures)
	assert.Contains(t, failures, "1 of 3 parts failed")
	text, err := os.ReadFile(pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return exec.Command("kill", "-0", strings.TrimSpace(string(text))).Run() != nil
	}, time.Minute, 100*time.Millisecond)
}

// The lists run at the same time: each part waits here for the one of the other list. The output of
// a part is printed in one piece.
func TestMakeTestRunsItsListsAtTheSameTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"unit", "browser"} {
		out, status := run(t, "", nil, "mkfifo", filepath.Join(dir, name))
		require.Zero(t, status, out)
	}
	fake := script(t, filepath.Join(dir, "make"), `cd '`+dir+`'
case $2 in
unit) echo first of unit; echo >browser; cat unit; echo last of unit ;;
browser) echo first of browser; cat browser; echo >unit; echo last of browser ;;
esac`)
	out, status := run(t, "", []string{"MAKE=" + fake}, "ci/test.sh", "unit", "browser")
	assert.Zero(t, status, out)
	for _, part := range []string{"unit", "browser"} {
		assert.Contains(t, out, "\n== make "+part+" has ended: ok\nfirst of "+part+"\n\nlast of "+part+"\n")
	}
}

// A signal ends the parts that are running, with the processes that they have started.
func TestMakeTestEndsItsPartsOnASignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	never := filepath.Join(dir, "never")
	out, status := run(t, "", nil, "mkfifo", never)
	require.Zero(t, status, out)
	fake := script(t, filepath.Join(dir, "make"), `echo "$2" >&3; sh -c 'cat "$1"; echo' sh '`+never+`'; echo`)
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		// All processes inherit the pipe, so it ends when the last of them has ended.
		reader, writer, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, reader.SetReadDeadline(time.Now().Add(time.Minute)))
		cmd := exec.Command("ci/test.sh", "unit", "browser")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "MAKE="+fake, "TMPDIR="+dir)
		cmd.ExtraFiles = []*os.File{writer}
		require.NoError(t, cmd.Start())
		require.NoError(t, writer.Close())
		lines := bufio.NewReader(reader)
		for range 2 {
			_, err := lines.ReadString('\n')
			require.NoError(t, err)
		}
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, want, exit.ExitCode())
		_, err = io.ReadAll(lines)
		assert.NoError(t, err, "processes are left after signal %v", signal)
		require.NoError(t, reader.Close())
		logs, err := filepath.Glob(filepath.Join(dir, "tmp.*"))
		require.NoError(t, err)
		assert.Empty(t, logs)
	}
}

// Issue 11, number 39: before anything runs, make test lists the missing packages, why they are
// needed, and whether it will install them.
func TestMakeTestSaysWhatItInstalls(t *testing.T) {
	t.Parallel()
	dir, path := bareMachine(t)
	fake := script(t, filepath.Join(dir, "make"), `echo "part $2 runs"`)
	env := []string{path, "MAKE=" + fake, "PUSHY_CHROMIUM=", "PUSHY_FIREFOX=/somewhere/firefox"}
	script(t, filepath.Join(dir, "id"), "echo 1000")

	out, status := run(t, "", env, "bash", "ci/test.sh", "fmt")
	assert.Zero(t, status, out)
	before, _, _ := strings.Cut(out, "part fmt runs")
	for _, name := range []string{"redis-server", "redis-sentinel", "nats-server", "nodejs", "npm", "chromium", "gcc libc6-dev"} {
		assert.Regexp(t, `(?m)^  `+name+` +\S.{10,}$`, before)
	}
	assert.NotContains(t, before, "firefox-esr", "PUSHY_FIREFOX is set")
	assert.NotRegexp(t, `(?m)^  git `, before, "it is installed")
	assert.Contains(t, before, "Only root can install them")

	script(t, filepath.Join(dir, "apt-get"), "exit 1")
	out, _ = run(t, "", env, "bash", "ci/test.sh", "fmt")
	assert.Contains(t, out, "Only root can install them")
	script(t, filepath.Join(dir, "id"), "echo 0")
	out, _ = run(t, "", env, "bash", "ci/test.sh", "fmt")
	assert.Contains(t, out, "They are installed with apt-get")
}

// Issue 11, number 39.
func TestNeedInstallsOrSaysHow(t *testing.T) {
	t.Parallel()
	dir, path := bareMachine(t)
	env := []string{path, "TMPDIR=" + t.TempDir()}
	const needs = "source ci/modules.sh; need git redis-server gcc; echo went on"

	script(t, filepath.Join(dir, "id"), "echo 0")
	out, status := run(t, "", env, "bash", "-c", needs)
	assert.Equal(t, 1, status)
	assert.Contains(t, out, "On Debian: apt-get update && apt-get install -y redis-server gcc libc6-dev\n")

	calls := filepath.Join(dir, "calls")
	script(t, filepath.Join(dir, "apt-get"), `echo "$@" >>'`+calls+`'`)
	script(t, filepath.Join(dir, "id"), "echo 1000")
	out, status = run(t, "", env, "bash", "-c", needs)
	assert.Equal(t, 1, status)
	assert.Contains(t, out, "sudo sh -c 'apt-get update && apt-get install -y redis-server gcc libc6-dev'")
	assert.NoFileExists(t, calls)

	script(t, filepath.Join(dir, "id"), "echo 0")
	out, status = run(t, "", env, "bash", "-c", needs)
	assert.Zero(t, status, out)
	assert.Contains(t, out, "went on")
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Regexp(t, `^\S+ \S+ update\n\S+ \S+ install -y redis-server gcc libc6-dev\n$`, string(called))
}

// Issue 11, number 39: the rules find syntax and options that bash and the tools of macOS do not
// have.
func TestRulesRefuseNewerShells(t *testing.T) {
	t.Parallel()
	offending := []string{
		`mapfile -t all < <(ls)`,
		`readarray all`,
		`declare -A seen`,
		`local -n name=$1`,
		`echo "${name,,}"`,
		`echo "${name^^}"`,
		`echo "${all[0]^}"`,
		`wait -n`,
		`make &>> log`,
		`make |& tee log`,
		`echo "${all[-1]}"`,
		`readlink -f .`,
		`sed -i s/a/b/ file`,
		`sha256sum file`,
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "ci"), os.DirFS(".")))
	require.NoError(t, os.Remove(filepath.Join(dir, "ci/ci_test.go")))
	for name, text := range map[string]string{
		"go.mod":          "module example.com/a\n\ngo 1.25\n",
		"a.go":            "package a\n",
		"a_test.go":       "package a\n",
		".ci/run":         "#!/bin/sh\nexec make test\n",
		"client/a.mjs":    "",
		"ci/offending.sh": "#!/usr/bin/env bash\n" + strings.Join(offending, "\n") + "\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	out, status := run(t, dir, nil, "git", "init", "-q")
	require.Zero(t, status, out)
	out, status = run(t, dir, []string{"GOWORK=off"}, "bash", "-c", "mkdir docs && go run ./ci/structure >docs/structure.md")
	require.Zero(t, status, out)
	out, status = run(t, dir, []string{"GOWORK=off"}, "bash", "ci/rules.sh")
	assert.Equal(t, 1, status, out)
	for i, line := range offending {
		assert.Contains(t, out, fmt.Sprintf("ci/offending.sh:%d:%s\n", i+2, line))
	}
	assert.Equal(t, len(offending), strings.Count(out, ".sh:"), "nothing else is found: %s", out)
	require.NoError(t, os.Remove(filepath.Join(dir, "ci/offending.sh")))
	out, status = run(t, dir, []string{"GOWORK=off"}, "bash", "ci/rules.sh")
	assert.Zero(t, status, out)
}

// Issue 11, number 39: at the end of its time Go's fuzzing can report its own deadline, more
// often on a busy machine (golang/go#75804). That is not a failure; everything else is.
func TestFuzzToleratesItsOwnDeadlineOnly(t *testing.T) {
	t.Parallel()
	goCommand, err := exec.LookPath("go")
	require.NoError(t, err)
	for _, test := range []struct {
		name, output string
		status       int
	}{
		{"deadline", "--- FAIL: FuzzX (3.20s)\n    context deadline exceeded\nFAIL", 0},
		{"failingInput", "--- FAIL: FuzzX (3.20s)\n    Failing input written to testdata/fuzz/FuzzX/1\n    context deadline exceeded\nFAIL", 1},
		{"panic", "panic: oh\nFAIL", 1},
		{"build", "FAIL [build failed]", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, path := bareMachine(t)
			require.NoError(t, os.Remove(filepath.Join(dir, "go")))
			chmod, err := exec.LookPath("chmod")
			require.NoError(t, err)
			require.NoError(t, os.Symlink(chmod, filepath.Join(dir, "chmod")))
			fuzzed := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(fuzzed, "x_test.go"), []byte("func FuzzX(f *testing.F) {\n"), 0o600))
			target := script(t, filepath.Join(t.TempDir(), "target"), `printf '%s\n' '`+test.output+`'; exit 1`)
			compile := `while [ "$1" != -o ]; do shift; done; cat '` + target + `' >"$2"; chmod +x "$2"`
			if test.name == "build" {
				compile = "cat '" + target + "'; exit 1"
			}
			script(t, filepath.Join(dir, "go"), `case "$1 $2" in
"test -c") `+compile+` ;;
"list -f") echo '`+fuzzed+` example.com/fuzzed' ;;
*) exec '`+goCommand+`' "$@" ;;
esac`)
			out, status := run(t, "", []string{path}, "bash", "ci/fuzz.sh", "1")
			assert.Equal(t, test.status, status, out)
		})
	}
}
