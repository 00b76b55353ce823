package sign_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/sign"
)

func TestRequestVector(t *testing.T) {
	t.Parallel()
	const secret = "a secret of more than sixteen bytes"
	body := `{"events":[{"channels":["lobby","private-room"],"event":"news","data":{"text":"Hello"}}],"count":true}`
	assert.Equal(t, "80756b1b", sign.KeyID(secret))
	assert.Equal(t, "89fe152d0e6a3d7252bf64cca002e8d892ae1a2e66cf31767a522f2343788595",
		sign.Request(secret, "80756b1b", 1700000000, "order-17", "/api/publish", []byte(body)))
}
