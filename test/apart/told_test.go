package apart

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A run of many tests, of which one failed, ends with what that one said and with the evidence.
func TestWhatFailedIsToldAtTheEnd(t *testing.T) {
	var out strings.Builder
	r := &retelling{out: &out}
	many := strings.Repeat("        noise\n", 200)
	for _, s := range []string{"=== RUN   TestA\n=== RUN   TestA/one\n    a_test.go:1: took 1 s\n", many, "=== RUN   TestA/two\n    a_test.go:5: early\n    a_test.go:6: want 1, ",
		"got 2\n        of all\n" + many, "=== NAME  TestA\n    b_test.go:6: +++ a story\n        of many lines\n    b_test.go:7: --- console of x\n        login:\n    b_test.go:8: --- the program\n        level=WARN object=x\n",
		"--- FAIL: TestA (2s)\n    --- PASS: TestA/one (1s)\n    --- FAIL: TestA/two (1s)\nFAIL\n"} {
		if _, err := fmt.Fprint(r, s); err != nil {
			t.Fatal(err)
		}
	}
	before := out.Len()
	r.tell()
	got := out.String()[before:]
	want := "\n######## what failed: 2 tests, and what is known of it (more is above)\nTestA/two\n    a_test.go:5: early\n    a_test.go:6: want 1, got 2\n        of all\n" +
		strings.Repeat("        noise\n", toldLines-2) + "...\nb_test.go:7: --- console of x\n        login:\nb_test.go:8: --- the program\n        level=WARN object=x\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	quiet := &retelling{out: &out}
	before = out.Len()
	fmt.Fprint(quiet, "=== RUN   TestA\n--- PASS: TestA (0s)\nPASS\n")
	quiet.tell()
	if got := out.String()[before:]; strings.Contains(got, "####") {
		t.Errorf("nothing failed, and it is told: %s", got)
	}
}
