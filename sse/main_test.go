package sse_test

import (
	"testing"

	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// TestMain fails the run when a test leaves a goroutine behind.
func TestMain(m *testing.M) { transporttest.Main(m) }
