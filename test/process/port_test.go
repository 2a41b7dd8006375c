package process_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// TestAPortIsGivenOnce: two services of one cloud, or of two clouds whose tests run at once, must not be told to listen on the same port.
func TestAPortIsGivenOnce(t *testing.T) {
	const many = 300
	if os.Getenv("KILONOVA_TEST_PORTS") != "" { // the tests beside, which live until they are told to end
		for range many {
			fmt.Println(freePort(t))
		}
		_, _ = io.ReadAll(os.Stdin)
		return
	}
	seen := map[string]bool{}
	give := func(port string) {
		if seen[port] {
			t.Errorf("port %s was given twice", port)
		}
		seen[port] = true
	}
	for range many {
		give(fmt.Sprint(freePort(t)))
	}
	beside := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAPortIsGivenOnce$")
	beside.Env, beside.Stderr = append(os.Environ(), "KILONOVA_TEST_PORTS=1"), os.Stderr
	in, err := beside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := beside.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := beside.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range many {
		if !lines.Scan() {
			t.Fatal("the tests beside said nothing more", lines.Err())
		}
		give(lines.Text())
	}
	for range many {
		give(fmt.Sprint(freePort(t)))
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := beside.Wait(); err != nil {
		t.Error(err)
	}
}
