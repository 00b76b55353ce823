// Package testproc is what tests do with processes that differs between
// operating systems.
package testproc

import (
	"os"
	"os/exec"
	"time"
)

// DieWithParent makes a process end with the test that starts it, even if that
// panics. Only Linux can do that; elsewhere the process may be left behind.
func DieWithParent(cmd *exec.Cmd) { dieWithParent(cmd) }

// Pause stops a process without ending it, and Resume lets it go on. On Windows
// both fail with errors.ErrUnsupported.
func Pause(p *os.Process) error { return pause(p) }

// Resume lets a process go on that Pause has stopped.
func Resume(p *os.Process) error { return resume(p) }

// CPUTime returns the processor time that this process has used. On Windows it
// fails with errors.ErrUnsupported.
func CPUTime() (time.Duration, error) { return cpuTime() }
