package pushy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Issue 11, number 35: these tests hold PROTOCOL.md to the code where that needs
// no server: names, messages, codes, numbers and limits.

// protocol is PROTOCOL.md.
func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	return string(text)
}

// protocolSection returns the text of a section, or of a part of one, by its heading.
func protocolSection(t *testing.T, heading string) string {
	t.Helper()
	level, _, _ := strings.Cut(heading, " ")
	_, text, found := strings.Cut(protocol(t), "\n"+heading+"\n")
	require.True(t, found, "no heading %s", heading)
	for _, end := range []string{"##", "###"} {
		if len(end) <= len(level) {
			text, _, _ = strings.Cut(text, "\n"+end+" ")
		}
	}
	return text
}

// tableRows returns the cells of all table rows in a text, without the heads.
func tableRows(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
		case strings.HasPrefix(line, "|---"):
			rows = rows[:len(rows)-1]
		default:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

// span is a code span, and in it what a code or message is.
var span = regexp.MustCompile("`([^`]+)`")

func spans(cell string) (all []string) {
	for _, m := range span.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

// visibleTexts are the strings of Go sources that are sent to clients, each with … in place of what is not constant. They are the arguments of the funcs
// named, and the fields of the types named.
func visibleTexts(t *testing.T, sources, funcs, types []string) map[string]bool {
	t.Helper()
	texts := map[string]bool{}
	add := func(e ast.Expr) {
		if text := constantText(e); strings.Trim(text, "…") != "" {
			texts[text] = true
		}
	}
	for _, file := range goFiles(t, sources...) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if slices.Contains(funcs, lastName(n.Fun)) {
					for _, arg := range n.Args {
						add(arg)
					}
				}
			case *ast.CompositeLit:
				if slices.Contains(types, lastName(n.Type)) {
					for _, element := range n.Elts {
						if field, is := element.(*ast.KeyValueExpr); is {
							element = field.Value
						}
						add(element)
					}
				}
			}
			return true
		})
	}
	return texts
}

// goFiles are the Go sources that match patterns, such as "internal/hub/*.go", without tests.
func goFiles(t *testing.T, patterns ...string) (files []*ast.File) {
	t.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			require.NoError(t, err)
			files = append(files, file)
		}
	}
	return files
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// constantText is a string expression, with … for each part that is not constant.
func constantText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		return strings.ReplaceAll(constantText(e.X)+constantText(e.Y), "……", "…")
	case *ast.CallExpr:
		if lastName(e.Fun) == "Sprintf" {
			return regexp.MustCompile(`%\w`).ReplaceAllString(constantText(e.Args[0]), "…")
		}
	}
	return "…"
}

// Every pushy: event that the server sends is in the document, with an example,
// and the document names no other.
func TestProtocolListsEveryEvent(t *testing.T) {
	t.Parallel()
	const ownPing = "pushy:ping" // a command of our client that no server knows
	name := regexp.MustCompile(`^pushy:[a-z]+(-[a-z]+)*$`)
	sent, commands := map[string]bool{}, map[string]bool{}
	for _, file := range goFiles(t, "internal/protocol/pushyjson/*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			if entry, is := n.(*ast.KeyValueExpr); is && name.MatchString(constantText(entry.Key)) {
				commands[constantText(entry.Key)] = true // in the table of commands
			}
			if text, is := n.(*ast.BasicLit); is && name.MatchString(constantText(text)) {
				sent[constantText(text)] = true
			}
			return true
		})
	}
	for command := range commands {
		delete(sent, command)
		assert.Contains(t, protocol(t), `"command":"`+command+`"`)
	}
	require.GreaterOrEqual(t, len(sent), 11)
	listed := map[string]bool{}
	for _, row := range tableRows(protocolSection(t, "### Events that the server sends")) {
		example := spans(row[2])
		require.Len(t, example, 1, "%s", row)
		var message map[string]any
		require.NoError(t, json.Unmarshal([]byte(example[0]), &message), "%s", example)
		if event := spans(row[0]); len(event) == 1 {
			listed[event[0]] = true
			assert.Equal(t, event[0], message["event"])
		}
		_, channel := message["channel"]
		assert.Equal(t, row[1] == "channel", channel, "%s", row)
	}
	assert.Equal(t, sent, listed)
	streams := map[string]bool{}
	for _, file := range goFiles(t, "sse/*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			if text, is := n.(*ast.BasicLit); is && name.MatchString(constantText(text)) {
				streams[constantText(text)] = true
			}
			return true
		})
	}
	section := protocolSection(t, "## 16. Server-Sent Events")
	for _, row := range tableRows(section) {
		if event := spans(row[0]); len(event) == 1 && name.MatchString(event[0]) {
			assert.True(t, streams[event[0]], "streams do not have %s", event[0])
		}
	}
	for event := range streams {
		if !sent[event] || event == "pushy:drain" || event == "pushy:return" || event == "pushy:dropped" {
			assert.Contains(t, section, "`"+event+"`")
		}
	}
	for _, named := range regexp.MustCompile(`pushy:[a-z]+(-[a-z]+)*`).FindAllString(protocol(t), -1) {
		assert.True(t, sent[named] || commands[named] || streams[named] || named == ownPing, "the document names %s", named)
	}
}

