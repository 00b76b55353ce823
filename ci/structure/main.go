// Command structure prints a page with a Mermaid diagram of the module's packages and
// their imports. An import that follows from other imports is omitted. The page also
// lists the layers: a package imports only packages of lower layers.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const module = "github.com/gopushy/pushy"

func main() {
	log.SetFlags(0)
	imports, err := read()
	if err != nil {
		log.Fatal("structure: ", err)
	}
	write(os.Stdout, imports)
}

// read returns the imports of each package. It omits the examples, the servers of the
// tests, and this command.
func read() (map[string][]string, error) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Env = append(os.Environ(), "GOWORK=off")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	imports := map[string][]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return imports, nil
		}
		if err != nil {
			return nil, err
		}
		name, ok := shown(p.ImportPath)
		if !ok {
			continue
		}
		imports[name] = []string{}
		for _, path := range p.Imports {
			if other, ok := shown(path); ok {
				imports[name] = append(imports[name], other)
			}
		}
	}
}

func shown(path string) (name string, ok bool) {
	if path == module {
		return "pushy", true
	}
	name, ok = strings.CutPrefix(path, module+"/")
	for _, other := range []string{"ci", "examples/", "test/", "internal/transport/testserver"} {
		ok = ok && !strings.HasPrefix(name, other)
	}
	return name, ok
}

func write(w io.Writer, imports map[string][]string) {
	names := slices.Sorted(maps.Keys(imports))
	var layers [][]string
	for _, name := range names {
		n := layer(imports, name)
		for len(layers) <= n {
			layers = append(layers, nil)
		}
		layers[n] = append(layers[n], name)
	}
	fmt.Fprint(w, "# Structure\n\n",
		"`make structure` writes this page. An arrow is an import; an import that follows from other imports is omitted.\n\n",
		"```mermaid\nflowchart TD\n")
	for _, name := range names {
		fmt.Fprintf(w, "    %s[\"%s\"]\n", id(name), name)
	}
	for _, name := range names {
		for _, other := range slices.Sorted(slices.Values(imports[name])) {
			if !follows(imports, name, other) {
				fmt.Fprintf(w, "    %s --> %s\n", id(name), id(other))
			}
		}
	}
	fmt.Fprint(w, "```\n\nA package imports only packages of lower rows:\n\n| layer | packages |\n|---|---|\n")
	for n, row := range slices.Backward(layers) {
		fmt.Fprintf(w, "| %d | `%s` |\n", n, strings.Join(row, "`, `"))
	}
}

func id(name string) string { return strings.NewReplacer("/", "_", "-", "_").Replace(name) }

// layer returns 0 for a package without imports, otherwise one more than the highest layer
// that it imports.
func layer(imports map[string][]string, name string) int {
	n := 0
	for _, other := range imports[name] {
		n = max(n, 1+layer(imports, other))
	}
	return n
}

// follows reports whether another import of name imports other, directly or indirectly.
func follows(imports map[string][]string, name, other string) bool {
	return slices.ContainsFunc(imports[name], func(via string) bool {
		return via != other && reaches(imports, via, other)
	})
}

func reaches(imports map[string][]string, from, to string) bool {
	return slices.ContainsFunc(imports[from], func(next string) bool {
		return next == to || reaches(imports, next, to)
	})
}
