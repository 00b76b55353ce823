package testlog_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/testlog"
)

func TestLog(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	assert.Empty(t, log.String())
	assert.Empty(t, log.With())
	logger := log.Logger()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			logger.Info("first", slog.String("of", "two"))
			logger.Warn("second", slog.String("of", "two"))
			_ = log.String()
		})
	}
	all.Wait()
	assert.Equal(t, 20, strings.Count(log.String(), "\n"))
	assert.Len(t, log.With(), 20)
	assert.Len(t, log.With("of=two"), 20)
	assert.Len(t, log.With("of=two", "first"), 10)
	assert.Empty(t, log.With("first", "second"), "in one line")
	assert.Contains(t, log.With("second")[0], "level=WARN")
}
