package process

import "strings"

// LastLines is the end of a text without empty lines.
func LastLines(text string, n int) string {
	var all []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "")) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			all = append(all, line[:min(len(line), 500)])
		}
	}
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// Troubles are a program's warnings and errors in what it said; with names, those that hold one of these.
func Troubles(said string, names ...string) string {
	var out strings.Builder
	for line := range strings.Lines(said) {
		if !strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=ERROR") {
			continue
		}
		ok := len(names) == 0
		for _, n := range names {
			ok = ok || n != "" && strings.Contains(line, n)
		}
		if ok {
			out.WriteString(line)
		}
	}
	return out.String()
}