// The table of error codes is the code's, and so are the reasons.
func TestProtocolListsEveryError(t *testing.T) {
	t.Parallel()
	sent := map[string]bool{} // a code can have several messages
	for _, file := range goFiles(t, "internal/protocol/pushyjson/*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			literal, is := n.(*ast.CompositeLit)
			if is && lastName(literal.Type) == "Error" && len(literal.Elts) == 2 {
				if message := constantText(literal.Elts[1]); !strings.Contains(message, "…") {
					sent[constantText(literal.Elts[0])+" "+message] = true
				}
			}
			return true
		})
	}
	require.GreaterOrEqual(t, len(sent), 13)
	listed := map[string]bool{}
	for _, row := range tableRows(protocolSection(t, "### Error codes")) {
		code, message := spans(row[0]), spans(row[1])
		if len(code) == 0 || code[0] == `"400"` { // the host's, and those of typed commands
			continue
		}
		listed[strings.Trim(code[0], `"`)+" "+message[0]] = true
	}
	assert.Equal(t, sent, listed)

	reasons := joinReasons(t)
	require.Len(t, reasons, 6)
	table := protocolSection(t, "### What subscribe and unsubscribe answer")
	for _, reason := range reasons {
		assert.Contains(t, table, "reason `"+reason+"`")
	}
	named := regexp.MustCompile("reason `([^`]+)`").FindAllStringSubmatch(protocol(t), -1)
	require.NotEmpty(t, named)
	for _, m := range named {
		assert.Contains(t, reasons, m[1], "the document names a reason that is not sent")
	}
}

// joinReasons are the reasons of pushy:subscription-failed.
func joinReasons(t *testing.T) (reasons []string) {
	t.Helper()
	for _, file := range goFiles(t, "internal/protocol/pushyjson/*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, is := n.(*ast.ValueSpec)
			if !is {
				return true
			}
			for i, value := range spec.Values {
				if strings.HasPrefix(strings.ToLower(spec.Names[i].Name), "reason") {
					reasons = append(reasons, constantText(value))
				}
			}
			return true
		})
	}
	return reasons
}

