package testproc

import (
	"errors"
	"os"
	"time"
)

func pause(*os.Process) error  { return errors.ErrUnsupported }
func resume(*os.Process) error { return errors.ErrUnsupported }

func cpuTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
