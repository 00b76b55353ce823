package pushy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A script is a play written by hand, one line an entry: "A ev {…}" is a frame
// that client A got, "A ev@channel {…}" a channel event, "A leaves channel" the
// moment before it left. "say by n" is a whole accepted publish at that moment;
// "say by n -A" leaves A out.
func orderScript(t *testing.T, text string) *orderLog {
	t.Helper()
	p := &orderLog{}
	tapes := map[string]*tape{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if words[0] == "say" {
			rest := strings.Fields(words[2])
			except := ""
			if len(rest) > 1 && rest[1] != "refused" {
				except = rest[1][1:]
			}
			s := p.shout("c", words[1], int(rest[0][0]-'0'), except)
			p.answered(s, !strings.Contains(words[2], "refused"))
			continue
		}
		who := tapes[words[0]]
		if who == nil {
			who = p.tape(words[0])
			tapes[words[0]] = who
		}
		if words[1] == "leaves" {
			who.leaves(p.now(), words[2])
			continue
		}
		event, channel, _ := strings.Cut(words[1], "@")
		require.True(t, json.Valid([]byte(words[2])), "line %s", line)
		who.got(p.now(), frame{Event: event, Channel: channel, Data: json.RawMessage(words[2])})
	}
	return p
}

const (
	successA  = `A pushy:subscription-success {"channel":"c","memberId":"a"}`
	successB  = `B pushy:subscription-success {"channel":"c","memberId":"b","presence":[{"memberId":"a"},{"memberId":"b"}]}`
	syncA     = `A pushy:presence-sync@c {"presence":[{"memberId":"a"}]}`
	addBtoA   = `A pushy:presence-add@c {"member":{"memberId":"b"}}`
	say1      = "say p 1"
	heard1A   = `A ev@c {"by":"p","n":1}`
	heard1B   = `B ev@c {"by":"p","n":1,"of":"a"}`
	say2      = "say p 2"
	heard2A   = `A ev@c {"by":"p","n":2}`
	heard2B   = `B ev@c {"by":"p","n":2}`
	successC  = `C pushy:subscription-success {"channel":"c","memberId":"x","presence":[{"memberId":"a"},{"memberId":"b"},{"memberId":"x"}]}`
	addCtoA   = `A pushy:presence-add@c {"member":{"memberId":"x"}}`
	addCtoB   = `B pushy:presence-add@c {"member":{"memberId":"x"}}`
	leavesA   = "A leaves c"
	endA      = `A pushy:subscription-end {"channel":"c"}`
	quitAtoB  = `B pushy:presence-quit@c {"member":{"memberId":"a"}}`
	quitAtoC  = `C pushy:presence-quit@c {"member":{"memberId":"a"}}`
	say3      = "say p 3 -C"
	heard3B   = `B ev@c {"by":"p","n":3}`
	leavesB   = "B leaves *"
	quitBtoC  = `C pushy:presence-quit@c {"member":{"memberId":"b"}}`
	sayNo     = "say q 1 refused"
	goodStory = successA + "\n" + syncA + "\n" + addBtoA + "\n" + successB + "\n" + say1 + "\n" + heard1A + "\n" + heard1B + "\n" +
		say2 + "\n" + heard2A + "\n" + heard2B + "\n" + addCtoA + "\n" + addCtoB + "\n" + successC + "\n" + leavesA + "\n" + endA + "\n" +
		quitAtoB + "\n" + quitAtoC + "\n" + say3 + "\n" + heard3B + "\n" + leavesB + "\n" + quitBtoC + "\n" + sayNo
)

