package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version takes the place of what the build says of itself, for builds from a
// tree without its repository: go build -ldflags "-X main.version=v0.1.0".
var version string

// versionLine is what the version command prints: the program's version, the
// commit it was built from and the library's version where they say more, and
// what built it for which system.
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