// The messages of the HTTP endpoints are in the document word by word, and those of
// its tables are sent.
func TestProtocolListsEveryMessageOfHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sources      []string
		funcs, types []string
		headings     []string
		column       int      // of the messages, -1 where they are not in a table of their own
		elsewhere    []string // messages of the table that come from other packages
	}{
		{
			sources:  []string{"internal/httpapi/trigger.go", "internal/httpapi/body.go", "internal/httpapi/answer.go"},
			funcs:    []string{"bad", "Refuse"},
			headings: []string{"### Answers"},
			column:   2,
			elsewhere: []string{
				"Body too large",
				"Service unavailable",
				"Too many events",
				"Content-Type must be JSON or application/x-www-form-urlencoded",
				"Event too large for the broker",
				"Invalid channel name: …",
				"Invalid event name: …",
				"Ok",
				"Too many triggers with an id in 20 minutes: this server remembers … of them",
			},
		},
		{
			sources:  []string{"internal/httpapi/auth.go"},
			funcs:    []string{"bad", "Refuse", "Write"},
			types:    []string{"Refusal"},
			headings: []string{"## 11. The auth endpoint"},
			column:   1,
			elsewhere: []string{"authentication needed", "not authorized", "the channel is not private: it needs no token",
				"the body is over the limit of … bytes that middleware sets (http.MaxBytesHandler or http.MaxBytesReader)"},
		},
		{
			sources:  []string{"internal/transport/sockjs/*.go"},
			types:    []string{"Refusal"},
			headings: []string{"### Over HTTP", "### HTTP statuses of the endpoints under /pushy/socket"},
			column:   -1,
		},
		{
			sources:  []string{"internal/transport/websocket/*.go"},
			funcs:    []string{"bad"},
			types:    []string{"Refusal"},
			headings: []string{"### HTTP statuses of the endpoints under /pushy/socket"},
			column:   -1,
		},
		{
			sources:  []string{"internal/names/*.go"},
			headings: []string{"## 5. Names"},
			funcs:    []string{"New"},
			column:   0,
		},
	} {
		t.Run(c.sources[0], func(t *testing.T) {
			t.Parallel()
			texts := visibleTexts(t, c.sources, c.funcs, c.types)
			require.NotEmpty(t, texts)
			document := ""
			for _, heading := range c.headings {
				document += protocolSection(t, heading)
			}
			for text := range texts {
				if internalTexts[text] || strings.HasPrefix(text, "must be a plain path") {
					continue
				}
				assert.Contains(t, document, "`"+text+"`")
			}
			if c.column < 0 {
				return
			}
			for _, row := range tableRows(document) {
				if len(row) <= c.column {
					continue
				}
				for _, text := range spans(row[c.column]) {
					known := texts[text] || texts[strings.Replace(text, ": …", "…: …", 1)] || slices.Contains(c.elsewhere, text)
					if strings.Contains(text, " ") {
						assert.True(t, known, "the document has a message that is not sent: %s", text)
					}
				}
			}
		})
	}
}

// So are those of the signed API.
func TestProtocolListsEveryMessageOfTheSignedAPI(t *testing.T) {
	t.Parallel()
	forPeople := []string{"there is no call …", "the signed API is off here: Options.SecretKey is not set"}
	var listed []string // without what is not constant
	for _, row := range tableRows(protocolSection(t, "### Errors of the signed API")) {
		for _, message := range spans(row[2]) {
			listed = append(listed, strings.ReplaceAll(strings.TrimPrefix(message, "Pushy-Signature"), "…", ""))
		}
	}
	checked := 0
	sources := []string{"api*.go", "internal/httpapi/signed.go", "internal/httpapi/body.go"}
	for text := range visibleTexts(t, sources, []string{"Refuse", "RefuseRetry"}, nil) {
		if slices.Contains(forPeople, text) {
			continue
		}
		checked++
		// What is not constant can have parts that are, which the document has.
		text = strings.ReplaceAll(text, "…", "")
		assert.True(t, slices.ContainsFunc(listed, func(l string) bool { return strings.HasSuffix(l, text) }),
			"not in section 15: %s", text)
	}
	assert.Greater(t, checked, 15)
}

// internalTexts are arguments that are no messages, and messages to the operator
// of a server that is not set up.
var internalTexts = map[string]bool{
	"could not be checked": true,
	"the server is not set up for this transport: middleware hides its ResponseWriter": true,
	"a message has at most … bytes, and a body at most … messages":                     true,
	"cannot read the body": true,
	"Retry-After":          true, "1": true, "503": true, "Invalid … name: …": true,
}

