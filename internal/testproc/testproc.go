// Package testproc has operations on processes for tests that differ between operating
// systems.
package testproc

import (
	"os"
	"os/exec"
	"time"
)

// DieWithParent makes a process end with the test that starts it, even if the test panics.
// Only Linux supports this; on other systems the process may continue to run.
func DieWithParent(cmd *exec.Cmd) { dieWithParent(cmd) }

// Pause stops a process that this process has started, and Resume continues it. When Pause has
// returned, the process does nothing more: SIGSTOP alone takes effect later. On Windows both
// return errors.ErrUnsupported.
func Pause(p *os.Process) error { return pause(p) }

// Resume continues a process that Pause has stopped.
func Resume(p *os.Process) error { return resume(p) }

// CPUTime returns the CPU time that this process has used. On Windows it returns
// errors.ErrUnsupported.
func CPUTime() (time.Duration, error) { return cpuTime() }
