package backend

import (
	"context"
	"time"

	"github.com/gopushy/pushy/internal/calls"
)

// Ban is a ban of a user or a channel that stands.
type Ban struct {
	Target string // as in Kick
	Reason string
	Since  time.Time // when it was made, or made longer or shorter
	Until  time.Time
}

// banPage is the number of bans that are requested at once, the largest that is allowed.
const banPage = 1000

// Bans returns the bans that stand, sorted by target. It makes a call for each 1,000 of them. The
// errors are those of ListChannels, and come with the bans that were read before.
func (c *Client) Bans(ctx context.Context) ([]Ban, error) {
	var list []Ban
	for page, err := range pages("", func(after string) (calls.BansAnswer, string, error) {
		answer, err := query[calls.BansAnswer](ctx, c, "bans", calls.Bans{
			Page: Page{
				After: after,
				Limit: banPage,
			}.body(),
		})
		return answer, answer.Next, err
	}) {
		for _, b := range page.Bans {
			list = append(list, Ban{
				Target: b.Target,
				Reason: b.Reason,
				Since:  time.Unix(b.Since, 0),
				Until:  time.Unix(b.Until, 0),
			})
		}
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

// Unban ends the ban of a target, which is "user:" and a Conn.UserID or "channel:" and the name of a
// channel. It returns false if there is no ban, or if an earlier call has lifted it: then it only
// notifies the nodes again. Nodes that could not be reached end the ban when they read the list
// next, within 30 s. The errors are those of Kick.
func (c *Client) Unban(ctx context.Context, target string) (nodes Coverage, lifted bool, err error) {
	if err := validUTF8("target", target); err != nil {
		return Coverage{}, false, failed("unban", err)
	}
	err = change(ctx, c, "unban", "", calls.Unban{Target: target}, func(a calls.UnbanAnswer) {
		lifted = lifted || a.Lifted // the first try can have lifted it
		nodes = coverage(a.Coverage)
	})
	return nodes, lifted, err
}
