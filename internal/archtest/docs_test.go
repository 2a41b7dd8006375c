package archtest_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages gives the text of README.md and of everything in docs, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	var names []string
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v %v", pattern, found, err)
		}
		names = append(names, found...)
	}
	out := map[string]string{}
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.ToSlash(n)] = string(text)
	}
	return out
}

// TestPagesNameWhatIsThere: the tests that the pages name as proof, and the files and directories that they point at, exist.
func TestPagesNameWhatIsThere(t *testing.T) {
	tests := map[string][]string{} // by package
	for _, f := range load(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
				tests[f.pkg] = append(tests[f.pkg], fn.Name.Name)
			}
		}
	}
	code, target := regexp.MustCompile("`([^`\n]+)`"), regexp.MustCompile(`\]\(([^):]+)\)`)
	place := regexp.MustCompile(`^(internal|test|docs|cmd|scripts)(/[a-z0-9._-]+)+$`)
	seen := 0
	for page, text := range pages(t) {
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: the link leads nowhere: %v", page, err)
			}
		}
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			if place.MatchString(m[1]) {
				seen++
				if _, err := os.Stat(filepath.Join("..", "..", m[1])); err != nil {
					t.Errorf("%s names %s: %v", page, m[1], err)
				}
			}
			_, rest, ok := strings.Cut(m[1], "go test ")
			if !ok || strings.Contains(rest, "…") {
				continue
			}
			seen++
			if missing := named(rest, tests); missing != "" {
				t.Errorf("%s: `%s` runs no test %s", page, m[1], missing)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d places and commands were found in the pages: the patterns look for the wrong thing", seen)
	}
}

// named tells which part of the arguments of go test matches no test, "" when each does. In a table of Markdown the bar of a pattern is written \|.
func named(args string, tests map[string][]string) string {
	f := strings.Fields(strings.ReplaceAll(args, `\|`, "|"))
	patterns, packages := []string{""}, []string{}
	for i, a := range f {
		switch {
		case strings.HasPrefix(a, "./"):
			packages = append(packages, strings.TrimPrefix(a, "./"))
		case i > 0 && f[i-1] == "-run":
			patterns = strings.Split(strings.Trim(a, "'"), "|")
		}
	}
	there := func(pattern string, packages ...string) bool {
		for pkg, names := range tests {
			for _, p := range packages {
				below, all := strings.CutSuffix(p, "/...")
				if (pkg == p || all && (pkg == below || strings.HasPrefix(pkg, below+"/"))) && slices.ContainsFunc(names, regexp.MustCompile(pattern).MatchString) {
					return true
				}
			}
		}
		return false
	}
	if len(packages) == 0 {
		return ""
	}
	for _, p := range packages {
		if !there("", p) {
			return "in " + p
		}
	}
	for _, pattern := range patterns {
		if !there(pattern, packages...) {
			return "of the name " + pattern
		}
	}
	return ""
}

func TestNamed(t *testing.T) {
	tests := map[string][]string{"internal/a": {"TestOne"}, "internal/a/b": {"TestTwo", "TestThree"}}
	for args, want := range map[string]string{
		"./internal/a":                                  "",
		"./internal/c":                                  "in internal/c",
		"-count=1 ./internal/a -run Two":                "of the name Two",
		"./internal/a/... -run Two":                     "",
		`./internal/a ./internal/a/b -run 'One\|Three'`: "",
		`./internal/a ./internal/a/b -run 'One\|Four'`:  "of the name Four",
		"./internal/c/... -run One":                     "in internal/c/...",
	} {
		if got := named(args, tests); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
