package sockjs

// Line is the connection of a stream.
type Line = line

// WrapLines makes streams use what wrap returns.
func (h *Handler) WrapLines(wrap func(Line) Line) { h.wrap = wrap }
