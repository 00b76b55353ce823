package lifecycle

// stackRoom is more than most goroutines need that handle a message or open a connection. With the
// 928 bytes that the runtime reserves, it fits in a stack of 8 KiB, and not in one of 4 KiB.
const stackRoom = 4 << 10

// GrowStack makes room for stackRoom bytes on the stack of the caller's goroutine. The runtime grows a
// stack by copying it, and finds the pointers in each frame: early, when there are few frames, this
// takes less than a microsecond; in the depth of a call it takes several, and twice if the stack
// is doubled twice.
//
//go:noinline
func GrowStack() {
	if never {
		var room [stackRoom]byte
		fill(&room)
	}
}

// never is false, which the compiler does not know: GrowStack has a large frame, and does not use it.
var never bool

//go:noinline
func fill(room *[stackRoom]byte) {
	for i := range room {
		room[i] = 1
	}
}
