package hub

// identity returns what is equal for the connections of one user: the user id of the
// connection, otherwise the user that the signed data names. It is "" for a client without
// a user.
func (h *Hub) identity(user string, data []byte) string {
	if user != "" {
		return "id:" + user
	}
	if h.cfg.SignedUser == nil || len(data) == 0 {
		return ""
	}
	if user = h.cfg.SignedUser(data); user != "" {
		return "data:" + user
	}
	return ""
}

// identities returns all identities that a user with that id can have. SignedUser
// distinguishes the string "7" from the number 7, and a client that asks for a user does not.
func identities(user string) []string {
	return []string{"id:" + user, "data:s" + user, "data:n" + user}
}

// user is the user of a connection. It is a separate struct because many applications have
// no users.
type user struct {
	value any
	id    string

	// The connections of a user with an id form a list, under the lock of the Admission.
	next, prev *Conn
}

// User returns the value that was passed to Connect.
func (c *Conn) User() any {
	if u := c.user.Load(); u != nil {
		return u.value
	}
	return nil
}

// UserID returns the user id that was passed to Connect or SetUser, or "".
func (c *Conn) UserID() string {
	if u := c.user.Load(); u != nil {
		return u.id
	}
	return ""
}
