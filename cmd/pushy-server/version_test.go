package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Issue 11, number 40.
func TestVersionLine(t *testing.T) {
	t.Parallel()
	system := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	build := func(own, library string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main:     debug.Module{Path: "github.com/gopushy/pushy/cmd/pushy-server", Version: own},
			Deps:     []*debug.Module{{Path: "github.com/gopushy/pushy", Version: library}},
			Settings: settings,
		}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, test := range []struct {
		name     string
		info     *debug.BuildInfo
		override string
		want     string
	}{
		{"installed", build("v0.1.0", "v0.1.0"), "", "v0.1.0"},
		{"otherLibrary", build("v0.1.0", "v0.1.1"), "", "v0.1.0 (pushy v0.1.1)"},
		{"workspace", build("(devel)", "(devel)"), "", "(devel)"},
		{"noInformation", nil, "", "(devel)"},
		{"commit", build("(devel)", "(devel)", revision), "", "(devel) (commit " + revision.Value + ")"},
		{"modified", build("(devel)", "(devel)", revision, modified), "", "(devel) (commit " + revision.Value + ", modified)"},
		{"commitInVersion", build("v0.1.1-0.20261126120000-0123456789ab", "(devel)", revision), "", "v0.1.1-0.20261126120000-0123456789ab"},
		{"linkerFlag", build("(devel)", "(devel)"), "v0.2.0", "v0.2.0"},
		{"linkerFlagAlone", nil, "v0.2.0", "v0.2.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, "pushy-server "+test.want+system, versionLine(test.info, test.override))
		})
	}
}

// Issue 11, number 40.
func TestVersionAndHelpCommands(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"-version"}, {"--version"}} {
		status, stdout, stderr := runProgram(t, args...)
		assert.Equal(t, exitOK, status)
		assert.Regexp(t, `^pushy-server \S.* go\S+ \w+/\w+\n$`, stdout)
		assert.Empty(t, stderr)
	}
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
		status, stdout, stderr := runProgram(t, args...)
		assert.Equal(t, exitOK, status)
		assert.Equal(t, manual(), stdout)
		assert.Empty(t, stderr)
	}
	for _, c := range commands {
		for _, args := range [][]string{{"help", c.name}, {c.name, "-h"}} {
			status, stdout, _ := runProgram(t, args...)
			assert.Equal(t, exitOK, status)
			assert.Equal(t, c.help, stdout)
		}
		assert.Contains(t, manual(), "pushy-server "+c.name+" [flags]")
		assert.Contains(t, c.help, "pushy-server "+c.name+" [flags]")
		for line := range strings.Lines(c.help) {
			assert.LessOrEqual(t, len([]rune(line)), 89, line)
		}
	}
	for _, args := range [][]string{{"version", "x"}, {"help", "config"}, {"help", "listen", "x"}} {
		status, stdout, stderr := runProgram(t, args...)
		assert.Equal(t, exitUsage, status)
		assert.Empty(t, stdout)
		assert.NotEmpty(t, stderr)
	}
}

// Issue 11, number 40.
func TestVersionByLinkerFlag(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pushy-server")
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version=v9.8.7-test", "-o", file, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(file, "version").CombinedOutput()
	require.NoError(t, err)
	assert.Regexp(t, `^pushy-server v9\.8\.7-test `, string(out))
}
