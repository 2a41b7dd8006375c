package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGeneratedFilesAreCurrent fails when someone edits a generated file or forgets to run gen.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen makes: run go run ./gen in internal/compute/api", name)
		}
	}
	for _, folder := range []string{bodies, answers} {
		have, err := filepath.Glob(filepath.Join("..", folder, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range have {
			if _, ok := files[folder+"/"+filepath.Base(f)]; !ok {
				t.Errorf("%s is not made by gen", f)
			}
		}
	}
}

func TestParsePath(t *testing.T) {
	p := func(name string) step { return step{kind: 'p', name: name} }
	for path, want := range map[string][]step{
		"$":                    nil,
		"server.name":          {p("server"), p("name")},
		"OS-DCF:diskConfig":    {p("OS-DCF:diskConfig")},
		"a[]":                  {p("a"), {kind: 'i'}},
		"a[0]":                 {p("a"), {kind: 'n'}},
		"a<oneOf 2>[].tag":     {p("a"), {kind: 'a', name: "oneOf", index: 2}, {kind: 'i'}, p("tag")},
		"m.{~^[a-z.]{1,9}$}.x": {p("m"), {kind: '~', name: "^[a-z.]{1,9}$"}, p("x")},
		"{*}":                  {{kind: '*'}},
		"{~^_}[]":              {{kind: '~', name: "^_"}, {kind: 'i'}},
	} {
		got, err := parsePath(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(step{})); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	for _, bad := range []string{"a[x]", "a<some 1>", "a.{~x", "a.{x}"} {
		if steps, err := parsePath(bad); err == nil {
			t.Errorf("%s: read as %v", bad, steps)
		}
	}
}
