package sealed_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kilonova/internal/identity/keyring"
	"kilonova/internal/identity/sealed"
)

// What a token carries survives being sealed and opened, whatever the ids look like.
func TestRoundTrip(t *testing.T) {
	keys, err := keyring.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		ident := rapid.OneOf(rapid.StringMatching(`[0-9a-f]{32}`), rapid.StringMatching(`[0-9A-F-]{1,36}`), rapid.StringN(0, 64, 64))
		user, scope := ident.Draw(rt, "user"), ident.Draw(rt, "scope")
		p := &sealed.Token{Methods: rapid.Uint8Range(0, 15).Draw(rt, "methods"), Kind: rapid.Uint8Range(0, 3).Draw(rt, "kind"), User: sealed.Pack(user), Scope: sealed.Pack(scope),
			Issued: rapid.Int64().Draw(rt, "issued"), Expires: rapid.Int64().Draw(rt, "expires"), Audits: [][]byte{sealed.NewAudit()}}
		tok, err := p.Seal(keys)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := sealed.Open(keys, tok)
		if err != nil {
			rt.Fatal(err)
		}
		if sealed.Unpack(got.User) != user || sealed.Unpack(got.Scope) != scope {
			rt.Fatalf("ids %q %q became %q %q", user, scope, sealed.Unpack(got.User), sealed.Unpack(got.Scope))
		}
		if d := cmp.Diff(p, got, cmpopts.IgnoreUnexported(sealed.Token{}), cmpopts.EquateEmpty()); d != "" {
			rt.Fatal(d)
		}
	})
}

func FuzzOpen(f *testing.F) {
	keys, err := keyring.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	tok, err := (&sealed.Token{User: sealed.Pack("u"), Audits: [][]byte{sealed.NewAudit()}}).Seal(keys)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok)
	f.Add("")
	f.Add("gAAAAABrACnKgcGOqL1jJf-vAOAhTLrMTuEpyS6tfKIjJ_-rfebtLIzfSoVpf8klCUNHxBtug5iVjRLe44HMnFfbWV2dbIDD1BaPVBohsIPAyIHixpzDB5jz")
	f.Fuzz(func(t *testing.T, in string) {
		if p, err := sealed.Open(keys, in); err == nil && in != tok && len(in) < len(tok) {
			t.Fatalf("%q opened as %+v", in, p)
		}
	})
}