// The table of close codes has every code that the server sends, and says of each
// code what our client does.
func TestProtocolListsEveryCloseCode(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("client/src/retry.js")
	require.NoError(t, err)
	rule := regexp.MustCompile(`isFinal = \(code\) => /(.+)/\.test\(`).FindStringSubmatch(string(source))
	require.NotNil(t, rule)
	final := regexp.MustCompile(rule[1])

	table := protocolSection(t, "### Close codes")
	listed := map[int]bool{} // whether a client reconnects
	single := map[int]bool{} // rows of one code win over ranges
	for _, row := range tableRows(table) {
		codes := regexp.MustCompile(`\d+`).FindAllString(row[0], -1)
		require.Contains(t, []string{"yes", "no"}, row[3], "%s", row)
		first, last := number(t, codes[0]), number(t, codes[len(codes)-1])
		grace := first != 1000 && first != 1008 && (first < 3500 || first > 3999) // see TestEndsWithAndWithoutGrace
		assert.Equal(t, map[bool]string{true: "yes", false: "no"}[grace], row[4], "%s", row)
		if !strings.Contains(row[0], " to ") {
			for _, code := range codes {
				listed[number(t, code)], single[number(t, code)] = row[3] == "yes", true
			}
			continue
		}
		for code := first; code <= last; code++ {
			if !single[code] {
				listed[code] = row[3] == "yes"
			}
		}
	}
	for code, reconnect := range listed {
		if ours := !final.MatchString(strconv.Itoa(code)); ours != reconnect {
			t.Errorf("code %d: the document says %t, and our client does %t", code, reconnect, ours)
		}
	}
	for code := 1000; code < 1016; code++ {
		if code != 1004 { // reserved
			assert.Contains(t, listed, code)
		}
	}
	for code := 3000; code < 5000; code++ {
		if _, is := listed[code]; !is {
			t.Errorf("code %d is not in the table", code)
		}
	}
	codeName := regexp.MustCompile(`^[cC](ode|lose)[A-Z]`)
	constants := 0
	for _, directory := range []string{".", "internal/fanout", "internal/hub", "internal/session", "internal/transport/websocket"} {
		for _, file := range goFiles(t, directory+"/*.go") {
			ast.Inspect(file, func(n ast.Node) bool {
				value, is := n.(*ast.ValueSpec)
				if !is || len(value.Values) != 1 || !codeName.MatchString(value.Names[0].Name) {
					return true
				}
				if literal, is := value.Values[0].(*ast.BasicLit); is && literal.Kind == token.INT {
					constants++
					assert.True(t, single[number(t, literal.Value)], "%s = %s", value.Names[0].Name, literal.Value)
				}
				return true
			})
		}
	}
	assert.Greater(t, constants, 8)
	for _, reason := range []string{
		"server shutting down", "slow consumer", "server buffers full", "too many requests", "too many messages waiting",
		"message too big", "message is not UTF-8", "Broken framing.", "Another connection still open",
	} {
		assert.Contains(t, table, "`"+reason+"`")
		assert.True(t, sourcesContain(t, strconv.Quote(reason)), "no source has the reason %s", reason)
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func sourcesContain(t *testing.T, text string) bool {
	t.Helper()
	for _, pattern := range []string{"*.go", "internal/*/*.go", "internal/*/*/*.go"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			source, err := os.ReadFile(path)
			require.NoError(t, err)
			if !strings.HasSuffix(path, "_test.go") && bytes.Contains(source, []byte(text)) {
				return true
			}
		}
	}
	return false
}

// The defaults of the table of limits are those that Options document.
func TestProtocolLimitsAreTheOptions(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{} // by the option's name
	word := regexp.MustCompile(`[Dd]efault:? ((\d[\d,]*\d|\d)( [KM]iB| s)?|off)`)
	for _, file := range goFiles(t, "*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			declared, is := n.(*ast.TypeSpec)
			prefix := map[string]string{"Options": "Options.", "Limits": "Limits.", "SockJS": "Options.SockJS."}
			if !is || prefix[declared.Name.Name] == "" {
				return true
			}
			structure, is := declared.Type.(*ast.StructType)
			if !is {
				return true
			}
			for _, field := range structure.Fields.List {
				comment := strings.Join(strings.Fields(field.Doc.Text()+" "+field.Comment.Text()), " ")
				if m := word.FindStringSubmatch(comment); m != nil && len(field.Names) == 1 {
					defaults[prefix[declared.Name.Name]+field.Names[0].Name] = m[1]
				}
			}
			return true
		})
	}
	checked := 0
	for _, row := range tableRows(protocolSection(t, "### Limits")) {
		for _, option := range spans(row[2]) {
			require.Contains(t, defaults, option)
			assert.Contains(t, row[1], defaults[option], "%s", option)
			checked++
		}
	}
	assert.GreaterOrEqual(t, checked, 13)

	// And those in the text, such as 25 s (`Options.Heartbeat`).
	const value, option = `(\d[\d,]*(?: s| KiB| MiB| channels| members)?)`, `((?:Options|Limits)\.[A-Za-z.]+)`
	named := regexp.MustCompile(value + "(?: of frames)? \\(`" + option + "`")
	checked = 0
	for _, m := range named.FindAllStringSubmatch(strings.ReplaceAll(protocol(t), "\n", " "), -1) {
		require.Contains(t, defaults, m[2], "%s", m[0])
		assert.Equal(t, defaults[m[2]], strings.TrimSuffix(strings.TrimSuffix(m[1], " channels"), " members"), "%s", m[2])
		checked++
	}
	assert.Greater(t, checked, 9)
}

