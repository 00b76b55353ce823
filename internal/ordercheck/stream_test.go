package ordercheck_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/ordercheck"
)

// perform plays a script, one step a line: "send TEXT [key=K] [droppable]" and "leave" are what
// the server does, and the others what the client receives.
func perform(t *testing.T, script string) (*ordercheck.Reader, error) {
	t.Helper()
	var s ordercheck.Stream
	require.NoError(t, s.Sent("before", "", false))
	r := s.Reader()
	for line := range strings.Lines(script) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch kind {
		case "send":
			words := strings.Fields(rest)
			latest := ""
			for _, w := range words[1:] {
				if key, ok := strings.CutPrefix(w, "key="); ok {
					latest = key
				}
			}
			err = s.Sent(words[0], latest, strings.HasSuffix(rest, "droppable"))
		case "leave":
			r.Leave()
		case "success":
			err = r.Success()
		case "end":
			err = r.End()
		case "dropped":
			err = r.Dropped(json.RawMessage(rest))
		default:
			err = r.Message(kind)
		}
		if err != nil {
			return r, err
		}
	}
	return r, r.Complete()
}

const slow = `success
send a1 key=a
a1
send p1
send a2 key=a
send b1 key=b
send d1 droppable
send d2 droppable
send a3 key=a
send c1 key=c droppable
send x1
p1
b1
d1
a3
x1
dropped {"count":2}
dropped {"count":1}`

func TestReader(t *testing.T) {
	t.Parallel()
	r, err := perform(t, slow)
	require.NoError(t, err)
	assert.Equal(t, 3, r.Told)
	_, err = perform(t, strings.Replace(slow, "\ndropped {\"count\":1}", "\nleave\nsend z1\nend", 1))
	require.NoError(t, err, "an end takes the count with it")
}

// The checker must be able to fail, at each of its rules.
func TestReaderSeesEveryRule(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, broken string }{
		"presenceDropped":  {"\np1\n", "\n", "p1 was not received"},
		"eventDropped":     {"\nx1\n", "\n", "x1 was not received"},
		"newestDropped":    {"\nb1\n", "\n", "b1 was not received"},
		"oldInsteadOfNew":  {"\na3\n", "\n", "a3 was not received"},
		"oldAfterNew":      {"\na3\n", "\na3\na2\n", "a2 after a3"},
		"misordered":       {"\nb1\nd1\n", "\nd1\nb1\n", "b1 after d1"},
		"repeated":         {"\nb1\n", "\nb1\nb1\n", "b1 again"},
		"placeOfTheOld":    {"\np1\nb1\nd1\na3\n", "\np1\na3\nb1\nd1\n", "b1 after a3"},
		"toldTooFew":       {`"count":2`, `"count":1`, "3 events were not received, and the client was told of 2"},
		"toldTooMany":      {`"count":2`, `"count":3`, "told of 4"},
		"notTold":          {"\ndropped {\"count\":1}", "", "told of 2"},
		"toldOfNone":       {`"count":1`, `"count":0`, "a pushy:dropped of"},
		"beforeTheSuccess": {"success\nsend a1 key=a\na1\n", "send a1 key=a\na1\nsuccess\n", "a1 before the success"},
		"toldBefore":       {"success\n", "dropped {\"count\":1}\nsuccess\n", "before the success"},
		"noSuccess":        {slow, "send a1 key=a", "no success"},
		"twoSuccesses":     {"success\n", "success\nsuccess\n", "second success"},
		"afterTheEnd":      {"\nx1\n", "\nleave\nend\nx1\n", "x1 after the end"},
		"sentAfterTheEnd":  {"send x1\n", "leave\nsend x1\n", "sent after the end"},
		"noEnd":            {"\ndropped {\"count\":1}", "\nleave", "no end"},
		"endUnasked":       {"\ndropped {\"count\":1}", "\nend", "goes on"},
		"droppedWithTheEnd": {
			"\nx1\ndropped {\"count\":2}\ndropped {\"count\":1}", "\nleave\nend", "x1 was not received",
		},
		"toldAfterTheEnd": {"\ndropped {\"count\":1}", "\nleave\nend\ndropped {\"count\":1}", "after the end"},
		"foreign":         {"\nb1\n", "\nb1\nb9\n", "b9 was not sent"},
		"earlier":         {"\na1\n", "\nbefore\na1\n", "before after before"},
		"sentTwice":       {"send d2 droppable", "send d1 droppable", "sent twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, slow, c.old, "the edit does not apply")
			_, err := perform(t, strings.Replace(slow, c.old, c.new, 1))
			require.ErrorContains(t, err, c.broken)
		})
	}
}
