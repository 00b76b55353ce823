//go:build !unix

package websocket

import (
	"net"
	"syscall"
)

// Where sockets are no file descriptors all connections are read and written
// as net.Conn offers it.

func rawConn(net.Conn) syscall.RawConn { return nil }

func newPooledSource(syscall.RawConn) source { panic("websocket: no raw connections here") }

func tryWrite(syscall.RawConn, []byte) (int, error) { return 0, nil }
