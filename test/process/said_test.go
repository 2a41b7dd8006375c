package process

import "testing"

func TestTroubles(t *testing.T) {
	const said = "level=INFO msg=a object=s1\nlevel=WARN msg=b object=s1\nlevel=ERROR msg=c object=s2\nkilonova is ready\n"
	for _, x := range []struct {
		names []string
		want  string
	}{
		{nil, "level=WARN msg=b object=s1\nlevel=ERROR msg=c object=s2\n"},
		{[]string{"s1"}, "level=WARN msg=b object=s1\n"},
		{[]string{""}, ""},
	} {
		if got := Troubles(said, x.names...); got != x.want {
			t.Errorf("%q: %q", x.names, got)
		}
	}
	if got := LastLines("a\r\n\n b \nc\n", 2); got != " b\nc" {
		t.Errorf("%q", got)
	}
}