// Every difference has its number once, and whatever names a section or a
// difference names one that there is.
func TestProtocolReferencesExist(t *testing.T) {
	t.Parallel()
	text := protocol(t)
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\d+)\. `).FindAllStringSubmatch(text, -1) {
		sections[m[1]] = true
	}
	require.Len(t, sections, 16)
	differences := map[string]bool{}
	for i, row := range tableRows(protocolSection(t, "## 10. Differences from the original")) {
		assert.Equal(t, fmt.Sprintf("D%d", i+1), row[0])
		differences[row[0]] = true
	}
	require.Len(t, differences, 36)
	difference := regexp.MustCompile(`\bD[1-9]\d?\b`)
	for _, d := range difference.FindAllString(text, -1) {
		assert.True(t, differences[d], "%s", d)
	}
	for _, m := range regexp.MustCompile(`\bsections? (\d+)`).FindAllStringSubmatch(text, -1) {
		assert.True(t, sections[m[1]], "%s", m[0])
	}
	reference := regexp.MustCompile(`PROTOCOL\.md, (?:section (\d+)|(D\d+))`)
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !slices.Contains([]string{".go", ".js", ".ts", ".md"}, filepath.Ext(path)) {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(source, []byte("PROTOCOL.md")) {
			return err
		}
		// A comment may break the line within a reference.
		joined := regexp.MustCompile(`\s*\n\s*(//|\*)?\s*`).ReplaceAllString(string(source), " ")
		for _, m := range reference.FindAllStringSubmatch(joined, -1) {
			found++
			assert.True(t, m[1] == "" || sections[m[1]], "%s: %s", path, m[0])
			assert.True(t, m[2] == "" || differences[m[2]], "%s: %s", path, m[0])
		}
		return nil
	})
	require.NoError(t, err)
	assert.Greater(t, found, 20)
}

// Every JSON example is JSON.
func TestProtocolExamplesAreJSON(t *testing.T) {
	t.Parallel()
	lines := 0
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(protocol(t), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.ReplaceAll(line, `"message":…`, `"message":""`)
			assert.True(t, json.Valid([]byte(line)), "%s", line)
			lines++
		}
	}
	assert.Greater(t, lines, 10)
}

// The times that the document gives for our client are those of its sources.
func TestProtocolTimesOfTheClient(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(protocol(t), "\n", " ")
	for _, c := range []struct{ file, source, says string }{
		{"retry.js", "minDelay: min = 500, maxDelay: max = 20_000", "a random time from 0.5 s up to a bound"},
		{"retry.js", "Math.min(max, (min || 100) * 2 ** (failures + (code === busy ? 4 : 1)))", "begins at 1 s and doubles with each failure"},
		{"retry.js", "busy = 1013", "After the close code 1013 the bound begins at 8 s"},
		{"retry.js", "Math.min(3_600_000,", "at most an hour"},
		{"retry.js", "Math.min(Math.max(returnWithin, 1000), code === 1006 ? 5000 : 60_000)", "an integer from 1,000 to 60,000"},
		{"retry.js", "? Math.min(returnIn, 60_000)", "It is an integer from 0 to 60,000"},
		{"retry.js", "code === 1006 ? 5000", "without a close frame (1006), within at most 5,000"},
		{"pushy.js", "const steady = 5000;", "After a connection that lasted 5 s the count of failures begins again"},
		{"pushy.js", "const silence = 45_000;", "after 45 s without a message"},
		{"pushy.js", "const patienceForAnswer = 5000;", "if no answer arrives within 5 s"},
		{"pushy.js", "const cached = 4001;", "| 4001 | client | pushy's client"},
		{"channel.js", "const mostRefusals = 10;", "the tenth failure in a row is final"},
	} {
		source, err := os.ReadFile(filepath.Join("client", "src", c.file))
		require.NoError(t, err)
		assert.Contains(t, string(source), c.source, "the client has changed: change the document, too")
		assert.Contains(t, regexp.MustCompile(` +`).ReplaceAllString(text, " "), c.says)
	}
}
