package pusher

import (
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// state is what the protocol knows of a connection. It is stored with hub.Conn.Attach and replaced
// as a whole.
type state struct {
	userData string // with which the client has signed in, or ""
	toUser   string // the user whose events the client has subscribed to, or ""
}

func stateOf(c *hub.Conn) state {
	s, _ := c.Attached().(state)
	return s
}

// infoOf returns the field user_info of the data of a user, or nil.
func infoOf(userData string) (info []byte) {
	_ = jsvalue.Fields([]byte(userData), func(name, value []byte) {
		if string(name) == "user_info" {
			info = value
		}
	})
	return info
}

// signIn handles pusher:signin. A client that fails is not to try again.
func (p *protocol) signIn(c *hub.Conn, m *message) {
	var auth, userData string
	texts := true
	err := fieldsOf(m.data, func(name string, value []byte) {
		is := true
		switch name {
		case "auth":
			auth, is = jsvalue.Text(value)
		case "user_data":
			userData, is = jsvalue.Text(value)
		}
		texts = texts && is
	})
	if err != nil || !texts {
		p.endSignIn(c, "data must have the strings auth and user_data")
		return
	}
	if !p.credential(auth, userText(c.ID(), userData)) {
		p.parts.Notices.Warn("pusher: the signature of a sign-in was refused", "")
		p.endSignIn(c, "the signature is not valid: it must be that of {socket_id}::user::{user_data}")
		return
	}
	id := ""
	err = jsvalue.Fields([]byte(userData), func(name, value []byte) {
		if string(name) == "id" {
			id, _ = jsvalue.Text(value)
		}
	})
	if err != nil || pusherform.CheckUser(id) != nil {
		p.endSignIn(c, "user_data must be a JSON object whose id is a string of 1 to 128 bytes")
		return
	}
	if !c.SetUser(id) {
		p.endSignIn(c, "the connection belongs to another user")
		return
	}
	// After SetUser, a ban that is made now finds the connection.
	if reason, banned := p.parts.Banned(id); banned {
		p.endSignIn(c, reason)
		return
	}
	s := stateOf(c)
	s.userData = userData
	c.Attach(s)
	reply(c, eventSignedIn, "", jsvalue.Object(nil).Text("user_data", userData))
}

func (p *protocol) endSignIn(c *hub.Conn, reason string) {
	p.fail(c, codeRefused, reason, "")
	c.Close(hub.CloseRemoved, reason)
}
