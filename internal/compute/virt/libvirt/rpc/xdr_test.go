package rpc

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The bytes on the wire, as RFC 4506 and the protocol definition have them.
func TestWireForm(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []any
		want   string
	}{
		{"words", []any{int32(-1), uint32(1), int64(-2), uint64(2), true, false}, "ffffffff 00000001 fffffffffffffffe 0000000000000002 00000001 00000000"},
		{"strings", []any{"", "a", "abcd", []byte{1, 2, 3, 4, 5}}, "00000000 00000001 61000000 00000004 61626364 00000005 0102030405 000000"},
		{"optional", []any{opt(""), opt("x"), none{}}, "00000000 00000001 00000001 78000000 00000000"},
		{"domain", []any{Domain{"vm", UUID{0xaa}, -1}}, "00000002 766d0000 aa000000000000000000000000000000 ffffffff"},
		{"params", []any{[]Param{{"b", uint64(7)}, {"s", "t"}}}, "00000002 00000001 62000000 00000004 0000000000000007 00000001 73000000 00000007 00000001 74000000"},
	} {
		var e encoder
		e.put(c.values...)
		want, _ := hex.DecodeString(string(bytes.ReplaceAll([]byte(c.want), []byte(" "), nil)))
		if e.err != nil || !bytes.Equal(e.b, want) {
			t.Errorf("%s: % x, want % x (%v)", c.name, e.b, want, e.err)
		}
	}
}

func TestHeader(t *testing.T) {
	b := header{programRemote, 1, 212, typeCall, 9, 0}.append(nil, []byte("body"))
	want := "00000020 20008086 00000001 000000d4 00000000 00000009 00000000 626f6479"
	if got := hex.EncodeToString(b); got != string(bytes.ReplaceAll([]byte(want), []byte(" "), nil)) {
		t.Fatal(got)
	}
	h, body, err := readMessage(bytes.NewReader(b))
	if err != nil || h.proc != 212 || h.serial != 9 || string(body) != "body" {
		t.Fatalf("%+v %q %v", h, body, err)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String()
		param := rapid.Custom(func(t *rapid.T) Param {
			v := rapid.OneOf(rapid.Int32().AsAny(), rapid.Uint32().AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(), rapid.Bool().AsAny(),
				rapid.Float64().AsAny(), rapid.String().AsAny()).Draw(t, "value")
			return Param{name.Draw(t, "name"), v}
		})
		domain := Domain{name.Draw(t, "domain"), UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")), rapid.Int32().Draw(t, "id")}
		params := rapid.SliceOf(param).Draw(t, "params")
		names := rapid.SliceOf(name).Draw(t, "names")
		var e encoder
		e.put(domain, params, names, opt(names2(names)))
		var d2 Domain
		var p2 []Param
		var n2 []string
		var o2 opt
		d := decoder{b: e.b}
		if err := d.get(&d2, &p2, &n2, &o2); err != nil || len(d.b) != 0 {
			t.Fatalf("%v, %d bytes left", err, len(d.b))
		}
		if diff := cmp.Diff([]any{domain, append([]Param{}, params...), append([]string{}, names...), opt(names2(names))}, []any{d2, p2, n2, o2}); diff != "" {
			t.Fatal(diff)
		}
	})
}

func names2(n []string) string {
	if len(n) > 0 {
		return n[0]
	}
	return ""
}

func TestUnknownTypesAreErrors(t *testing.T) {
	var e encoder
	e.put(struct{}{})
	if e.err == nil {
		t.Error("a type without XDR form was written")
	}
	e = encoder{}
	e.put([]Param{{"x", 3}})
	if e.err == nil {
		t.Error("a parameter of type int was written")
	}
	d := decoder{b: make([]byte, 64)}
	if d.get(new(int)) == nil {
		t.Error("a type without XDR form was read")
	}
}

// FuzzDecode: whatever comes, the decoder neither panics nor takes memory that the message does not pay for.
func FuzzDecode(f *testing.F) {
	var e encoder
	e.put(int32(7), testDomain, []Param{{"a", int32(1)}, {"b", "c"}})
	f.Add(e.b)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var dom Domain
		var params []Param
		var names []string
		var doms []Domain
		var secret Secret
		for _, target := range []any{&dom, &params, &names, &doms, &secret, new([]byte), new(opt), new(string), new(bool)} {
			d := decoder{b: b}
			if d.get(target) != nil && len(d.b) > len(b) {
				t.Fatal("the decoder made bytes")
			}
		}
		if len(params)*12 > len(b) || len(names)*4 > len(b) || len(doms)*24 > len(b) {
			t.Fatalf("%d bytes gave %d parameters, %d names, %d domains", len(b), len(params), len(names), len(doms))
		}
		for p := range registered {
			decodeEvent(p, b)
		}
		if err := decodeError(b, "x"); err == nil {
			t.Fatal("an error without an error")
		}
		if h, body, err := readMessage(bytes.NewReader(b)); err == nil && len(body)+headerLen > len(b) {
			t.Fatalf("%+v has %d bytes of body", h, len(body))
		}
	})
}
