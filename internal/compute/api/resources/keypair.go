package resources

import (
	"crypto/md5" //nolint:gosec // the fingerprint that the API has
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the fingerprint that the API has
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// keyOwner is whose key pairs the request is about: from 2.10 another user may be named, if policy lets the caller.
func (a api) keyOwner(r *httpapi.Request, rule, named string) (string, error) {
	user := r.Caller.UserID
	if named != "" && backend.Minor(r) >= 10 {
		user = named
	}
	return user, r.Authorize(backend.Rule("os-keypairs:"+rule), backend.Target(r.Caller.ProjectID, user))
}

func keyView(k *compute.KeyPair, minor int) map[string]any {
	m := map[string]any{"name": k.Name, "public_key": k.PublicKey, "fingerprint": k.Fingerprint}
	if minor >= 2 {
		m["type"] = k.Type
	}
	return m
}

func (a api) listKeys(r *httpapi.Request) (*httpapi.Reply, error) {
	q, minor := r.Query(), backend.Minor(r)
	user, err := a.keyOwner(r, "index", httpapi.Last(q, "user_id"))
	if err != nil {
		return nil, err
	}
	page := backend.Page{}
	if minor >= 35 {
		if page, err = a.Page(q); err != nil {
			return nil, err
		}
	}
	list := []map[string]any{}
	var keys []compute.KeyPair
	if !page.Zero {
		if keys, err = a.Store.KeyPairs(r.Context(), a.DB(), user, page.Marker, page.Limit); err != nil {
			return nil, err
		}
	}
	for i := range keys {
		list = append(list, map[string]any{"keypair": keyView(&keys[i], minor)})
	}
	out := map[string]any{"keypairs": list}
	if n := len(keys); minor >= 35 && n > 0 && n == page.Limit {
		out["keypairs_links"] = backend.Links(r).Next("/os-keypairs", q, keys[n-1].Name)
	}
	return body(out)
}

func (a api) showKey(r *httpapi.Request) (*httpapi.Reply, error) {
	user, err := a.keyOwner(r, "show", httpapi.Last(r.Query(), "user_id"))
	if err != nil {
		return nil, err
	}
	k, err := a.Store.KeyPair(r.Context(), a.DB(), user, r.Path("id"))
	if err != nil {
		return nil, err
	}
	m := keyView(k, backend.Minor(r))
	m["id"], m["user_id"], m["created_at"] = k.ID, k.UserID, k.Created.Format(clock.LayoutMicro)
	m["deleted"], m["deleted_at"], m["updated_at"] = false, nil, nil
	return body(map[string]any{"keypair": m})
}

func (a api) deleteKey(r *httpapi.Request) (*httpapi.Reply, error) {
	user, err := a.keyOwner(r, "delete", httpapi.Last(r.Query(), "user_id"))
	if err != nil {
		return nil, err
	}
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.DeleteKeyPair(r.Context(), tx, user, r.Path("id")) }); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) createKey(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Key struct {
			Name   string  `json:"name"`
			Public *string `json:"public_key"`
			Type   string  `json:"type"`
			User   string  `json:"user_id"`
		} `json:"keypair"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	user, err := a.keyOwner(r, "create", in.Key.User)
	if err != nil {
		return nil, err
	}
	k := &compute.KeyPair{Name: strings.TrimSpace(in.Key.Name), UserID: user, Type: in.Key.Type}
	if k.Type == "" {
		k.Type = "ssh"
	}
	private := ""
	if in.Key.Public == nil {
		k.Generated = true
		private, err = generateKey(k)
	} else {
		k.PublicKey = *in.Key.Public // kept as it came: clients compare
		err = fingerprint(k)
	}
	if err != nil {
		return nil, err
	}
	limits, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, r.Caller.ProjectID, user)
	if err != nil {
		return nil, err
	}
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.InsertKeyPair(r.Context(), tx, k, limits.Of("key_pairs")) }); err != nil {
		return nil, err
	}
	m := keyView(k, backend.Minor(r))
	m["user_id"] = user
	if private != "" {
		m["private_key"] = private
	}
	return body(map[string]any{"keypair": m})
}

// fingerprint judges a public key that was given and sets its fingerprint: of an SSH key the MD5 of its wire form, of a certificate the SHA-1.
func fingerprint(k *compute.KeyPair) error {
	bad := func(cause error) error {
		return fault.Wrap(cause, fault.Invalid, "Keypair data is invalid: failed to generate fingerprint")
	}
	if k.Type == "x509" {
		block, _ := pem.Decode([]byte(k.PublicKey))
		if block == nil {
			return bad(fmt.Errorf("no PEM block"))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return bad(err)
		}
		sum := sha1.Sum(block.Bytes) //nolint:gosec // see above
		k.Fingerprint = colons(sum[:])
		return nil
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
	if err != nil {
		return bad(err)
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return bad(fmt.Errorf("more than one key"))
	}
	sum := md5.Sum(key.Marshal()) //nolint:gosec // see above
	k.Fingerprint = colons(sum[:])
	return nil
}

func colons(b []byte) string {
	out := make([]string, len(b))
	for i := range b {
		out[i] = hex.EncodeToString(b[i : i+1])
	}
	return strings.Join(out, ":")
}

const keyBits = 2048

// generateKey makes a key pair and gives the private key, which is not kept.
func generateKey(k *compute.KeyPair) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return "", fmt.Errorf("generate key: %w", err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if k.Type == "x509" {
		if k.PublicKey, err = certificate(key, k.UserID); err != nil {
			return "", err
		}
	} else {
		public, err := ssh.NewPublicKey(&key.PublicKey)
		if err != nil {
			return "", fmt.Errorf("generate key: %w", err)
		}
		k.PublicKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " Generated-by-Kilonova"
	}
	return string(private), fingerprint(k)
}

// certificate makes a self-signed client certificate that is good for ten years.
func certificate(key *rsa.PrivateKey, user string) (string, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return "", fmt.Errorf("generate certificate: %w", err)
	}
	now := clock.Now()
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: user}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, EmailAddresses: []string{user + "@localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return "", fmt.Errorf("generate certificate: %w", err)
	}
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), nil
}
