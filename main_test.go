package pushy_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	if os.Getenv(memoryChildEnv) != "" {
		memoryChild()
	}
	code := m.Run()
	if code == 0 {
		if left := goroutinesLeft(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

func goroutinesLeft() (left string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		buf := make([]byte, 1<<20)
		left = ""
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			own := strings.Contains(g, "goroutinesLeft") || strings.Contains(g, "testing.")
			if !own && (strings.Contains(g, "gopushy/pushy") || strings.Contains(g, "net/http")) {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}
