package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// source is a package that was named, with its types.
type source struct {
	path  string
	dir   string
	types *types.Package
	info  *types.Info
	fset  *token.FileSet
	docs  map[token.Pos]string // the comments of types and fields, by the position of their names
}

// listed is a package as go list describes it.
type listed struct {
	ImportPath string
	Dir        string
	Export     string // the file that has the types of the compiled package
	GoFiles    []string
	CgoFiles   []string
	ImportMap  map[string]string
	DepOnly    bool
}

// load reads the packages that are named from their source. The packages that they import are read from what the
// compiler has written, which the go command has in its cache: that takes the same versions, build tags and
// replacements as a build does, and no time.
func load(patterns []string) ([]*source, error) {
	all, err := list(patterns)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	fset := token.NewFileSet()
	compiled := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("go list does not know the package %s", path)
		}
		return os.Open(exports[path])
	})
	var packages []*source
	for _, p := range all {
		if p.DepOnly {
			continue
		}
		s, err := check(fset, p, compiled)
		if err != nil {
			return nil, err
		}
		packages = append(packages, s)
	}
	return packages, nil
}

func list(patterns []string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{
		"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,CgoFiles,ImportMap,DepOnly", "--",
	}, patterns...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return nil, errors.New(text)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	var all []listed
	for decoder := json.NewDecoder(&stdout); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no packages: %s", strings.Join(patterns, " "))
	}
	return all, nil
}

// mapped is an importer for a package whose imports have other paths, such as vendored ones.
type mapped struct {
	types.Importer
	paths map[string]string
}

func (m mapped) Import(path string) (*types.Package, error) {
	if real, ok := m.paths[path]; ok {
		path = real
	}
	return m.Importer.Import(path)
}

func check(fset *token.FileSet, p listed, compiled types.Importer) (*source, error) {
	s := &source{
		path: p.ImportPath,
		dir:  place(p.Dir),
		fset: fset,
		docs: map[token.Pos]string{},
		info: &types.Info{
			Instances: map[*ast.Ident]types.Instance{},
			Uses:      map[*ast.Ident]types.Object{},
		},
	}
	var files []*ast.File
	for _, name := range append(p.GoFiles, p.CgoFiles...) {
		const mode = parser.ParseComments | parser.SkipObjectResolution
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, mode)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
		s.comments(file)
	}
	config := types.Config{
		Importer:    mapped{compiled, p.ImportMap},
		FakeImportC: true,
	}
	var err error
	s.types, err = config.Check(p.ImportPath, fset, files, s.info)
	return s, err
}

// comments keeps the comments of a file's types and of the fields of its structs.
func (s *source) comments(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			// The comment of a declaration of one type is that of the type.
			if len(n.Specs) == 1 && !n.Lparen.IsValid() {
				if spec, ok := n.Specs[0].(*ast.TypeSpec); ok {
					s.docs[spec.Name.Pos()] = n.Doc.Text()
				}
			}
		case *ast.TypeSpec:
			if n.Doc != nil {
				s.docs[n.Name.Pos()] = n.Doc.Text()
			}
		case *ast.Field:
			text := n.Doc.Text()
			if text == "" {
				text = n.Comment.Text()
			}
			for _, name := range n.Names {
				s.docs[name.Pos()] = text
			}
		}
		return true
	})
}

// place returns a path relative to the working directory, if it is below it.
func place(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(wd, path)
	if err != nil || relative == ".." || strings.HasPrefix(relative, ".."+string(filepath.Separator)) {
		return path
	}
	return relative
}