// The checker must be able to fail, at each of its rules.
func TestOrderCheckerSeesEveryRule(t *testing.T) {
	t.Parallel()
	require.Empty(t, orderScript(t, goodStory).check(true), "the good story is broken")
	for _, c := range []struct {
		name     string
		old, new string
		broken   string
	}{
		{"eventBeforeSuccess", successB + "\n" + say1, heard1B + "\n" + successB + "\n" + say1, "outside of a membership"},
		{"eventAfterEnd", endA, endA + "\n" + heard2A, "outside of a membership"},
		{"presenceAfterEnd", endA, endA + "\n" + addCtoA, "outside of a membership"},
		{"endWithoutSuccess", successA + "\n", endA + "\n", "an end without a success"},
		{"noEnd", endA + "\n", "", "no end for one that left"},
		{"endUnasked", leavesA + "\n", "", "an end that nobody asked for"},
		{"secondSuccess", say1, successA[:len(successA)-3] + `z"}` + "\n" + say1, "a second success"},
		{"sameMemberID", `"memberId":"x","presence"`, `"memberId":"b","presence"`, "a memberId was given twice"},
		{"notLastInOwnList", `{"memberId":"b"},{"memberId":"x"}]`, `{"memberId":"x"},{"memberId":"b"}]`, "not last in its own list"},
		{"notInOwnList", `,{"memberId":"x"}]`, `]`, "not last in its own list"},
		{"successListWrong", `[{"memberId":"a"},{"memberId":"b"},{"memberId":"x"}]`, `[{"memberId":"b"},{"memberId":"x"}]`, "members disagree before +x"},
		{"successListMisordered", `[{"memberId":"a"},{"memberId":"b"},{"memberId":"x"}]`, `[{"memberId":"b"},{"memberId":"a"},{"memberId":"x"}]`, "members disagree before +x"},
		{"syncWithoutSelf", `sync@c {"presence":[{"memberId":"a"}]}`, `sync@c {"presence":[{"memberId":"q"}]}`, "a sync without the client itself"},
		{"syncListWrong", `sync@c {"presence":[{"memberId":"a"}]}`, `sync@c {"presence":[{"memberId":"a"},{"memberId":"q"}]}`, "members disagree before +b"},
		{"syncTwice", syncA, syncA + "\n" + syncA, "a sync for a client that has a list"},
		{"syncAlone", syncA, syncA + "\n" + heard1A, "a sync was not followed by an add"},
		{"noSync", syncA + "\n", "", "an add before presence was on"},
		{"ownAdd", successB, successB + "\n" + strings.Replace(addBtoA, "A ", "B ", 1), "its own add"},
		{"ownQuit", leavesA, strings.Replace(quitAtoB, "B ", "A ", 1) + "\n" + leavesA, "its own quit"},
		{"addTwice", addCtoB, addCtoB + "\n" + addCtoB, "an add of a member that is in the list"},
		{"quitTwice", quitAtoB, quitAtoB + "\n" + quitAtoB, "a quit of a member that is not in the list"},
		{"addMissed", addCtoB + "\n", "", "members disagree before -a"},
		{"otherOrder", quitAtoC + "\n" + say3 + "\n" + heard3B + "\n" + leavesB + "\n" + quitBtoC, quitBtoC + "\n" + quitAtoC, "members disagree before -a"},
		{"quitMissedAtRest", quitBtoC + "\n", "", "at rest the list is"},
		{"memberMissedAtRest", leavesB + "\n", "", "at rest the list is"},
		{"eventMissed", heard1A + "\n", "", "missed event {c p 1}"},
		{"eventMissedBetween", leavesA, strings.Join([]string{"say p 4", `A ev@c {"by":"p","n":4}`, leavesA, "say p 3", "say p 5"}, "\n"), "missed event {c p 3}"},
		{"eventTwice", heard1A, heard1A + "\n" + heard1A, "an event twice"},
		{"eventsOutOfOrder", heard1B + "\n" + say2 + "\n" + heard2A + "\n" + heard2B, say2 + "\n" + heard2A + "\n" + heard2B + "\n" + heard1B, "out of order"},
		{"eventFromNowhere", heard1A, heard1A + "\n" + `A ev@c {"by":"z","n":1}`, "an event that nobody published"},
		{"eventRefused", sayNo, sayNo + "\n" + `C ev@c {"by":"q","n":1}`, "an event that was refused"},
		{"eventLeftOutOf", say3, say3 + "\n" + `C ev@c {"by":"p","n":3}`, "an event that it was left out of"},
		{"resyncUnasked", addCtoB, `B pushy:resync@c {}` + "\n" + addCtoB, "a resync without a reason"},
		{"eventBeforeAdd", addCtoB, `B ev@c {"by":"p","n":2,"of":"x"}` + "\n" + addCtoB, "an event of a member that is not in the list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, goodStory, c.old, "the edit does not apply")
			broken := orderScript(t, strings.Replace(goodStory, c.old, c.new, 1)).check(true)
			assert.Contains(t, strings.Join(broken, "\n"), c.broken)
		})
	}
}
