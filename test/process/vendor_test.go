package process_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/test/process"
)

// A service that gives vendor data is told, by the service user, of the server that is made and who made it; what it answers stands in the server's metadata.
func TestVendorData(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	type question struct {
		Server string `json:"instance-id"`
		Name   string `json:"hostname"`
		Roles  string `json:"boot-roles"`
		token  string
	}
	asked := make(chan question, 100)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		q.token = r.Header.Get("X-Auth-Token")
		select {
		case asked <- q:
		default:
		}
		_, _ = io.WriteString(w, `{"rack": 7}`)
	}))
	t.Cleanup(target.Close)

	static := filepath.Join(t.TempDir(), "vendor.json")
	if err := os.WriteFile(static, []byte(`{"site": "north"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	x := begin(ctx, t, p, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--set", "identity.bcrypt_cost=4", "--set", "metadata.vendordata_jsonfile_path="+static,
		"--set", "metadata.vendordata_providers=StaticJSON,DynamicJSON", "--set", "metadata.vendordata_dynamic_targets=inventory@"+target.URL+",gone@http://127.0.0.1:1/")
	admin, err := process.Login(ctx, x.URL, p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	ground, err := admin.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id, err := admin.Boot(ctx, "told", ground)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.WaitStatus(ctx, id, "ACTIVE"); err != nil {
		t.Fatal(err)
	}

	var server struct {
		Server struct {
			Project string `json:"tenant_id"`
		}
	}
	if _, _, err := admin.Do(ctx, http.MethodGet, "compute", "/servers/"+id, nil, &server); err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(p.Dir, "secrets", "metadata_secret"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.URL+"/metadata/openstack/latest/vendor_data2.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(strings.TrimSpace(string(secret))))
	mac.Write([]byte(id))
	for k, v := range map[string]string{"X-Instance-ID": id, "X-Instance-ID-Signature": hex.EncodeToString(mac.Sum(nil)),
		"X-Tenant-ID": server.Server.Project, "X-Forwarded-For": "10.0.0.9"} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Static    struct{ Site string }
		Inventory struct{ Rack int }
		Gone      map[string]any
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Static.Site != "north" || got.Inventory.Rack != 7 || got.Gone == nil || len(got.Gone) != 0 {
		t.Errorf("%d %s: %v", resp.StatusCode, body, err)
	}
	select {
	case q := <-asked:
		if q.Server != id || q.Name != "told" || !strings.Contains(q.Roles, "admin") || q.token == "" {
			t.Errorf("the target was asked %+v", q)
		}
		var who struct {
			Token struct{ User struct{ Name string } }
		}
		if _, err := subject(ctx, x.URL, q.token, &who); err != nil || who.Token.User.Name == "" || who.Token.User.Name == "admin" {
			t.Errorf("the token is that of %q: %v", who.Token.User.Name, err)
		}
	default:
		t.Error("nobody asked")
	}
}

// subject asks whose token it is, in the name of the token itself.
func subject(ctx context.Context, url, token string, out any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/identity/v3/auth/tokens", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("X-Subject-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(out)
}
