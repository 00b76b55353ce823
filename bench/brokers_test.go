package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a sitting its broker has ended, and the broker's files are removed.
func TestBroker(t *testing.T) {
	t.Parallel()
	for name := range brokerCommands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := startBroker(name)
			require.NoError(t, err)
			assert.True(t, b.listens())
			assert.DirExists(t, b.dir)
			b.stop()
			assert.False(t, b.listens())
			assert.NoDirExists(t, b.dir)
		})
	}
}
