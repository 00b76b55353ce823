package sockjs_test

import (
	"testing"

	"github.com/gopushy/pushy/internal/transport/transporttest"
)

func TestMain(m *testing.M) { transporttest.Main(m) }
