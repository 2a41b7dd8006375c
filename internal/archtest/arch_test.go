package archtest_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// file is one Go file of the tree.
type file struct {
	path    string // from the root, with slashes
	pkg     string // directory
	imports []string
	lines   int
	test    bool
	made    bool // generated
	ast     *ast.File
	fset    *token.FileSet
}

const module = "kilonova/"

func load(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if n := d.Name(); rel != "." && (strings.HasPrefix(n, ".") || n == "node_modules" || n == "testdata" || rel == "state" || rel == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		tree, err := parser.ParseFile(fset, p, src, parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{path: rel, pkg: path.Dir(rel), lines: bytes.Count(src, []byte("\n")), test: strings.HasSuffix(rel, "_test.go"), made: ast.IsGenerated(tree), ast: tree, fset: fset}
		for _, i := range tree.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files were found: the walk is broken", len(out))
	}
	return out
}

// ours gives an import as a path from the root, or "".
func ours(imp string) string {
	if rest, ok := strings.CutPrefix(imp, module); ok {
		return rest
	}
	return ""
}

var services = []string{"identity", "image", "network", "placement", "volume"}

func TestServicesMeetOnlyAtTheirInterfaces(t *testing.T) {
	room := regexp.MustCompile(`^internal/([a-z]+)/(api|local|remote|dataplane|store|candidate)(/|$)`)
	for _, f := range load(t) {
		if f.test || strings.HasPrefix(f.pkg, "internal/app") || strings.HasPrefix(f.pkg, "cmd/") || strings.HasPrefix(f.pkg, "test/") || f.pkg == "internal/sim" || f.pkg == "internal/doctor" {
			continue
		}
		for _, i := range f.imports {
			m := room.FindStringSubmatch(ours(i))
			if m == nil || !slices.Contains(services, m[1]) || strings.HasPrefix(f.pkg, "internal/"+m[1]+"/") || f.pkg == "internal/"+m[1] {
				continue
			}
			t.Errorf("%s imports %s: other parts use a service only through the interface at internal/%s, so that a real OpenStack service can stand behind it", f.path, i, m[1])
		}
	}
}

func TestNothingImportsUpward(t *testing.T) {
	level := func(pkg string) int {
		switch {
		case strings.HasPrefix(pkg, "cmd/"), strings.HasPrefix(pkg, "test/"):
			return 9
		case pkg == "internal/app", pkg == "internal/sim":
			return 8
		case pkg == "internal/doctor":
			return 7
		case pkg == "internal/fault", pkg == "internal/clock", pkg == "internal/id":
			return 0
		case pkg == "internal/auth", pkg == "internal/config":
			return 1
		case pkg == "internal/db", strings.HasPrefix(pkg, "internal/bus"), pkg == "internal/policy":
			return 2
		case pkg == "internal/operation", pkg == "internal/httpapi":
			return 3
		}
		return 5
	}
	for _, f := range load(t) {
		if f.test || strings.HasSuffix(f.pkg, "test") {
			continue
		}
		for _, i := range f.imports {
			if to := ours(i); to != "" && level(to) > level(f.pkg) {
				t.Errorf("%s imports %s: the lower part would depend on the higher one", f.path, i)
			}
		}
	}
}

func TestPureParts(t *testing.T) {
	forbidden := []string{"database/sql", "net", "net/http", "os", "os/exec", module + "internal/db", module + "internal/bus", module + "internal/clock", module + "internal/operation"}
	pure := func(pkg string) bool {
		return pkg == "internal/compute" || pkg == "internal/policy" || pkg == "internal/placement/candidate" || strings.HasPrefix(pkg, "internal/compute/scheduler")
	}
	seen := 0
	for _, f := range load(t) {
		if f.test || !pure(f.pkg) {
			continue
		}
		seen++
		for _, i := range f.imports {
			if slices.Contains(forbidden, i) {
				t.Errorf("%s imports %s: decisions have no input or output, so that a million cases a minute can be tested", f.path, i)
			}
		}
	}
	if seen == 0 {
		t.Error("no pure part was found: the rule looks in the wrong place")
	}
}

func TestOwnersOfRows(t *testing.T) {
	rules := []struct{ tables, owner string }{
		{`(?i)(INSERT INTO|UPDATE|DELETE FROM)\s+operation(s|_steps)\b`, "internal/operation"},
		{`(?i)(INSERT INTO|UPDATE|DELETE FROM)\s+placement_allocations\b`, "internal/placement/local"},
	}
	for _, f := range load(t) {
		if f.test || f.pkg == "internal/archtest" {
			continue
		}
		src, err := os.ReadFile(filepath.Join("..", "..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if f.pkg != r.owner && regexp.MustCompile(r.tables).Match(src) {
				t.Errorf("%s writes rows that only %s may write", f.path, r.owner)
			}
		}
	}
}

func TestDriversAndAgent(t *testing.T) {
	for _, f := range load(t) {
		if f.test {
			continue
		}
		for _, i := range f.imports {
			to := ours(i)
			driver := regexp.MustCompile(`^internal/compute/virt/[a-z]+`).MatchString(to) && !strings.HasPrefix(to, "internal/compute/virt/virttest")
			inDriver := strings.HasPrefix(f.pkg, "internal/compute/virt/")
			if driver && !inDriver && f.pkg != "internal/compute/agent" && f.pkg != "internal/app" && f.pkg != "cmd/kilonova" && !strings.HasPrefix(f.pkg, "test/") {
				t.Errorf("%s imports the driver %s: only agents and the composition root know drivers", f.path, i)
			}
			if f.pkg == "internal/compute/agent" && to == "internal/compute/store" {
				t.Errorf("%s imports the store: a host reaches the database only through a conductor", f.path)
			}
		}
	}
}

func TestNamesAndComments(t *testing.T) {
	doc := map[string]bool{}
	name := map[string]string{}
	for _, f := range load(t) {
		if f.test {
			continue
		}
		name[f.pkg] = f.ast.Name.Name
		if f.ast.Doc != nil && (strings.HasPrefix(f.ast.Doc.Text(), "Package ") || strings.HasPrefix(f.ast.Doc.Text(), "Command ")) {
			doc[f.pkg] = true
		}
	}
	for pkg, n := range name {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "base", "misc"}, n) {
			t.Errorf("package %s is called %s, which says nothing", pkg, n)
		}
		if !doc[pkg] {
			t.Errorf("package %s has no comment that says what it is and what it promises", pkg)
		}
	}
}

func TestSizes(t *testing.T) {
	total := map[string]int{}
	for _, f := range load(t) {
		if f.made {
			continue
		}
		if f.lines > 600 {
			t.Errorf("%s has %d lines; beyond 600 a file wants dividing by meaning", f.path, f.lines)
		}
		if !f.test {
			total[f.pkg] += f.lines
		}
	}
	for pkg, n := range total {
		if n > 4000 {
			t.Errorf("package %s has %d lines; beyond 4,000 it wants dividing", pkg, n)
		}
	}
}

func TestNoWorkInInitAndNothingUnfinished(t *testing.T) {
	unfinished := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, f := range load(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.test {
				t.Errorf("%s has an init function: nothing may happen before main", f.path)
			}
		}
		for _, c := range f.ast.Comments {
			if unfinished.MatchString(c.Text()) {
				t.Errorf("%s: %s: unfinished work belongs into docs/status.md, with the proper error in the code", f.fset.Position(c.Pos()), strings.TrimSpace(c.Text()))
			}
		}
	}
}
