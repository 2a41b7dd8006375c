package backend_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
)

func TestLooseValues(t *testing.T) {
	var v struct {
		I backend.Int
		B backend.Bool
		T backend.Text
		O backend.Optional[string]
	}
	for in, want := range map[string]string{`{"I":"7","B":"on","T":3,"O":null}`: "7 true 3 given null", `{"I":-1,"B":false,"T":"x","O":"y"}`: "-1 false x given y", `{"I":null}`: "0 false  absent"} {
		v.I, v.B, v.T, v.O = 0, false, "", backend.Optional[string]{}
		if err := json.Unmarshal([]byte(in), &v); err != nil {
			t.Fatal(in, err)
		}
		o := "absent"
		if v.O.Given {
			o = "given null"
			if v.O.Value != nil {
				o = "given " + *v.O.Value
			}
		}
		got, _ := json.Marshal(int64(v.I))
		b := map[bool]string{true: "true", false: "false"}[bool(v.B)]
		if s := string(got) + " " + b + " " + string(v.T) + " " + o; s != want {
			t.Errorf("%s: %q, want %q", in, s, want)
		}
	}
	for _, in := range []string{`{"I":"x"}`, `{"I":1.5}`, `{"B":"maybe"}`} {
		if err := json.Unmarshal([]byte(in), &v); err == nil {
			t.Error(in)
		}
	}
}

func TestTime(t *testing.T) {
	want := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, in := range []string{"2026-03-04T05:06:07Z", "2026-03-04T05:06:07", "2026-03-04 05:06:07", "2026-03-04T07:06:07+02:00", "2026-03-04T07:06:07+0200", "2026-03-04T05:06:07.000000"} {
		if got, err := backend.Time("x", in); err != nil || !got.Equal(want) {
			t.Error(in, got, err)
		}
	}
	if _, err := backend.Time("changes-since", "yesterday"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestPaging(t *testing.T) {
	b := backend.New(backend.Services{}, backend.Options{MaxLimit: 3})
	for in, want := range map[string]backend.Page{"": {Limit: 3}, "limit=2&marker=m": {Limit: 2, Marker: "m"}, "limit=1&marker=l&limit=2&marker=m": {Limit: 2, Marker: "m"}, "limit=9": {Limit: 3}, "limit=0": {Zero: true}} {
		q, _ := url.ParseQuery(in)
		if got, err := b.Page(q); err != nil || got != want {
			t.Error(in, got, err)
		}
	}
	for in, want := range map[string][]int{"": {1, 2, 3}, "limit=0": {1, 2, 3}, "limit=2": {1, 2}, "offset=3": {4}, "limit=1&offset=1": {2}, "offset=9": {}} {
		q, _ := url.ParseQuery(in)
		got, err := backend.Offset(b, q, []int{1, 2, 3, 4})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(in, diff, err)
		}
	}
	for _, in := range []string{"limit=-1", "limit=x", "offset=-1"} {
		q, _ := url.ParseQuery(in)
		if _, err := backend.Offset(b, q, []int{1}); !errors.Is(err, fault.Invalid) {
			t.Error(in, err)
		}
	}
}

func TestHostStatus(t *testing.T) {
	b := backend.New(backend.Services{}, backend.Options{})
	now := clock.Now()
	for want, h := range map[string]*compute.Host{"UP": {LastSeen: now}, "UNKNOWN": {LastSeen: now.Add(-time.Hour)}, "MAINTENANCE": {LastSeen: now, Disabled: true}, "DOWN": {LastSeen: now, ForcedDown: true}, "": nil} {
		if got := b.HostStatus(h); got != want {
			t.Errorf("%s: %s", want, got)
		}
	}
	if got := b.HostStatus(&compute.Host{LastSeen: now.Add(-time.Hour), Disabled: true}); got != "MAINTENANCE" {
		t.Error("a disabled host that is silent too:", got)
	}
	if q := b.Quota; q.Of("instances") != 10 || q.Of("never heard of") != -1 {
		t.Error(q)
	}
}
