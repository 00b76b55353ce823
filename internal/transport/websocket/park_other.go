//go:build !linux

package websocket

import (
	"syscall"

	"github.com/gopushy/pushy/internal/session"
)

// On other systems than Linux, each reader waits in a goroutine.
var parking parkingLot

type parkingLot struct{}

func (parkingLot) parkLocked(*socket, syscall.RawConn, session.Reader) bool { return false }

func (parkingLot) resumeLocked(*socket) {}
