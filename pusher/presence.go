package pusher

import (
	"errors"
	"strconv"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// The fields of the presence data of Pusher clients, as pushy's clients see it.
const (
	fieldUser = "user"
	fieldInfo = "user_info"
)

// channelData is what a client says about itself when it subscribes to a presence channel.
type channelData struct {
	user string
	info []byte // JSON, or nil
}

// parseChannelData parses {"user_id":…,"user_info":…}.
func parseChannelData(text string) (d channelData, err error) {
	var user []byte
	err = jsvalue.Fields([]byte(text), func(name, value []byte) {
		switch string(name) {
		case "user_id":
			user = value
		case "user_info":
			d.info = value
		}
	})
	if err != nil {
		return d, errors.New("channel_data is not a JSON object")
	}
	d.user, err = pusherform.UserID(user)
	return d, err
}

// member returns the presence data of the member.
func (d channelData) member() []byte {
	data := jsvalue.Object(nil).Text(fieldUser, d.user)
	if d.info != nil {
		data = data.Raw(fieldInfo, d.info)
	}
	return data
}

// member is a member as Pusher clients see it.
type member struct {
	id   string
	info []byte // JSON
}

// memberOf returns what Pusher clients see of a member, which can use pushy's own protocol.
func memberOf(m *hub.Member) member {
	shown := member{id: pusherform.MemberID(m.User, m.Data, m.ID)}
	rest := jsvalue.Object(nil)
	_ = jsvalue.Fields(m.Data, func(name, value []byte) {
		switch string(name) {
		case fieldUser:
		case fieldInfo:
			shown.info = value
		default:
			rest = rest.Raw(string(name), value)
		}
	})
	if shown.info == nil {
		shown.info = rest
	}
	if len(shown.info) == 0 {
		shown.info = []byte("{}") // clients lose members without a value
	}
	return shown
}

// data returns the data of the event that says that the member has joined.
func (m member) data() []byte {
	return jsvalue.Object(nil).Text("user_id", m.id).Raw("user_info", m.info)
}

// presenceData returns the data of the answer to a subscription, with the list of members.
func presenceData(members []*hub.Member) []byte {
	ids := []byte("[")
	hash := []byte("{")
	seen := make(map[string]bool, len(members))
	for _, one := range members {
		m := memberOf(one)
		if seen[m.id] {
			continue
		}
		if len(seen) > 0 {
			ids = append(ids, ',')
			hash = append(hash, ',')
		}
		seen[m.id] = true
		ids = jsvalue.AppendQuote(ids, m.id)
		hash = jsvalue.AppendQuote(hash, m.id)
		hash = append(hash, ':')
		hash = append(hash, m.info...)
	}
	ids = append(ids, ']')
	hash = append(hash, '}')
	count := strconv.AppendInt(nil, int64(len(seen)), 10)
	presence := jsvalue.Object(nil).Raw("ids", ids).Raw("hash", hash).Raw("count", count)
	return jsvalue.Object(nil).Raw("presence", presence)
}
