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
