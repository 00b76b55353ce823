package pusher

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
	"github.com/gopushy/pushy/internal/seam"
)

// Attributes of channels that a request can ask for.
const (
	attributeUsers         = "user_count"
	attributeSubscriptions = "subscription_count"
	attributeCache         = "cache"
)

// attributes parses the parameter info.
func attributes(info string, known ...string) (list []string, why *refused) {
	for name := range strings.SplitSeq(info, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
		case !slices.Contains(known, name):
			return nil, refuseAPI(http.StatusBadRequest, "info: there is no attribute %q", name)
		default:
			list = append(list, name)
		}
	}
	return list, nil
}

var errNotList = errors.New("is not a list")

// elementsOf returns the elements of a JSON list.
func elementsOf(list []byte) (elements []json.RawMessage, err error) {
	if jsvalue.Kind(list) != '[' {
		return nil, errNotList
	}
	err = json.Unmarshal(list, &elements)
	return elements, err
}

// stringsOf returns the elements of a JSON list of strings. It is nil if there is no list.
func stringsOf(list []byte) ([]string, error) {
	if list == nil || string(list) == "null" {
		return nil, nil
	}
	elements, err := elementsOf(list)
	if err != nil {
		return nil, err
	}
	texts := make([]string, 0, len(elements))
	for _, element := range elements {
		text, is := jsvalue.Text(element)
		if !is {
			return nil, errNotList
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// info returns the attributes of a channel that apply to it.
func (a *Adapter) info(c *call, channel string, wanted []string) (map[string]any, *refused) {
	shown := map[string]any{}
	for _, name := range wanted {
		switch {
		case name == attributeSubscriptions:
			counts, why := a.count(c, []string{channel})
			if why != nil {
				return nil, why
			}
			shown[name] = counts[0]
		case name == attributeUsers && pusherform.IsPresence(channel):
			users, why := a.users(c, channel)
			if why != nil {
				return nil, why
			}
			shown[name] = len(users)
		}
	}
	return shown, nil
}

// count returns the numbers of subscribers of channels on all nodes.
func (a *Adapter) count(c *call, channels []string) ([]uint64, *refused) {
	counts, silent, err := a.parts.CountSubscribers(c.request.Context(), channels)
	c.silence(silent)
	if err != nil {
		return nil, unavailable("the other nodes cannot be asked")
	}
	return counts, nil
}

func (c *call) silence(nodes []string) {
	for _, node := range nodes {
		if !slices.Contains(c.silent, node) {
			c.silent = append(c.silent, node)
		}
	}
}

// users returns the ids of the users in a presence channel.
func (a *Adapter) users(c *call, channel string) ([]string, *refused) {
	var ids []string
	seen := map[string]bool{}
	for after := ""; ; {
		page, next, silent, err := a.parts.ListMembers(c.request.Context(), channel, after)
		c.silence(silent)
		if err != nil {
			return nil, unavailable("the other nodes cannot be asked")
		}
		for _, m := range page {
			id := memberOf(&hub.Member{
				ID:   m.ID,
				User: m.User,
				Data: m.JSON,
			}).id
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		if next == "" {
			return ids, nil
		}
		after = next
	}
}

// listChannels handles GET channels.
func (a *Adapter) listChannels(c *call) (any, *refused) {
	prefix := c.params["filter_by_prefix"]
	wanted, why := attributes(c.params["info"], attributeUsers, attributeSubscriptions)
	switch {
	case why != nil:
		return nil, why
	case slices.Contains(wanted, attributeUsers) && !pusherform.IsPresence(prefix):
		return nil, refuseAPI(http.StatusBadRequest, "user_count needs filter_by_prefix=presence-")
	case prefix != "" && !channelPattern.MatchString(prefix):
		return nil, refuseAPI(http.StatusBadRequest, "filter_by_prefix is not the beginning of the name of a channel")
	}
	var found []seam.ListedChannel
	for after := ""; ; {
		page, next, silent, err := a.parts.ListChannels(c.request.Context(), prefix, after)
		c.silence(silent)
		if err != nil {
			return nil, unavailable("the other nodes cannot be asked")
		}
		for _, ch := range page {
			if channelPattern.MatchString(ch.Name) {
				found = append(found, ch)
			}
		}
		if next == "" {
			break
		}
		after = next
	}
	channels := map[string]map[string]any{}
	for _, ch := range found {
		shown := map[string]any{}
		if slices.Contains(wanted, attributeSubscriptions) {
			shown[attributeSubscriptions] = ch.Subscribers
		}
		if slices.Contains(wanted, attributeUsers) {
			users, why := a.users(c, ch.Name)
			if why != nil {
				return nil, why
			}
			shown[attributeUsers] = len(users)
		}
		channels[ch.Name] = shown
	}
	return map[string]any{"channels": channels}, nil
}

// showChannel handles GET channels/{name}.
func (a *Adapter) showChannel(c *call) (any, *refused) {
	if err := a.checkChannel(c.name); err != nil {
		return nil, refuseAPI(http.StatusBadRequest, "the channel %v", err)
	}
	wanted, why := attributes(c.params["info"], attributeUsers, attributeSubscriptions, attributeCache)
	switch {
	case why != nil:
		return nil, why
	case slices.Contains(wanted, attributeUsers) && !pusherform.IsPresence(c.name):
		return nil, refuseAPI(http.StatusBadRequest, "user_count: the channel has no presence")
	case slices.Contains(wanted, attributeCache) && !isCache(c.name):
		return nil, refuseAPI(http.StatusBadRequest, "cache: the channel is no cache channel")
	}
	counts, why := a.count(c, []string{c.name})
	if why != nil {
		return nil, why
	}
	if counts[0] == 0 {
		return map[string]any{"occupied": false}, nil
	}
	shown, why := a.info(c, c.name, wanted)
	if why != nil {
		return nil, why
	}
	shown["occupied"] = true
	if slices.Contains(wanted, attributeCache) {
		cached, why := a.cached(c)
		if why != nil {
			return nil, why
		}
		if cached != nil {
			shown[attributeCache] = cached
		}
	}
	return shown, nil
}

// cached returns the event of a cache channel, or nil.
func (a *Adapter) cached(c *call) (map[string]any, *refused) {
	policy, err := a.hub.PolicyOf(c.name)
	if err != nil {
		return nil, unavailable("the channel is not known")
	}
	page, err := a.hub.History(c.request.Context(), c.name, broker.Range{
		Before: 1 << 62,
		Limit:  1,
	})
	switch {
	case errors.Is(err, hub.ErrNotKept):
		return nil, nil
	case err != nil:
		return nil, unavailable("the event of the channel cannot be read")
	case len(page.Entries) == 0:
		return nil, nil
	}
	e := &page.Entries[len(page.Entries)-1]
	left := policy.Keep.TTL - a.parts.Now().Sub(e.Time)
	return map[string]any{
		"data": string(pusherform.Content(e.Data)),
		"ttl":  int(max(left, 0) / time.Second),
	}, nil
}

// listUsers handles GET channels/{name}/users.
func (a *Adapter) listUsers(c *call) (any, *refused) {
	switch err := a.checkChannel(c.name); {
	case err != nil:
		return nil, refuseAPI(http.StatusBadRequest, "the channel %v", err)
	case !pusherform.IsPresence(c.name):
		return nil, refuseAPI(http.StatusBadRequest, "the channel has no presence")
	}
	ids, why := a.users(c, c.name)
	if why != nil {
		return nil, why
	}
	users := make([]map[string]string, 0, len(ids))
	for _, id := range ids {
		users = append(users, map[string]string{"id": id})
	}
	return map[string]any{"users": users}, nil
}

// terminate handles POST users/{id}/terminate_connections.
func (a *Adapter) terminate(c *call) (any, *refused) {
	if err := pusherform.CheckUser(c.name); err != nil {
		return nil, refuseAPI(http.StatusBadRequest, "the id of the user %v", err)
	}
	kicked, err := a.srv.Kick(c.request.Context(), pushy.Kick{
		Target: "user:" + c.name,
		Reason: "Terminated",
	})
	c.silence(kicked.Silent)
	if err != nil {
		return nil, unavailable("the other nodes cannot be asked")
	}
	return struct{}{}, nil
}
