package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version replaces the version of the build information, for builds from a tree without
// its repository: go build -ldflags "-X main.version=v0.1.0".
var version string

// versionLine returns the output of the version command: the program's version, its commit
// and the library's version if they add information, the Go version and the platform.
func versionLine(info *debug.BuildInfo, override string) string {
	own, library := "", ""
	settings := map[string]string{}
	if info != nil {
		own = info.Main.Version
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		for _, m := range info.Deps {
			if m.Path == "github.com/gopushy/pushy" {
				library = m.Version
			}
		}
	}
	own = cmp.Or(override, own, "(devel)")
	var notes []string
	if revision := settings["vcs.revision"]; revision != "" && !strings.Contains(own, revision[:min(12, len(revision))]) {
		if settings["vcs.modified"] == "true" {
			revision += ", modified"
		}
		notes = append(notes, "commit "+revision)
	}
	if library != "" && library != own && library != "(devel)" {
		notes = append(notes, "pushy "+library)
	}
	line := "pushy-server " + own
	if len(notes) > 0 {
		line += " (" + strings.Join(notes, "; ") + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", line, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
